"""Towers with MaPLe's `design_details`: names, places and numbers of their prompts."""
import pytest
import torch
import torch.nn.functional as F

from clip import TextTokens, encode_texts, tokenize
from clip.model import CompoundPromptBlock, build_model
from clip.templates import fill
from trainers.parts.visual_prompt import VisualPrompt

IVLP = {"trainer": "IVLP", "vision_depth": 3, "language_depth": 2, "vision_ctx": 4, "language_ctx": 2}
VPT = {"trainer": "VPT", "vision_depth": 1, "language_depth": 0, "vision_ctx": 8, "language_ctx": 0}
MAPLE = {"trainer": "MaPLe", "vision_depth": 0, "language_depth": 0, "vision_ctx": 0, "language_ctx": 0,
         "maple_length": 2}
TEXTS = ["X X cat.", "X X yellow dog.", "X X bird."]


class DeepText:
    """Puts `tokens[i - 1]` behind the start token of what enters block i of our own text tower."""

    def __init__(self, tokens):
        self.tokens = tokens

    def enter(self, block, x):
        if not 0 < block <= len(self.tokens):
            return x
        own = self.tokens[block - 1]
        return torch.cat([x[:, :1], own.expand(len(x), -1, -1), x[:, 1 + len(own):]], dim=1)


def unit(x):
    return F.normalize(x, dim=-1)


def sentences(model, ctx):
    """Embedded TEXTS with `ctx` (n, W) behind the start token, and the places of their ends."""
    ids = tokenize(TEXTS)
    x = model.token_embedding(ids)
    return torch.cat([x[:, :1], ctx.expand(len(x), -1, -1), x[:, 1 + len(ctx):]], dim=1), ids.argmax(-1)


def read(model, x, eot):
    """(L, N, W) out of the text tower -> (N, D)."""
    return unit(model.ln_final(x.permute(1, 0, 2))[torch.arange(len(eot)), eot] @ model.text_projection)


def our_visual_prompt(clip, tokens):
    prompt = VisualPrompt(clip, tokens[0].shape[0], len(tokens), placement="end").eval()
    with torch.no_grad():
        prompt.tokens.copy_(torch.stack(tokens))
    return prompt


def test_vpt_follows_the_authors_run(tiny_clip_weights, golden):
    theirs = golden("vpt_shallow")
    torch.manual_seed(1)
    model = build_model(tiny_clip_weights, VPT).float()
    assert torch.equal(model.visual.VPT, theirs.tensor("seed1_init/image_encoder.VPT"))

    layout = theirs.json("registered_models")["prompt_learner"]
    ours = {f"image_encoder.{k}": v for k, v in model.visual.state_dict().items()} | {
        f"text_encoder.{k}": v for k, v in model.state_dict().items() if not k.startswith(("visual.", "token_emb"))}
    assert {k: list(v.shape) for k, v in ours.items() if "logit_scale" not in k} == {
        k: shape for k, (shape, _) in layout.items() if k != "logit_scale"}

    with torch.no_grad():
        model.visual.VPT.copy_(theirs.tensor("param/image_encoder.VPT"))
        bank = unit(model.encode_text(tokenize(fill("a photo of a {}.", theirs.classnames))))
    model.requires_grad_(False)
    model.visual.VPT.requires_grad_()
    images, labels, options = theirs.tensor("images"), theirs.tensor("labels"), theirs.json("optim")
    sgd = torch.optim.SGD([model.visual.VPT], options["lr"], options["momentum"], weight_decay=options["weight_decay"])

    def near(ours, key, tolerance=1e-5):
        expected = theirs.tensor(key)
        torch.testing.assert_close(ours.detach(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))

    def logits(images):
        return model.logit_scale.exp() * unit(model.visual(images.type(model.dtype))) @ bank.t()

    near(logits(images[0]), "logits")
    for step in range(5):
        loss = F.cross_entropy(logits(images[step]), labels[step])
        assert loss.item() == pytest.approx(theirs.data["losses"][step], rel=1e-5)
        sgd.zero_grad()
        loss.backward()
        if step == 0:
            near(model.visual.VPT.grad, "grad/image_encoder.VPT")
        sgd.step()
    near(model.visual.VPT, "after5/image_encoder.VPT", 5e-5)
    near(logits(images[0]), "logits_after5", 5e-5)


def test_the_draws_of_a_trainer_after_loading_are_the_authors(tiny_clip_weights, golden):
    torch.manual_seed(1)
    build_model(tiny_clip_weights)
    ctx = torch.nn.init.normal_(torch.empty(16, 64), std=0.02)
    assert torch.equal(ctx, golden("coop_end").tensor("seed1_init/prompt_learner.ctx"))


def test_ivlp_prompts_stand_where_ours_stand(tiny_clip_weights, tiny_clip):
    torch.manual_seed(0)
    model = build_model(tiny_clip_weights, IVLP).float()
    assert {k: tuple(p.shape) for k, p in model.named_parameters() if "VPT" in k} == {
        "visual.VPT": (4, 64), "visual.transformer.resblocks.1.VPT_shallow": (4, 64),
        "visual.transformer.resblocks.2.VPT_shallow": (4, 64), "transformer.resblocks.1.VPT_shallow": (2, 64)}
    images, vision, text = torch.randn(2, 3, 32, 32), model.visual.transformer.resblocks, model.transformer.resblocks
    tokens = [model.visual.VPT, vision[1].VPT_shallow, vision[2].VPT_shallow]
    x, eot = sentences(model, torch.randn(2, 64))
    with torch.no_grad():
        torch.testing.assert_close(unit(model.visual(images)),
                                   tiny_clip.encode_image(images, our_visual_prompt(tiny_clip, tokens)),
                                   atol=1e-5, rtol=1e-5)
        theirs = read(model, model.transformer((x + model.positional_embedding).permute(1, 0, 2)), eot)
        ours = tiny_clip.encode_text(TextTokens(x, eot), DeepText([text[1].VPT_shallow]))
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("deeper", [0, 1, 2])
def test_maples_towers_take_their_prompts_as_arguments(deeper, tiny_clip_weights, tiny_clip):
    torch.manual_seed(deeper)
    model = build_model(tiny_clip_weights, MAPLE).float()
    assert not any("VPT" in k for k, _ in model.named_parameters())
    text_prompts, vision_prompts = (torch.nn.ParameterList(torch.randn(2, 64) for _ in range(deeper)) for _ in range(2))
    shared_ctx, images = torch.randn(2, 64), torch.randn(3, 3, 32, 32)
    x, eot = sentences(model, torch.randn(2, 64))
    with torch.no_grad():
        outputs = model.transformer([(x + model.positional_embedding).permute(1, 0, 2), text_prompts, 0])
        ours = tiny_clip.encode_text(TextTokens(x, eot), DeepText(list(text_prompts)))
        image_features = model.visual(images.type(model.dtype), shared_ctx, list(vision_prompts))
        prompt = our_visual_prompt(tiny_clip, [shared_ctx, *vision_prompts])
    assert outputs[1] is text_prompts and outputs[2] == deeper
    torch.testing.assert_close(read(model, outputs[0], eot), ours, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(unit(image_features), tiny_clip.encode_image(images, prompt), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("design", [
    {**MAPLE}, {**IVLP, "vision_depth": 0, "language_depth": 0}, {**VPT, "trainer": "CoCoOp", "vision_depth": 0},
    {"trainer": "MineOfThisTest"}, {}], ids=lambda d: d.get("trainer", "none"))
def test_a_design_without_prompts_is_plain_clip(design, tiny_clip_weights, tiny_clip):
    model, images = build_model(tiny_clip_weights, design).float(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(unit(model.encode_image(images)), tiny_clip.encode_image(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(unit(model.encode_text(tokenize(TEXTS))), encode_texts(tiny_clip, TEXTS), atol=1e-5,
                                   rtol=0)


def test_prompts_may_differ_by_image(tiny_clip_weights):
    model, images = build_model(tiny_clip_weights, MAPLE).float(), torch.randn(2, 3, 32, 32)
    ctx, deep = torch.randn(2, 2, 64), torch.randn(2, 2, 64)
    with torch.no_grad():
        together = model.visual(images, ctx, [deep])
        alone = [model.visual(images[i:i + 1], ctx[i], [deep[i]]) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_half_precision_towers_take_float_prompts(tiny_clip_weights):
    model = build_model(tiny_clip_weights, MAPLE)
    prompts = [torch.randn(2, 64, requires_grad=True)]
    features = model.visual(torch.randn(1, 3, 32, 32, dtype=torch.float16), prompts[0], prompts)
    features.float().sum().backward()
    assert model.dtype == features.dtype == torch.float16 and prompts[0].grad.dtype == torch.float32
    assert isinstance(model.transformer.resblocks[0], CompoundPromptBlock)


def test_a_checkpoint_of_the_prompts_loads_by_the_public_names(tiny_clip_weights):
    first, second = (build_model(tiny_clip_weights, IVLP).float() for _ in range(2))
    images = torch.randn(1, 3, 32, 32)
    assert not torch.allclose(first.visual(images), second.visual(images))
    second.load_state_dict({k: v for k, v in first.state_dict().items() if "VPT" in k}, strict=False)
    assert torch.equal(first.visual(images), second.visual(images))
