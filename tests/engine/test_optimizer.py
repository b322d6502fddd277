"""Optimisers by name, and layers that learn at different rates."""
import pytest
import torch
from torch import nn

from dassl.config import get_cfg_default
from dassl.optim import RAdam, build_optimizer
from dassl.utils import UserError


def optim_cfg(**changes):
    c = get_cfg_default().OPTIM
    for key, value in changes.items():
        c[key] = value
    return c


def two_layers():
    return nn.ModuleDict({"body": nn.Linear(2, 2), "classifier": nn.Linear(2, 2)})


@pytest.mark.parametrize("name, cls, facts", [
    ("sgd", torch.optim.SGD, {"momentum": 0.8, "dampening": 0, "nesterov": False}),
    ("rmsprop", torch.optim.RMSprop, {"momentum": 0.8, "alpha": 0.99}),
    ("adam", torch.optim.Adam, {"betas": (0.7, 0.95), "amsgrad": False}),
    ("amsgrad", torch.optim.Adam, {"betas": (0.7, 0.95), "amsgrad": True}),
    ("adamw", torch.optim.AdamW, {"betas": (0.7, 0.95)}),
    ("radam", RAdam, {"betas": (0.7, 0.95), "decoupled_weight_decay": True}),
])
def test_each_name_gives_its_optimiser_with_the_configs_numbers(name, cls, facts):
    c = optim_cfg(NAME=name, LR=0.3, WEIGHT_DECAY=0.02, MOMENTUM=0.8, ADAM_BETA1=0.7, ADAM_BETA2=0.95)
    optimizer = build_optimizer(two_layers(), c)
    assert type(optimizer) is cls
    group = optimizer.param_groups[0]
    assert {k: group[k] for k in facts} == facts
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.3, 0.02, 4)


def test_sgd_steps_by_the_literal_formula():
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = build_optimizer([weight], optim_cfg(NAME="sgd", LR=0.1, MOMENTUM=0.9, WEIGHT_DECAY=0.5))
    w, velocity = 2.0, 0.0
    for _ in range(4):
        optimizer.zero_grad()
        (3 * weight).sum().backward()
        optimizer.step()
        velocity = 0.9 * velocity + 3 + 0.5 * w
        w -= 0.1 * velocity
        assert weight.item() == pytest.approx(w, rel=1e-12)


def test_radam_follows_the_paper_with_decay_of_the_weights():
    """Liu et al., algorithm 2; for rho <= 5 plain momentum. Dassl's copy shrinks the weights by lr * decay."""
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    lr, decay, b1, b2 = 0.1, 0.01, 0.9, 0.999
    optimizer = build_optimizer([weight], optim_cfg(NAME="radam", LR=lr, WEIGHT_DECAY=decay))
    w, m, v, rho_max = 2.0, 0.0, 0.0, 2 / (1 - b2) - 1
    for t in range(1, 12):
        gradient = 2 * weight.item()
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient ** 2
        rho = rho_max - 2 * t * b2 ** t / (1 - b2 ** t)
        w *= 1 - lr * decay
        step = m / (1 - b1 ** t)
        if rho > 5:
            rectified = ((rho - 4) * (rho - 2) * rho_max / ((rho_max - 4) * (rho_max - 2) * rho)) ** 0.5
            step *= rectified / ((v / (1 - b2 ** t)) ** 0.5 + 1e-8)
        w -= lr * step
        assert weight.item() == pytest.approx(w, rel=1e-6)
    assert rho > 5                                          # both branches were walked


@pytest.mark.parametrize("new_layers", ["classifier", ("classifier",)])
def test_staged_rates_slow_all_layers_but_the_new_ones(new_layers):
    model = two_layers()
    c = optim_cfg(NAME="sgd", LR=0.5, STAGED_LR=True, BASE_LR_MULT=0.01)
    c.NEW_LAYERS = new_layers
    rates = {id(p): g["lr"] for g in build_optimizer(model, c).param_groups for p in g["params"]}
    assert {rates[id(p)] for p in model["body"].parameters()} == {0.005}
    assert {rates[id(p)] for p in model["classifier"].parameters()} == {0.5}


def test_staged_rates_without_new_layers_warn(caplog):
    build_optimizer(two_layers(), optim_cfg(NAME="sgd", STAGED_LR=True))
    assert "OPTIM.NEW_LAYERS is empty" in caplog.text


def test_staged_rates_need_a_module():
    with pytest.raises(TypeError, match="got no module"):
        build_optimizer(list(two_layers().parameters()), optim_cfg(STAGED_LR=True))


def test_given_groups_win_over_the_models_parameters():
    model = two_layers()
    groups = [{"params": list(model["body"].parameters()), "lr": 0.7}]
    optimizer = build_optimizer(model, optim_cfg(NAME="adam"), groups)
    assert [(g["lr"], len(g["params"])) for g in optimizer.param_groups] == [(0.7, 2)]


def test_an_unknown_optimiser_is_told_with_the_nearest():
    with pytest.raises(UserError, match=r"got 'adamv'\. Did you mean adam"):
        build_optimizer(two_layers(), optim_cfg(NAME="adamv"))


def test_a_new_layer_that_does_not_exist_is_named():
    c = optim_cfg(STAGED_LR=True, NEW_LAYERS=("clasifier",))
    with pytest.raises(UserError, match="clasifier.*classifier"):
        build_optimizer(two_layers(), c)


def test_bare_parameters_and_groups_without_a_rate_learn_at_the_configs():
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    groups = build_optimizer(None, optim_cfg(LR=0.1), [{"params": [a], "lr": 0.7}, {"params": [b]}]).param_groups
    assert [g["lr"] for g in groups] == [0.7, 0.1]
    assert build_optimizer(iter([a, b]), optim_cfg()).param_groups[0]["params"] == [a, b]


def test_nothing_to_learn_is_said_so():
    with pytest.raises(UserError, match="no parameters"):
        build_optimizer(nn.Identity(), optim_cfg())
