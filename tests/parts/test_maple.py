"""MaPLe's bricks against a slow literal reading of its description, whole sequences and one block after the other."""
import copy

import pytest
import torch
import torch.nn.functional as F

from clip import InputError, tokenize
from trainers.maple import MaPLe
from trainers.parts.classes import Classes
from trainers.parts.coupling import CoupledPrompt
from trainers.parts.deep_prompt import DeepTextPrompt
from trainers.parts.text_prompt import TextPrompt

NAMES = ["cat", "yorkshire_terrier", "737-200"]


def options(n=2, depth=3, init="a photo of a"):
    from dassl.config import CfgNode

    return CfgNode({"N_CTX": n, "PROMPT_DEPTH": depth, "CTX_INIT": init, "PREC": "fp32"})


def build(clip, *args, **kwargs):
    torch.manual_seed(3)
    model = MaPLe.build(clip, Classes(NAMES), options(*args, **kwargs))
    with torch.no_grad():
        for parameter in model.prompt_learner.parameters():
            parameter += torch.randn_like(parameter) * 0.3
    return model


def slow_literal_logits(clip, learned, images, n, depth, init):
    """77 tokens per class, all blocks in full, with the authors' names of the parameters."""
    words = init if init else " ".join(["X"] * n)
    deep = [learned[f"compound_prompts_text.{i}"] for i in range(depth - 1)]
    texts = []
    for name in NAMES:
        ids = tokenize(f"{words} {name.replace('_', ' ')}.")[0]
        x = clip.embed_tokens(ids)
        x = torch.cat([x[:1], learned["ctx"], x[1 + n:]]) + clip.positional_embedding
        for i, block in enumerate(clip.transformer.resblocks):
            x = torch.cat([x[:1], deep[i - 1], x[1 + n:]]) if 1 <= i < depth else x
            x = block(x[None], causal=True)[0]
        texts.append(clip.ln_final(x)[ids.argmax()] @ clip.text_projection)
    features = []
    for image in images:
        patches = clip.visual.conv1(image[None])[0].flatten(1).T
        x = torch.cat([clip.visual.class_embedding[None], patches]) + clip.visual.positional_embedding
        x = clip.visual.ln_pre(torch.cat([x, learned["ctx"] @ learned["proj.weight"].T + learned["proj.bias"]]))
        for i, block in enumerate(clip.visual.transformer.resblocks):
            if 1 <= i < depth:
                w, b = (learned[f"compound_prompt_projections.{i - 1}.{kind}"] for kind in ("weight", "bias"))
                x = torch.cat([x[:-n], deep[i - 1] @ w.T + b])
            x = block(x[None])[0]
        features.append(clip.visual.ln_post(x[0]) @ clip.visual.proj)
    return clip.scale * F.normalize(torch.stack(features), dim=-1) @ F.normalize(torch.stack(texts), dim=-1).T


@pytest.mark.parametrize(("n", "depth", "init"), [
    (2, 3, "a photo of a"), (1, 2, "a photo of a"), (4, 1, "a photo of a"), (3, 2, ""), (6, 3, "a photo of a")])
def test_logits_and_gradients_are_those_of_the_description(tiny_clip, n, depth, init):
    model = build(tiny_clip, n, depth, init)
    learned = {k: v.detach().clone().requires_grad_() for k, v in model.prompt_learner.state_dict().items()}
    images = torch.randn(2, 3, 32, 32)
    ours = model(images).logits
    theirs = slow_literal_logits(tiny_clip, learned, images, n, depth, init if n <= 4 else "")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.detach().abs().max()))
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    ours = {k: p.grad for k, p in model.prompt_learner.named_parameters()}
    if "text_tuner.tokens" in ours:
        ours |= {f"compound_prompts_text.{i}": g for i, g in enumerate(ours.pop("text_tuner.tokens"))}
    saved = model.prompt_learner.saved_as
    ours = {saved.get(k, k): g for k, g in ours.items()}
    assert ours.keys() == learned.keys()
    for name, grad in ours.items():
        theirs = learned[name].grad
        torch.testing.assert_close(grad, theirs, rtol=0, atol=2e-5 * float(theirs.abs().max()), msg=name)


def test_the_context_and_its_fixed_words_are_one_shared_prefix(tiny_clip):
    text = TextPrompt(tiny_clip, NAMES, init="a photo of a", n_learned=2)
    tokens = text()
    fixed = tiny_clip.embed_tokens(tokenize("a photo of a cat."))[0]
    assert text.ctx.shape == (2, 64)
    assert torch.equal(tokens.prefix, fixed[:5]) and torch.equal(tokens.embeddings[0, :3], fixed[5:8])
    deep = DeepTextPrompt(tiny_clip, 2, 2)
    entered = deep.enter(1, tokens.prefix[None])[0]
    assert torch.equal(entered[1:3], deep.tokens[0]) and torch.equal(entered[[0, 3, 4]], tokens.prefix[[0, 3, 4]])
    assert deep.enter(0, entered) is entered and deep.enter(2, entered) is entered


def test_what_is_drawn_comes_in_the_published_order(tiny_clip):
    torch.manual_seed(7)
    text = TextPrompt(tiny_clip, NAMES, 3)
    coupled = CoupledPrompt(tiny_clip, text, 3)
    torch.manual_seed(7)
    ctx = torch.nn.init.normal_(torch.empty(3, 64), std=0.02)
    proj = torch.nn.Linear(64, 64)
    deep = [torch.nn.init.normal_(torch.empty(3, 64), std=0.02) for _ in range(2)]
    one = torch.nn.Linear(64, 64)
    assert torch.equal(text.ctx, ctx) and torch.equal(coupled.proj.weight, proj.weight)
    assert all(map(torch.equal, coupled.deep_text.tokens, deep))
    assert len(coupled.deeper) == 2 and all(torch.equal(d.weight, one.weight) for d in coupled.deeper)
    assert coupled.deeper[0].weight is not coupled.deeper[1].weight


def test_coupled_tokens_are_learned_once_and_a_copy_follows_its_own(tiny_clip):
    model = build(tiny_clip)
    names = dict(model.prompt_learner.named_parameters(remove_duplicate=False))
    assert len(names) == len(set(map(id, names.values()))) == 8     # ctx, tokens, and weight and bias of 3 projections
    other, images = copy.deepcopy(model), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = model.image_features(images)
        other.brick("text").ctx.zero_()
        assert torch.equal(model.image_features(images), before)
        assert not torch.allclose(other.image_features(images), before)


def test_a_checkpoint_says_its_number_of_words_and_its_depth(tiny_clip):
    for n, depth in ((2, 3), (3, 1)):
        weights = build(tiny_clip, n, depth).prompt_learner.state_dict()
        assert MaPLe.options_of(weights) == {"N_CTX": n, "PROMPT_DEPTH": depth}
    assert MaPLe.options_of({"ctx": weights["ctx"]}) is None
    assert MaPLe.options_of({}) is None


def test_more_words_than_four_start_from_random_values_and_say_so(tiny_clip, caplog):
    model = MaPLe.build(tiny_clip, Classes(NAMES), options(6))
    assert "these 6 start from random values" in caplog.text
    assert model.brick("text").ctx.shape == (6, 64) and abs(model.brick("text").ctx.std() - 0.02) < 0.004
    assert model.brick("text")().prefix.shape == (7, 64)


@pytest.mark.parametrize(("args", "message"), [
    ((2, 4), "1 to 3 blocks of both towers.*got 4"), ((2, 0), "1 to 3 blocks of both towers.*got 0"),
    ((3, 2, "a photo"), "1 to 2 of its initial words 'a photo', got 3"), ((0, 2), "'a photo of a', got 0"),
    ((-1, 2, ""), "at least 1 context word.*got -1"), ((76, 2), "at most 77 tokens")])
def test_what_the_towers_or_the_words_do_not_have_is_refused(tiny_clip, args, message):
    with pytest.raises(InputError, match=message):
        MaPLe.build(tiny_clip, Classes(NAMES), options(*args))
