"""Learning rates per epoch, equal to Dassl 0.6.3's, that can be saved and resumed.

The warm-up schedulers hold the schedule that follows them. Dassl pickled that object whole, so a resumed run stepped a
copy that was tied to the old optimiser and its rate froze; here its numbers are saved and loaded in place.
"""
from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR, StepLR

from dassl.compat.passed_on import passed_on
from dassl.utils.errors import UserError
from dassl.utils.registry import nearest

__getattr__ = passed_on(__name__)

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]


class _BaseWarmupScheduler(LRScheduler):
    """`warmup_lr()`, rates by group at `last_epoch` < warmup_epoch, for the first epochs, then those of `successor`."""

    def __init__(self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, last_epoch: int = -1):
        self.successor, self.warmup_epoch = successor, warmup_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self.successor.get_last_lr() if self.last_epoch >= self.warmup_epoch else self.warmup_lr()

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step()
            self._last_lr = self.successor.get_last_lr()
        else:
            super().step()

    def state_dict(self) -> dict:
        own = {k: v for k, v in self.__dict__.items() if k in _PLAIN}
        return {**own, "successor": {k: v for k, v in self.successor.state_dict().items() if _is_plain(v)}}

    def load_state_dict(self, state_dict: dict) -> None:
        self.successor.load_state_dict(state_dict["successor"])
        self.__dict__.update({k: v for k, v in state_dict.items() if k in _PLAIN})


_PLAIN = ("base_lrs", "last_epoch", "_step_count", "_last_lr", "warmup_epoch", "cons_lr", "min_lr")


def _is_plain(value) -> bool:
    return isinstance(value, (int, float, str, list, tuple, dict, type(None)))


class ConstantWarmupScheduler(_BaseWarmupScheduler):
    """`cons_lr` for the first `warmup_epoch` epochs."""

    def __init__(self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, cons_lr: float,
                 last_epoch: int = -1, verbose: bool = False):
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[float]:
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(_BaseWarmupScheduler):
    """`min_lr` in the first epoch, then epoch / warmup_epoch of each group's rate."""

    def __init__(self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, min_lr: float,
                 last_epoch: int = -1, verbose: bool = False):
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def build_lr_scheduler(optimizer: Optimizer, optim_cfg, steps_per_epoch: int = 1) -> LRScheduler:
    """The schedule that `optim_cfg.LR_SCHEDULER` names.

    With WARMUP_EPOCH > 0 it is preceded by a warm-up; with WARMUP_RECOUNT its own count begins after that.

    Args:
        steps_per_epoch: how often the caller steps it in an epoch: 1, or the number of batches for a schedule per
            iteration. Epochs of the config count as so many steps.
    """
    name, max_epoch = optim_cfg.LR_SCHEDULER, optim_cfg.MAX_EPOCH * steps_per_epoch
    warmup, stepsize = optim_cfg.WARMUP_EPOCH * steps_per_epoch, optim_cfg.STEPSIZE
    if name not in AVAI_SCHEDS:
        raise UserError(f"OPTIM.LR_SCHEDULER must be one of {', '.join(AVAI_SCHEDS)}, got {name!r}."
                        f"{nearest(name, AVAI_SCHEDS)}")
    if optim_cfg.get("WARMUP_STEPS", 0):
        return _after_rising(optimizer, optim_cfg, max_epoch)
    if name == "single_step":
        step = stepsize[-1] if isinstance(stepsize, (list, tuple)) else stepsize
        scheduler = StepLR(optimizer, step * steps_per_epoch if step > 0 else max_epoch, gamma=optim_cfg.GAMMA)
    elif name == "multi_step":
        if not isinstance(stepsize, (list, tuple)):
            raise UserError(f"OPTIM.STEPSIZE must list epochs for multi_step, e.g. (30, 60), got {stepsize!r}.")
        scheduler = MultiStepLR(optimizer, milestones=[epoch * steps_per_epoch for epoch in stepsize],
                                gamma=optim_cfg.GAMMA)
    else:
        scheduler = CosineAnnealingLR(optimizer, float(max_epoch), optim_cfg.get("MIN_LR", 0.0))
    if warmup <= 0:
        return scheduler
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = warmup
    if optim_cfg.WARMUP_TYPE == "constant":
        return ConstantWarmupScheduler(optimizer, scheduler, warmup, optim_cfg.WARMUP_CONS_LR)
    if optim_cfg.WARMUP_TYPE == "linear":
        return LinearWarmupScheduler(optimizer, scheduler, warmup, optim_cfg.WARMUP_MIN_LR)
    raise UserError(f'OPTIM.WARMUP_TYPE must be "constant" or "linear", got {optim_cfg.WARMUP_TYPE!r}.')


def _after_rising(optimizer: Optimizer, optim_cfg, steps: int) -> LRScheduler:
    """(step + 1) / warm-up of the rate, then half a cosine over what is left, to 0.

    Source: WiSE-FT (Wortsman et al., CVPR 2022), src/models/utils.py cosine_lr; TeCoA and FARE have the same.
    """
    warmup = optim_cfg.WARMUP_STEPS
    if not 0 < warmup < steps or optim_cfg.WARMUP_EPOCH > 0 or optim_cfg.LR_SCHEDULER != "cosine":
        raise UserError(f"OPTIM.WARMUP_STEPS must be less than the {steps} steps of a cosine schedule without "
                        f"OPTIM.WARMUP_EPOCH, got {warmup} of {optim_cfg.LR_SCHEDULER!r} with WARMUP_EPOCH "
                        f"{optim_cfg.WARMUP_EPOCH}. 0 leaves it out.")

    def share(step: int) -> float:
        done = (step - warmup) / (steps - warmup)
        return (step + 1) / warmup if step < warmup else (1 + math.cos(math.pi * done)) / 2

    return LambdaLR(optimizer, share)
