"""The runs that the page looks into: which ones, and for each its pictures and tables."""
from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from torch import Tensor

from dassl.utils import UserError
from tools.runs import inputs
from tools.runs.folder import is_run
from tools.runs.run import Run
from tools.tables import layouts
from tools.tables.formats import rounded
from tools.tables.rows import Row, by, minus

from .. import confusion, curves, embeddings, prm, prompts, reliability, words
from ..measures import MEASURES
from .pictures import Picture, picture
from .tables import Table

logger = logging.getLogger(__name__)

MOST_RUNS = 6
IMAGES = 30                             # of each class, in the maps
HEADER = ("title", "line 0")            # of a run's figures: the page says what is drawn and of which run
WORST, WORDS = 10, 5                    # classes in the list of mistakes; nearest words


@dataclass
class Looked:
    """What the page shows of one run.

    Attributes:
        parts: (heading, picture or None, tables, remark).
        config, command: as text.
    """

    anchor: str
    title: str
    folder: str
    parts: list[tuple[str, Picture | None, list[Table], str]] = field(default_factory=list)
    config: str = ""
    command: str = ""
    record: str = ""


def choose_runs(rows: list[Row], given: Sequence[Path]) -> list[Path]:
    """Folders of the given runs, or of each method on each dataset the one with most shots and the first seed.

    Every method comes with its first dataset before any comes with its second.
    """
    if given:
        return list(given)
    few = [row for row in rows if row.shots is not None and row.found and layouts.protocol_of(row) == "fewshot"]
    turns: dict[tuple, int] = {}
    queue = []
    for (trainer, config, _), own in by(few, lambda row: (row.trainer, row.config, row.dataset)).items():
        turn = turns[trainer, config] = turns.get((trainer, config), -1) + 1
        queue.append((turn, len(queue), max(own, key=lambda row: row.shots)))
    folders = [row.runs[min(row.runs.keys() - set(row.missing))].folder for *_, row in sorted(queue)]
    return [folder for folder in folders if is_run(folder)][:MOST_RUNS]


def look_into(run: Run, number: int, test: bool, say: Callable[[str], None]) -> Looked:
    """All that can be drawn of a run; what cannot be has the reason in its place.

    Args:
        test: also what needs the model and the dataset.
    """
    looked = Looked(f"run-{number}", run.summary, str(run.folder), config=_config(run),
                    command=str(run.record.get("command", "")),
                    record=json.dumps(run.record, indent=2, ensure_ascii=False))
    steps: list[tuple[str, bool, Callable[[], tuple]]] = [
        ("Training curves", True, lambda: _drawn(run, curves.draw, "Training curves")),
        ("Images and class texts, before and after training", test, lambda: _embeddings(run)),
        ("Confusion matrix", test or bool(run.answers), lambda: _confusion(run)),
        ("Reliability diagram", bool(run.answers), lambda: _drawn(
            run, reliability.draw, "Accuracy and confidence of the answers, in bins,")),
        ("Words nearest to the learned context", run.holds("ctx") or run.holds("txt_ctx"), lambda: _words(run)),
        ("Which prompt and which descriptions decide", run.holds("bank.mapping.weights"), lambda: _drawn(
            run, prm.draw, "Weight of every class on every prompt, and the descriptions that weigh most,")),
        ("Learned pixels", test and run.holds("pixel."), lambda: _drawn(
            run, prompts.draw, "Learned pixels, and images under them,"))]
    for heading, wanted, make in steps:
        if not wanted:
            continue
        say(f"{run.trainer} on {run.dataset_name}: {heading[0].lower()}{heading[1:]}")
        try:
            drawn, tables = make()
            looked.parts.append((heading, drawn, tables, ""))
        except UserError as error:
            looked.parts.append((heading, None, [], str(error)))
    return looked


def _drawn(run: Run, draw: Callable, what: str) -> tuple[Picture, list[Table]]:
    return picture(lambda theme: draw(run, theme), f"{what} of {run.summary}.", HEADER), []


def _embeddings(run: Run) -> tuple[Picture, list[Table]]:
    found = embeddings.find(run, images=IMAGES)
    values = embeddings.measure_both(found)
    table = Table("Measured on these features", ["measurement", "before", "after", "change", "meaning"], [], texts=(4,))
    for key, (name, _, meaning) in MEASURES.items():
        before, after = values["before"][key], values["after"][key]
        table.lines.append([name, *("–" if n is None else rounded(n, 3) for n in (before, after)),
                            "–" if (change := minus(after, before)) is None else rounded(change, 3, signed=True),
                            meaning])
    drawn = picture(lambda theme: embeddings.draw(run, theme, images=IMAGES),
                    f"Two maps of {len(found.labels)} images and their class texts: zero-shot CLIP next to "
                    f"{run.trainer}. The table below has the measurements.", HEADER)
    return drawn, [table]


def _confusion(run: Run) -> tuple[Picture, list[Table]]:
    names, counts = confusion.read(run)
    drawn = picture(lambda theme: confusion.draw(run, theme),
                    f"Confusion matrix of {len(names)} classes; the table below lists the worst.", HEADER)
    return drawn, [worst_classes(names, counts)]


def worst_classes(names: Sequence[str], counts: Tensor) -> Table:
    """The classes that are recognised least, and their most frequent mistake; one image alone is none.

    Args:
        counts: (C, C) images by true and predicted class.
    """
    table = Table("Worst classes", ["class", "images", "correct, %", "most often misclassified as"], [], texts=(3,))
    correct = counts.diagonal() / counts.sum(1)
    wrong = [c for c in range(len(names)) if counts[c].sum() > counts[c, c]]
    for c in sorted(wrong, key=lambda c: float(correct[c]))[:WORST]:
        often = confusion.mistakes(names, counts[[c]], 1, [c])
        table.lines.append([names[c], str(int(counts[c].sum())), f"{100 * float(correct[c]):.1f}",
                            f"{often[0][3]} ({often[0][0]} images)" if often else "–"])
    if not table.lines:
        table.notes.append("No image was misclassified.")
    return table


def _words(run: Run) -> tuple[None, list[Table]]:
    found = words.read(run, top=WORDS)
    head, texts = ["position", *(f"{i}." for i in range(1, WORDS + 1))], tuple(range(1, WORDS + 1))
    tables = [Table(name, head, [[str(i), *(f"{word} {distance:.3f}" for word, distance in zip(*row))]
                                 for i, row in enumerate(context, 1)], texts=texts)
              for name, context in found.contexts.items()]
    tables[-1].notes += [words.scale(found), *found.notes]
    return None, tables


def _config(run: Run) -> str:
    parts = [f"# {inputs.FILE}: what the command set", yaml.safe_dump(run.given, sort_keys=False)] if run.given else []
    return "\n".join([*parts, "# config.yaml: all settings", yaml.safe_dump(run.settings, sort_keys=True)])

