"""Get a dataset, check it, or list all of them with what is on this machine.

Names are those of configs/datasets (oxford_pets) or the registered ones (OxfordPets).
"""
from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl.errors import UserError  # noqa: E402
from tools import command, train  # noqa: E402
from tools.checkout import default_folder  # noqa: E402
from tools.running.datasets import build, registered, yaml_names  # noqa: E402

README = ROOT / "datasets" / "README.md"


def parser() -> argparse.ArgumentParser:
    p = command.parser("data", __doc__.splitlines()[0])
    p.add_argument("action", choices=("get", "check", "list", "readme"),
                   help="readme rewrites datasets/README.md from the cards")
    p.add_argument("names", nargs="*", metavar="NAME",
                   help="oxford_pets or OxfordPets; for check also a folder or list of your own images")
    p.add_argument("--root", default=default_folder("data"),
                   help="folder of the datasets (default: $DATA, else data/ of the checkout)")
    return p


def act(args: argparse.Namespace) -> int:
    """What the words ask for. Returns 0, or 2 where a dataset is not complete or not right."""
    train.register()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    root = Path(args.root).expanduser().absolute()
    if args.action in ("get", "check") and not args.names:
        raise UserError(f"`{args.action}` takes names of datasets; `python tools/data.py list` shows them.")
    if args.action == "list":
        print(table(root))
        return 0
    if args.action == "readme":
        README.write_text(readme(), encoding="utf-8")
        print(f"Wrote {README}")
        return 0
    names = [registered(name) for name in args.names]
    done = [{"get": get, "check": check}[args.action](name, root) for name in names]
    return 0 if all(done) else 2


def get(name: str, root: Path) -> bool:
    """Bring a dataset, or say what has to be done by hand; whether it is complete."""
    from datasets.benchmarks import DatasetNotFound, fetch_split, find_or_fetch
    from datasets.cards import CARDS

    card = CARDS.get(name)
    try:
        if card:
            find_or_fetch(card, root / card.folder, partly=True)
            if not card.lists:
                fetch_split(card, root / card.folder)
        folder = root / card.folder if card else _where(build(name, root))
    except DatasetNotFound as error:
        print(error, file=sys.stderr)
        return False
    print(f"{name} is in {folder}. `python tools/data.py check {name}` looks whether all of it is right.")
    return True


def check(name: str, root: Path) -> bool:
    """Print what is found of a dataset; whether nothing is wrong."""
    from tabulate import tabulate

    from datasets.cards import CARDS
    from datasets.inspection import inspect_card, inspect_dataset

    if card := CARDS.get(name):
        report = inspect_card(card, root / card.folder)
    else:
        dataset = build(name, root)
        report = inspect_dataset(dataset, _where(dataset))
    print(f"{name}\n{tabulate(report.facts, tablefmt='plain', disable_numparse=True)}")
    for problem in report.problems:
        print(f"\n{problem}", file=sys.stderr)
    print(f"{name} is in order.\n" if not report.problems else "", flush=True)
    return not report.problems


def _where(dataset) -> Path:
    return Path(os.path.commonpath([os.path.dirname(d.impath) for d in dataset.test]))


def table(root: Path) -> str:
    """Every dataset: its names, its size as the card has it, and its state below `root`."""
    from tabulate import tabulate

    from datasets.cards import CARDS

    rows = []
    for stem, name in yaml_names().items():
        rows.append([stem, name, *(_of_card(CARDS[name], root) if name in CARDS else _of_class(name, root))])
    lines = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    head = ["yaml", "registered name", "classes", "train", "val", "test", f"in {root}"]
    return tabulate(lines, headers=head, disable_numparse=True, colalign=["left"] * 2 + ["right"] * 4 + ["left"])


def _of_card(card, root: Path) -> list:
    from datasets.inspection import state_of

    sizes = [card.classes, *(size or "-" for size in (card.train, card.val, card.test))]
    return [*sizes, state_of(card, root / card.folder)]


def _of_class(name: str, root: Path) -> list:
    """Sizes and state of a dataset whose class says them, and of one that comes with the project."""
    from dassl.data.datasets import DATASET_REGISTRY
    from datasets.embedded import DRAWING

    kind = DATASET_REGISTRY.get(name)
    if hasattr(kind, "listed"):
        return kind.listed(root)
    if hasattr(kind, "card"):
        return _of_card(kind.card, root)
    if not (root / f"{kind.dataset_dir}-v{DRAWING}").is_dir():
        return ["-"] * 4 + ["comes with the project, drawn at first use"]
    dataset = build(name, root)
    return [dataset.num_classes, *map(len, (dataset.train_x, dataset.val, dataset.test)), "drawn"]


def readme() -> str:
    """datasets/README.md, from the cards."""
    from datasets.readme import render

    return render(yaml_names())


main = command.entry(parser, act, "Interrupted; the same command resumes.")

if __name__ == "__main__":
    command.script(main)
