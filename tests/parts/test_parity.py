"""Losses, gradients and parameters follow the authors' own runs (origin: tests/golden/README.md).

Tolerance 1e-5 relative to max|.| (5e-5 after five steps): an independent fused-attention implementation agrees to
1.6e-6, and a wrong QuickGELU constant shows at 1e-4.
"""
import pytest
import torch.nn.functional as F

from clip import FrozenCLIP, encode_texts
from clip.templates import fill
from dassl.config import CfgNode
from tests.parts.five_steps import assert_near, follow
from trainers.maple import MaPLe
from trainers.parts.classes import Classes
from trainers.parts.losses import inter_dispersion, intra_dispersion
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.prototypes import class_prototypes
from trainers.parts.text_prompt import TextPrompt
from trainers.parts.visual_prompt import VisualPrompt
from trainers.plot import PLOT


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
    from random_clip import state_dict

    clip = FrozenCLIP.from_state_dict(state_dict(golden.json("clip")))      # a ResNet of its own
    return PLOT.build(clip, Classes(golden.classnames), CfgNode({**golden.options("PLOT"), "POOLED": False}))


def cross_entropy(out, label, golden):
    return F.cross_entropy(out.logits, label)


def dapt_loss(out, label, golden):
    return (F.cross_entropy(out.logits, label)
            + 10 * intra_dispersion(out.image_features, golden.tensor("prototype")[label])
            + 0.1 * inter_dispersion(out.text_features, 2.0))


CASES = {
    "coop_end": (coop, cross_entropy, {"text.ctx": "prompt_learner.ctx"}),
    "vpt_shallow": (vpt, cross_entropy, {"visual.tokens": "image_encoder.VPT"}),
    "dapt": (dapt, dapt_loss, {"text.ctx": "prompt_learner.txt_ctx", "visual.tokens": "prompt_learner.vis_ctx"}),
    "maple": (maple, cross_entropy, {}),
    "plot_n4": (plot, cross_entropy, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_five_training_steps_follow_the_authors(case, tiny_clip, golden):
    build, loss, names = CASES[case]
    theirs = golden(case)
    follow(build(tiny_clip, theirs), theirs, lambda out, images, labels: loss(out, labels, theirs), names)


def test_prototypes_equal_the_authors(tiny_clip, golden):
    theirs = golden("dapt")
    images, labels = theirs.tensor("proto_images"), theirs.tensor("proto_labels")
    ours = class_prototypes(tiny_clip, zip(images.split(30), labels.split(30)), 37)
    assert_near(ours, theirs.tensor("prototype"), 1e-5)
