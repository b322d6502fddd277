"""A run's accuracy on images that are clean, attacked, covered or shuffled; images pass as the run's test read them."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.errors import refusal_as_user_error
from trainers.parts.attack_names import Attack, in_255
from trainers.parts.attacks import pgd
from trainers.under_attack import Attackable

from . import masking, patches

Change = Callable[[Tensor, Tensor, int], Tensor]        # pixels, labels, number of the batch -> pixels
KEEP = 2 ** 30                                          # bytes of images
PATCH = (1.0, 0.05, 40)                                 # radius, step and steps of the attack in a patch


class Images:
    """Of one split, in [0, 1], with labels. They are kept where they fit in KEEP bytes, else read at each pass.

    Args:
        limit: how many, taken evenly over the split; None: all.
    """

    def __init__(self, model: Attackable, loader, limit: int | None):
        count = len(loader.dataset)
        self.model, self.loader, self._kept = model, loader, None
        self._chosen = set(torch.linspace(0, count - 1, min(limit or count, count)).round().long().tolist())

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def first(self) -> tuple[Tensor, Tensor]:
        """The first batch: pixels (B, 3, H, W) and labels (B,)."""
        return next(self.batches())

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._kept is not None:
            yield from self._kept
            return
        kept, size = [], 0
        for batch in self._read():
            size += batch[0].numel() * batch[0].element_size()
            kept = [*kept, batch] if size <= KEEP else []
            yield batch
        self._kept = kept if size <= KEEP else None

    def _read(self) -> Iterator[tuple[Tensor, Tensor]]:
        start, trainer = 0, self.model.trainer
        # Of ours as the loader gives them, whatever TEST.ATTACK the run was tested under.
        parse = super(PromptTrainer, trainer).parse_batch_test if isinstance(trainer, PromptTrainer) \
            else trainer.parse_batch_test
        for images, labels in map(parse, self.loader):
            rows = [row for row in range(len(labels)) if start + row in self._chosen]
            start += len(labels)
            if rows:
                yield self.model.pixels(images[rows]), labels[rows]

    def accuracy(self, change: Change | None = None, answer: Callable[[Tensor], Tensor] | None = None) -> float:
        """Percent, of images that were changed; of the model, or of what else gives logits."""
        right, answer = 0, answer or self.model
        for number, (pixels, labels) in enumerate(self.batches()):
            seen = pixels if change is None else change(pixels, labels, number)
            with torch.no_grad():
                right += (answer(seen).argmax(dim=1) == labels).sum().item()
        return 100 * right / len(self)


def attacked(images: Images, attack: Attack, seed: int) -> dict:
    """What the record says of an attack."""
    model = images.model

    def change(pixels: Tensor, labels: Tensor, number: int) -> Tensor:
        return pixels + attack(model, pixels, labels, seed + number)

    with refusal_as_user_error(), model.frozen():
        found = {"accuracy": images.accuracy(change), "what": attack.words, "kind": attack.kind, "norm": attack.norm,
                 "eps": in_255(attack.eps) if attack.norm == "linf" else attack.eps, "steps": attack.steps,
                 "seed": seed}
        if attack.kind in ("pgd", "cw"):
            found["check"] = masking.check(model, attack, *images.first, seed)
    return found


def occluded(images: Images, kind: str, shares: list[float], seed: int) -> dict[str, float]:
    """Accuracy by share of the cells that are black, "random" or "salient" ones."""
    model, side = images.model, grid_of(images)
    orders = []
    with model.frozen():
        for number, (pixels, _) in enumerate(images.batches()):
            orders.append(patches.random_order(pixels, side, seed + number) if kind == "random" else
                          patches.salient_order(model, pixels, side))
    return {f"{share:g}": images.accuracy(lambda pixels, _, number, share=share:
                                          patches.occlude(pixels, orders[number], share)) for share in shares}


def shuffled(images: Images, counts: list[int], seed: int) -> dict[str, float]:
    """Accuracy by number of pieces."""
    return {str(count): images.accuracy(lambda pixels, _, number, count=count:
                                        patches.shuffle(pixels, count, seed + number)) for count in counts}


def patched(images: Images, shares: list[float], seed: int) -> dict[str, float]:
    """Accuracy by share of the image that an attack may change as it likes: a square at a place drawn for each."""
    def change(pixels: Tensor, labels: Tensor, number: int, share: float) -> Tensor:
        generator = torch.Generator(pixels.device).manual_seed(seed + number)
        return pixels + pgd(images.model, pixels, labels, *PATCH, where=patches.square(pixels, share, seed + number),
                            generator=generator)

    with refusal_as_user_error(), images.model.frozen():
        return {f"{share:g}": images.accuracy(lambda *a, share=share: change(*a, share)) for share in shares}


def grid_of(images: Images) -> int:
    """Cells a side: the tower's patches, or 14 where it has none."""
    clip, side = getattr(getattr(images.model.trainer, "model", None), "clip", None), images.first[0].shape[-1]
    return max(1, side // clip.patch_size) if clip is not None and clip.patch_size else min(14, side)


def check_asked(images: Images, occlude: list[tuple[str, list[float]]], pieces: list[int],
                squares: list[float]) -> None:
    """Raises UserError for what these images do not allow, before anything is measured."""
    side = images.first[0].shape[-1]
    if wrong := [share for share in (*(s for _, shares in occlude for s in shares), *squares) if not 0 <= share <= 1]:
        raise UserError(f"A share of an image must be from 0 to 1, got {wrong[0]:g}.")
    if wrong := [share for share in squares if share == 0]:
        raise UserError(f"A patch must be a share of the image above 0, got {wrong[0]:g}.")
    for count in pieces:
        root = round(count ** 0.5)
        if count < 1 or root * root != count or root > side:
            raise UserError(f"Pieces must be a square number of at most {side * side} on images of {side} pixels, as "
                            f"4, 16 or 64, got {count}.")
