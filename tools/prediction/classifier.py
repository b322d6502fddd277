"""A classifier of images: reads and transforms them as the run's test did, and says classes with confidences."""
from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from dassl.utils import UserError
from tools.prediction import images as sources

_READERS = 8                            # threads that read and resize images while the model works


@dataclass(frozen=True)
class Prediction:
    """What is said of one image.

    Attributes:
        image: its path, or "image <place in the list>".
        top: (class name, confidence in [0, 1]), the most likely first.
    """

    image: str
    top: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """Name of the most likely class."""
        return self.top[0][0]

    @property
    def confidence(self) -> float:
        return self.top[0][1]

    def as_dict(self) -> dict:
        """Plain data, e.g. for JSON."""
        top = [{"class": name, "confidence": round(confidence, 6)} for name, confidence in self.top]
        return {"image": self.image, **top[0], "top": top}


@dataclass(frozen=True)
class Unreadable:
    """An image about which nothing can be said, and why."""

    image: str
    reason: str


class Classifier:
    """Images to classes.

    Args:
        classnames: C names, in the order of the scores.
        infer: images (B, 3, H, W), transformed and on the device, to scores (B, C).
        transform: PIL image to (3, H, W), or to views (V, 3, H, W) where `infer` takes these.
        batch_size: images at once.
        device: of the model.
        facts: what is known of its origin: trainer, dataset, backbone ...; plain data.
    Attributes:
        model: the `PromptedModel` whose logits are the scores; None where they are more than its forward pass.
    """

    def __init__(self, classnames: list[str], infer: Callable[[Tensor], Tensor], transform, batch_size: int,
                 device: torch.device, facts: dict, model: torch.nn.Module | None):
        self.classnames, self.facts, self.device, self.model = list(classnames), facts, device, model
        self.transform, self.batch_size, self._infer = transform, batch_size, infer
        self._drawing = threading.Lock()

    def predict(self, images, topk: int = 5, batch_size: int | None = None) -> list[Prediction]:
        """What each image shows.

        Args:
            images: a path, a PIL image or an array, or an iterable of these. Arrays are (H, W), (H, W, 3) or
                (H, W, 4), uint8 or floats in [0, 1]; one of four dimensions is a batch of images (B, H, W, 3).
            topk: most likely classes that are named; all of them where there are fewer.
            batch_size: images at once; None: as in the run's test.
        Raises:
            UserError: an image that cannot be read; names it.
        """
        answers = list(self.stream(images, topk, batch_size))
        for answer in answers:
            if isinstance(answer, Unreadable):
                raise UserError(answer.reason)
        return answers

    def stream(self, images, topk: int = 5, batch_size: int | None = None) -> Iterator[Prediction | Unreadable]:
        """Like `predict`, image by image as they are done; those that cannot be read do not stop the others."""
        if topk < 1 or (batch_size is not None and batch_size < 1):
            raise UserError(f"The number of classes to name and of images at once are 1 or more; got {topk} and "
                            f"{batch_size or self.batch_size}.")
        named = ((image, sources.name_of(image, place)) for place, image in enumerate(sources.as_list(images)))
        with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as readers:
            def start(image, name: str) -> tuple[str, Future]:
                return name, readers.submit(self._prepare, image, name)

            for batch in _one_ahead(_chunks(itertools.starmap(start, named), batch_size or self.batch_size)):
                ready = {place: future.result() for place, (_, future) in enumerate(batch) if not future.exception()}
                scores = iter(self.scores(torch.stack(list(ready.values())))) if ready else iter(())
                for place, (name, future) in enumerate(batch):
                    if place in ready:
                        yield Prediction(name, self._top(next(scores), topk))
                    else:
                        yield Unreadable(name, _told(future))

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), transformed, -> (B, C) float32 on the CPU. Raises UserError for scores that are NaN."""
        out = self._infer(images.to(self.device))
        scores = (out[0] if isinstance(out, (tuple, list)) else out).float().cpu()
        if scores.isnan().any():
            raise UserError("The scores are NaN: something that was loaded or learned is not finite. Take an earlier "
                            "checkpoint with --epoch, or other weights.")
        return scores

    def _prepare(self, image, name: str) -> Tensor:
        image = sources.read(image, name)
        if not getattr(self.transform, "draws", False):
            return self.transform(image)
        with self._drawing, torch.random.fork_rng(devices=[]):      # alike for each image
            torch.random.default_generator.manual_seed(0)
            return self.transform(image)

    def _top(self, scores: Tensor, k: int) -> tuple[tuple[str, float], ...]:
        order = scores.argsort(descending=True, stable=True)[:k]
        confidence = scores.softmax(dim=0)
        return tuple((self.classnames[c], confidence[c].item()) for c in order.tolist())


def _told(future: Future) -> str:
    """The reason why an image could not be read; whatever else went wrong is raised."""
    if not isinstance(error := future.exception(), UserError):
        raise error
    return str(error)


def _chunks(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def _one_ahead(chunks: Iterator[list]) -> Iterator[list]:
    """The same chunks, each asked for before the one in front of it is used."""
    ahead = next(chunks, None)
    while ahead is not None:
        now, ahead = ahead, next(chunks, None)
        yield now
