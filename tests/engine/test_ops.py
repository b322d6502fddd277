"""Layers and losses of generalisation methods, against their formulas written out."""
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from dassl.modeling import ops
from dassl.modeling.ops.utils import (
    create_onehot,
    ema_model_update,
    linear_rampup,
    reverse_index,
    sharpen_prob,
    shuffle_index,
    sigmoid_rampup,
)
from dassl.utils import UserError

MIXERS = [ops.MixStyle, ops.EFDMix]


@pytest.fixture
def maps():
    return torch.randn(6, 3, 4, 5) * torch.arange(1.0, 7)[:, None, None, None]


def literal_mixstyle(x, share, partners, eps=1e-6):
    out = torch.empty_like(x)
    for b in range(len(x)):
        for c in range(x.shape[1]):
            own, other = x[b, c], x[partners[b], c]
            mean = share[b] * own.mean() + (1 - share[b]) * other.mean()
            deviation = share[b] * (own.var() + eps).sqrt() + (1 - share[b]) * (other.var() + eps).sqrt()
            out[b, c] = (own - own.mean()) / (own.var() + eps).sqrt() * deviation + mean
    return out


def literal_efdmix(x, share, partners):
    out = torch.empty_like(x)
    for b in range(len(x)):
        for c in range(x.shape[1]):
            own, other = x[b, c].flatten(), x[partners[b], c].flatten().sort().values
            matched = torch.empty_like(own)
            matched[own.sort().indices] = other
            out[b, c] = (share[b] * own + (1 - share[b]) * matched).view(x.shape[2:])
    return out


@pytest.mark.parametrize(("mixer", "literal"), [(ops.MixStyle, literal_mixstyle), (ops.EFDMix, literal_efdmix)])
def test_styles_are_mixed_as_the_papers_say(mixer, literal, maps):
    share, partners = torch.rand(6), torch.randperm(6)
    ours = mixer().mixed(maps, share[:, None, None, None], partners)
    torch.testing.assert_close(ours, literal(maps, share, partners), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mixer", MIXERS)
def test_styles_mix_in_training_only_with_probability_p_and_while_activated(mixer, maps):
    always, never = mixer(p=1.0, alpha=0.5), mixer(p=0.0)
    assert not torch.equal(always(maps), maps) and torch.equal(never(maps), maps)
    random.seed(1)
    sometimes = mixer(p=0.3, alpha=0.5)
    assert 0.2 < np.mean([not torch.equal(sometimes(maps), maps) for _ in range(300)]) < 0.4
    always.set_activation_status(False)
    assert torch.equal(always(maps), maps)
    always.set_activation_status(True)
    assert torch.equal(always.eval()(maps), maps)


@pytest.mark.parametrize("mixer", MIXERS)
def test_partners_across_domains_are_of_the_other_half(mixer):
    layer = mixer(mix="crossdomain")
    for _ in range(10):
        partners = layer._partners(8)
        assert sorted(partners.tolist()) == list(range(8))
        assert all((i < 4) != (j < 4) for i, j in enumerate(partners.tolist()))
    with pytest.raises(UserError, match="'nearest'"):
        mixer(p=1.0, mix="nearest")(torch.ones(2, 1, 2, 2))


@pytest.mark.parametrize("mixer", MIXERS)
def test_no_gradient_flows_through_the_style(mixer, maps):
    x = maps.clone().requires_grad_()
    layer = mixer(p=1.0, alpha=0.5)
    y = layer.mixed(x, torch.full((6, 1, 1, 1), 0.5), torch.arange(5, -1, -1))
    y.sum().backward()
    if mixer is ops.EFDMix:
        torch.testing.assert_close(x.grad, torch.ones_like(x))
    else:                                       # only the scale of its own normalisation reaches a pixel
        deviation = (maps.var((2, 3)) + 1e-6).sqrt()
        expected = (0.5 * deviation + 0.5 * deviation.flip(0)) / deviation
        torch.testing.assert_close(x.grad, expected[..., None, None].expand_as(x))


@pytest.mark.parametrize(("kind", "with_", "without", "deactivate", "activate", "at_random", "across"), [
    (ops.MixStyle, ops.run_with_mixstyle, ops.run_without_mixstyle, ops.deactivate_mixstyle, ops.activate_mixstyle,
     ops.random_mixstyle, ops.crossdomain_mixstyle),
    (ops.EFDMix, ops.run_with_efdmix, ops.run_without_efdmix, ops.deactivate_efdmix, ops.activate_efdmix,
     ops.random_efdmix, ops.crossdomain_efdmix)])
def test_a_whole_model_is_switched(kind, with_, without, deactivate, activate, at_random, across):
    other = ops.EFDMix() if kind is ops.MixStyle else ops.MixStyle()
    model = nn.Sequential(nn.Sequential(kind(), other), kind())
    mine = [m for m in model.modules() if type(m) is kind]
    with without(model):
        assert not any(m._activated for m in mine) and other._activated
    assert all(m._activated for m in mine)
    model.apply(deactivate)
    with with_(model, mix="crossdomain"):
        assert all(m._activated and m.mix == "crossdomain" for m in mine) and other.mix == "random"
    assert not any(m._activated for m in mine)
    model.apply(activate)
    model.apply(at_random)
    assert all(m._activated and m.mix == "random" for m in mine)
    model.apply(across)
    assert {m.mix for m in mine} == {"crossdomain"} and "mix=crossdomain" in repr(mine[0])


@pytest.mark.parametrize("preserve_order", [False, True])
def test_mixup_weighs_images_and_labels_alike(preserve_order):
    ones, zeros = torch.ones(50, 2, 3, 3), torch.zeros(50, 2, 3, 3)
    y1, y2 = create_onehot(torch.zeros(50, dtype=torch.long), 2), create_onehot(torch.ones(50, dtype=torch.long), 2)
    x, y = ops.mixup(ones, zeros, y1, y2, 0.7, preserve_order)
    share = x[:, 0, 0, 0]
    assert torch.equal(x, share[:, None, None, None].expand_as(x)) and share.unique().numel() == 50
    torch.testing.assert_close(y, torch.stack([share, 1 - share], 1))
    assert (share >= 0.5).all() == preserve_order


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(2, 6), st.sampled_from(["linear", "poly", "rbf"]), st.integers(0, 9))
def test_mmd_is_the_mean_over_all_pairs_of_different_rows(m, n, kernel, seed):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(m, 3, generator=g), torch.randn(n, 3, generator=g)

    def k(a, b):
        return {"linear": lambda: a @ b, "poly": lambda: (a @ b + 2) ** 2,
                "rbf": lambda: sum((-(a - b).square().sum() / (2 * s * s)).exp() for s in (1, 5, 10))}[kernel]()

    def mean(pairs):
        return torch.stack([k(a, b) for a, b in pairs]).mean()

    expected = (mean([(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
                + mean([(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
                - 2 * mean([(a, b) for a in x for b in y]))
    torch.testing.assert_close(ops.MaximumMeanDiscrepancy(kernel)(x, y), expected, atol=1e-4, rtol=1e-4)


def test_transport_plans_have_the_marginals_and_sinkhorns_divergence_vanishes_on_equal_batches():
    x, y = torch.randn(6, 4), torch.randn(4, 4) + 2
    sinkhorn = ops.SinkhornDivergence("euclidean", eps=1.0, max_iter=200)
    cost, plan = sinkhorn.transport_cost(x, y, return_pi=True)
    torch.testing.assert_close(plan.sum(0), torch.full((4,), 1 / 4), atol=1e-3, rtol=0)
    torch.testing.assert_close(plan.sum(1), torch.full((6,), 1 / 6), atol=1e-3, rtol=0)
    torch.testing.assert_close(cost, (plan * torch.cdist(x, y) ** 2).sum())
    assert abs(sinkhorn(x, x.clone())) < 1e-4 < sinkhorn(x, y)
    cost = ops.MinibatchEnergyDistance("euclidean", eps=1.0).transport_cost
    energy = ops.MinibatchEnergyDistance("euclidean", eps=1.0)(x, y)
    halves = [cost(a, b) for a in x.split(3) for b in y.split(2)]
    torch.testing.assert_close(energy, sum(halves) - 2 * cost(x[:3], x[3:]) - 2 * cost(y[:2], y[2:]))


def test_transport_moves_points_to_the_nearest_ones():
    x = torch.tensor([[float(i), 0] for i in range(5)])
    _, plan = ops.SinkhornDivergence("euclidean", eps=0.01, max_iter=5).transport_cost(x, x + torch.tensor([0, 1.0]),
                                                                                       return_pi=True)
    torch.testing.assert_close(plan, torch.eye(5) / 5, atol=1e-4, rtol=0)


def test_reversed_gradients_have_the_other_sign_and_scale():
    x = torch.randn(3, requires_grad=True)
    y = ops.ReverseGrad()(x, grad_scaling=0.25)
    assert torch.equal(y, x)
    (y * torch.tensor([1.0, 2, 3])).sum().backward()
    torch.testing.assert_close(x.grad, -0.25 * torch.tensor([1.0, 2, 3]))
    with pytest.raises(UserError, match="-1"):
        ops.ReverseGrad()(x, -1)


@pytest.mark.parametrize("smooth", [0, 0.2])
def test_smoothed_cross_entropy_gives_every_class_its_share(smooth):
    scores, labels = torch.randn(5, 4), torch.randint(4, (5,))
    target = (1 - smooth) * F.one_hot(labels, 4) + smooth / 4
    rows = -(target * scores.log_softmax(1)).sum(1)
    for reduction, expected in (("none", rows), ("mean", rows.mean()), ("sum", rows.sum())):
        torch.testing.assert_close(ops.cross_entropy(scores, labels, smooth, reduction), expected)


@pytest.mark.parametrize(("kind", "shape"), [(ops.DSBN1d, (8, 3)), (ops.DSBN2d, (8, 3, 2, 2))])
def test_each_domain_has_a_normalisation_of_its_own(kind, shape):
    layer, x = kind(3, n_domain=2), torch.randn(shape) + 5
    layer.select_bn(1)
    torch.testing.assert_close(layer(x).transpose(0, 1).flatten(1).mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    assert torch.equal(layer.bn[0].running_mean, torch.zeros(3)) and (layer.bn[1].running_mean > 0.3).all()
    with pytest.raises(UserError, match="domain_idx=2"):
        layer.select_bn(2)


@pytest.mark.parametrize(("kind", "shape"), [(ops.TransNorm1d, (8, 3)), (ops.TransNorm2d, (8, 3, 2, 2))])
def test_transnorm_normalises_each_half_and_amplifies_channels_that_agree(kind, shape):
    layer, x = kind(3), torch.randn(shape)
    x[4:, 0] += 9                                                   # the domains differ in channel 0 only
    halves = [(h - _per_channel(h, "mean")) / (_per_channel(h, "var") + 1e-5).sqrt() for h in x.chunk(2)]
    ratio = [(_per_channel(h, "mean") / (_per_channel(h, "var") + 1e-5).sqrt()) for h in x.chunk(2)]
    near = 1 / (1 + (ratio[0] - ratio[1]).abs())
    torch.testing.assert_close(layer(x), torch.cat(halves) * (1 + 3 * near / near.sum()), atol=1e-5, rtol=1e-5)
    assert near.flatten()[0] < near.flatten()[1:].min()
    torch.testing.assert_close(layer.running_mean_t, 0.9 * _per_channel(x[4:], "mean").flatten())
    assert layer.eval()(x[:3]).shape == x[:3].shape
    with pytest.raises(UserError, match="halves"):
        layer.train()(x[:5])
    with pytest.raises(UserError, match="dimensions"):
        layer(x[None])


def _per_channel(x, statistic):
    """Mean or (unbiased) variance of every channel, shaped to broadcast over `x`."""
    return getattr(x.transpose(0, 1).flatten(1), statistic)(1).view(1, -1, *[1] * (x.dim() - 2))


def test_a_sequence_of_modules_passes_tuples_on_as_arguments():
    class Sum(nn.Module):
        def forward(self, a, b):
            return a + b

    class Twice(nn.Module):
        def forward(self, a):
            return a, 10 * a

    assert ops.Sequential2(Sum(), Twice(), Sum())(1, 2) == 33


def test_ramps_rise_from_the_start_to_one_and_stay_there():
    assert [linear_rampup(t, 4) for t in (-1, 0, 1, 4, 9)] == [0, 0, 0.25, 1, 1]
    assert sigmoid_rampup(1, 4) == pytest.approx(math.exp(-5 * 0.75 ** 2)) and sigmoid_rampup(9, 4) == 1
    with pytest.raises(UserError, match="0 steps"):
        linear_rampup(1, 0)


def test_labels_and_rows_stay_together():
    data, label = torch.arange(5)[:, None].repeat(1, 2), torch.arange(5)
    for reorder in (reverse_index, shuffle_index):
        rows, labels = reorder(data, label)
        assert torch.equal(rows[:, 0], labels) and sorted(labels.tolist()) == list(range(5))
    assert reverse_index(data, label)[1].tolist() == [4, 3, 2, 1, 0]
    assert torch.equal(create_onehot(torch.tensor([2, 0]), 3), torch.tensor([[0.0, 0, 1], [1, 0, 0]]))
    torch.testing.assert_close(sharpen_prob(torch.tensor([[0.6, 0.4]])), torch.tensor([[0.36, 0.16]]) / 0.52)


def test_an_average_model_moves_by_one_minus_alpha_and_keeps_its_gradients_off():
    model, average = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = [0.9 * a + 0.1 * b for a, b in zip(average.parameters(), model.parameters(), strict=True)]
    ema_model_update(model, average, 0.9)
    for value, wanted in zip(average.parameters(), expected, strict=True):
        torch.testing.assert_close(value, wanted.detach())
        assert value.grad_fn is None
