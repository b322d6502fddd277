"""AutoAttack: four parameter-free attacks, each on the images that all before it left right.

The attacks are the authors' own, in their package pyautoattack (MIT; no requirement besides PyTorch). `torchattacks` is
not used: it pins requests 2.25 and would take other packages back with it, and its AutoAttack is a port of an older
version. `robustbench` brings this same package, with a pinned timm and downloads of models that nothing here needs;
`autoattack` is in no package registry.
Source: Reliable evaluation of adversarial robustness (Croce and Hein, ICML 2020); fra31/auto-attack.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from clip import InputError
from trainers.parts.attacks import LogitsOf, ascent, check_attack, cross_entropies

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")         # of RobustBench, in its order
ATTACKS = ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")
_NORMS = {"linf": "Linf", "l2": "L2"}
_CLASSES = {"apgd-dlr": 3, "apgd-t": 4, "fab-t": 2}         # that an attack's loss takes at least
_TARGETS = 9


def autoattack(logits_of: LogitsOf, images: Tensor, labels: Tensor, eps: float, norm: str = "linf",
               attacks: Sequence[str] = STANDARD, *, steps: int = 100, queries: int = 5000, seed: int = 0,
               batch_size: int = 250) -> Tensor:
    """A perturbation that makes the answer wrong, for each image where one of the attacks finds one; else 0.

    Args:
        logits_of: images in [0, 1] to logits (B, C). images: (B, 3, H, W) in [0, 1]. labels: (B,).
        attacks: of ATTACKS, in their order; the standard ones have up to 9 targets, as many as there are other classes.
        steps: of each attack by gradients (published: 100). queries: of square (published: 5000).
        seed: of all draws, which are its own.
    Returns:
        (B, 3, H, W) inside the ball, and `images + it` inside [0, 1].
    Raises:
        InputError: as `trainers.parts.attacks.pgd`; an attack that does not exist, or needs more classes.
        ModuleNotFoundError: without the package.
    """
    if not attacks or (unknown := [name for name in attacks if name not in ATTACKS]):
        raise InputError(f"AutoAttack's parts are {', '.join(ATTACKS)}, got {unknown[0] if attacks else 'none'}.")
    check_attack(images, eps, norm, min(steps, queries), eps or 1.0)
    made = _library()
    with torch.no_grad():
        classes = logits_of(images[:1]).shape[1]
    if few := [name for name in attacks if classes < _CLASSES.get(name, 2)]:
        raise InputError(f"{few[0]} compares an image's best classes, at least {_CLASSES.get(few[0], 2)}, and there "
                         f"are {classes}. Choose among "
                         f"{', '.join(name for name in ATTACKS if classes >= _CLASSES.get(name, 2))}.")
    if any(name != "square" for name in attacks):
        ascent(logits_of, images[:1], labels[:1], cross_entropies)          # refuses a model without a gradient
    if eps == 0:
        return torch.zeros_like(images)
    run = made(_Model(logits_of), attacks=list(attacks), device=images.device, eps=eps, norm=_NORMS[norm], seed=seed,
               version="custom")
    run.verbose, run.logger = False, _quiet()
    # As in the library's own "standard" version, which the name of an attack does not set.
    run.apgd.n_restarts = run.fab.n_restarts = run.apgd_targeted.n_restarts = 1
    run.apgd_targeted.n_target_classes = run.fab.n_target_classes = min(_TARGETS, classes - 1)
    run.apgd.n_iter = run.apgd_targeted.n_iter = run.fab.n_iter = steps
    run.square.n_queries = queries
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        attacked, _ = run.run_standard_evaluation(images, labels, batch_size=batch_size)
    return (attacked - images).detach()


class _Model(nn.Module):
    """`logits_of` as the module that the library asks for."""

    def __init__(self, logits_of: LogitsOf):
        super().__init__()
        self.logits_of = logits_of

    def forward(self, images: Tensor) -> Tensor:
        return self.logits_of(images)


def _quiet() -> logging.Logger:
    logger = logging.getLogger("trainers.autoattack")
    logger.setLevel(logging.WARNING)
    return logger


def _library() -> Callable:
    try:
        from pyautoattack import AutoAttack
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("AutoAttack needs the package pyautoattack, which is not installed: pip install "
                                  "pyautoattack", name="pyautoattack") from error
    return AutoAttack
