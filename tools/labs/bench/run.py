"""The rows that a command asks for, and measuring them all."""
from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from dassl.errors import UserError
from tools import status
from tools.labs.bench import rows as known
from tools.labs.bench.rows import Row, Settings
from tools.machine import physical_cores


def plan(args: argparse.Namespace) -> list[Row]:
    """The rows to measure. Raises UserError for what cannot be measured."""
    from dassl.utils.registry import nearest

    trainers, backbones = (known.TRAINERS, list(known.BACKBONES)) if args.all else (args.trainers, args.backbones)
    for what, names, there in (("trainer", trainers, known.TRAINERS), ("backbone", backbones, known.BACKBONES)):
        for name in names:
            if name not in there:
                raise UserError(f"The benchmark has no {what} {name!r}.{nearest(name, there)} There are "
                                f"{', '.join(there)}.")
    if wrong := [C for C in args.classes if not 2 <= C <= known.MOST_CLASSES]:
        raise UserError(f"The benchmark names 2 to {known.MOST_CLASSES:,} classes; --classes has {wrong[0]}.")
    for flag in ("batch", "test_batch", "rounds", "threads"):
        if (value := getattr(args, flag)) is not None and value < 1:
            raise UserError(f"--{flag.replace('_', '-')} must be at least 1, got {value}.")
    classes = sorted(set(args.classes))
    rows = []
    for trainer in (name for name in trainers if name != known.PRM):
        one = Row(trainer, "", classes[-1], args.batch)
        which = classes if one.learns_text else classes[-1:]
        rows += [Row(trainer, backbone, C, args.batch if one.trains or one.views else args.test_batch)
                 for backbone in backbones if not (backbone == "RN50" and one.method.needs_vit) for C in which]
    rows.sort(key=lambda row: backbones.index(row.backbone))
    rows += [Row(known.PRM, "", classes[-1], known.PRM_BATCH)] if known.PRM in trainers else []
    if not rows:
        raise UserError(f"The tokens of a vision transformer are needed by {', '.join(trainers)}, and RN50 has none. "
                        "Choose a ViT backbone.")
    return rows


def setup(args: argparse.Namespace) -> Settings:
    """Device, precision and threads, set and reported. Raises UserError for a device or precision that is not there."""
    import torch

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch sees no GPU here, and --device is cuda. Leave the flag out, or install a PyTorch that "
                        "fits the driver.")
    if device == "cpu" and args.precision == "fp16":
        raise UserError("A CPU runs fp32 or bf16, got --precision fp16. Use --device cuda, or one of these.")
    threads = args.threads or physical_cores()
    torch.set_num_threads(threads)
    return Settings(device, args.precision, threads, args.seed, args.onednn)


def run(args: argparse.Namespace) -> dict:
    """Measure every row; the result is what --json writes."""
    from dataclasses import asdict

    from tools.labs.bench import loading, measure, report

    rows, settings = plan(args), setup(args)
    measured, data = [], {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for number, row in enumerate(rows, 1):
            name = f"[{number}/{len(rows)}] {row}"

            def say(doing: str, end: str = "", name: str = name) -> None:
                status.say(f"{name}: {doing}", end)

            key = (row.input_size, row.batch) if row.trains else None
            if key and not args.no_data and key not in data:
                say("data")
                data[key] = loading.measure(row, settings, Path(folder))
            waiting = data.get(key)
            result = measure.measure(row, settings, Path(folder), waiting, args.rounds, args.seconds,
                                     not args.no_memory, say)
            say(f"{result['ours']['ms']['step']:,.0f} ms, the field {result['field']['ms']['step']:,.0f} ms", end="\n")
            measured.append(result)
    fastest = max((row["matrix_rate"] for row in measured), key=lambda rate: rate["gflops"])
    return {"machine": report.machine(settings.device), "settings": {**asdict(settings), "rounds": args.rounds},
            "matrix_rate": fastest, "rows": [report.add_floor(row) for row in measured]}
