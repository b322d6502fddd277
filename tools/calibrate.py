"""Fit a temperature on a run's validation images, and measure what it does on the split that the run was tested on.

Logits are divided by it, so no answer changes, only confidences. calibration.json in the run folder keeps it.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl.errors import UserError  # noqa: E402
from tools import command  # noqa: E402

FILE = "calibration.json"


def parser() -> argparse.ArgumentParser:
    p = command.parser("calibrate", __doc__.splitlines()[0])
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run")
    command.add_run_flags(p)
    return p


def calibrate(folder: Path, epoch: int | None = None, root: str = "", plugins: list[str] | None = None) -> dict:
    """What calibration.json then holds: the temperature, the numbers of images, and measures before and after.

    Raises:
        UserError: no run, no validation images, or test images in their place.
    """
    from dassl.metrics.calibration import best_temperature
    from dassl.utils.tools import write_json
    from tools.evaluating.tested import logits_of, rebuild, split_of
    from tools.runs.run import Run

    run = Run(folder, epoch, root, plugins or [])
    trainer = rebuild(run)
    split, loader = split_of(run, trainer)
    if trainer.val_loader is None or trainer.val_is_test or split == "val":
        what = "none" if trainer.val_loader is None else \
            "its test images in their place" if trainer.val_is_test else "been tested on them"
        raise UserError(f"A temperature is fitted on validation images that nothing else is measured on, and {folder} "
                        f"has {what}.")
    val, test = logits_of(trainer, trainer.val_loader, "val"), logits_of(trainer, loader, split)
    trainer.close_loaders()
    temperature = best_temperature(*val)
    record = {"temperature": temperature, "fitted_on": f"{len(val[1])} validation images", "split": split,
              "num_test": len(test[1]), "before": measured(*test), "after": measured(test[0] / temperature, test[1])}
    write_json(record, str(folder / FILE))
    return record


def measured(logits, labels) -> dict[str, float]:
    from dassl.metrics.calibration import measures

    log = logits.log_softmax(1)
    confidence, guess = log.exp().max(1)
    return {"accuracy": 100 * (guess == labels).double().mean().item(),
            **measures(confidence, guess == labels, -log.gather(1, labels[:, None]))}


def main(args: argparse.Namespace) -> int:
    for folder in args.runs:
        found = calibrate(folder, args.epoch, args.root, args.plugin)
        before, after = found["before"], found["after"]
        print(f"{folder}: temperature {found['temperature']:.3f}, from {found['fitted_on']}\n" + "\n".join(
            f"  {name:13}{before[name]:8.3f} ->{after[name]:8.3f}" for name in before))
    return 0


cli = command.entry(parser, main, of_others=True)

if __name__ == "__main__":
    sys.exit(cli())
