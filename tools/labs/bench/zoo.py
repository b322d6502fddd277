"""A training step of every method next to CoOp's, ours alone: what each learns and what a step of it costs."""
from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from tabulate import tabulate

from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from dassl.utils.registry import nearest
from tools import status, train
from tools.labs.bench import report
from tools.labs.bench.measure import spread
from tools.labs.bench.rows import Row, Settings
from tools.labs.bench.run import plan, setup
from tools.labs.bench.steps import TrainingStep
from tools.labs.bench.timing import Watch, milliseconds
from tools.labs.bench.workload import CONFIGS, build_trainer
from trainers._base import PromptTrainer
from trainers.features import FeatureTrainer

NEXT_TO = "CoOp"


def methods() -> list[str]:
    """Trainers of this project that learn by steps and have a config for a released tower."""
    train.register()
    known = {name: TRAINER_REGISTRY.get(name) for name in TRAINER_REGISTRY.registered_names()}
    return [name for name, method in known.items() if issubclass(method, PromptTrainer) and method.learns == "steps"
            and any((CONFIGS / name).glob("vit_b*.yaml"))]


def run(args: argparse.Namespace) -> dict:
    """The lines of --zoo, with what their times depend on. Raises UserError for a method without such a step."""
    there = methods()
    for name in args.zoo:
        if name not in there:
            raise UserError(f"--zoo takes methods that learn by steps, got {name!r}.{nearest(name, there)}")
    plan(args)                          # which refuses backbones and numbers that are none
    settings = setup(args)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        lines = measure(args.zoo or there, args.backbones[0], max(args.classes), args.batch, settings, args.rounds,
                        Path(folder), lambda doing: status.say(doing, ""))
    return {"machine": report.machine(settings.device), "settings": {**asdict(settings), "rounds": args.rounds},
            "backbone": args.backbones[0], "classes": max(args.classes), "batch": args.batch, "zoo": lines}


def measure(names: list[str], backbone: str, classes: int, batch: int, settings: Settings, rounds: int, folder: Path,
            say: Callable[[str], None] = lambda text: None) -> list[dict]:
    """A line for each method, at its published sizes, on images of random pixels or on kept features of them.

    Returns:
        Of each: `trainer`, `learned` parameters, `features` (whether its steps see kept features instead of images),
        `ms` of a step (median), `times` CoOp's step of the same round (median, min and max); or `why` it has no step
        on such data.
    """
    coop, lines = _step(Row(NEXT_TO, backbone, classes, batch), settings, folder), []
    for number, name in enumerate(names, 1):
        say(f"[{number}/{len(names)}] {name}")
        try:
            step = _step(Row(name, backbone, classes, batch), settings, folder)
            step(Watch())                                       # what happens only at the first step
        except UserError as error:
            lines.append({"trainer": name, "why": str(error).splitlines()[0]})
            continue
        times = [(milliseconds(step, settings.device), milliseconds(coop, settings.device)) for _ in range(rounds)]
        mine, its = zip(*times, strict=True)
        lines.append({"trainer": name, "learned": step.trainer.learned_parameters,
                      "features": isinstance(step.trainer, FeatureTrainer), "ms": statistics.median(mine),
                      "times": spread(mine, its)})
    return lines


def table(result: dict) -> str:
    rows = [[line["trainer"], f"{line['learned']:,}", report.as_ms(line["ms"]), report.as_spread(line["times"]),
             "kept features" if line["features"] else ""] for line in result["zoo"] if "why" not in line]
    head = ("trainer", "learned", "ms/step", f"times {NEXT_TO}'s step", "on")
    without = [f"{line['trainer']}: {line['why']}" for line in result["zoo"] if "why" in line]
    return "\n".join([tabulate(rows, headers=head, tablefmt="github", disable_numparse=True,
                               colalign=["left", "right", "right", "right", "left"]), "",
                      f"{result['backbone']}, {result['classes']} classes, batch {result['batch']}; "
                      f"{report.where(result)}. Median (least - largest) over rounds.",
                      *(["Not measured:", *without] if without else [])])


def _step(row: Row, settings: Settings, folder: Path) -> TrainingStep:
    trainer = build_trainer(row, settings, folder)
    trainer.epoch, trainer.batch_idx, trainer.num_batches = 0, 0, 2           # inside an epoch: rates stay as they are
    batch = next(iter(trainer.train_loader_x))
    if isinstance(trainer, FeatureTrainer):
        clip = trainer.model.clip
        batch["img"] = torch.randn(len(batch["img"]), clip.embed_dim if trainer.model.joint else clip.vision_width)
    return TrainingStep(trainer, batch)

