"""Learning rates per epoch: the authors' numbers, and formulas written out here."""

import json
import math
from pathlib import Path

import pytest
import torch

from dassl.config import get_cfg_default, merge_opts
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import UserError

# Origin: Dassl.pytorch c61a1b5 run for 50 epochs, see tests/golden/README.md.
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lr_schedules.json").read_text())
LR, CONS, LEAST, GAMMA, EPOCHS = 0.02, 1e-5, 3e-5, 0.3, 12


def optim_cfg(**keys):
    cfg = get_cfg_default()
    merge_opts(cfg, [x for k, v in {"NAME": "sgd", **keys}.items() for x in (f"OPTIM.{k}", v)])
    return cfg.OPTIM


def rates(c, epochs=None, groups=None):
    """lr of each epoch, and after the last."""
    optimizer = build_optimizer(groups or [torch.nn.Parameter(torch.zeros(1))], c)
    scheduler = build_lr_scheduler(optimizer, c)
    found = []
    for _ in range((epochs or c.MAX_EPOCH) + 1):
        found.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found if groups else [r[0] for r in found]


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_rates_equal_dassls_epoch_by_epoch(name):
    theirs = GOLDEN[name]
    ours = rates(optim_cfg(**theirs["optim"]))
    assert len(theirs["lr_per_epoch"]) == 50
    assert ours == pytest.approx([*theirs["lr_per_epoch"], theirs["lr_after_last"]], abs=1e-12, rel=0)


def warm(kind, epoch, warmup):
    if kind == "constant":
        return CONS
    return LEAST if epoch == 0 else LR * epoch / warmup


def cosine(epoch, warmup, recount):
    half = lambda t: 1 + math.cos(math.pi * t / EPOCHS)  # noqa: E731
    return LR * (half(epoch - warmup) / 2 if recount else half(epoch) / half(warmup))


def steps(milestones):
    def rate(epoch, warmup, recount):
        passed = [m for m in milestones if (m <= epoch - warmup if recount else warmup < m <= epoch)]
        return LR * GAMMA ** len(passed)

    return rate


@pytest.mark.parametrize("warmup", [1, 3])
@pytest.mark.parametrize("recount", [True, False])
@pytest.mark.parametrize("kind", ["constant", "linear"])
@pytest.mark.parametrize(
    "scheduler, stepsize, formula",
    [
        ("cosine", (-1,), cosine),
        ("multi_step", (4, 6, 9), steps((4, 6, 9))),
        ("single_step", (9, 4), steps((4, 8, 12))),
    ],
)
def test_warm_up_goes_before_any_schedule(scheduler, stepsize, formula, kind, recount, warmup):
    c = optim_cfg(
        LR=LR,
        MAX_EPOCH=EPOCHS,
        LR_SCHEDULER=scheduler,
        STEPSIZE=stepsize,
        GAMMA=GAMMA,
        WARMUP_EPOCH=warmup,
        WARMUP_TYPE=kind,
        WARMUP_CONS_LR=CONS,
        WARMUP_MIN_LR=LEAST,
        WARMUP_RECOUNT=recount,
    )
    expected = [warm(kind, e, warmup) if e < warmup else formula(e, warmup, recount) for e in range(EPOCHS)]
    assert rates(c)[:-1] == pytest.approx(expected, abs=1e-12, rel=0)


@pytest.mark.parametrize(
    "stepsize, expected",
    [
        ((-1,), [LR] * 5 + [LR * GAMMA]),
        ((0,), [LR] * 5 + [LR * GAMMA]),
        ((2,), [LR, LR, LR * GAMMA, LR * GAMMA, LR * GAMMA**2, LR * GAMMA**2]),
    ],
)
def test_single_step_without_a_size_waits_until_the_end(stepsize, expected):
    c = optim_cfg(LR=LR, MAX_EPOCH=5, LR_SCHEDULER="single_step", STEPSIZE=stepsize, GAMMA=GAMMA)
    assert rates(c) == pytest.approx(expected, abs=1e-12)


def test_groups_keep_their_ratio_except_in_a_constant_warm_up():
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1 * LR},
        {"params": [torch.nn.Parameter(torch.zeros(1))]},
    ]
    c = optim_cfg(
        LR=LR, MAX_EPOCH=6, LR_SCHEDULER="cosine", WARMUP_EPOCH=2, WARMUP_TYPE="constant", WARMUP_CONS_LR=CONS
    )
    found = rates(c, groups=groups)
    assert found[0] == found[1] == [CONS, CONS]
    assert all(slow == pytest.approx(0.1 * fast) for slow, fast in found[2:])


@pytest.mark.parametrize("scheduler", ["cosine", "multi_step", "single_step"])
@pytest.mark.parametrize("warmup", [-1, 2])
@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_saved_schedule_continues_as_if_never_stopped(scheduler, warmup, stop, tmp_path):
    c = optim_cfg(LR=LR, MAX_EPOCH=9, LR_SCHEDULER=scheduler, STEPSIZE=(3, 6), GAMMA=GAMMA, WARMUP_EPOCH=warmup)
    whole = rates(c)

    def build():
        optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(1))], c)
        return optimizer, build_lr_scheduler(optimizer, c)

    optimizer, schedule = build()
    for _ in range(stop):
        optimizer.step()
        schedule.step()
    torch.save([optimizer.state_dict(), schedule.state_dict()], tmp_path / "state")
    optimizer, schedule = build()
    states = torch.load(tmp_path / "state", weights_only=True)  # plain data, or this refuses it
    for owner, state in zip((optimizer, schedule), states):
        owner.load_state_dict(state)
    for expected in whole[stop:]:
        assert optimizer.param_groups[0]["lr"] == expected
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    "keys, message",
    [
        (dict(LR_SCHEDULER="cosin"), "cosine"),
        (dict(WARMUP_EPOCH=1, WARMUP_TYPE="lin"), "linear"),
        (dict(NAME="sdg"), "sgd"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(keys, message):
    c = optim_cfg(**keys)
    with pytest.raises(UserError, match=message):
        build_lr_scheduler(build_optimizer([torch.nn.Parameter(torch.zeros(1))], c), c)
