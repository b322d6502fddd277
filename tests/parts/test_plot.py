"""PLOT's transport against the authors' plan, and its logits against a slow literal reading of its description."""
import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP, InputError, TextTokens, tokenize
from dassl.config import CfgNode
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.text_prompt import TextPrompt
from trainers.parts.transport_head import TransportHead, sinkhorn
from trainers.plot import PLOT

NAMES = ["cat", "yorkshire_terrier", "737-200"]


def build(clip, **changes):
    torch.manual_seed(5)
    options = CfgNode({"N": 3, "N_CTX": 4, "POOLED": False, "PREC": "fp32", **changes})
    model = PLOT.build(clip, Classes(NAMES), options)
    with torch.no_grad():
        model.brick("text").ctx.mul_(50)                    # so that prompts and plans differ
    return model


def slow_literal_logits(clip, ctx, images, pooled):
    """One problem after the other, as matrices; rounds are counted for all of them together."""
    raw = torch.zeros(len(ctx), len(NAMES), clip.embed_dim)
    for p, own in enumerate(ctx):
        for c, name in enumerate(NAMES):
            ids = tokenize("X " * len(own) + name.replace("_", " ") + ".")
            words = clip.embed_tokens(ids)[0]
            whole = torch.cat([words[:1], own, words[1 + len(own):]])[None]
            raw[p, c] = clip.encode_text(TextTokens(whole, ids.argmax(dim=-1)), unit_norm=False)[0]
    texts = F.normalize(raw, dim=-1)
    tokens = clip.encode_image(images, want="tokens")
    problems = [[tokens[b, 1:] @ texts[:, c].T for c in range(len(NAMES))] for b in range(len(images))]
    kernels = [[torch.exp(-(1 - s.detach()) / 0.1) for s in row] for row in problems]
    M, N = problems[0][0].shape
    r = [[torch.ones(M) for _ in row] for row in problems]
    c = [[torch.ones(N) for _ in row] for row in problems]
    for rounds in range(1, 101):  # noqa: B007
        moved = []
        for b, row in enumerate(kernels):
            for k, kernel in enumerate(row):
                new = (1 / M) / (kernel @ c[b][k])
                moved.append((new - r[b][k]).abs())
                r[b][k], c[b][k] = new, (1 / N) / (kernel.T @ new)
        if torch.cat(moved).mean() < 1e-2:
            break
    logits = torch.stack([torch.stack([
        clip.scale * (torch.diag(r[b][k]) @ kernels[b][k] @ torch.diag(c[b][k]) * problems[b][k]).sum()
        for k in range(len(NAMES))]) for b in range(len(images))])
    if pooled:
        logits = logits + clip.scale * tokens[:, 0] @ F.normalize(raw.mean(0), dim=-1).T
    return logits, rounds


@pytest.mark.parametrize("pooled", [False, True])
def test_logits_and_gradients_on_a_vit_are_those_of_the_description(tiny_clip, pooled):
    model, images = build(tiny_clip, POOLED=pooled), torch.randn(3, 3, 32, 32)
    ctx = model.brick("text").ctx
    out = model(images)
    theirs, _ = slow_literal_logits(tiny_clip, ctx, images, pooled)
    torch.testing.assert_close(out.logits, theirs, rtol=0, atol=1e-5 * float(theirs.detach().abs().max()))
    weight = torch.randn_like(theirs)
    ours, theirs = (torch.autograd.grad((x * weight).sum(), ctx, retain_graph=True)[0] for x in (out.logits, theirs))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5 * float(theirs.abs().max()))
    assert out.image_features.shape == (3, 17, 32) and out.text_features.shape == (3, 3, 32)
    for features in (out.image_features, out.text_features, model.text_features()):
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(features.shape[:-1]))


def test_plan_and_rounds_are_the_authors(golden):
    from random_clip import state_dict

    theirs = golden("plot_n4")
    clip = FrozenCLIP.from_state_dict(state_dict(theirs.json("clip")))
    model = PLOT.build(clip, Classes(theirs.classnames), CfgNode({**theirs.options("PLOT"), "POOLED": False}))
    with torch.no_grad():
        model.brick("text").ctx.copy_(theirs.tensor("param/prompt_learner.ctx"))
        out = model(theirs.tensor("images")[0])
        plan = out.aux["plan"].flatten(0, 1)                # (B*C, M, N)
        similarity = torch.einsum("bmd,ncd->bcmn", out.image_features[:, 1:], out.text_features)
        _, rounds = sinkhorn(torch.exp((similarity - 1) / 0.1))
    torch.testing.assert_close(plan, theirs.tensor("plan"), rtol=0, atol=1e-5 * float(plan.max()))
    assert rounds == int(theirs.data["sinkhorn_iterations"]) == 4


def test_a_plan_has_uniform_marginals_and_follows_the_kernel():
    torch.manual_seed(0)
    kernel = torch.exp(torch.randn(2, 5, 7, 3))
    plan, rounds = sinkhorn(kernel, threshold=1e-7)
    assert 4 < rounds < 100
    torch.testing.assert_close(plan.sum(-1), torch.full((2, 5, 7), 1 / 7))
    torch.testing.assert_close(plan.sum(-2), torch.full((2, 5, 3), 1 / 3))
    ratios = (plan / kernel).log()                          # log r + log c, so its mixed differences vanish
    mixed = ratios[..., 1:, 1:] - ratios[..., :1, 1:] - ratios[..., 1:, :1] + ratios[..., :1, :1]
    assert mixed.abs().max() < 1e-4
    assert sinkhorn(kernel, most_rounds=2, threshold=0)[1] == 2


def test_no_gradient_passes_the_plan():
    kernel = torch.rand(2, 3, requires_grad=True)
    assert not sinkhorn(kernel)[0].requires_grad


def test_an_images_logits_depend_a_little_on_its_company(tiny_clip):
    model = build(tiny_clip).eval()
    torch.manual_seed(1)
    images = torch.randn(6, 3, 32, 32)
    with torch.no_grad():
        together, alone = model(images).logits, torch.cat([model(image[None]).logits for image in images])
        rounds = {slow_literal_logits(tiny_clip, model.brick("text").ctx, image[None], False)[1] for image in images}
    assert len(rounds) > 1 and not torch.equal(together, alone)
    assert (together - alone).abs().max() < 0.05 * together.abs().max()


def test_a_loss_that_is_not_finite_is_left_to_the_training_loop(tiny_clip):
    model = build(tiny_clip)
    with torch.no_grad():
        model.brick("text").ctx[0] = float("nan")
    assert not model(torch.randn(1, 3, 32, 32)).logits.isfinite().any()


def test_the_head_needs_tokens_and_several_prompts(tiny_clip):
    text = TextPrompt(tiny_clip, NAMES, 4, n_prompts=2)
    for model in (PromptedModel(tiny_clip, text=text, head=TransportHead()),
                  PromptedModel(tiny_clip, text=TextPrompt(tiny_clip, NAMES, 4), head=TransportHead(), want="tokens")):
        with pytest.raises(InputError, match="all tokens of each image and several prompts"):
            model(torch.randn(1, 3, 32, 32))
    for n in (0, -2):
        with pytest.raises(InputError, match=f"at least 1 prompt, got {n}"):
            build(tiny_clip, N=n)


def test_a_checkpoint_says_its_numbers_of_prompts_and_words(tiny_clip):
    assert PLOT.options_of(build(tiny_clip).prompt_learner.state_dict()) == {"N": 3, "N_CTX": 4}
    assert PLOT.options_of({"ctx": torch.zeros(16, 8)}) is None
