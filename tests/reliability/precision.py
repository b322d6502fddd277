"""What float16 and bfloat16 change in each trainer, measured against float32 from the same seed.

    python tests/reliability/precision.py                     all trainers on the embedded digits, some minutes on a CPU
    python tests/reliability/precision.py --trainers DAPT VPT --shots 16 --epochs 20

Of each precision: how far the first step's gradient is from that of float32 (length of the difference over its length),
how many test images get the same class after the same training, and the accuracies. On a CPU, float16 is forced, which
trainers otherwise refuse there. The loss scaler of float16 leaves out steps until its factor fits; they are counted,
and where the first step is among them, its gradient is not compared. Prints a Markdown table.
"""
from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from tabulate import tabulate  # noqa: E402

from dassl.engine import build_trainer  # noqa: E402
from dassl.engine.hooks.on_nan import NotFinite  # noqa: E402
from dassl.utils import set_random_seed  # noqa: E402
from tools import train  # noqa: E402
from trainers import _precision  # noqa: E402

PRECISIONS = ("fp32", "bf16", "fp16")
SECTIONS = {"AR": "AR", "AttrVR": "ATTRVR", "CoCoOp": "COCOOP", "CoOp": "COOP", "DAPT": "DAPT", "DVPcls": "DVPCLS",
            "DVPcse": "DVPCSE", "MaPLe": "MAPLE", "PLOT": "PLOT", "VP": "VP", "VPT": "VPT"}   # others: float32 alone


def measure(name: str, precision: str, shots: int, epochs: int, folder: str) -> dict:
    """A training.

    Returns:
        {"gradients": {step: (n,)} of the first steps that were taken, "left out": steps by the loss scaler,
        "classes": (N,) chosen for the test images, "accuracy": percent}.
    """
    args = train.parser().parse_args([
        "--trainer", name, "--seed", "1", "--output-dir", folder, "--config-file", f"configs/trainers/{name}/tiny.yaml",
        "--dataset-config-file", "configs/datasets/digits.yaml", "DATASET.NUM_SHOTS", str(shots),
        "OPTIM.MAX_EPOCH", str(epochs), f"TRAINER.{SECTIONS[name]}.PREC", precision])
    cfg = train.setup_cfg(args)
    set_random_seed(cfg.SEED)
    trainer = build_trainer(cfg)
    gradients, classes, steps, judge, process = {}, [], [], trainer.on_nan.judge, trainer.evaluator.process

    def note(optim, *_):
        """The gradients of a step that is taken, by its number."""
        gradients.setdefault(steps[-1], torch.cat([p.grad.flatten() for group in optim.param_groups
                                                   for p in group["params"]]).cpu() if len(gradients) < 20 else None)

    def counted(*arguments):
        steps.append(len(steps))
        if len(steps) == 1:
            for optim in filter(None, trainer.optimisers.values()):
                optim.register_step_pre_hook(note)
        return judge(*arguments)

    trainer.on_nan.judge = counted
    trainer.evaluator.process = lambda scores, label: (classes.append(scores.argmax(1)), process(scores, label))
    trainer.train()
    accuracy = trainer.evaluator.evaluate()["accuracy"]
    return {"gradients": gradients, "left out": len(steps) - len(gradients), "classes": torch.cat(classes),
            "accuracy": accuracy}


def row(name: str, shots: int, epochs: int) -> list[str]:
    found = {}
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found[precision] = measure(name, precision, shots, epochs, folder)
            except NotFinite as error:
                found[precision] = str(error).split(" (learning")[0]
    exact, cells = found["fp32"], [f"{found['fp32']['accuracy']:.1f}"]
    for precision in PRECISIONS[1:]:
        if isinstance(other := found[precision], str):
            cells += [other, "-", "-"]
            continue
        one, two = exact["gradients"][0], other["gradients"].get(0)
        error = "-" if two is None else f"{(two - one).norm() / one.norm():.1e}"
        same = 100 * (other["classes"] == exact["classes"]).float().mean()
        left_out = f" ({other['left out']} steps left out)" if other["left out"] else ""
        cells += [f"{other['accuracy']:.1f}{left_out}", error, f"{same:.1f}"]
    return [name, *cells]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="\n".join(__doc__.splitlines()[1:]),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainers", nargs="+", default=list(SECTIONS), choices=SECTIONS, metavar="NAME")
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args(argv)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    train.register()
    _precision.precision_on = lambda clip, asked: (asked, "")                 # a CPU computes float16 too, slowly
    rows = []
    for name in args.trainers:
        rows.append(row(name, args.shots, args.epochs))
        print(f"{name}: done", file=sys.stderr, flush=True)
    headers = ["Trainer", "fp32 %"] + [word for p in PRECISIONS[1:] for word in (
        f"{p} %", f"{p}: gradient off by", f"{p}: same class, %")]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
