"""What is kept and what is gained over a sequence of T tasks.

`accuracy` is (T, T) in percent: row i a task, column t after how many tasks but one; below and on the diagonal are
tasks that were trained.
Source: GEM (Lopez-Paz and Ranzato, NeurIPS 2017), section 3; forgetting as in Chaudhry et al. (ECCV 2018), section 3.1.
"""
from __future__ import annotations

from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def average_accuracy(accuracy: Matrix) -> float:
    """Mean over all tasks after the last one."""
    return sum(row[-1] for row in accuracy) / len(accuracy)


def forgetting(accuracy: Matrix) -> float:
    """Mean over all tasks but the last: the best accuracy since a task was trained, minus that in the end; T >= 2."""
    return sum(max(row[i:]) - row[-1] for i, row in enumerate(accuracy[:-1])) / (len(accuracy) - 1)


def forward_transfer(accuracy: Matrix, untrained: Sequence[float]) -> float:
    """Mean over all tasks but the first: accuracy before a task is trained, minus the untrained model's; T >= 2.

    Args:
        untrained: (T) in percent, of the model before the first task.
    """
    gains = [accuracy[i][i - 1] - untrained[i] for i in range(1, len(accuracy))]
    return sum(gains) / len(gains)
