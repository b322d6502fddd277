"""What a search found: the best settings as a recipe and as a config, a table of all trials, and their history."""
from __future__ import annotations

import ast
import contextlib
import csv
import itertools
from collections.abc import Mapping
from pathlib import Path

import yaml

from dassl.files.whole import write_whole
from tools.runs.cell import CONFIGS, EPOCHS, Cell, RecipeError
from tools.tuning.space import Range
from tools.tuning.study import counted
from tools.tuning.trials import SPLIT

RECIPE, CONFIG, TABLE, FIGURE = "best.yaml", "best_config.yaml", "trials.csv", "history.png"


def rows(study, ranges: list[Range]) -> list[list]:
    """Number, settings, validation accuracy or "-", state and validations of each trial; the best first."""
    trials = sorted(counted(study), key=lambda trial: (trial.value is None or trial.state.name != "COMPLETE",
                                                       -(trial.value or 0), trial.number))
    states = {"COMPLETE": "finished", "PRUNED": "ended early", "FAIL": "failed", "RUNNING": "running"}
    return [[trial.number + 1, *(each.text(trial.params[each.key]) for each in ranges),
             f"{trial.value:.1f}" if trial.state.name == "COMPLETE" else "-", states[trial.state.name],
             max(trial.intermediate_values, default="-")] for trial in trials]


def write(folder: Path, study, ranges: list[Range], cell: Cell, seeds: list[int],
          final: Mapping[str, object] | None = None) -> str:
    """Write the four files; returns what the console shows.

    Args:
        final: options of the runs with the best settings that the trials did not have.
    Raises:
        RecipeError: no trial has finished.
    """
    from tabulate import tabulate

    from tools.plotting.style import THEMES
    from tools.plotting.style import write as write_figure

    lines = rows(study, ranges)
    if not any(line[-2] == "finished" for line in lines):
        raise RecipeError(f"None of the {len(lines)} trials has finished, so there are no best settings. The logs in "
                          f"{folder / 'runs'} say why; a narrower range may help.")
    best = {each.key: _decoded(each.text(study.best_params[each.key])) for each in ranges}
    best |= final or {}
    head = ["trial", *(each.key for each in ranges), "validation accuracy", "state", "last validated epoch"]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / TABLE, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *lines])
    _dump(folder / RECIPE, recipe(cell, best, seeds), f"The best of {len(lines)} trials on {cell.dataset}: "
          f"{study.best_value:.1f} % on validation images, chosen on these.")
    _dump(folder / CONFIG, config(cell, best), f"{cell.config_file.name} with the same settings, for --config-file.")
    write_figure(lambda theme: _history(study, theme), folder / FIGURE, THEMES["light"])
    return tabulate(lines, headers=head, disable_numparse=True)


def recipe(cell: Cell, best: dict, seeds: list[int]) -> dict:
    """The content of a recipe with these settings, for the cell's dataset and number of shots."""
    opts = {key: value for key, value in {**cell.opts, **best}.items() if key not in (EPOCHS, SPLIT)}
    epochs = int(best.get(EPOCHS, cell.max_epoch) or 0)
    row = {"opts": opts, **({"epochs": epochs} if epochs else {})}
    path = cell.config_file.absolute()
    ours = path.parent == CONFIGS / "trainers" / cell.trainer
    return {"trainer": cell.trainer, "config": path.stem if ours else str(path), "seeds": seeds,
            "shots": [cell.shots or 16], "default": row,
            "datasets": {} if cell.own else {cell.dataset: {**row, "opts": dict(opts)}}}


def config(cell: Cell, best: dict) -> dict:
    """The trainer yaml's content with all options of the cell and these settings."""
    content = yaml.safe_load(cell.config_file.read_text(encoding="utf-8")) or {}
    for key, value in {**cell.opts, **best}.items():
        if key == SPLIT:
            continue
        node, (*sections, name) = content, key.split(".")
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = _decoded(value)
    return content


def _decoded(value):
    """An option's text as the config takes it: a number, a tuple ..., or a word."""
    if not isinstance(value, str):
        return value
    with contextlib.suppress(ValueError, SyntaxError):
        value = ast.literal_eval(value)
    return list(value) if isinstance(value, tuple) else value


def _dump(path: Path, content: dict, remark: str) -> None:
    write_whole(path, f"# {remark}\n{yaml.safe_dump(content, sort_keys=False)}")


def _history(study, theme):
    """The figure: each trial's accuracy in the order of the trials, and the best so far."""
    from tools.plotting.style import sheet

    done = [trial for trial in counted(study) if trial.state.name == "COMPLETE"]
    early = {trial.number + 1: max(trial.intermediate_values.items())[1] for trial in counted(study)
             if trial.state.name == "PRUNED" and trial.intermediate_values}
    figure = sheet(theme, 6.4, 3.6)
    axes = figure.subplots()
    first, second = theme.colours(2)
    numbers, values = [trial.number + 1 for trial in done], [trial.value for trial in done]
    axes.step(numbers, list(itertools.accumulate(values, max)), where="post", color=second, label="best so far")
    axes.scatter(numbers, values, color=first, label="finished", zorder=3)
    if early:
        axes.scatter(list(early), list(early.values()), color=first, marker="x", label="ended early")
    axes.set(xlabel="trial", ylabel="validation accuracy (%)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return figure
