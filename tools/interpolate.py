"""Test a run's towers at shares between those that training started from and those it ended with: WiSE-FT's curve.

Writes interpolation.json, interpolation.csv and plots/interpolation.png into the run folder, and prints the table.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl.errors import UserError  # noqa: E402
from tools import command, status  # noqa: E402

SHARES = tuple(i / 10 for i in range(11))
NAME, MEAN = "interpolation", "mean of targets"
NOTE = """accuracy on the {split} split, percent; share 0: what training started from, 1: what it ended with.
Choose a share in advance (the paper: 0.5) or on --split val; the best row of a test is chosen on test images."""


def parser() -> argparse.ArgumentParser:
    p = command.parser("interpolate", __doc__)
    p.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run that fine-tuned towers")
    p.add_argument("--targets", nargs="*", default=(), metavar="DATASET",
                   help="shifted datasets of the same classes, as configs/datasets names them; digits:fog:5 corrupts")
    p.add_argument("--shares", nargs="+", type=float, default=SHARES, metavar="SHARE",
                   help="of the fine-tuned weights, 0 to 1 (default: 0, 0.1 ... 1)")
    p.add_argument("--split", choices=("test", "val"), default="test", help="which images (default: test)")
    p.add_argument("--format", choices=("png", "svg", "pdf"), default="png", help="of the figure (default: png)")
    p.add_argument("--style", choices=("light", "dark"), default="light", help="of the figure (default: light)")
    command.add_run_flags(p)
    return p


def curve(run, targets: Sequence[str] = (), shares: Sequence[float] = SHARES, split: str = "test") -> dict:
    """What interpolation.json then holds.

    Args:
        run: `tools.runs.run.Run`.
    Returns:
        shares: S of them, ascending. accuracy: {dataset: S values, percent}, the source first. images: {dataset: N}.
        source, split, epoch. kept_share: of the fine-tuned weights in the checkpoint that the run was tested with.
    Raises:
        UserError: a share outside 0 to 1, no fine-tuned towers, an unknown dataset or one of other classes.
    """
    from dassl.engine import build_trainer
    from tools.plotting.tested import rebuild
    from tools.runs.by_hand import stem_of
    from trainers._build import build_to_train
    from trainers.parts.averaging import interpolate

    if wrong := [share for share in shares if not 0 <= share <= 1]:
        raise UserError(f"--shares must be from 0 to 1, got {wrong[0]:g}.")
    shares = sorted(set(shares))
    targets = {name: target_cfg(run, name) for name in targets}
    trainer = rebuild(run)
    learner, kept = towers_of(trainer), trainer.options.get("ALPHA", 1.0)
    kept = kept if run.epoch in (None, trainer.cfg.OPTIM.MAX_EPOCH) else 1.0            # earlier ones are not mixed
    first = build_to_train(type(trainer), trainer.cfg, trainer.classes, trainer.device)[0].prompt_learner
    start, saved = (weights_of(owner) for owner in (first, learner))
    interpolate(learner, start, saved, 1 / kept)
    end = weights_of(learner)
    source, names = stem_of(run.dataset), list(trainer.classes.names)
    accuracy: dict[str, list[float]] = {}
    images: dict[str, int] = {}
    for dataset, cfg in {source: None, **targets}.items():
        if cfg is not None:
            trainer.close_loaders()
            trainer = build_trainer(cfg)
        if (bound := trainer.bound_to_classes(trainer.options)) and list(trainer.classes.names) != names:
            raise UserError(f"{run.folder} learned {bound}, so it can be tested on its own classes alone, and "
                            f"{dataset} has others: {', '.join(trainer.classes.names[:3])} ...")
        accuracy[dataset] = []
        for share in shares:
            status.say(f"{dataset}: share {share:g}")
            interpolate(trainer.model.prompt_learner, start, end, share)
            right, images[dataset] = counted(trainer, dataset, split)
            accuracy[dataset].append(100 * right / images[dataset])
    trainer.close_loaders()
    status.say("")
    return {"shares": shares, "source": source, "split": split, "epoch": run.epoch, "kept_share": kept,
            "images": images, "accuracy": accuracy}


def towers_of(trainer):
    """What the trainer learned. Raises UserError unless it is weights of the towers, with a value before training."""
    from trainers._base import PromptTrainer
    from trainers.parts.heads import ZeroShotHead

    learner = trainer.model.prompt_learner if isinstance(trainer, PromptTrainer) else {}
    if others := [type(brick).__name__ for name, brick in learner.items() if name != "tower"
                  and not isinstance(brick, ZeroShotHead) and any(True for _ in brick.parameters())]:
        raise UserError(f"{type(trainer).__name__} learned a {others[0]}, of which zero-shot CLIP has none, so there "
                        "is nothing to mix it with. Take a run that fine-tuned weights of the towers alone, such as "
                        "WiSEFT or FLYP.")
    if "tower" not in learner:
        raise UserError(f"{type(trainer).__name__} left the weights of the towers as they were, so there is no curve "
                        "between them. Take a run that fine-tuned them, such as WiSEFT or FLYP.")
    return learner


def weights_of(learner) -> dict:
    return {name: value.detach().clone() for name, value in learner.named_parameters()}


def target_cfg(run, name: str):
    """The run's config on another dataset. Raises UserError for an unknown one."""
    from dassl.config import with_values
    from dassl.utils import nearest
    from tools.runs.by_hand import dataset_names
    from tools.runs.cell import corrupted, plain

    known = dataset_names()
    if plain(name) not in known:
        raise UserError(f"--targets names {name!r}, which is none of configs/datasets.{nearest(plain(name), known)}")
    corrupted([name] if ":" in name else [])
    return with_values(run.cfg, {"DATASET.NAME": known[plain(name)],
                                 "DATASET.CORRUPTIONS": (name.partition(":")[2],) if ":" in name else ()})


def counted(trainer, dataset: str, split: str) -> tuple[int, int]:
    """Right answers on a split, and all of them."""
    if (loader := trainer.val_loader if split == "val" else trainer.test_loader) is None:
        raise UserError(f"{dataset} has no {split} split to test on.")
    trainer.set_model_mode("eval")
    found = [(int((logits.argmax(1) == labels).sum()), len(labels))
             for _, logits, labels in trainer.answers(loader, split)]
    return sum(right for right, _ in found), sum(count for _, count in found)


def rows_of(found: dict) -> tuple[list[str], list[list[float]]]:
    """Head and rows of the table: share, accuracy on each dataset and, for several targets, their mean."""
    columns = dict(found["accuracy"])
    if len(columns) > 2:
        targets = list(columns.values())[1:]
        columns[MEAN] = [sum(values) / len(targets) for values in zip(*targets, strict=True)]
    return ["share", *columns], [list(row) for row in zip(found["shares"], *columns.values(), strict=True)]


def main(args: argparse.Namespace) -> None:
    from tabulate import tabulate

    from dassl.files.whole import write_whole
    from dassl.utils.tools import write_json
    from tools import train
    from tools.plotting.interpolation import draw
    from tools.plotting.style import THEMES, write
    from tools.runs.run import Run

    train.register(args.plugin)
    run = Run(args.run, args.epoch, args.root, args.plugin)
    found = curve(run, args.targets, args.shares, args.split)
    head, rows = rows_of(found)
    write_json(found, str(run.folder / f"{NAME}.json"))
    write_whole(run.folder / f"{NAME}.csv", "".join(",".join(map(str, row)) + "\n" for row in (head, *rows)))
    path = run.folder / "plots" / f"{NAME}{'-dark' * (args.style == 'dark')}.{args.format}"
    write(lambda theme: draw(found, run, theme), path, THEMES[args.style])
    print(tabulate(rows, head, floatfmt=".1f"), NOTE.format(split=args.split), path, sep="\n")


cli = command.entry(parser, main, of_others=True)


if __name__ == "__main__":
    sys.exit(cli())
