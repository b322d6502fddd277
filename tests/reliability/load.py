"""Datasets that are large, small or lopsided: what they cost in time and memory, each run in a process of its own.

    python -m tests.reliability.load                       all of them; takes some minutes
    python -m tests.reliability.load "1 class"             some
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Load:
    """A folder of one's own images and a run on it.

    Attributes:
        images: of each class, by class number.
        trainer, opts: of the run. code: the exit code that is right.
    """

    name: str
    classes: int
    images: Callable[[int], int]
    trainer: str = "ZeroshotCLIP"
    opts: tuple[str, ...] = ()
    code: int = 0


SHORT = ("DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1")
LOADS = (
    Load("10 classes, zero-shot", 10, lambda c: 10),
    Load("1,000 classes, zero-shot", 1000, lambda c: 10),
    Load("10,000 classes, zero-shot", 10_000, lambda c: 10),
    Load("100 classes, CoOp", 100, lambda c: 10, "CoOp", SHORT),
    Load("1,000 classes, CoOp", 1000, lambda c: 10, "CoOp", SHORT),
    Load("10,000 classes, CoOp", 10_000, lambda c: 10, "CoOp",
         (*SHORT, "TRAINER.COOP.CSC", "False", "DATALOADER.TRAIN_X.BATCH_SIZE", "2000")),
    Load("1,000 images, zero-shot", 10, lambda c: 100),
    Load("10,000 images, zero-shot", 10, lambda c: 1000),
    Load("100,000 images, zero-shot", 10, lambda c: 10_000),
    Load("100,000 images, 1 shot", 10, lambda c: 10_000, "CoOp", SHORT),
    Load("1 class, zero-shot", 1, lambda c: 20, code=2),
    Load("1 class, CoOp", 1, lambda c: 20, "CoOp", SHORT, code=2),
    Load("1 class, DAPT", 1, lambda c: 20, "DAPT", SHORT, code=2),
    Load("classes of 3 images beside one of 300, 16 shots", 10, lambda c: 300 if c == 0 else 3, "CoOp",
         ("DATASET.NUM_SHOTS", "16", "OPTIM.MAX_EPOCH", "1")),
    Load("1 image a class", 10, lambda c: 1, "CoOp", SHORT, code=2),
    Load("batch larger than the data", 10, lambda c: 10, "CoOp",
         (*SHORT, "DATALOADER.TRAIN_X.BATCH_SIZE", "100000", "DATALOADER.TEST.BATCH_SIZE", "100000")),
    Load("no workers", 10, lambda c: 10, "CoOp", (*SHORT, "DATALOADER.NUM_WORKERS", "0")),
    Load("32 workers", 10, lambda c: 10, "CoOp", (*SHORT, "DATALOADER.NUM_WORKERS", "32")),
)


def make(folder: Path, load: Load) -> Path:
    """Folders of classes; 50 small pictures under as many names as are asked for (hard links: no disk is needed)."""
    pictures, digits = [], ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for number in range(50):
        pictures.append(folder / f"{number}.png")
        Image.new("RGB", (32, 32), (5 * number, 255 - 5 * number, number)).save(pictures[-1])
    root = folder / "images"
    for c in range(load.classes):
        place = root / " ".join(digits[int(d)] for d in f"{c:0{len(str(load.classes - 1))}d}")
        place.mkdir(parents=True)
        for i in range(load.images(c)):
            os.link(pictures[(c + i) % 50], place / f"{i}.png")
    return root


def measure(load: Load) -> dict:
    """{"code", "seconds", "megabytes", "said"}: of the whole command, its peak, and the last line it wrote."""
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        root = make(Path(folder), load)
        command = [sys.executable, "tools/train.py", "--dataset-dir", str(root), "--trainer", load.trainer, "--seed",
                   "1", "--config-file", f"configs/trainers/{load.trainer}/tiny.yaml", "--output-dir",
                   str(Path(folder, "run")), *load.opts]
        program = "import json, resource, subprocess, sys; reply = subprocess.run(sys.argv[1:], stdout=2); " \
                  "print(json.dumps([reply.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))"
        start = time.monotonic()
        reply = subprocess.run([sys.executable, "-c", program, *command], cwd=ROOT, capture_output=True, text=True,
                               env={**os.environ, "XDG_CACHE_HOME": str(Path(folder, "cache"))})
        seconds = time.monotonic() - start
    code, kilobytes = json.loads(reply.stdout)
    lines = [line for line in reply.stderr.splitlines() if line.strip()]
    return {"code": code, "seconds": seconds, "megabytes": kilobytes / 1024, "said": lines[-1] if lines else "",
            "right": code == load.code and "Traceback" not in reply.stderr}


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="*", help="which (default: all)")
    names, wrong = p.parse_args(argv).names, 0
    if unknown := set(names) - {load.name for load in LOADS}:
        p.error(f"there is no {', '.join(unknown)}; there are: {'; '.join(load.name for load in LOADS)}")
    print("| dataset and run | images | seconds | peak MB | ended |\n|---|---|---|---|---|")
    for load in LOADS:
        if names and load.name not in names:
            continue
        found = measure(load)
        total = sum(load.images(c) for c in range(load.classes))
        ended = "as it should" if found["right"] else f"WRONG: exit code {found['code']}: {found['said'][:200]}"
        if found["right"] and found["code"] == 2:
            ended = "refused: " + found["said"][:160]
        print(f"| {load.name} | {total:,} | {found['seconds']:.1f} | {found['megabytes']:,.0f} | {ended} |", flush=True)
        wrong += not found["right"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
