"""A classifier of images: reads and transforms them as the run's test did, and says classes with confidences."""
from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
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
        classnames: C names, in the order of the logits.
        infer: images (B, 3, H, W), transformed and on the device, to logits (B, C).
        transform: PIL image to (3, H, W), or to views (V, 3, H, W) where `infer` takes these.
        batch_size: images at once.
        device: of the model.
        facts: what is known of its origin: trainer, dataset, backbone ...; plain data.
        model: the `PromptedModel` that gives the logits; None where they are more than its forward pass.
        autocast: context manager of the model's precision.
    """

    def __init__(self, classnames: list[str], infer: Callable[[Tensor], Tensor], transform, batch_size: int,
                 device: torch.device, facts: dict, model: torch.nn.Module | None,
                 autocast: Callable[[], AbstractContextManager] = nullcontext):
        self.classnames, self.facts, self.device, self.model = list(classnames), facts, device, model
        self.transform, self.batch_size, self._infer, self._autocast = transform, batch_size, infer, autocast
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
            raise UserError(f"topk and batch_size must be at least 1, got {topk} and "
                            f"{batch_size or self.batch_size}.")
        named = ((image, sources.name_of(image, place)) for place, image in enumerate(sources.as_list(images)))
        with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as readers:
            def start(image, name: str) -> tuple[str, Future]:
                return name, readers.submit(self._prepare, image, name)

            for batch in _one_ahead(_chunks(itertools.starmap(start, named), batch_size or self.batch_size)):
                ready = {place: future.result() for place, (_, future) in enumerate(batch) if not future.exception()}
                logits = iter(self._logits(torch.stack(list(ready.values())))) if ready else iter(())
                for place, (name, future) in enumerate(batch):
                    if place in ready:
                        yield Prediction(name, self._top(next(logits), topk))
                    else:
                        yield Unreadable(name, _reason(future))

    def prepare(self, images) -> Tensor:
        """Images as `predict` takes them -> (B, 3, H, W) float32 on the CPU, transformed as in the run's test.

        Raises:
            UserError: an image that cannot be read; names it.
        """
        return torch.stack([self._prepare(image, sources.name_of(image, place))
                            for place, image in enumerate(sources.as_list(images))])

    def logits(self, images) -> Tensor:
        """(B, C) float32 on the CPU, as the run's test computes them; their softmax is the confidence.

        Args:
            images: as `predict` takes them, or a tensor (B, 3, H, W) of `prepare`.
        Raises:
            UserError: logits that are NaN; an image that cannot be read.
        """
        return self._in_batches(self._logits, images)

    def image_features(self, images) -> Tensor:
        """(B, D) unit norm, float32 on the CPU, with the run's visual prompts; see `PromptedModel` for other shapes.

        Args:
            images: as `logits` takes them.
        Raises:
            UserError: the method's answer is more than one pass through its model.
        """
        return self._in_batches(lambda batch: self._features(lambda model: model.image_features(batch)), images)

    def text_features(self) -> Tensor:
        """(C, D) unit norm, float32 on the CPU; (P, C, D) for P prompts, (C, m, D) for m descriptions of each class.

        Raises:
            UserError: the method compares images with no text, with one that depends on the image (CoCoOp), or its
                answer is more than one pass through its model.
        """
        if getattr(self.model and self.model.brick("text"), "conditional", False):
            raise UserError(f"The text of {self.facts['trainer']} depends on the image.\n"
                            "Take classifier.model(images).text_features.")
        return self._features(lambda model: model.text_features())

    def _in_batches(self, compute: Callable[[Tensor], Tensor], images) -> Tensor:
        if not (isinstance(images, Tensor) and images.ndim >= 4):
            images = sources.as_list(images)
        batches = [images[i:i + self.batch_size] for i in range(0, len(images), self.batch_size)]
        if not batches:
            raise UserError("There are no images to look at, got an empty list.")
        return torch.cat([compute((batch if isinstance(batch, Tensor) else self.prepare(batch)).to(self.device))
                          for batch in batches])

    @torch.no_grad()
    def _features(self, compute: Callable[[torch.nn.Module], Tensor | None]) -> Tensor:
        if self.model is None:
            raise UserError(f"{self.facts['trainer']} answers with more than one pass through its model, so it has no "
                            "features of an image or a class. Use logits or predict.")
        with self._autocast():
            features = compute(self.model)
        if features is None:
            raise UserError(f"{self.facts['trainer']} compares images with no text, so it has no text features.")
        return features.float().cpu()

    @torch.no_grad()
    def _logits(self, images: Tensor) -> Tensor:
        """Transformed images (B, 3, H, W) -> (B, C) float32 on the CPU."""
        out = self._infer(images.to(self.device))
        logits = (out[0] if isinstance(out, (tuple, list)) else out).float().cpu()
        if logits.isnan().any():
            raise UserError("The logits are NaN: something that was loaded or learned is not finite.\n"
                            "Take an earlier checkpoint with --epoch, or other weights.")
        return logits

    def _prepare(self, image, name: str) -> Tensor:
        image = sources.read(image, name)
        if not getattr(self.transform, "draws", False):
            return self.transform(image)
        with self._drawing, torch.random.fork_rng(devices=[]):      # alike for each image
            torch.random.default_generator.manual_seed(0)
            return self.transform(image)

    def _top(self, logits: Tensor, k: int) -> tuple[tuple[str, float], ...]:
        order = logits.argsort(descending=True, stable=True)[:k]
        confidence = logits.softmax(dim=0)
        return tuple((self.classnames[c], confidence[c].item()) for c in order.tolist())


def _reason(future: Future) -> str:
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
