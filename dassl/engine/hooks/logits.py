"""TEST.SAVE_LOGITS: what a test computed of every image, as arrays in logits.npz."""
from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dassl.files.whole import write_whole

from . import Hook

logger = logging.getLogger(__name__)

FILE = "logits.npz"


class SaveLogits(Hook):
    """Collects a final test and writes it, in the order of the split.

    The arrays: logits (N, C) float32, labels (N,) int64, paths (N,) and classnames (C,) text; features (N, D) float32,
    of the images as the head sees them, where the model gives one per image (several processes do not share theirs).
    """

    def __init__(self):
        self._rows, self._watched = None, None

    def before_test(self, trainer, final: bool) -> None:
        self.stop()
        if final and trainer.cfg.TEST.get("SAVE_LOGITS", False):
            self._rows: list[tuple] | None = []
            self._features: Tensor | None = None
            if isinstance(model := getattr(trainer, "model", None), torch.nn.Module):
                self._watched = model.register_forward_hook(self._see)

    def _see(self, model, args, output) -> None:
        """Keep the features that the model found last; an `Output` of trainers.parts.prompted_model has them."""
        self._features = getattr(output, "image_features", None)

    def answered(self, trainer, batch, output, label) -> None:
        if self._rows is None:
            return
        scores = output[0] if isinstance(output, (tuple, list)) else output
        paths = batch.get("impath", ()) if isinstance(batch, dict) else ()
        if not isinstance(scores, Tensor) or scores.dim() != 2 or not len(paths) == len(scores) == len(label):
            logger.warning("No %s: this trainer's outputs are not one row of scores for each image", FILE)
            self.stop()
            return
        seen, self._features = self._features, None
        fits = isinstance(seen, Tensor) and seen.dim() == 2 and len(seen) == len(label)
        first = sum(len(row[1]) for row in self._rows)
        index = torch.as_tensor(batch.get("index", range(first, first + len(label))))
        self._rows.append((index.cpu(), label.cpu(), scores.detach().float().cpu(), list(map(str, paths)),
                           seen.detach().float().cpu() if fits else None))

    def tested(self, trainer, split: str, results: dict[str, float]) -> None:
        if self._rows:
            index, labels, logits, paths, features = zip(*self._rows, strict=True)
            order = torch.cat(index).argsort()
            names = [str(trainer.lab2cname.get(label, label)) for label in range(logits[0].shape[1])]
            arrays = {"logits": torch.cat(logits)[order].numpy(), "labels": torch.cat(labels)[order].numpy(),
                      "paths": np.array(sum(paths, []))[order.numpy()], "classnames": np.array(names)}
            if all(part is not None for part in features):
                arrays["features"] = torch.cat(features)[order].numpy()
            file = io.BytesIO()
            np.savez(file, **arrays)
            write_whole(Path(trainer.output_dir, FILE), file.getvalue())
            logger.info("%s has %s of %d images", FILE, ", ".join(arrays), len(order))
        self.stop()

    def stop(self) -> None:
        """Forget what was collected, and watch the model no longer."""
        if self._watched is not None:
            self._watched.remove()
        self._rows = self._watched = None
