"""Attacks stay in their ball and in the pixels' range, raise the loss, and leave the model alone."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clip import InputError, encode_texts
from dassl.engine import TRAINER_REGISTRY, build_trainer
from trainers.coop import CoOp
from trainers.parts.attacks import pgd
from trainers.parts.prompted_model import PromptedModel


def model_of(clip, texts):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (clip.mean, clip.std))
    model = PromptedModel(clip, text=encode_texts(clip, texts)).eval()

    def logits(images):
        larger = F.interpolate(images, size=32, mode="bicubic")
        return model((larger - mean) / std).logits

    return logits


def test_pgd_is_the_authors(tiny_clip, golden):
    theirs = golden("tecoa_pgd_linf")
    logits, images = model_of(tiny_clip, theirs.json("texts")), theirs.tensor("images").float()
    labels = theirs.tensor("labels")
    losses = []

    def loss(scores, labels):
        losses.append(F.cross_entropy(scores, labels))
        return losses[-1]

    delta = pgd(logits, images, labels, 4 / 255, 1 / 255, 5, start=theirs.tensor("uniform"), loss=loss)
    assert [value.item() for value in losses] == pytest.approx(theirs.data["losses_inside"].tolist(), rel=1e-5)
    # A gradient of nearly 0 may have another sign: all but a few numbers are the same.
    same = (delta - theirs.tensor("delta")).abs() < 1e-6
    assert same.float().mean() > 0.999
    with torch.no_grad():
        found = F.cross_entropy(logits(images + delta), labels).item()
    assert found == pytest.approx(float(theirs.data["loss_adv"]), rel=1e-4)


@settings(deadline=None, max_examples=20)
@given(norm=st.sampled_from(["linf", "l2"]), eps=st.floats(0.0, 0.5), steps=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_perturbation_stays_in_its_ball_and_the_image_in_its_range(norm, eps, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    images, weights = torch.rand(3, 3, 4, 4, generator=generator), torch.randn(48, 5, generator=generator)
    labels = torch.tensor([0, 1, 4])
    delta = pgd(lambda x: x.flatten(1) @ weights, images, labels, eps, eps / 2, steps, norm)
    sizes = delta.abs().amax((1, 2, 3)) if norm == "linf" else delta.flatten(1).norm(dim=1)
    assert (sizes <= eps * (1 + 1e-5) + 1e-7).all()
    assert ((images + delta >= 0) & (images + delta <= 1)).all() and not delta.requires_grad


def test_more_steps_raise_the_loss_and_no_parameter_gets_a_gradient(tiny_clip):
    logits = model_of(tiny_clip, ["a cat.", "a dog.", "a bird."])
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    start, losses = torch.zeros_like(images), []
    for steps in (1, 5, 20):
        delta = pgd(logits, images, labels, 8 / 255, 2 / 255, steps, start=start)
        losses.append(F.cross_entropy(logits(images + delta), labels).item())
    assert F.cross_entropy(logits(images), labels).item() < losses[0] < losses[1] <= losses[2] * 1.01
    assert all(p.grad is None for p in tiny_clip.parameters())


def test_a_method_trains_on_attacked_images_through_its_inputs(make_cfg):
    @TRAINER_REGISTRY.register()
    class Hardened(CoOp):
        normalised = False

        def inputs(self, batch):
            model, mean, std = self.model, self.model.mean, self.model.std
            seen = pgd(lambda x: model((x - mean) / std).logits, batch["img"], batch["label"], 4 / 255, 2 / 255, 2)
            self.change = seen.abs().max().item()
            return (batch["img"] + seen - mean) / std

    cfg = make_cfg("CoOp", "TEST.NO_TEST", True).clone()
    cfg.defrost()
    cfg.TRAINER.NAME, cfg.INPUT.TRANSFORMS = "Hardened", ["random_resized_crop"]
    trainer = build_trainer(cfg)
    before = trainer.model.brick("text").ctx.detach().clone()
    trainer.train()
    assert 0 < trainer.change <= 4 / 255 + 1e-6 and not torch.equal(before, trainer.model.brick("text").ctx)


@pytest.mark.parametrize("change", [dict(eps=-1.0), dict(steps=0), dict(norm="l1"), dict(step_size=-0.1)])
def test_an_impossible_attack_is_refused(change):
    with pytest.raises(InputError, match="got"):
        pgd(lambda x: x.flatten(1), torch.rand(1, 3, 2, 2), torch.tensor([0]),
            **{"eps": 0.1, "step_size": 0.1, "steps": 1, **change})
