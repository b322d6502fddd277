"""Frozen towers: equal to open_clip's and to the authors' numbers, and exact in every short cut they take."""
import copy

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.model import CLIP

from clip import FrozenCLIP, InputError, TextTokens, embed_texts, encode_texts, tokenize
from clip.open_clip_models import from_open_clip
from clip.templates import fill

TEXTS = ["a photo of a cat.", "hello", "a much longer sentence about a dog on a hill."]
VIT = dict(layers=3, width=128, head_width=32, patch_size=8, image_size=32)
RESNET = dict(layers=[1, 2, 1, 1], width=16, image_size=64)
TEXT = dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2)


def open_clip_model(vision, quick_gelu):
    torch.manual_seed(0)
    return CLIP(48, dict(vision), dict(TEXT), quick_gelu=quick_gelu).eval()


@pytest.mark.parametrize("quick_gelu", [True, False])
@pytest.mark.parametrize("vision", [VIT, {**VIT, "ls_init_value": 0.3}, RESNET], ids=["vit", "layer_scale", "resnet"])
def test_features_equal_open_clips_own_forward(vision, quick_gelu):
    theirs = open_clip_model(vision, quick_gelu)
    ours = from_open_clip(copy.deepcopy(theirs))
    images = torch.randn(3, 3, vision["image_size"], vision["image_size"])
    with torch.no_grad():
        torch.testing.assert_close(ours.encode_image(images), theirs.encode_image(images, normalize=True),
                                   atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(encode_texts(ours, TEXTS), theirs.encode_text(tokenize(TEXTS), normalize=True),
                                   atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.scale, theirs.logit_scale.exp())


@pytest.mark.parametrize("vision", [dict(layers=2, width=128, patch_size=8, image_size=32),
                                    dict(layers=[1, 1, 1, 1], width=64, image_size=64)], ids=["vit", "resnet"])
def test_a_plain_state_dict_gets_openais_heads_and_quickgelu(vision):
    torch.manual_seed(1)
    theirs = CLIP(64, dict(vision), {**TEXT, "width": 128, "heads": 2}, quick_gelu=True).eval()
    ours = FrozenCLIP.from_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, vision["image_size"], vision["image_size"])
    with torch.no_grad():
        torch.testing.assert_close(ours.encode_image(images), theirs.encode_image(images, normalize=True),
                                   atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(encode_texts(ours, TEXTS), theirs.encode_text(tokenize(TEXTS), normalize=True),
                                   atol=1e-5, rtol=1e-5)


def test_zero_shot_logits_equal_the_authors(tiny_clip, golden):
    theirs = golden("zeroshot_clip")
    text = encode_texts(tiny_clip, fill("a photo of a {}, a type of pet.", theirs.classnames))
    torch.testing.assert_close(text, theirs.tensor("text_features"), atol=1e-5, rtol=1e-5)
    logits = tiny_clip.scale * tiny_clip.encode_image(theirs.tensor("images")[0]) @ text.T
    torch.testing.assert_close(logits, theirs.tensor("logits"), atol=1e-5 * logits.abs().max(), rtol=0)


def test_text_features_ignore_everything_after_end_of_text(tiny_clip):
    tokens = embed_texts(tiny_clip, TEXTS)
    padded = torch.cat([tokens.embeddings, torch.randn(3, 9, tiny_clip.text_width)], dim=1)
    torch.testing.assert_close(tiny_clip.encode_text(TextTokens(padded, tokens.eot)), tiny_clip.encode_text(tokens))


@settings(deadline=None, max_examples=20)
@given(C=st.integers(1, 5), p=st.integers(1, 9), s=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_shared_prefix_gives_the_features_and_gradients_of_whole_sequences(tiny_clip, C, p, s, seed):
    draw = torch.Generator().manual_seed(seed)
    prefix = torch.randn(p, 64, generator=draw).requires_grad_()
    own = torch.randn(C, s, 64, generator=draw).requires_grad_()
    eot = torch.randint(s, (C,), generator=draw)
    weight = torch.randn(C, tiny_clip.embed_dim, generator=draw)

    whole = torch.cat([prefix.expand(C, -1, -1), own], dim=1)
    slow = tiny_clip.encode_text(TextTokens(whole, eot + p))
    fast = tiny_clip.encode_text(TextTokens(own, eot, prefix))
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)
    for ours, theirs in zip(torch.autograd.grad((fast * weight).sum(), [prefix, own]),
                            torch.autograd.grad((slow * weight).sum(), [prefix, own])):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


class AddEverywhere:
    """Adds a number to everything that enters `block`, and remembers what it saw."""

    def __init__(self, block):
        self.block, self.seen = block, []

    def enter(self, block, x):
        self.seen.append((block, tuple(x.shape)))
        return x + 0.5 * torch.arange(x.shape[-1]) / x.shape[-1] if block == self.block else x


@pytest.mark.parametrize("block", [-1, 0, 1, 2])
def test_an_injector_is_asked_before_ln_pre_and_before_every_block(tiny_clip, block):
    images, prompt = torch.randn(2, 3, 32, 32), AddEverywhere(block)
    changed = tiny_clip.encode_image(images, prompt)
    assert prompt.seen == [(i, (2, 17, 64)) for i in (-1, 0, 1, 2)]
    assert not torch.allclose(changed, tiny_clip.encode_image(images), atol=1e-3)


def test_a_text_injector_sees_whole_sequences_or_the_shared_prefix(tiny_clip):
    tokens = embed_texts(tiny_clip, TEXTS)
    whole, shared = AddEverywhere(1), AddEverywhere(1)
    tiny_clip.encode_text(tokens, whole)
    tiny_clip.encode_text(TextTokens(tokens.embeddings[:, 1:], tokens.eot - 1, tokens.embeddings[0, :1]), shared)
    assert [b for b, _ in whole.seen] == [b for b, _ in shared.seen] == [0, 1, 2]
    assert whole.seen[0][1][0] == 3 and shared.seen[0][1] == (1, 1, 64)


def test_deep_text_prompts_in_the_prefix_equal_those_in_whole_sequences(tiny_clip):
    class Deep:
        def __init__(self, tokens):
            self.tokens = tokens

        def enter(self, block, x):
            return torch.cat([x[:, :1], self.tokens.expand(len(x), -1, -1), x[:, 4:]], 1) if block == 1 else x

    tokens, deep = embed_texts(tiny_clip, ["x y z one", "x y z two three"]), Deep(torch.randn(3, 64))
    prefix = tokens.embeddings[0, :4]
    fast = tiny_clip.encode_text(TextTokens(tokens.embeddings[:, 4:], tokens.eot - 4, prefix), deep)
    torch.testing.assert_close(fast, tiny_clip.encode_text(tokens, deep), atol=1e-5, rtol=1e-4)


def test_towers_are_frozen_and_training_mode_never_reaches_them():
    model = from_open_clip(open_clip_model(RESNET, True))
    torch.nn.Sequential(model).train()
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(m.training for m in model.modules())


def test_nothing_is_recorded_for_autograd_below_the_first_learnable_input(tiny_clip):
    entered = []

    class AtBlock1:
        def enter(self, block, x):
            entered.append((block, x.requires_grad))
            return x + torch.zeros(64, requires_grad=True) if block == 1 else x

    tiny_clip.encode_image(torch.randn(1, 3, 32, 32), AtBlock1())
    assert entered == [(-1, False), (0, False), (1, False), (2, True)]


def test_dimensions_are_read_from_the_weights(tiny_clip):
    assert (tiny_clip.text_width, tiny_clip.vision_width, tiny_clip.embed_dim) == (64, 64, 32)
    assert (tiny_clip.image_size, tiny_clip.patch_size, tiny_clip.depth, tiny_clip.context_length) == (32, 8, 3, 77)


def test_an_image_of_another_size_is_refused_with_both_sizes(tiny_clip):
    with pytest.raises(InputError, match=r"takes 32 x 32 images, got 224 x 224"):
        tiny_clip.encode_image(torch.zeros(1, 3, 224, 224))


def test_a_prompt_longer_than_the_context_is_refused(tiny_clip):
    with pytest.raises(InputError, match="at most 77 tokens, got 80"):
        tiny_clip.encode_text(TextTokens(torch.zeros(2, 60, 64), torch.tensor([3, 4]), torch.zeros(20, 64)))


def test_a_resnet_refuses_visual_prompts_and_names_a_way_out():
    model = from_open_clip(open_clip_model(RESNET, True))
    with pytest.raises(InputError, match="vision transformer.*ViT-B/16"):
        model.encode_image(torch.zeros(1, 3, 64, 64), AddEverywhere(0))


def test_another_state_dict_is_refused_by_the_keys_it_lacks():
    with pytest.raises(InputError, match="lacks logit_scale, positional_embedding"):
        FrozenCLIP.from_state_dict({k: torch.zeros(2, 2) for k in (
            "visual.conv1.weight", "transformer.resblocks.0.attn.in_proj_weight", "token_embedding.weight",
            "ln_final.weight", "text_projection")})


def test_an_architecture_with_another_text_tower_is_refused():
    model = open_clip_model(VIT, True)
    model.text_pool_type = "first"
    with pytest.raises(InputError, match="an odd one reads text with CLIP"):
        from_open_clip(model, "an odd one")


def test_an_image_tower_without_our_layout_is_used_as_it_is():
    model = open_clip.create_model("convnext_base", pretrained=None).eval()
    ours, images = from_open_clip(model), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours.encode_image(images), model.encode_image(images, normalize=True))
    assert ours.vision_width is None
