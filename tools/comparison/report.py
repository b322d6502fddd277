"""A comparison in words, and as JSON."""
from __future__ import annotations

import re
import textwrap
from dataclasses import asdict

from tabulate import tabulate

from tools.tables.formats import rounded

from .differ import Comparison, Measure
from .sides import Side

WIDTH, LEAST = 150, 24                      # of the table of differences, and of a column of values in it
REASONS = ("What is not recorded can be the reason: the order of sums on a GPU or with other numbers of threads, "
           "images that have changed under their names, changes of the code that were not committed.")


def text(comparison: Comparison, classes: int) -> str:
    """Everything, the verdict last; `classes`: how many of them are shown."""
    names = [side.name for side in comparison.sides]
    parts = ["\n".join(f"{side.name}  {_side(side)}" for side in comparison.sides)]
    if comparison.differences:
        width = max(LEAST, (WIDTH - 40) // len(names))
        lines = [[d.group if d.effect else f"{d.group} (no effect)", d.what, *(_cell(v, width) for v in d.values)]
                 for d in comparison.differences]
        parts.append(tabulate(lines, ["", "what differs", *names], disable_numparse=True))
    if comparison.metrics:
        parts.append(_measures("results, percent (nll: nats)", comparison.metrics, names))
    if comparison.measured:
        parts.append(_measures("measured", comparison.measured, names, 1))
    if classes and comparison.per_class:
        shown = comparison.per_class[:classes]
        more = len(comparison.per_class) - len(shown)
        rest = f"\n... and {more} more: --classes {len(comparison.per_class)}" if more > 0 else ""
        parts.append(_measures("accuracy by class", shown, names, 1) + rest)
    if comparison.images and comparison.images["otherwise"]:
        n = comparison.images
        parts.append(f"Of {n['images']:,} images {n['otherwise']:,} were answered otherwise by {names[1]}: "
                     f"{n['now right']:,} now right, {n['now wrong']:,} now wrong, "
                     f"{n['otherwise'] - n['now right'] - n['now wrong']:,} wrong in another way.")
    notes = []
    if comparison.unknown:
        notes.append(f"Not recorded on every side, and so not compared: {', '.join(comparison.unknown)}.")
    if comparison.others:
        notes.append(f"{len(comparison.others)} settings of other trainers are known to some sides only.")
    return "\n\n".join([*parts, *notes, " ".join([verdict(comparison), *over_seeds(comparison)])])


def over_seeds(comparison: Comparison) -> list[str]:
    """Of each side whether the difference of its first metric from the first side is within the spread over seeds."""
    if not comparison.metrics or comparison.equal_results:
        return []
    name = comparison.metrics[0].name
    found = [paired for paired in comparison.paired if paired.metric == name]
    if not found:
        few = "only one seed is on all sides" if comparison.several else "single runs were named, no folders of seeds"
        return [f"Whether that is within the spread over seeds cannot be said: {few}."]
    first = comparison.sides[0].name
    return [f"{one.side} - {first}: {name} {rounded(one.mean, 2, signed=True)} ± {one.std:.2f}, paired over seeds "
            f"{' '.join(map(str, one.differences))}, p = {one.p_value:.2g}: "
            f"{'within' if one.within_spread else 'more than'} the spread over seeds." for one in found]


def verdict(comparison: Comparison) -> str:
    """One paragraph: what differs, what follows."""
    groups = [d.group for d in comparison.differences if d.effect]
    count = "1 thing differs" if len(groups) == 1 else f"{len(groups)} things differ"
    if comparison.unfinished:
        start = f"{', '.join(comparison.unfinished)} has no result: not ended, or not tested. "
        return start + ("Nothing else that is recorded differs." if comparison.same else f"{count} in addition.")
    if comparison.same and comparison.equal_results:
        return "Nothing that is recorded differs, and the results are equal to the last digit."
    if comparison.same:
        accuracy = comparison.metrics[0]
        values = " and ".join("-" if mean is None else f"{mean:.2f}" for mean in accuracy.means)
        return f"Nothing that is recorded differs but the numbers: {accuracy.name} {values}. {REASONS}"
    if comparison.equal_results:
        return f"{count}, and yet the results are equal to the last digit."
    return f"{count} ({', '.join(dict.fromkeys(groups))}), and so do the results."


def as_json(comparison: Comparison) -> dict:
    """The whole comparison, numbers unrounded."""
    parts = {"differences": comparison.differences, "metrics": comparison.metrics, "measured": comparison.measured,
             "per_class": comparison.per_class, "paired": comparison.paired}
    return {
        "sides": [{"name": side.name, "folder": str(side.folder), "seeds": sorted(side.runs)}
                  for side in comparison.sides],
        **{name: list(map(asdict, part)) for name, part in parts.items()},
        "not_recorded": comparison.unknown, "unfinished": comparison.unfinished,
        "settings_of_other_trainers": comparison.others, "images": comparison.images,
        "same": comparison.same, "equal_results": comparison.equal_results, "verdict": verdict(comparison)}


def _measures(title: str, measures: list[Measure], names: list[str], digits: int = 2) -> str:
    head = [title, *names, *(f"{name} - {names[0]}" for name in names[1:])]
    lines = [[m.name, *(_number(mean, spread, digits) for mean, spread in zip(m.means, m.stds)),
              *("-" if d is None else rounded(d, digits, signed=True) for d in m.differences[1:])]
             for m in measures]
    return tabulate(lines, head, disable_numparse=True, colalign=["left"] + ["right"] * (len(head) - 1))


def _number(mean: float | None, spread: float | None, digits: int) -> str:
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _side(side: Side) -> str:
    if not side.several:
        return str(side.folder)
    seeds = sorted(side.runs)
    return f"{side.folder}, seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))}"


def _cell(value: str, width: int) -> str:
    """Hashes are cut, as git does; the rest is wrapped."""
    value = re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30,}\b", r"\1", value)
    return "\n".join(textwrap.wrap(value, width)) if len(value) > width else value
