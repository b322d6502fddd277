"""Attacks stay in their ball and in the pixels' range, raise the loss, and leave the model alone."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clip import InputError, encode_texts
from dassl.engine import TRAINER_REGISTRY, build_trainer
from trainers.coop import CoOp
from trainers.parts.attacks import cross_entropies, margin, pgd, project, random_search
from trainers.parts.attacks_auto import ATTACKS, autoattack
from trainers.parts.attacks_pyramid import other_labels, pyramid, same_draws
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
@given(norm=st.sampled_from(["linf", "l2"]), eps=st.floats(0.0, 0.5), steps=st.integers(1, 4), seed=st.integers(0, 99),
       restarts=st.integers(1, 2), cut=st.booleans(), momentum=st.sampled_from([0.0, 0.9]))
def test_a_perturbation_stays_in_its_ball_and_the_image_in_its_range(norm, eps, steps, seed, restarts, cut, momentum):
    generator = torch.Generator().manual_seed(seed)
    images, weights = torch.rand(3, 3, 4, 4, generator=generator), torch.randn(48, 5, generator=generator)
    labels = torch.tensor([0, 1, 4])
    delta = pgd(lambda x: x.flatten(1) @ weights, images, labels, eps, 0.1, steps, norm, restarts=restarts, cut=cut,
                momentum=momentum, generator=generator)
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




IMPOSSIBLE = [dict(eps=-1.0), dict(eps=4.0), dict(eps=float("nan")), dict(eps=3.6, norm="l2"), dict(steps=0),
              dict(norm="l1"), dict(step_size=-0.1), dict(step_size=0.0), dict(restarts=0)]


@pytest.mark.parametrize("change", IMPOSSIBLE)
def test_an_impossible_attack_is_refused(change):
    with pytest.raises(InputError, match="got"):
        pgd(lambda x: x.flatten(1), torch.rand(1, 3, 2, 2), torch.tensor([0]),
            **{"eps": 0.1, "step_size": 0.1, "steps": 1, **change})


def linear(classes=5, seed=0, side=4):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(3 * side * side, classes, generator=generator)
    images = torch.rand(6, 3, side, side, generator=generator)
    return lambda x: x.flatten(1) @ weights, images, torch.arange(6) % classes


@pytest.mark.parametrize("attack", [
    lambda f, x, y: pgd(f, x, y, 0.1, 0.1, 2), lambda f, x, y: pyramid(f, x, y, 0.1, 0.1, 2),
    lambda f, x, y: random_search(f, x, y, 0.1, 2), lambda f, x, y: autoattack(f, x, y, 0.1, attacks=["square"])])
def test_normalised_images_are_refused_by_their_values(attack):
    model, images, labels = linear()
    with pytest.raises(InputError, match=r"-1\.\d"):
        attack(model, images * 4 - 1.9, labels)


@pytest.mark.parametrize("attack", [
    lambda f, x, y: pgd(f, x, y, 0.1, 0.1, 2), lambda f, x, y: pyramid(f, x, y, 0.1, 0.1, 2),
    lambda f, x, y: autoattack(f, x, y, 0.1, attacks=["apgd-ce"])])
@pytest.mark.parametrize("blind", [lambda f, x: f(x).detach(), lambda f, x: (1 * f.scale).expand(len(x), 5)])
def test_a_model_without_a_gradient_to_its_images_is_refused(attack, blind):
    model, images, labels = linear()
    model.scale = torch.ones(5, requires_grad=True)
    with pytest.raises(InputError, match="gradient"):
        attack(lambda x: blind(model, x), images, labels)


def test_the_margin_is_cws():
    generator = torch.Generator().manual_seed(0)
    logits, labels = 60 * torch.randn(40, 7, generator=generator), torch.arange(40) % 7
    for row, label, found in zip(logits.tolist(), labels.tolist(), margin(logits, labels).tolist(), strict=True):
        others = max(value for c, value in enumerate(row) if c != label)
        assert found == pytest.approx(-max(row[label] - others + 50, 0), rel=1e-5)


def test_the_margin_moves_answers_as_cross_entropy_does():
    model, images, labels = linear()
    delta = pgd(model, images, labels, 0.3, 0.1, 10, loss=margin)
    assert margin(model(images + delta), labels).mean() > margin(model(images), labels).mean() + 1


def test_a_targeted_attack_comes_nearer_to_its_target():
    model, images, labels = linear()
    targets = other_labels(labels, 5)
    assert (targets != labels).all() and targets.min() >= 0 and targets.max() < 5
    for attack in (pgd(model, images, targets, 0.1, 0.03, 5, targeted=True),
                   pyramid(model, images, labels, 0.02, 0.01, 3, targets=targets)):
        before, after = cross_entropies(model(images), targets), cross_entropies(model(images + attack), targets)
        assert (after < before).all()


def test_of_several_starts_the_best_counts_for_each_image():
    """Two valleys: which one an attack falls into depends on its start."""
    def model(x):
        value = (x.flatten(1)[:, :1] - 0.5)
        return torch.cat([torch.zeros_like(value), 40 * value.abs() + 30 * value], dim=1)

    images, labels = torch.full((32, 3, 2, 2), 0.5), torch.zeros(32, dtype=torch.long)
    found = {}
    for restarts in (1, 12):
        generator = torch.Generator().manual_seed(0)
        delta = pgd(model, images, labels, 0.2, 0.1, 5, restarts=restarts, generator=generator)
        found[restarts] = cross_entropies(model(images + delta), labels)
    assert (found[12] >= found[1] - 1e-6).all() and found[12].min() > found[1].min() + 1
    with pytest.raises(InputError, match=r"\(32,\)"):
        pgd(model, images, labels, 0.2, 0.1, 1, restarts=2, loss=lambda logits, y: logits.sum())


@pytest.mark.parametrize("attack", [
    lambda f, x, y, seed: pgd(f, x, y, 0.1, 0.02, 3, generator=torch.Generator().manual_seed(seed)),
    lambda f, x, y, seed: pgd(f, x, y, 0.5, 0.2, 3, "l2", generator=torch.Generator().manual_seed(seed)),
    lambda f, x, y, seed: random_search(f, x, y, 0.1, 3, generator=torch.Generator().manual_seed(seed)),
    lambda f, x, y, seed: autoattack(f, x, y, 0.1, attacks=["square"], queries=5, seed=seed)])
def test_an_attack_is_the_same_for_the_same_seed(attack):
    model, images, labels = linear()
    labels = model(images).argmax(1)
    state = torch.get_rng_state()
    first, again, other = (attack(model, images, labels, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_only_the_pixels_that_may_change_do():
    model, images, labels = linear()
    where = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    where[..., 1:3, :2] = True
    delta = pgd(model, images, labels, 1.0, 0.3, 4, where=where)
    assert (delta * ~where == 0).all() and (delta != 0).any()


def test_partners_climb_beside_the_images_and_are_put_back():
    model, images, labels = linear()
    shift, seen = torch.zeros(5, requires_grad=True), []

    def moved(x):
        seen.append(shift.detach().clone())
        return model(x) + shift

    pgd(moved, images, labels, 0.1, 0.05, 3, partners=[shift], partner_rate=0.5, start=torch.zeros_like(images))
    with torch.enable_grad():
        expected = 0.5 * torch.autograd.grad(F.cross_entropy(model(images) + shift, labels), shift)[0]
    torch.testing.assert_close(seen[1], expected)
    assert torch.equal(shift, torch.zeros(5)) and shift.grad is None and len(seen) == 3


def test_apts_loop_is_followed_where_only_the_seen_image_is_cut():
    """Literally, from the authors' loop: the perturbation runs in the ball, and the image that is seen is clamped."""
    model, images, labels = linear()
    images = images.round(decimals=1)
    start = torch.empty_like(images).uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(5))
    delta = start.clone()
    for _ in range(4):
        seen = (images + delta).clamp(0, 1).requires_grad_()
        loss = -F.cross_entropy(model(seen), labels)
        loss.backward()
        delta = (delta - 0.07 * seen.grad.sign()).clamp(-0.2, 0.2).detach()
    ours = pgd(model, images, labels, 0.2, 0.07, 4, start=start, cut=False)
    torch.testing.assert_close(images + ours, (images + delta).clamp(0, 1))


def test_momentum_is_fares():
    """Literally: the sign of 0.9 of the former direction plus the gradient's sign."""
    model, images, labels = linear()
    start = torch.zeros_like(images)
    delta, velocity = start.clone(), torch.zeros_like(images)
    for _ in range(5):
        seen = (images + delta).requires_grad_()
        gradient, = torch.autograd.grad(F.cross_entropy(model(seen * seen), labels), seen)
        velocity = (0.9 * velocity + gradient.sign()).sign()
        delta = (delta + 0.03 * velocity).clamp(-0.1, 0.1)
        delta = (images + delta).clamp(0, 1) - images
    ours = pgd(lambda x: model(x * x), images, labels, 0.1, 0.03, 5, start=start, momentum=0.9)
    torch.testing.assert_close(ours, delta, atol=1e-6, rtol=0)


def test_the_pyramid_adds_cells_of_every_scale_as_the_authors_loop_does():
    model, images, labels = linear(side=6)
    scales, multipliers, eps, step = (6, 4, 1), (20, 10, 1), 0.01, 0.004

    def added(levels):
        seen = images
        for level, scale, multiplier in zip(levels, scales, multipliers, strict=True):
            rows = [[level[..., y // scale, x // scale] for x in range(6)] for y in range(6)]
            whole = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
            seen = (seen + multiplier * whole).clamp(0, 1)
        return seen

    levels = [torch.zeros(6, 3, *[-(-6 // scale)] * 2) for scale in scales]
    for _ in range(4):
        levels = [level.requires_grad_() for level in levels]
        found = torch.autograd.grad(F.cross_entropy(model(added(levels)), labels), levels)
        levels = [(level.detach() + step * g.sign()).clamp(-eps, eps) for level, g in zip(levels, found, strict=True)]
    delta = pyramid(model, images, labels, eps, step, 4, scales, multipliers)
    torch.testing.assert_close(delta, added(levels) - images)
    assert ((images + delta >= 0) & (images + delta <= 1)).all() and delta.abs().max() > 10 * eps


@pytest.mark.parametrize("change", [dict(scales=()), dict(scales=(0,)), dict(multipliers=(1.0,)), dict(eps=2.0)])
def test_an_impossible_pyramid_is_refused(change):
    model, images, labels = linear()
    with pytest.raises(InputError, match="got"):
        pyramid(model, images, labels, **{"eps": 0.1, "step_size": 0.1, "steps": 1, **change})


def test_an_attack_and_what_follows_it_drop_the_same_units():
    dropout, x = torch.nn.Dropout(0.5), torch.ones(1000)
    again = same_draws(lambda value: dropout(value))
    first = again(x)
    assert torch.equal(first, again(x)) and not torch.equal(first, dropout(x))


@pytest.mark.parametrize("norm, eps", [("linf", 0.2), ("l2", 1.0)])
@pytest.mark.parametrize("name", ATTACKS)
def test_each_part_of_autoattack_makes_answers_wrong_within_the_ball(name, norm, eps):
    model, images, _ = linear(side=8)
    labels = model(images).argmax(dim=1)
    delta = autoattack(model, images, labels, eps, norm, [name], steps=10, queries=50)
    assert torch.equal(delta, project(delta, images, eps * 1.0001, norm)) and not delta.requires_grad
    assert (model(images + delta).argmax(dim=1) != labels).any()


def test_autoattack_asks_for_as_many_classes_as_its_losses_take():
    model, images, labels = linear(classes=2)
    for name in ("apgd-dlr", "apgd-t"):
        with pytest.raises(InputError, match=name):
            autoattack(model, images, labels, 0.1, attacks=[name])
    autoattack(model, images, labels, 0.1, attacks=["fab-t"], steps=2)
    with pytest.raises(InputError, match="pgd"):
        autoattack(model, images, labels, 0.1, attacks=["pgd"])


def test_autoattack_says_what_to_install_where_its_package_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyautoattack", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pyautoattack"):
        autoattack(*linear(), 0.1)
