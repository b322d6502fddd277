"""predictions.csv: what a run said of every image that it was tested on."""
from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping

from torch import Tensor

from dassl.utils.tools import write_text

logger = logging.getLogger(__name__)

FILE = "predictions.csv"
HEADER = ("path", "true", "predicted", "confidence", "correct")


class Predictions:
    """The answers of one pass over a split, batch by batch.

    Attributes:
        rows: (index in the split, path, true label, predicted label, its softmax in [0, 1]) of every image so far.
    """

    def __init__(self):
        self.rows: list[tuple[int, str, int, int, float]] = []
        self._whole = True

    def add(self, batch: Mapping, output: Tensor | tuple, label: Tensor) -> None:
        """A batch with "impath" and perhaps "index", scores (B, C) (of a tuple the first item) and labels (B,).

        Anything else, which a trainer with an evaluator of its own may use, leaves this pass without a file.
        """
        scores = output[0] if isinstance(output, (tuple, list)) else output
        paths = batch.get("impath", ()) if isinstance(batch, Mapping) else ()
        if not (isinstance(scores, Tensor) and scores.dim() == 2 and isinstance(label, Tensor) and label.dim() == 1
                and len(paths) == len(scores) == len(label)):
            self._whole = False
            return
        predicted = scores.argmax(dim=1)                                          # (B,), as the evaluator decides
        confidence = scores.float().softmax(dim=1).gather(1, predicted[:, None]).squeeze(1)       # (B,)
        index = batch.get("index", range(len(self.rows), len(self.rows) + len(paths)))
        numbers = [index.tolist() if isinstance(index, Tensor) else list(index)]
        numbers += [values.tolist() for values in (label, predicted, confidence)]
        self.rows += [(i, str(path), t, p, c) for path, i, t, p, c in zip(paths, *numbers, strict=True)]

    def write(self, path: str, names: Mapping[int, str]) -> bool:
        """Write the file, whole or not at all, in the order of the split; False where a batch could not be added.

        Args:
            names: of the labels; a label without one stands for itself.
        """
        if not self._whole or not self.rows:
            logger.info("No %s: this trainer's outputs are not one row of scores for each image", FILE)
            return False
        rows = [(path_, names.get(t, t), names.get(p, p), f"{confidence:.6f}", int(t == p))
                for _, path_, t, p, confidence in sorted(self.rows)]
        write_text(table(HEADER, rows), path)
        return True


def table(header, rows) -> str:
    """CSV of texts and numbers that a spreadsheet shows as they are.

    A text that it would take for a formula, and one that begins with an apostrophe, gets an apostrophe in front.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(header)
    lines.writerows([_plain(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()


_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def _plain(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_STARTS) else cell
