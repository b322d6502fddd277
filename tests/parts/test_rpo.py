"""RPO's read-only tokens against whole sequences under attention masks, as its authors compute them."""
import pytest
import torch
import torch.nn.functional as F
from random_clip import state_dict

from clip import FrozenCLIP, InputError, tokenize
from dassl.config import CfgNode
from tests.parts.five_steps import follow
from tools.labs.bench.field import blocks_of
from trainers.parts.classes import Classes
from trainers.parts.read_only import ReadOnlyPrompt
from trainers.rpo import RPO

NAMES = ["cat", "yorkshire_terrier", "737-200"]
HIDDEN = float("-inf")


def build(clip, K=3, **changes):
    torch.manual_seed(3)
    options = CfgNode({"K": K, "TEMPLATE": "a photo of a {}.", "UNDERSCORES": True, "PREC": "fp32", **changes})
    return RPO.build(clip, Classes(NAMES), options)


def passed(tower, x, mask):
    """(L, W) through all blocks."""
    for block in blocks_of(tower):
        x = block(x[:, None], mask)[:, 0]
    return x


def slow_literal_logits(clip, learned, images, underscores=True):
    """Prompts behind everything else, masked out for every query; 77 tokens for each class."""
    text, image = learned["text_prompt"], learned["img_prompt"]
    K, texts, shown = len(text), [], []
    for name in NAMES:
        ids = tokenize(f"a photo of a {name if underscores else name.replace('_', ' ')}.")[0]
        end = int(ids.argmax()) + 1
        x = clip.embed_tokens(ids) + clip.positional_embedding
        x = torch.cat([x[:end], text, x[end + K:]])
        mask = torch.full((77, 77), HIDDEN).triu(1)
        mask[:, end:] = HIDDEN
        x = passed(clip.transformer, x, mask)[end:end + K]
        texts.append(F.normalize(clip.ln_final(x) @ clip.text_projection, dim=-1))
    for one in images:
        x = torch.cat([clip.visual.class_embedding[None], clip.visual.conv1(one[None])[0].flatten(1).T])
        x = clip.visual.ln_pre(torch.cat([x + clip.visual.positional_embedding, image]))
        mask = torch.zeros(len(x), len(x))
        mask[:, -K:] = HIDDEN
        x = passed(clip.visual.transformer, x, mask)[-K:]
        shown.append(F.normalize(clip.visual.ln_post(x) @ clip.visual.proj, dim=-1))
    return torch.stack([torch.stack([clip.scale * sum(i @ t for i, t in zip(own, one)) / K for one in texts])
                        for own in shown])


@pytest.mark.parametrize(("K", "underscores"), [(3, True), (1, False)])
def test_logits_and_gradients_are_those_of_masked_sequences(tiny_clip, K, underscores):
    model, images = build(tiny_clip, K, UNDERSCORES=underscores), torch.randn(2, 3, 32, 32)
    learned = {k: v.detach().clone().requires_grad_() for k, v in model.prompt_learner.state_dict().items()}
    out, theirs = model(images), slow_literal_logits(tiny_clip, learned, images, underscores)
    torch.testing.assert_close(out.logits, theirs, rtol=0, atol=1e-5 * float(theirs.detach().abs().max()))
    assert out.image_features.shape == (2, K, 32) and out.text_features.shape == (3, K, 32)
    weight = torch.randn_like(theirs)
    (out.logits * weight).sum().backward()
    (theirs * weight).sum().backward()
    for own, saved in RPO.saved_as.items():
        grad = dict(model.prompt_learner.named_parameters())[own].grad
        torch.testing.assert_close(grad, learned[saved].grad, rtol=0, atol=2e-5 * float(grad.abs().max()))


def test_tokens_start_around_what_each_tower_reads(tiny_clip, golden):
    prompts = {tower: ReadOnlyPrompt(tiny_clip, 5, tower).tokens.detach() for tower in ("image", "text")}
    starts = {"image": tiny_clip.visual.class_embedding, "text": tiny_clip.embed_tokens(torch.tensor(49407))}
    theirs = golden("rpo").tensor("seed1_init/prompt_learner.text_prompt")
    assert (theirs - theirs.mean(0)).norm(dim=-1).max() < 0.15         # around one token in the authors' code too
    for tower, tokens in prompts.items():
        torch.testing.assert_close((tokens - starts[tower]).norm(dim=-1), torch.full((5,), 0.1))
        assert torch.pdist(tokens).min() > 0.05


def test_what_the_towers_say_without_them_stays_to_the_bit(tiny_clip):
    model, images = build(tiny_clip), torch.randn(2, 3, 32, 32)
    texts = model.brick("text")()
    assert torch.equal(tiny_clip.encode_image(images), tiny_clip.encode_image(images, model.brick("visual")))
    assert torch.equal(tiny_clip.encode_text(texts.whole()), tiny_clip.encode_text(texts, model.brick("text_tuner")))


def test_nothing_but_the_prompts_is_recorded_for_the_gradient(tiny_clip):
    model = build(tiny_clip)
    seen = []
    for brick in (model.brick("visual"), model.brick("text_tuner")):
        brick.readers = lambda block, x, left, own=brick.readers: (seen.append(x), own(block, x, left))[1]
    model(torch.randn(2, 3, 32, 32))
    assert len(seen) == (1 + 3 + 1) + (3 + 1) and not any(x.requires_grad for x in seen)


def test_text_in_pieces_gives_the_same(tiny_clip, monkeypatch):
    model = build(tiny_clip)
    whole = model.text_features()
    monkeypatch.setattr(tiny_clip, "max_tokens", 12)
    torch.testing.assert_close(model.text_features(), whole)


def test_a_checkpoint_says_its_number_of_tokens(tiny_clip):
    assert RPO.options_of(build(tiny_clip, 5).prompt_learner.state_dict()) == {"K": 5}
    assert RPO.options_of({"img_prompt": torch.zeros(2, 64)}) is None


def test_no_token_and_nothing_to_read_are_refused(tiny_clip):
    with pytest.raises(InputError, match="1 to 1024 read-only tokens, got 0"):
        build(tiny_clip, 0)
    with pytest.raises(InputError, match="No tuner gives read-only tokens"):
        tiny_clip.encode_image(torch.randn(1, 3, 32, 32), want="readers")


def test_five_training_steps_follow_the_authors(golden):
    theirs = golden("rpo")
    clip = FrozenCLIP.from_state_dict(state_dict(theirs.json("clip")))
    options = CfgNode({"K": 4, "TEMPLATE": "a photo of a {}.", "UNDERSCORES": True})
    follow(RPO.build(clip, Classes(theirs.classnames), options), theirs,
           lambda out, images, labels: F.cross_entropy(out.logits, labels))
