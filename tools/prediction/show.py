"""Predictions as a table for people, as JSON and as CSV."""
from __future__ import annotations

import json
from collections.abc import Sequence

from tabulate import tabulate

from dassl.evaluation.predictions import table as csv_table
from tools.prediction.classifier import Prediction, Unreadable

Answer = Prediction | Unreadable


def as_table(answers: Sequence[Answer]) -> str:
    """A row for each image, the classes that come next in one column."""
    rows = [(a.image, a.label, _percent(a.confidence),
             ", ".join(f"{name} {_percent(c)}" for name, c in a.top[1:])) for a in answers if isinstance(a, Prediction)]
    header = ["image", "class", "confidence", "runner-up"]
    if not any(row[3] for row in rows):
        header, rows = header[:3], [row[:3] for row in rows]
    return tabulate(rows, header, disable_numparse=True, colalign=("left", "left", "right", "left")[:len(header)]) \
        if rows else ""


def as_json(answers: Sequence[Answer]) -> str:
    """A list with an object for each image: image, class, confidence in [0, 1], top; or image and error."""
    return json.dumps([a.as_dict() if isinstance(a, Prediction) else {"image": a.image, "error": a.reason}
                       for a in answers], indent=2, ensure_ascii=False)


def as_csv(answers: Sequence[Answer]) -> str:
    """A row for each image: path, predicted, confidence in [0, 1], the next classes likewise, and an error or nothing.

    Columns are named as in predictions.csv.
    """
    k = max((len(a.top) for a in answers if isinstance(a, Prediction)), default=1)
    columns = [name for i in range(1, k + 1) for name in (_numbered("predicted", i), _numbered("confidence", i))]
    rows = []
    for a in answers:
        if isinstance(a, Prediction):
            rows.append([a.image, *(cell for name, c in a.top for cell in (name, f"{c:.6f}")), ""])
        else:
            rows.append([a.image, *[""] * 2 * k, a.reason])
    return csv_table(["path", *columns, "error"], rows).rstrip("\n")


def _numbered(name: str, i: int) -> str:
    return name if i == 1 else f"{name}_{i}"


def _percent(confidence: float) -> str:
    return f"{100 * confidence:.1f} %"
