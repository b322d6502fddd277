"""Learning rates per epoch: equal to Dassl's, to closed formulas, and after saving and loading."""
import json
import math
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler
from dassl.utils import UserError


def optim_cfg(**changes):
    c = get_cfg_default().OPTIM
    for key, value in changes.items():
        c[key] = tuple(value) if isinstance(value, list) else value
    return c


def build(c):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=c.LR)
    return optimizer, build_lr_scheduler(optimizer, c)


def step(optimizer, scheduler):
    optimizer.step()
    scheduler.step()


def rates(c, epochs):
    optimizer, scheduler = build(c)
    values = []
    for _ in range(epochs):
        values.append(optimizer.param_groups[0]["lr"])
        step(optimizer, scheduler)
    return values


def scheduled(c, t):
    """The rate of the schedule itself at its own epoch t, in closed form."""
    if c.LR_SCHEDULER == "cosine":
        return 0.5 * c.LR * (1 + math.cos(math.pi * t / c.MAX_EPOCH))
    if c.LR_SCHEDULER == "multi_step":
        return c.LR * c.GAMMA ** sum(t >= m for m in c.STEPSIZE)
    length = c.STEPSIZE[-1] if c.STEPSIZE[-1] > 0 else c.MAX_EPOCH
    return c.LR * c.GAMMA ** (t // length)


def literal(c, epoch):
    """The rate in `epoch` (from 0), warm-up included; the schedule counts from 0 after it."""
    W = c.WARMUP_EPOCH
    if W <= 0:
        return scheduled(c, epoch)
    if epoch >= W:
        return scheduled(c, epoch - W)
    if c.WARMUP_TYPE == "constant":
        return c.WARMUP_CONS_LR
    return c.WARMUP_MIN_LR if epoch == 0 else c.LR * epoch / W


def test_rates_equal_dassls_to_1e_12(request):
    path = request.config.rootpath / "tests" / "golden" / "lr_schedules.json"
    cases = json.loads(path.read_text())
    assert len(cases) == 2
    for case in cases.values():
        ours = rates(optim_cfg(**case["optim"]), len(case["lr_per_epoch"]) + 1)
        assert ours == pytest.approx([*case["lr_per_epoch"], case["lr_after_last"]], abs=1e-12, rel=0)


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(["single_step", "multi_step", "cosine"]), warmup=st.integers(0, 4),
       kind=st.sampled_from(["constant", "linear"]), epochs=st.integers(3, 20), lr=st.floats(1e-4, 10),
       stepsize=st.sampled_from([(-1,), (0,), (3,), (2, 5), (4, 6, 9)]))
def test_rates_follow_the_closed_formula_of_every_schedule_and_warm_up(name, warmup, kind, epochs, lr, stepsize):
    if name == "multi_step" and stepsize[0] < 1:
        stepsize = (3, 7)
    c = optim_cfg(LR_SCHEDULER=name, WARMUP_EPOCH=warmup, WARMUP_TYPE=kind, MAX_EPOCH=epochs, LR=lr, STEPSIZE=stepsize)
    assert rates(c, epochs) == pytest.approx([literal(c, e) for e in range(epochs)], rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("warmup", [1, 3])
@pytest.mark.parametrize("kind", ["constant", "linear"])
@pytest.mark.parametrize("name, stepsize", [("multi_step", (4, 6, 9)), ("single_step", (4,))])
def test_steps_without_recount_stand_where_they_would_without_a_warm_up(name, stepsize, kind, warmup):
    c = optim_cfg(LR_SCHEDULER=name, STEPSIZE=stepsize, MAX_EPOCH=12, LR=1.0, WARMUP_EPOCH=warmup, WARMUP_TYPE=kind,
                  WARMUP_RECOUNT=False)
    first = [1e-5] * warmup if kind == "constant" else [1e-5, *(e / warmup for e in range(1, warmup))]
    steps = stepsize if name == "multi_step" else (4, 8)
    after = [0.1 ** sum(warmup < s <= epoch for s in steps) for epoch in range(warmup, 12)]
    assert rates(c, 12) == pytest.approx([*first, *after], rel=1e-12)


def test_cosine_without_recount_goes_on_from_the_full_rate_as_dassls_recursion_does():
    """torch: lr(t) = lr(t-1) (1 + cos(pi t / T)) / (1 + cos(pi (t-1) / T)), a recursion; Dassl only moves t."""
    W, T = 2, 10
    c = optim_cfg(LR_SCHEDULER="cosine", MAX_EPOCH=T, LR=1.0, WARMUP_EPOCH=W, WARMUP_TYPE="constant",
                  WARMUP_RECOUNT=False)
    expected = [1e-5, 1e-5, 1.0]
    for t in range(W + 1, T - 2):
        expected.append(expected[-1] * (1 + math.cos(math.pi * t / T)) / (1 + math.cos(math.pi * (t - 1) / T)))
    assert rates(c, len(expected)) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(["single_step", "multi_step", "cosine"]), warmup=st.integers(0, 4),
       kind=st.sampled_from(["constant", "linear"]), recount=st.booleans(), at=st.integers(0, 9))
def test_a_schedule_loaded_midway_continues_exactly(name, warmup, kind, recount, at):
    c = optim_cfg(LR_SCHEDULER=name, WARMUP_EPOCH=warmup, WARMUP_TYPE=kind, WARMUP_RECOUNT=recount, STEPSIZE=(2, 5),
                  MAX_EPOCH=10, LR=0.7)
    optimizer, scheduler = build(c)
    for _ in range(at):
        step(optimizer, scheduler)
    saved = pickle.dumps((optimizer.state_dict(), scheduler.state_dict()))
    assert b"dassl" not in saved                                     # plain data: no object of ours is pickled
    fresh, resumed = build(c)
    of_optimizer, of_scheduler = pickle.loads(saved)
    fresh.load_state_dict(of_optimizer)
    resumed.load_state_dict(of_scheduler)
    for _ in range(10 - at):
        assert fresh.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
        step(optimizer, scheduler)
        step(fresh, resumed)
    assert resumed.get_last_lr() == scheduler.get_last_lr()


@pytest.mark.parametrize("kind", ["constant", "linear"])
def test_rates_of_parameter_groups_keep_their_ratio_except_at_the_first_and_in_a_constant_warm_up(kind):
    c = optim_cfg(LR_SCHEDULER="cosine", MAX_EPOCH=6, WARMUP_EPOCH=2, WARMUP_TYPE=kind, LR=1.0)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    scheduler = build_lr_scheduler(optimizer, c)
    for epoch in range(5):
        one, other = (g["lr"] for g in optimizer.param_groups)
        alike = epoch < (2 if kind == "constant" else 1)
        assert other == pytest.approx(one if alike else 0.1 * one)
        step(optimizer, scheduler)


@pytest.mark.parametrize("changes", [
    {"LR_SCHEDULER": "cosine"}, {"LR_SCHEDULER": "single_step", "STEPSIZE": (2,)},
    {"LR_SCHEDULER": "multi_step", "STEPSIZE": (1, 3)}, {"LR_SCHEDULER": "single_step", "STEPSIZE": (-1,)},
    {"LR_SCHEDULER": "cosine", "WARMUP_EPOCH": 2, "WARMUP_TYPE": "constant", "WARMUP_CONS_LR": 0.1}])
def test_a_schedule_per_iteration_counts_each_epoch_as_so_many_steps(changes):
    per_iteration = optim_cfg(MAX_EPOCH=5, **changes)
    counted_out = {**changes, "MAX_EPOCH": 15, "WARMUP_EPOCH": 3 * changes.get("WARMUP_EPOCH", -1)}
    if changes.get("STEPSIZE", (-1,))[0] > 0:
        counted_out["STEPSIZE"] = tuple(3 * epoch for epoch in changes["STEPSIZE"])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=per_iteration.LR)
    scheduler, seen = build_lr_scheduler(optimizer, per_iteration, steps_per_epoch=3), []
    for _ in range(15):
        seen.append(optimizer.param_groups[0]["lr"])
        step(optimizer, scheduler)
    assert seen == rates(optim_cfg(**counted_out), 15)


def test_training_with_a_schedule_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rates(optim_cfg(LR_SCHEDULER="cosine", WARMUP_EPOCH=1, WARMUP_TYPE="constant"), 10)


@pytest.mark.parametrize("change, told", [
    ({"LR_SCHEDULER": "cosin"}, "got 'cosin'. Did you mean cosine?"),
    ({"WARMUP_EPOCH": 1, "WARMUP_TYPE": "slow"}, '"constant" or "linear", got \'slow\''),
    ({"LR_SCHEDULER": "multi_step", "STEPSIZE": 3}, "list epochs for multi_step, e.g. (30, 60), got 3"),
])
def test_an_unknown_schedule_is_named_with_the_known_ones(change, told):
    with pytest.raises(UserError) as error:
        build(optim_cfg(**change))
    assert told in str(error.value)


@pytest.mark.parametrize("warmup", ["constant", "linear"])
def test_the_patch_that_clones_bring_for_newer_pytorch_changes_no_rate(monkeypatch, warmup):
    """Dassl 0.6.3 passes `verbose` on, which PyTorch no longer takes; clones replace that constructor by this one."""
    from dassl.optim import lr_scheduler

    def patched(self, optimizer, successor, warmup_epoch, last_epoch=-1, verbose=False):
        self.successor, self.warmup_epoch = successor, warmup_epoch
        lr_scheduler._LRScheduler.__init__(self, optimizer, last_epoch)

    c = optim_cfg(LR=0.1, MAX_EPOCH=5, LR_SCHEDULER="cosine", WARMUP_EPOCH=2, WARMUP_TYPE=warmup)
    expected = rates(c, 5)
    monkeypatch.setattr(lr_scheduler._BaseWarmupScheduler, "__init__", patched)
    assert rates(c, 5) == expected
