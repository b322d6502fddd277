"""Accuracy on each task after each task of a run whose classes arrived one after the other."""
from __future__ import annotations

from matplotlib.figure import Figure

from dassl.utils import UserError
from tools.runs.run import Run

from .matrix import draw_matrix
from .style import Theme


def draw(run: Run, theme: Theme) -> Figure:
    """The matrix of results.json: rows are tasks, columns the untrained model and then the state after each task.

    Raises:
        UserError: the run has no such matrix.
    """
    found = run.record.get("tasks")
    if not found:
        raise UserError(f"{run.folder} has no tasks one after the other in its results.json. A sweep with --protocol "
                        "incremental makes such runs, or TRAIN.TASKS 5.")
    T = len(found["accuracy"])
    values = [[before, *row] for before, row in zip(found["untrained"], found["accuracy"], strict=True)]
    return draw_matrix(values, [f"task {i + 1}" for i in range(T)], ["none", *map(str, range(1, T + 1))],
                       f"{run.trainer} on {run.dataset_name}", rows="tested", columns="after task", theme=theme)
