"""Attacks in words: what they stand for, what they do, and what is none."""
import pytest
import torch

from clip import InputError
from trainers.parts.attack_names import STEPS, Attack
from trainers.parts.attacks import pgd


@pytest.mark.parametrize(("text", "expected"), [
    ("pgd:1/255:10", ("pgd", 1 / 255, 10, 0.25 / 255, "linf", 1)),
    ("pgd:4/255", ("pgd", 4 / 255, 10, 1 / 255, "linf", 1)),
    ("cw:0.02:20:step=1/255:restarts=3", ("cw", 0.02, 20, 1 / 255, "linf", 3)),
    ("pgd:2:10:norm=l2", ("pgd", 2.0, 10, 0.5, "l2", 1)),
    ("autoattack:8/255", ("autoattack", 8 / 255, 100, 0.2 / 255, "linf", 1)),
    ("square:8/255:50", ("square", 8 / 255, 50, 0.4 / 255, "linf", 1))])
def test_an_attack_is_what_its_words_say(text, expected):
    found = Attack.parse(text)
    kind, eps, steps, step, norm, restarts = expected
    assert (found.kind, found.steps, found.norm, found.restarts) == (kind, steps, norm, restarts)
    assert (found.eps, found.step_size) == pytest.approx((eps, step))


def test_every_number_is_said_with_its_unit():
    assert Attack.parse("pgd:1/255:10:restarts=2").words == "PGD, eps 1/255, 10 steps of 0.25/255, best of 2 starts"
    assert Attack.parse("autoattack:8/255").words == "AutoAttack, eps 8/255, 100 steps"
    assert Attack.parse("pgd:2:10:norm=l2").words == "PGD, eps 2 (l2), 10 steps of 0.5"
    assert Attack.parse("random:1/255:7").words == "random, eps 1/255, 7 tries"


@pytest.mark.parametrize(("text", "found"), [
    ("pgdd:1/255", "pgdd"), ("pgd", "pgd"), ("pgd:4", "4"), ("pgd:0", "0"), ("pgd:-1/255", "-1/255"),
    ("pgd:1/0", "1/0"), ("pgd:eps", "eps"), ("pgd:nan", "nan"), ("pgd:1/255:0", "0 steps"), ("pgd:1/255:2.5", "2.5"),
    ("pgd:1/255:10:step=0", "size of 0"), ("pgd:1/255:10:norm=l1", "l1"), ("pgd:1/255:10:restarts=0", "0 starts"),
    ("pgd:1/255:10:momentum=1", "momentum"), ("pgd:1/255:10:3", "10:3"), ("autoattack:1/255:restarts=2", "restarts=2"),
    ("pyramid:1/255:norm=l2", "l2"), ("pgd:inf:norm=l2", "inf")])
def test_what_is_no_attack_is_refused_with_its_value(text, found):
    with pytest.raises(InputError, match=f"got.*{found}|{found}.*"):
        Attack.parse(text)


@pytest.mark.parametrize("kind", STEPS)
def test_each_kind_changes_images_within_its_ball_and_alike_for_a_seed(kind):
    generator = torch.Generator().manual_seed(0)
    weights, images = torch.randn(3 * 8 * 8, 5, generator=generator), torch.rand(4, 3, 8, 8, generator=generator)
    model = lambda x: x.flatten(1) @ weights  # noqa: E731
    labels, attack = model(images).argmax(dim=1), Attack.parse(f"{kind}:20/255:3")
    state = torch.get_rng_state()
    delta = attack(model, images, labels, seed=1)
    assert torch.equal(delta, attack(model, images, labels, seed=1)) and torch.equal(state, torch.get_rng_state())
    largest = 31 * attack.eps if kind == "pyramid" else attack.eps
    assert delta.abs().max() <= largest * 1.001 + 1e-6
    assert ((images + delta > -1e-6) & (images + delta < 1 + 1e-6)).all()


def test_a_radius_beyond_an_images_length_is_refused_where_the_images_are_known():
    with pytest.raises(InputError, match="got 20"):
        Attack.parse("pgd:20:norm=l2")(lambda x: x.flatten(1), torch.rand(1, 3, 8, 8), torch.tensor([0]))


def test_pgd_in_words_is_the_brick():
    generator = torch.Generator().manual_seed(0)
    weights, images = torch.randn(3 * 4 * 4, 5, generator=generator), torch.rand(4, 3, 4, 4, generator=generator)
    labels, model = torch.tensor([0, 1, 2, 3]), lambda x: x.flatten(1) @ weights
    ours = Attack.parse("pgd:4/255:10:step=1/255")(model, images, labels, seed=3)
    assert torch.equal(ours, pgd(model, images, labels, 4 / 255, 1 / 255, 10,
                                 generator=torch.Generator().manual_seed(3)))
