"""robustness.json of a run: what was measured, and of what; its table and its figure."""
from __future__ import annotations

import json
import logging
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure
from tabulate import tabulate

from dassl.utils.tools import write_json
from tools.plotting.style import Theme, header, sheet
from tools.runs.run import Run

FILE = "robustness.json"
logger = logging.getLogger(__name__)


def kept(folder: Path, of: dict) -> dict:
    """What robustness.json says already of the same weights and images; empty where it is of others."""
    path = folder / FILE
    try:
        old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError):
        old = {}
    if isinstance(old, dict) and old.get("of") == of:
        return old
    if old:
        logger.warning("%s is of other weights or images and is replaced", path)
    return {}


def save(folder: Path, record: dict) -> Path:
    write_json(record, str(folder / FILE))
    return folder / FILE


def table(records: dict[str, dict]) -> str:
    """One row a run: clean, each attack, mCE, and the rest; percent."""
    attacks = list(dict.fromkeys(record["what"] for r in records.values() for record in r.get("attacks", {}).values()))
    others = [name for name in ("mCE", "corrupted") if any("corruptions" in r for r in records.values())]
    flat = {name: _flat(r) for name, r in records.items()}
    rest = list(dict.fromkeys(key for values in flat.values() for key in values))
    rows = []
    for name, record in records.items():
        by_words = {a["what"]: a["accuracy"] for a in record.get("attacks", {}).values()}
        c = record.get("corruptions", {})
        corrupted = sum(c["accuracy"].values()) / len(c["accuracy"]) if c else None
        values = [record["clean"], *map(by_words.get, attacks), *({"mCE": c.get("mce"), "corrupted": corrupted}[o]
                                                                 for o in others), *map(flat[name].get, rest)]
        rows.append([name, *("" if value is None else f"{value:.1f}" for value in values)])
    columns = ["", "clean", *attacks, *others, *rest]
    if len(rows) == 1:                          # read downwards
        return tabulate(list(zip(columns[1:], rows[0][1:], strict=True)), [rows[0][0], "%"], disable_numparse=True,
                        colalign=("left", "right"))
    return tabulate(rows, columns, disable_numparse=True, colalign=("left", *["right"] * (len(columns) - 1)))


def notes(records: dict[str, dict]) -> list[str]:
    """What a reader must know of the numbers, and the warnings of the checks."""
    lines = ["Accuracy on the test images, percent, in float32; clean answers count as they are."]
    for name, record in records.items():
        lines.append(f"{name}: {record['of']['images']} images of the {record['of']['split']} split")
        if c := record.get("corruptions"):
            what = f"{len(c['ce'])} of 15 corruptions" if c["mce"] is not None else "no corruption at all severities"
            lines.append(f"{name}: mCE over {what}, reference: {c['reference']}; smaller is better")
        lines += [f"{name}: WARNING: {text}" for a in record.get("attacks", {}).values()
                  for text in a.get("check", {}).get("warnings", [])]
    return list(dict.fromkeys(lines))


def _flat(record: dict) -> dict[str, float]:
    found = {f"{kind} {float(share):.0%} covered": value for kind, values in record.get("occlusion", {}).items()
             for share, value in values.items()}
    found |= {f"{pieces} pieces": value for pieces, value in record.get("shuffle", {}).items()}
    return found | {f"patch of {float(share):.0%}": value for share, value in record.get("patches", {}).items()}


def curves(record: dict) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Panels, their lines, and the points of each: (how strong, accuracy in percent); clean images are at 0."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for a in record.get("attacks", {}).values():
        if a["norm"] == "linf":
            panels["eps in 1/255"][f"{a['kind']}, {a['steps']}"].append((float(a["eps"].split("/")[0]), a["accuracy"]))
    for kind, value in record.get("corruptions", {}).get("accuracy", {}).items():
        name, severity = kind.split(":")
        panels["severity of the corruption"][name].append((float(severity), value))
    for kind, values in record.get("occlusion", {}).items():
        panels["share of patches that are covered"][kind] += [(float(share), value) for share, value in values.items()]
    if record.get("shuffle"):
        panels["pieces that are shuffled"]["shuffled"] += [(float(n), v) for n, v in record["shuffle"].items()]
    if record.get("patches"):
        panels["share of the image that is attacked"]["patch"] += [(float(s), v) for s, v in record["patches"].items()]
    start = {"pieces that are shuffled": 1.0}
    return {panel: {name: sorted({(start.get(panel, 0.0), record["clean"]), *points}) for name, points in lines.items()}
            for panel, lines in panels.items()}


def draw(run: Run, record: dict, theme: Theme) -> Figure:
    """A panel for each kind of change."""
    panels = curves(record)
    figure = sheet(theme, 6.5, 2.3 * len(panels))
    for ax, (panel, lines) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True):
        colours = theme.colours(len(lines))
        for i, (name, points) in enumerate(lines.items()):
            ax.plot(*zip(*points, strict=True), label=name, **{**theme.look(i), "color": colours[i]})
        ax.axhline(record["clean"], color=theme.muted, linewidth=0.8, linestyle="--")
        ax.set(xlabel=panel, ylabel="accuracy, %", ylim=(0, 102))
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=theme.small, ncols=2 if len(lines) > 8 else 1)
    header(figure, theme, "Accuracy under attacks and corruptions",
           [run.summary, f"{record['of']['images']:,} images; a dashed line is the clean accuracy"])
    return figure
