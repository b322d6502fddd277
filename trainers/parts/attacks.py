"""Attacks on images in [0, 1], before the normalisation: usable in training and in evaluation.

Each takes the whole model as `logits_of`, its prompts and its normalisation included, and leaves no gradient on it.
AutoAttack is in attacks_auto.py, the attack at several scales in attacks_pyramid.py.
Source: PGD (Madry et al., ICLR 2018), and the margin of CW (Carlini and Wagner, 2017), as TeCoA (Mao et al., ICLR 2023)
runs them, 1243db6, attacks.py; momentum as in FARE (Schlarmann et al., ICML 2024), 7de10ee, train/pgd_train.py.
"""
from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import InputError
from trainers.parts import devices

NORMS = ("linf", "l2")
LogitsOf = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def pgd(logits_of: LogitsOf, images: Tensor, labels: Tensor, eps: float, step_size: float, steps: int,
        norm: str = "linf", start: Tensor | None = None, loss: Loss = F.cross_entropy, *, targeted: bool = False,
        restarts: int = 1, momentum: float = 0.0, cut: bool = True, where: Tensor | None = None,
        partners: Sequence[Tensor] = (), partner_rate: float = 0.0,
        generator: torch.Generator | None = None) -> Tensor:
    """A perturbation that raises the loss, by projected gradient ascent. No gradient reaches any parameter.

    Args:
        logits_of: images in [0, 1] to logits (B, C), or to whatever `loss` takes.
        images: (B, 3, H, W) in [0, 1]. labels: (B,); classes to be avoided, or reached if `targeted`.
        eps: radius of the ball: largest change of a number ("linf"), or length of an image's change ("l2").
        start: (B, 3, H, W) first perturbation; drawn by default, see `first_perturbation`.
        loss: of (logits, labels), () or (B,); it is lowered if `targeted`.
        restarts: attacks, each from a draw of its own, of which the best counts for each image; the loss is (B,) then.
        momentum: share of the former direction that is kept.
        cut: whether the perturbation itself is cut to the pixels' range after a step, or only the image that is seen.
        where: (B or 1, 1, H, W) bool, the pixels that may change; all by default.
        partners: parameters that climb at `partner_rate` together with the images, and are put back in the end.
        generator: of the draws; torch's global stream by default.
    Returns:
        (B, 3, H, W) inside the ball, and `images + it` inside [0, 1].
    Raises:
        InputError: an impossible radius, step, number or norm; images outside [0, 1]; a model without a gradient to
            its images.
    """
    check_attack(images, eps, norm, steps, step_size, restarts)
    sign, kept, best = (-1 if targeted else 1), None, None

    def inside(delta: Tensor, cut: bool = cut) -> Tensor:
        return project(delta, images, eps, norm, cut, where)

    for number in range(restarts):
        drawn = first_perturbation(images, eps, norm, generator) if start is None or number else start
        with _put_back(partners):
            delta, velocity = inside(drawn), torch.zeros_like(images)
            for _ in range(steps):
                gradient, *others = ascent(logits_of, (images + delta).clamp(0, 1), labels, loss, sign, partners)
                velocity = direction(momentum * velocity + direction(gradient, norm), norm) if momentum else \
                    direction(gradient, norm)
                delta = inside(delta + step_size * velocity)
                with torch.no_grad():
                    for partner, own in zip(partners, others, strict=True):
                        partner.add_(own, alpha=partner_rate)
        delta = inside(delta, True)
        if restarts == 1:
            return delta
        with torch.no_grad():
            found = sign * each(loss, logits_of(images + delta), labels)
        kept, best = (delta, found) if kept is None else better(found, best, delta, kept)
    return kept


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter of the model requires a gradient inside, so that an attack records its images alone."""
    learned = [p for p in model.parameters() if p.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def _put_back(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Their values are the former ones afterwards."""
    before = [p.detach().clone() for p in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def better(found: Tensor, best: Tensor, delta: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """For each image the perturbation with the larger loss, and that loss (B,)."""
    return torch.where((found > best).view(-1, 1, 1, 1), delta, kept), torch.maximum(found, best)


def ascent(logits_of: LogitsOf, seen: Tensor, labels: Tensor, loss: Loss, sign: int = 1,
           partners: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
    """`sign` times the gradient of the loss to the images `seen`, and to `partners`; nothing is left on the model.

    Raises:
        InputError: the loss does not depend on the images by way of a gradient.
    """
    with torch.enable_grad():
        seen = seen.detach().requires_grad_()
        value = loss(logits_of(seen), labels)
        if value.requires_grad:
            found = torch.autograd.grad(value.sum(), (seen, *partners), allow_unused=True)
            if found[0] is not None:
                return tuple(torch.zeros_like(p) if g is None else sign * g
                             for p, g in zip((seen, *partners), found, strict=True))
    raise InputError("This model gives no gradient to its images, so it cannot be attacked by gradients. It may learn "
                     "while it is tested, or answer from kept features.")


def margin(logits: Tensor, labels: Tensor, kappa: float = 50.0) -> Tensor:
    """(B,) CW's loss: minus how far the label's logit is above all others, as long as that is more than -kappa."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return -F.relu(own - others + kappa)


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) the cross-entropy of each image."""
    return F.cross_entropy(logits, labels, reduction="none")


def random_search(logits_of: LogitsOf, images: Tensor, labels: Tensor, eps: float, tries: int, norm: str = "linf",
                  generator: torch.Generator | None = None) -> Tensor:
    """(B, 3, H, W) the best of some random perturbations at the edge of the ball, for each image; without a gradient.

    An attack by gradients that it beats was misled by them.
    """
    check_attack(images, eps, norm, tries, eps or 1.0)
    kept, best = torch.zeros_like(images), torch.full((len(images),), -torch.inf, device=images.device)
    for _ in range(tries):
        drawn = torch.randn(images.shape, generator=generator, dtype=images.dtype,
                            device=generator.device if generator else images.device).to(images.device)
        delta = project(eps * direction(drawn, norm), images, eps, norm)
        with torch.no_grad():
            found = cross_entropies(logits_of(images + delta), labels)
        kept, best = better(found, best, delta, kept)
    return kept


def first_perturbation(images: Tensor, eps: float, norm: str, generator: torch.Generator | None = None) -> Tensor:
    """Uniform in the cube ("linf"); of a uniform length in a normal direction ("l2"), as TeCoA draws them."""
    if norm == "linf":
        return (2 * _uniform(images, generator) - 1) * eps
    delta = torch.randn_like(images) if generator is None else torch.empty_like(images).normal_(generator=generator)
    lengths = lengths_of(delta)
    return delta * _uniform(lengths, generator) / lengths * eps


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """In [0, 1). Without a generator by the `*_like` draw, which is a whole batch's in several processes."""
    return torch.rand_like(like) if generator is None else torch.empty_like(like).uniform_(generator=generator)


def direction(gradient: Tensor, norm: str) -> Tensor:
    """The steepest one of length 1 in that norm."""
    return gradient.sign() if norm == "linf" else gradient / (lengths_of(gradient) + 1e-10)


def project(delta: Tensor, images: Tensor, eps: float, norm: str, cut: bool = True,
            where: Tensor | None = None) -> Tensor:
    """The nearest perturbation in the ball, then `cut` so that the images stay in [0, 1]; 0 but `where` it may act."""
    delta = delta.clamp(-eps, eps) if norm == "linf" else \
        delta * (eps / lengths_of(delta).clamp(min=1e-12)).clamp(max=1)
    delta = delta if where is None else delta * where
    return torch.maximum(torch.minimum(delta, 1 - images), -images) if cut else delta


def lengths_of(x: Tensor) -> Tensor:
    """(B, ...) -> (B, 1, 1, 1)."""
    return x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def check_attack(images: Tensor, eps: float, norm: str, steps: int, step_size: float, restarts: int = 1) -> None:
    """Raises InputError for what no attack can be made of; pixels are looked at where that waits for no device."""
    if norm not in NORMS:
        raise InputError(f"A perturbation is bounded in {' or '.join(NORMS)}, got {norm!r}.")
    if devices.reading_is_free(images):
        check_pixels(images)
    largest = 1.0 if norm == "linf" else math.sqrt(images[0].numel())
    if not 0 <= eps <= largest:
        raise InputError(f"An attack's radius must be from 0 to {largest:g}, the range of "
                         f"{'a pixel' if norm == 'linf' else 'an image'}, got {eps:g}. Radii are often given in units "
                         "of 1/255: 4/255 is 0.0157.")
    if not step_size > 0 or steps < 1 or restarts < 1:
        raise InputError("An attack needs a step size above 0, at least 1 step and at least 1 start, got step size "
                         f"{step_size:g}, {steps} steps and {restarts} starts.")


def check_pixels(images: Tensor) -> None:
    """Raises InputError for images outside [0, 1], as normalised ones are."""
    low, high = (value.item() for value in images.aminmax())
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        raise InputError(f"An attack changes pixels in [0, 1], got values from {low:.3g} to {high:.3g}: these images "
                         "are normalised already. Give it images as they are before that.")


def each(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) the loss of each image.

    Raises:
        InputError: a loss that gives one number for all.
    """
    values = cross_entropies(logits, labels) if loss is F.cross_entropy else loss(logits, labels)
    if values.shape != labels.shape:
        raise InputError(f"Several starts are compared by the loss of each image, ({len(labels)},), and this loss "
                         f"gives {tuple(values.shape)}.")
    return values
