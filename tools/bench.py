"""How fast a training step is here, next to the same step as published code takes it and the floor under both."""
from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl.errors import UserError  # noqa: E402
from tools import command  # noqa: E402
from tools.labs.bench import rows as known  # noqa: E402


def parser() -> argparse.ArgumentParser:
    p = command.parser("bench", __doc__)
    p.add_argument("--trainers", nargs="+", default=list(known.TRAINERS), metavar="NAME",
                   help=f"of {', '.join(known.TRAINERS)} (default: all)")
    p.add_argument("--backbones", nargs="+", default=["ViT-B/16"], metavar="NAME",
                   help=f"of {', '.join(known.BACKBONES)} (default: ViT-B/16)")
    p.add_argument("--classes", nargs="+", type=int, default=[37, 100], metavar="C", help="2 to 1000 (default: 37 100)")
    p.add_argument("--batch", type=int, default=4, help="images of a training step (default: 4)")
    p.add_argument("--test-batch", type=int, default=16, help="images of a test batch (default: 16)")
    p.add_argument("--all", action="store_true", help="every trainer on every backbone")
    p.add_argument("--rounds", type=int, default=5, help="how often both sides take their step (default: 5)")
    p.add_argument("--seconds", type=float, default=60.0,
                   help="for the rounds of a row; three are always done (default: 60)")
    p.add_argument("--device", choices=["cpu", "cuda"], default=None, help="default: cuda where there is a GPU")
    p.add_argument("--precision", choices=["fp32", "fp16", "bf16"], default="fp32", help="fp16 needs a GPU")
    p.add_argument("--onednn", choices=["auto", "on", "off"], default="auto",
                   help="TRAIN.ONEDNN of our steps, the library of float32 products on a CPU; off is F.linear, which "
                        "the field always takes (default: auto, as in a training)")
    p.add_argument("--threads", type=int, default=None, help="of PyTorch (default: physical cores)")
    p.add_argument("--seed", type=int, default=1, help="of weights, prompts and images (default: 1)")
    p.add_argument("--no-memory", action="store_true", help="do not measure peak memory, which needs more processes")
    p.add_argument("--no-data", action="store_true", help="do not measure loaders")
    p.add_argument("--attack", metavar="KIND:EPS:STEPS", default="",
                   help="measure an attack next to the passes of the image tower that it takes, e.g. pgd:1/255:10, on "
                        "each backbone, in place of training steps")
    p.add_argument("--zoo", nargs="*", metavar="NAME",
                   help="in place of both sides: what a step of every method that learns by steps, or of those named, "
                        "takes and learns next to CoOp's, ours alone, at the largest of --classes")
    p.add_argument("--json", metavar="FILE", help="also write everything there; - prints it instead of the table")
    return p


def main(args: argparse.Namespace) -> None:
    """Measure, print, and write what --json asks for, whose place is tried before hours of measuring."""
    from tools.labs.bench import attacked, report, run, zoo

    file = Path(args.json) if args.json not in (None, "-") else None
    if file:
        _check_writable(file)
    mode = attacked if args.attack else run if args.zoo is None else zoo
    result = mode.run(args)
    text = json.dumps(result, indent=1)
    print(text if args.json == "-" else (report if mode is run else mode).table(result))
    if file:
        file.write_text(text + "\n", encoding="utf-8")


def _check_writable(file: Path) -> None:
    """Raises UserError for a file that cannot be; what is there stays as it is."""
    there = file.exists()
    try:
        file.open("a").close()
    except OSError as error:
        raise UserError(f"--json {file} cannot be written ({error.strerror}). Name a file in a folder that is there "
                        "and may be written in.") from error
    if not there:
        file.unlink()


def cli(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, 2 (user error) or 130."""
    args = parser().parse_args(argv)
    logging.disable(logging.WARNING)                # open_clip warns that weights are random: they are meant to be
    try:
        return command.ended(lambda: main(args), "Interrupted.")
    finally:
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    sys.exit(cli())
