"""Pretrain the embedded CLIP from scratch on procedurally rendered images with captions.

Half of each batch is digits and letters from matplotlib's fonts, half shapes with colour, texture and background.
Writes <out>.safetensors (OpenAI key layout, half precision), <out>_log.csv (progress) and <out>.json (settings and
final numbers), all three at the end: until then, and after Ctrl-C, what was there stays. Takes about 10 minutes on two
CPU cores: one trains, one renders. The same command gives the same weights on the same machine. Real digits are
measured, never trained on.

Example: python tools/pretrain_tiny.py --out trial --steps 300 --every 100
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl.errors import UserError  # noqa: E402
from tools import command  # noqa: E402


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="path without ending; clip/tiny is the embedded model's")
    p.add_argument("--seed", type=int, default=1, help="decides weights and every image (default: 1)")
    p.add_argument("--steps", type=int, default=1500, help="batches seen (default: 1500, about 10 minutes)")
    p.add_argument("--batch", type=int, default=160, help="images per step, half glyphs and half shapes (default: 160)")
    p.add_argument("--lr", type=float, default=2e-3, help="peak learning rate of Muon and AdamW (default: 2e-3)")
    p.add_argument("--warmup", type=int, default=100, help="steps of linear warm-up (default: 100)")
    p.add_argument("--flat", type=float, default=0.3, help="share of the steps before the linear decay (default: 0.3)")
    p.add_argument("--auxiliary", type=float, default=0.5, help="weight of the attribute heads' loss (default: 0.5)")
    p.add_argument("--every", type=int, default=200, help="steps between measurements (default: 200)")
    p.add_argument("--threads", type=int, default=1, help="threads of the training process (default: 1)")
    p.add_argument("--workers", type=int, default=1, help="rendering processes; the result does not depend on it")
    p.add_argument("--measure-only", action="store_true", help="measure the weights again, rewrite the .json")
    return p


def main(args: argparse.Namespace) -> None:
    from tools.labs.pretraining.measure import measure
    from tools.labs.pretraining.model import load
    from tools.labs.pretraining.training import train

    targets = weights, _, record_file = files_of(args.out)
    if args.measure_only:
        for path in (weights, record_file):
            if not path.is_file():
                raise UserError(f"--measure-only measures what was trained before, and there is no {path}. Leave the "
                                "flag out to train it, or name another --out.")
        record = json.loads(record_file.read_text())
        record["zero_shot"] = measure(load(weights))
        _write(record, record_file)
    else:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=f".{args.out.name}-") as folder:
            beside = files_of(Path(folder, args.out.name))
            record = train(args, *beside[:2])
            _write(record, beside[2])
            for path, target in zip(beside, targets, strict=True):
                path.replace(target)
    print(json.dumps(record, indent=2))


def _write(record: dict, path: Path) -> None:
    from dassl.files.whole import write_whole

    write_whole(path, json.dumps(record, indent=2) + "\n")


def files_of(out: Path) -> tuple[Path, Path, Path]:
    """Weights, log and record."""
    return tuple(out.with_name(out.name + ending) for ending in (".safetensors", "_log.csv", ".json"))


def cli(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, 2 (user error) or 130."""
    args = parser().parse_args(argv)
    return command.ended(lambda: main(args), f"Interrupted; {args.out} is as it was before.")


if __name__ == "__main__":
    sys.exit(cli())
