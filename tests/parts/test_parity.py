"""Losses, gradients and parameters follow the authors' own runs (origin: tests/golden/README.md).

Tolerance 1e-5 relative to max|.| (5e-5 after five steps): an independent fused-attention implementation agrees to
1.6e-6, and a wrong QuickGELU constant shows at 1e-4.
"""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP, embed_texts, encode_texts
from clip.templates import fill
from dassl.config import CfgNode
from trainers.maple import MaPLe
from trainers.parts.classes import Classes
from trainers.parts.losses import inter_dispersion, intra_dispersion
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.prototypes import class_prototypes
from trainers.parts.text_prompt import TextPrompt
from trainers.parts.visual_prompt import VisualPrompt
from trainers.plot import PLOT
from trainers.proda import ProDA
from trainers.rpo import RPO


def coop(clip, golden):
    return PromptedModel(clip, text=TextPrompt(clip, golden.classnames, 16))


def vpt(clip, golden):
    bank = encode_texts(clip, fill("a photo of a {}.", golden.classnames))
    return PromptedModel(clip, visual=VisualPrompt(clip, 8, placement="end"), text=bank)


def dapt(clip, golden):
    return PromptedModel(clip, text=TextPrompt(clip, golden.classnames, 16), visual=VisualPrompt(clip, 16))


def maple(clip, golden):
    return MaPLe.build(clip, Classes(golden.classnames), golden.options("MAPLE"))


def plot(clip, golden):
    options = CfgNode({**golden.options("PLOT"), "POOLED": False})
    return PLOT.build(own_towers(golden), Classes(golden.classnames), options)


def own_towers(golden):
    """Those of the file, which are not the tiny CLIP."""
    from random_clip import state_dict

    return FrozenCLIP.from_state_dict(state_dict(golden.json("clip")))


def rpo(clip, golden):
    return RPO.build(own_towers(golden), Classes(golden.classnames), CfgNode(
        {"K": 4, "TEMPLATE": "a photo of a {}.", "UNDERSCORES": True}))


def proda(clip, golden):
    """Their prompts keep the underscores of names, whose tokens are counted without: the name ends too early."""
    names = golden.classnames
    model = ProDA.build(clip, Classes(names), golden.options("PRODA"))
    text, written = model.brick("text"), embed_texts(clip, [f"X X X X X {name}." for name in names])
    text.suffix, text.eot = written.embeddings[:, 6:], written.eot
    text.place_names(golden.tensor("name_lens").tolist())
    return model


def proda_loss(model, images, label, golden, step):
    trainer = SimpleNamespace(model=model, options=golden.options("PRODA"))
    with model.brick("text").only(golden.tensor("prompt_index")[step].tolist()):
        return sum(ProDA.loss(trainer, model(images), {"label": label}).values())


def cross_entropy(model, images, label, golden, step):
    return F.cross_entropy(model(images).logits, label)


def dapt_loss(model, images, label, golden, step):
    out = model(images)
    return (F.cross_entropy(out.logits, label)
            + 10 * intra_dispersion(out.image_features, golden.tensor("prototype")[label])
            + 0.1 * inter_dispersion(out.text_features, 2.0))


CASES = {
    "coop_end": (coop, cross_entropy, {"text.ctx": "prompt_learner.ctx"}),
    "vpt_shallow": (vpt, cross_entropy, {"visual.tokens": "image_encoder.VPT"}),
    "dapt": (dapt, dapt_loss, {"text.ctx": "prompt_learner.txt_ctx", "visual.tokens": "prompt_learner.vis_ctx"}),
    "maple": (maple, cross_entropy, {}),
    "plot_n4": (plot, cross_entropy, {}),
    "rpo": (rpo, cross_entropy, {}),
    "proda_8_by4": (proda, proda_loss, {}),
}


def assert_near(ours, theirs, tolerance):
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=tolerance * float(theirs.abs().max()))


@pytest.mark.parametrize("case", CASES)
def test_five_training_steps_follow_the_authors(case, tiny_clip, golden):
    build, loss, names = CASES[case]
    theirs = golden(case)
    model = build(tiny_clip, theirs)
    learned = dict(model.prompt_learner.named_parameters())
    whole = "prompt_learner."
    names = names or {own: whole + saved if isinstance(saved, str) else [whole + row for row in saved]
                      for own, saved in model.prompt_learner.saved_as.items()}
    assert names.keys() == learned.keys()
    with torch.no_grad():
        for own, name in names.items():
            learned[own].copy_(theirs.value("param", name).reshape(learned[own].shape))
    images, labels = theirs.tensor("images"), theirs.tensor("labels")
    optim = theirs.json("optim")
    sgd = torch.optim.SGD(learned.values(), optim["lr"], optim["momentum"], weight_decay=optim["weight_decay"])
    with torch.no_grad():
        assert_near(model(images[0]).logits, theirs.tensor("logits"), 1e-5)
    for step in range(5):
        value = loss(model, images[step], labels[step], theirs, step)
        assert value.item() == pytest.approx(theirs.data["losses"][step], rel=1e-5)
        sgd.zero_grad()
        value.backward()
        for own, name in names.items() if step == 0 else ():
            assert_near(learned[own].grad, theirs.value("grad", name), 1e-5)
        sgd.step()
        for own, name in names.items() if step in (0, 4) else ():
            assert_near(learned[own].detach(), theirs.value(f"after{step + 1}", name), 1e-5 if step == 0 else 5e-5)
    with torch.no_grad():
        assert_near(model(images[0]).logits, theirs.tensor("logits_after5"), 5e-5)


def test_prototypes_equal_the_authors(tiny_clip, golden):
    theirs = golden("dapt")
    images, labels = theirs.tensor("proto_images"), theirs.tensor("proto_labels")
    ours = class_prototypes(tiny_clip, zip(images.split(30), labels.split(30)), 37)
    assert_near(ours, theirs.tensor("prototype"), 1e-5)
