"""The machine, the table and the footnotes."""
from __future__ import annotations

import platform

import torch
from tabulate import tabulate

from clip.processor import this_processor
from dassl.utils.run_record import processor_name
from tools.labs.bench.timing import PARTS
from tools.machine import physical_cores

COLUMNS = ("trainer", "backbone", "classes", "batch", "", "data", *PARTS, "ms/step", "images/s", "MB", "floor",
           "x floor", "faster", "text side faster")


def machine(device: str) -> dict:
    """Facts that a time means nothing without."""
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {"cpu": processor_name(), "processor": str(this_processor()), "cores": physical_cores(),
            "threads": torch.get_num_threads(), "gpu": gpu, "torch": torch.__version__,
            "python": platform.python_version(), "system": platform.platform()}


def add_floor(row: dict) -> dict:
    """The row with `floor`: ms of its operations at its matrix rate, and how many times that each side takes.

    Waiting for data is not in the comparison.
    """
    total = sum(ops["forward"] + ops["backward"] for ops in row["operations"].values())
    working = {side: row[side]["ms"]["step"] - (row[side]["ms"]["data"] or 0) for side in ("ours", "field")}
    ms = total / row["matrix_rate"]["gflops"] / 1e6
    return {**row, "floor": {"ms": ms, "operations": total, **{f"{side}_times": v / ms for side, v in working.items()}}}


def table(result: dict) -> str:
    """Two lines for each row: ours, and the field."""
    lines, notes = [], []
    for row in result["rows"]:
        mark = "".join(f" [{_number(notes, note)}]" for note in row["notes"])
        name = [row["trainer"] + mark, row["backbone"], row["classes"], row["batch"]]
        lines.append([*name, "ours", *_side(row, "ours"), as_spread(row["ratio"]), as_spread(row["text_ratio"])])
        lines.append(["", "", "", "", "field", *_side(row, "field"), "", ""])
    head = tabulate(lines, headers=COLUMNS, tablefmt="github", disable_numparse=True,
                    colalign=["left", "left", "right", "right", "left", *["right"] * 12])
    legend = [f"{where(result)}. Matrix products: {_rates(result['rows'])}, measured for each row.",
              "Milliseconds are medians of alternating rounds; ratios: median (least - largest). "
              "What the columns mean: docs/performance.md."]
    return "\n".join([head, "", *legend, *[f"[{i}] {note}" for i, note in enumerate(notes, 1)]])


def where(result: dict) -> str:
    """Processor, cores, versions and precision, in words."""
    facts = result["machine"]
    cpu = f"{facts['cpu']} ({facts['processor']})"
    device = f"{facts['gpu']} and {cpu}" if facts["gpu"] else cpu
    return (f"{device}, {facts['cores']} cores, threads: {facts['threads']}; torch {facts['torch']}, "
            f"{result['settings']['precision']}")


def _side(row: dict, side: str) -> list[str]:
    ms, memory = row[side]["ms"], row[side]["peak_memory_mb"]
    data = "-" if ms["data"] is None else as_ms(ms["data"])
    return [data, *(as_ms(ms[part]) for part in PARTS), as_ms(ms["step"]), f"{row[side]['images_per_s']:,.1f}",
            "-" if memory is None else f"{memory:,.0f}", as_ms(row["floor"]["ms"]),
            f"{row['floor'][side + '_times']:.2f}"]


def _rates(rows: list[dict]) -> str:
    """The slowest and fastest of each library: "221 - 241 GFLOP/s by F.linear"."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["matrix_rate"]["library"], []).append(row["matrix_rate"]["gflops"])
    return ", ".join(" - ".join(dict.fromkeys(f"{value:,.0f}" for value in (min(values), max(values))))
                     + f" GFLOP/s by {library}" for library, values in found.items())


def as_ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def as_spread(ratio: dict | None) -> str:
    return "" if ratio is None else f"{ratio['median']:.1f} ({ratio['min']:.1f} - {ratio['max']:.1f})"


def _number(notes: list[str], note: str) -> int:
    if note not in notes:
        notes.append(note)
    return notes.index(note) + 1
