"""Optimisers by name, their settings, and layers with rates of their own."""

import pytest
import torch
from torch import nn

from dassl.config import get_cfg_default, merge_opts
from dassl.optim import build_optimizer
from dassl.optim.radam import RAdam
from dassl.utils import UserError


def optim_cfg(*opts):
    cfg = get_cfg_default()
    merge_opts(cfg, ["OPTIM.LR", 0.1, "OPTIM.WEIGHT_DECAY", 0.01, *opts])
    return cfg.OPTIM


@pytest.mark.parametrize(
    "name, kind, settings",
    [
        ("sgd", torch.optim.SGD, dict(momentum=0.9, dampening=0, nesterov=False)),
        ("adam", torch.optim.Adam, dict(betas=(0.9, 0.999), amsgrad=False)),
        ("amsgrad", torch.optim.Adam, dict(betas=(0.9, 0.999), amsgrad=True)),
        ("adamw", torch.optim.AdamW, dict(betas=(0.9, 0.999))),
        ("rmsprop", torch.optim.RMSprop, dict(alpha=0.99, momentum=0.9)),
        ("radam", RAdam, dict(betas=(0.9, 0.999))),
    ],
)
def test_a_name_gives_its_optimiser_with_the_configs_settings(name, kind, settings):
    optimizer = build_optimizer(nn.Linear(2, 2), optim_cfg("OPTIM.NAME", name))
    assert type(optimizer) is kind
    expected = dict(lr=0.1, weight_decay=0.01, **settings)
    assert {k: optimizer.defaults[k] for k in expected} == expected


def test_sgd_steps_as_its_formula_says():
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = build_optimizer([weight], optim_cfg("OPTIM.NAME", "sgd"))
    value, velocity = weight.detach().clone(), torch.zeros(2)
    for _ in range(4):
        optimizer.zero_grad()
        (weight**3).sum().backward()
        optimizer.step()
        velocity = 0.9 * velocity + (3 * value**2 + 0.01 * value)
        value = value - 0.1 * velocity
    torch.testing.assert_close(weight.detach(), value)


def test_radam_steps_as_the_paper_says_with_decay_on_the_weights():
    """Source: Liu et al., ICLR 2020, algorithm 2; decay and the first steps as in the authors' code."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = build_optimizer([weight], optim_cfg("OPTIM.NAME", "radam"))
    value = weight.detach().clone()
    first = second = torch.zeros(2, dtype=torch.float64)
    b1, b2, lr = 0.9, 0.999, 0.1
    longest = 2 / (1 - b2) - 1
    for t in range(1, 9):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
        gradient = 2 * value
        first, second = b1 * first + (1 - b1) * gradient, b2 * second + (1 - b2) * gradient**2
        value = value * (1 - lr * 0.01)
        unbiased, length = first / (1 - b1**t), longest - 2 * t * b2**t / (1 - b2**t)
        if length > 5:
            rectified = ((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) ** 0.5
            value = value - lr * rectified * unbiased * (1 - b2**t) ** 0.5 / (second.sqrt() + 1e-8)
        else:
            value = value - lr * unbiased
    torch.testing.assert_close(weight.detach(), value, rtol=1e-9, atol=1e-12)


def test_staged_rates_slow_all_layers_but_the_new_ones():
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "neck": nn.Linear(2, 2), "head": nn.Linear(2, 3)})
    staged = ("OPTIM.STAGED_LR", True, "OPTIM.NEW_LAYERS", ("head",), "OPTIM.BASE_LR_MULT", 0.5)
    slow, fast = build_optimizer(model, optim_cfg(*staged)).param_groups
    assert (slow["lr"], fast["lr"]) == (0.05, 0.1)
    assert {id(p) for p in fast["params"]} == {id(p) for p in model["head"].parameters()}
    assert len(slow["params"]) == 4


def test_a_new_layer_that_does_not_exist_is_named():
    staged = optim_cfg("OPTIM.STAGED_LR", True, "OPTIM.NEW_LAYERS", ("haed",))
    with pytest.raises(UserError, match="haed.*head"):
        build_optimizer(nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 3)}), staged)


def test_given_groups_and_bare_parameters_are_taken_as_they_are():
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    groups = build_optimizer(None, optim_cfg(), param_groups=[{"params": [a], "lr": 0.7}, {"params": [b]}]).param_groups
    assert [g["lr"] for g in groups] == [0.7, 0.1]
    assert build_optimizer(iter([a, b]), optim_cfg()).param_groups[0]["params"] == [a, b]


def test_nothing_to_learn_is_said_so():
    with pytest.raises(UserError, match="no parameters"):
        build_optimizer(nn.Identity(), optim_cfg())
