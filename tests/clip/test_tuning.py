"""What acts inside a tower, and what is read from it, against slow literal towers with nothing left out."""
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip import FrozenCLIP, InputError, TextTokens, embed_texts, tokenize
from clip.open_clip_models import from_open_clip
from clip.tuning import SITES

NAMES = ["a photo of a cat.", "a photo of a small bird.", "a photo of a dog on a hill."]


def literal_block(block, x, mask, edit):
    """One block, written out; `edit` is called after every product."""
    W, heads = x.shape[-1], block.attn.heads
    h = F.layer_norm(x, (W,), block.ln_1.weight, block.ln_1.bias)
    qkv = edit("qkv", h, h @ block.attn.in_proj_weight.T + block.attn.in_proj_bias)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.split(W, dim=-1))
    scores = q @ k.transpose(-1, -2) * (W // heads) ** -0.5
    attended = ((scores if mask is None else scores + mask).softmax(-1) @ v).transpose(1, 2).flatten(-2)
    x = x + edit("out", attended, attended @ block.attn.out_proj.weight.T + block.attn.out_proj.bias)
    x = edit("attended", x, x)
    h = F.layer_norm(x, (W,), block.ln_2.weight, block.ln_2.bias)
    h = edit("fc", h, h @ block.mlp.c_fc.weight.T + block.mlp.c_fc.bias)
    h = h * torch.sigmoid(1.702 * h)
    return x + edit("proj", h, h @ block.mlp.c_proj.weight.T + block.mlp.c_proj.bias)


def part(tuner, name):
    return getattr(tuner, name, lambda *arguments: arguments[-1])


def literal_tower(blocks, x, tuner, causal, read):
    """All tokens through all blocks; `read(x)` of each block's output, by block."""
    kept = []
    for i, block in enumerate(blocks):
        x = part(tuner, "enter")(i, x)
        L = x.shape[1]
        mask = torch.full((L, L), -torch.inf).triu(1) if causal else None
        y = literal_block(block, x, mask, lambda site, a, b, i=i: part(tuner, "project")(i, site, a, b))
        x = part(tuner, "leave")(i, x, y)
        kept.append(read(x))
    return x, kept


def literal_text(clip, tokens, tuner=None, grown=0):
    whole = tokens.whole()
    x = whole.embeddings + clip.positional_embedding[:whole.embeddings.shape[1]]
    places = torch.arange(len(x)), whole.eot + grown
    x, _ = literal_tower(clip.transformer.resblocks, x, tuner, True, lambda y: None)
    return F.normalize(clip.ln_final(x)[places] @ clip.text_projection, dim=-1)


def literal_images(clip, images, tuner=None):
    """All tokens in the joint space, and the class token of every block."""
    visual = clip.visual
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], 1) + visual.positional_embedding
    x = visual.ln_pre(part(tuner, "enter")(-1, x))
    x, kept = literal_tower(visual.transformer.resblocks, x, tuner, False, lambda y: y[:, 0])
    return F.normalize(visual.ln_post(x) @ visual.proj, dim=-1), torch.stack(kept, 1)


class Everywhere(nn.Module):
    """Adds something learned at each product, scales what leaves a block, and replaces two tokens behind the first."""

    def __init__(self, width, depth=3):
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(depth, 2, width))
        self.rates = nn.ParameterDict({site: nn.Parameter(torch.randn(()) / 9) for site in SITES})
        self.scale = nn.Parameter(torch.rand(depth, width))

    def enter(self, block, x):
        if block < 1:
            return x
        return torch.cat([x[:, :1], self.tokens[block].expand(len(x), -1, -1), x[:, 3:]], dim=1)

    def project(self, block, site, x, y):
        return y + self.rates[site] * x[..., :1]

    def leave(self, block, x, y):
        return y + self.scale[block] * x


def assert_same_with_gradients(ours, theirs, learned):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(ours)
    ours, theirs = (torch.autograd.grad((values * weights).sum(), learned) for values in (ours, theirs))
    largest = max(float(b.abs().max()) for b in theirs)             # the sum behind a single number may be near 0
    for a, b in zip(ours, theirs):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("max_tokens", [0, 25])
def test_every_way_into_the_text_tower_is_exact_behind_a_shared_prefix(tiny_clip, max_tokens):
    clip, tuner = copy.copy(tiny_clip), Everywhere(tiny_clip.text_width)
    clip.max_tokens = max_tokens
    tokens = embed_texts(clip, NAMES, share=True)
    assert tokens.prefix.shape == (5, clip.text_width)                  # <start> a photo of a
    assert_same_with_gradients(clip.encode_text(tokens, tuner), literal_text(clip, tokens, tuner),
                               list(tuner.parameters()))


def test_every_way_into_the_image_tower_is_exact(tiny_clip):
    tuner, images = Everywhere(tiny_clip.vision_width), torch.randn(2, 3, 32, 32)
    tokens, _ = literal_images(tiny_clip, images, tuner)
    assert_same_with_gradients(tiny_clip.encode_image(images, tuner), tokens[:, 0], list(tuner.parameters()))


def test_tuners_act_one_after_the_other_and_need_no_part(tiny_clip):
    class Nothing:
        def enter(self, block, x):
            return x

    tuner, images = Everywhere(tiny_clip.vision_width), torch.randn(2, 3, 32, 32)
    both = tiny_clip.encode_image(images, [Nothing(), tuner])
    assert torch.equal(both, tiny_clip.encode_image(images, tuner))
    assert torch.equal(tiny_clip.encode_image(images, Nothing()), tiny_clip.encode_image(images))


class ClassWise(nn.Module):
    """Other tokens for each sequence in one block."""

    whole_sequence = True

    def __init__(self, tokens):
        super().__init__()
        self.tokens = nn.Parameter(tokens)

    def enter(self, block, x):
        return torch.cat([x[:, :1], self.tokens, x[:, 1 + self.tokens.shape[1]:]], dim=1) if block == 1 else x

    def select(self, rows):
        chosen = copy.copy(self)
        chosen._parameters = {"tokens": self.tokens[rows]}
        return chosen


class Growing(nn.Module):
    """Two tokens more behind the first, from the second block on, of each sequence or of the prefix."""

    def __init__(self, width, whole_sequence=True):
        super().__init__()
        self.whole_sequence = whole_sequence
        self.tokens = nn.Parameter(torch.randn(2, width))

    def enter(self, block, x):
        return torch.cat([x[:, :1], self.tokens.expand(len(x), -1, -1), x[:, 1:]], dim=1) if block == 1 else x


@pytest.mark.parametrize("max_tokens", [0, 25, 1])
def test_class_wise_and_growing_texts_are_exact(tiny_clip, max_tokens):
    clip = copy.copy(tiny_clip)
    clip.max_tokens = max_tokens
    tokens = embed_texts(clip, NAMES, share=True)
    for tuner, grown in ((ClassWise(torch.randn(3, 2, clip.text_width)), 0), (Growing(clip.text_width), 2),
                         (Growing(clip.text_width, whole_sequence=False), 2)):
        assert_same_with_gradients(clip.encode_text(tokens, tuner), literal_text(clip, tokens, tuner, grown),
                                   list(tuner.parameters()))


def test_several_prefixes_meet_every_sequence_on_either_path(tiny_clip):
    tokens = embed_texts(tiny_clip, NAMES, share=True)
    several = TextTokens(tokens.embeddings, tokens.eot, torch.randn(4, *tokens.prefix.shape))
    for tuner, grown in ((None, 0), (Growing(tiny_clip.text_width), 2), (Growing(tiny_clip.text_width, False), 2)):
        ours = tiny_clip.encode_text(several, tuner)
        assert ours.shape == (4, 3, tiny_clip.embed_dim)
        theirs = literal_text(tiny_clip, several, tuner, grown)
        torch.testing.assert_close(ours.flatten(0, 1), theirs, atol=1e-5, rtol=0)


def test_what_is_read_from_the_image_tower(tiny_clip):
    images = torch.randn(2, 3, 32, 32)
    tokens, class_tokens = literal_images(tiny_clip, images)
    torch.testing.assert_close(tiny_clip.encode_image(images, want="tokens"), tokens, atol=1e-5, rtol=0)
    torch.testing.assert_close(tiny_clip.encode_image(images, want=[3, -1]), tokens[:, [3, -1]], atol=1e-5, rtol=0)
    torch.testing.assert_close(tiny_clip.encode_image(images, want="class_tokens"), class_tokens, atol=1e-5, rtol=0)
    before = tiny_clip.encode_image(images, joint=False, unit_norm=False)
    assert before.shape == (2, tiny_clip.vision_width)
    torch.testing.assert_close(F.normalize(before @ tiny_clip.visual.proj, dim=-1), tokens[:, 0], atol=1e-5, rtol=0)


def test_what_is_read_from_the_text_tower(tiny_clip):
    tokens = embed_texts(tiny_clip, NAMES)
    every = tiny_clip.encode_text(tokens, want="tokens")
    assert every.shape == (3, tokens.embeddings.shape[1], tiny_clip.embed_dim)
    torch.testing.assert_close(every[torch.arange(3), tokens.eot], tiny_clip.encode_text(tokens), atol=1e-5, rtol=0)
    torch.testing.assert_close(tiny_clip.encode_text(tokens, want=[0, 2]), every[:, [0, 2]], atol=1e-5, rtol=0)
    last = tiny_clip.encode_text(tokens, want="class_tokens")[:, -1]
    read = F.normalize(tiny_clip.ln_final(last) @ tiny_clip.text_projection, dim=-1)
    torch.testing.assert_close(read, tiny_clip.encode_text(tokens), atol=1e-5, rtol=0)


def open_clip_with(**changes):
    import open_clip
    from open_clip.model import CLIP, CustomTextCLIP

    torch.manual_seed(5)
    vision = changes.pop("vision", dict(layers=2, width=64, head_width=32, patch_size=8, image_size=32))
    text = dict(context_length=20, vocab_size=49408, width=64, heads=2, layers=2, **changes)
    model = (CustomTextCLIP if changes else CLIP)(48, vision, text, quick_gelu=True, **(
        dict(init_logit_bias=-10.0) if changes else {})).eval()
    return model, from_open_clip(copy.deepcopy(model)), open_clip


def test_a_resnet_gives_its_attention_pool_at_every_position():
    model, clip, _ = open_clip_with(vision=dict(layers=[1, 1, 1, 1], width=16, image_size=64))
    images, kept = torch.randn(2, 3, 64, 64), []
    model.visual.attnpool.register_forward_hook(lambda module, inputs, out: kept.append(inputs[0]))
    with torch.no_grad():
        pooled = model.encode_image(images, normalize=True)
        tokens = clip.encode_image(images, want="tokens")
        torch.testing.assert_close(clip.encode_image(images), pooled, atol=1e-5, rtol=0)
        pool, x = model.visual.attnpool, kept[0].flatten(2).permute(2, 0, 1)                   # (P, B, W)
        x = torch.cat([x.mean(0, keepdim=True), x]) + pool.positional_embedding[:, None]
        bias = torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias])
        every, _ = F.multi_head_attention_forward(
            x, x, x, x.shape[-1], pool.num_heads, None, bias, None, None, False, 0.0, pool.c_proj.weight,
            pool.c_proj.bias, use_separate_proj_weight=True, q_proj_weight=pool.q_proj.weight,
            k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight)
    assert tokens.shape == (2, 1 + 4, 48)
    torch.testing.assert_close(tokens, F.normalize(every.transpose(0, 1), dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens[:, 0], pooled, atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [dict(no_causal_mask=True, pool_type="last"), dict(no_causal_mask=True),
                                     dict(pool_type="last")], ids=["siglip", "not causal", "last"])
def test_a_text_tower_says_itself_what_its_tokens_see_and_which_is_read(changes):
    model, clip, _ = open_clip_with(**changes)
    assert clip.causal == (not changes.get("no_causal_mask", False)) and clip.bias == -10
    with torch.no_grad():
        theirs = model.encode_text(tokenize(NAMES, 20), normalize=True)
        for share in (False, True):
            ours = clip.encode_text(embed_texts(clip, NAMES, share))
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_what_is_released_learns_and_nothing_else(tiny_clip_weights):
    clip = FrozenCLIP.from_state_dict(tiny_clip_weights)
    released = clip.trainable(r"visual\..*ln_\d\.(weight|bias)")
    frozen = clip.frozen_copy()
    assert len(released) == 3 * 4 and not any(p.requires_grad for p in frozen.parameters())
    clip.encode_image(torch.randn(1, 3, 32, 32)).sum().backward()
    assert {id(p) for p in clip.parameters() if p.grad is not None} == {id(p) for p in released.values()}
    with torch.no_grad():
        for parameter in released.values():
            parameter.mul_(2)
    images = torch.randn(1, 3, 32, 32)
    assert not torch.allclose(clip.encode_image(images), frozen.encode_image(images))
    with pytest.raises(InputError, match="nothing like this"):
        clip.trainable("nothing like this")


def test_position_embeddings_are_interpolated_where_asked(tiny_clip):
    clip = copy.deepcopy(tiny_clip)
    clip.resize_images(48)
    grid = tiny_clip.visual.positional_embedding[1:].T.reshape(1, -1, 4, 4)
    wanted = F.interpolate(grid, (6, 6), mode="bicubic")[0].flatten(1).T
    torch.testing.assert_close(clip.visual.positional_embedding[1:], wanted)
    assert clip.image_size == 48 and clip.encode_image(torch.randn(1, 3, 48, 48), want="tokens").shape[1] == 37
    with pytest.raises(InputError, match="got 50"):
        clip.resize_images(50)


def test_what_a_tower_does_not_have_is_refused(tiny_clip):
    _, resnet, open_clip = open_clip_with(vision=dict(layers=[1, 1, 1, 1], width=16, image_size=64))
    opaque = from_open_clip(open_clip.create_model("convnext_base", pretrained=None))
    small, large = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 224, 224)
    for clip, images in ((resnet, small), (opaque, large)):
        with pytest.raises(InputError, match="vision transformer"):
            clip.encode_image(images, Everywhere(8))
        for want in ("class_tokens", [0, 1]):
            with pytest.raises(InputError, match="pooled"):
                clip.encode_image(images, want=want)
    with pytest.raises(InputError, match="pooled"):
        opaque.encode_image(large, want="tokens")
    with pytest.raises(InputError, match="'patches'"):
        tiny_clip.encode_image(torch.zeros(1, 3, 32, 32), want="patches")
    with pytest.raises(InputError, match="got position 17"):
        tiny_clip.encode_image(torch.zeros(1, 3, 32, 32), want=[17])


class Twin:
    """A read-only token that begins as the one that the tower reads, wherever others come in."""

    def __init__(self, first, token):
        self.first, self.token = first, token

    def readers(self, block, x, left):
        return self.token.expand(len(x), 1, -1) if block == self.first else left


class Projecting:
    """Tokens exchanged behind the first, and something added at each product."""

    def __init__(self, width):
        everywhere = Everywhere(width)
        self.enter, self.project = everywhere.enter, everywhere.project


def test_a_read_only_token_like_the_one_that_is_read_becomes_the_same(tiny_clip):
    visual, images = tiny_clip.visual, torch.randn(2, 3, 32, 32)
    others, twin = Projecting(tiny_clip.vision_width), Twin(-1, visual.class_embedding + visual.positional_embedding[0])
    read, pooled = (tiny_clip.encode_image(images, [others, twin], want=want) for want in ("readers", "pooled"))
    torch.testing.assert_close(read[:, 0], pooled, atol=1e-5, rtol=0)
    tokens = embed_texts(tiny_clip, NAMES[:1])
    others, end = Projecting(tiny_clip.text_width), int(tokens.eot[0])
    twin = Twin(0, tokens.embeddings[0, end] + tiny_clip.positional_embedding[end])
    read, pooled = (tiny_clip.encode_text(tokens, [others, twin], want=want) for want in ("readers", "pooled"))
    torch.testing.assert_close(read[:, 0], pooled, atol=1e-5, rtol=0)
