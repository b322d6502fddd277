"""Write a run as an ONNX file: the image tower with its prompts, and the classes as a fixed classifier.

The file takes images and gives logits; what else one needs to know (class names, size, normalisation) is in it.
It is compared with the run before it is kept.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl.errors import UserError  # noqa: E402
from tools import command, status  # noqa: E402
from tools.predict import add_model_flags, classifier_of  # noqa: E402


def parser() -> argparse.ArgumentParser:
    p = command.parser("export", __doc__.splitlines()[0])
    p.add_argument("file", type=Path, metavar="FILE.onnx", help="where it goes; one that is there is replaced")
    add_model_flags(p)
    return p


def main(args: argparse.Namespace) -> int:
    from tools.labs.onnx.export import OPSET, export, need_packages

    if args.file.suffix != ".onnx":
        raise UserError(f"The file to write must end in .onnx, got {args.file}.")
    need_packages()
    args.device = "cpu"
    status.say(f"reading {args.run or args.backbone}")
    classifier = classifier_of(args, float32=True)
    status.say(f"Exporting {classifier.facts['trainer']} with {len(classifier.classnames)} classes; this takes a "
               "while.", end="\n")
    difference = export(classifier, args.file)
    print(f"{args.file}: {args.file.stat().st_size / 2 ** 20:.1f} MiB, opset {OPSET}, {len(classifier.classnames)} "
          f"classes; its logits differ from the run's by at most {difference:.1e}.")
    return 0


cli = command.entry(parser, main, of_others=True)


if __name__ == "__main__":
    sys.exit(cli())
