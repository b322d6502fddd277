"""Say what images show, with what a run learned or with zero-shot CLIP.

In Python:

    from tools.predict import load
    for answer in load("output/digits/DAPT/tiny_16shots/seed1").predict(["a.png", "b.png"]):
        print(answer.image, answer.label, answer.confidence)
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
from tools import command  # noqa: E402


def parser() -> argparse.ArgumentParser:
    p = command.parser("predict", __doc__.splitlines()[0])
    p.add_argument("images", nargs="*", metavar="IMAGE", help="files, folders (with all below them), patterns")
    add_model_flags(p)
    p.add_argument("--topk", type=int, default=5, metavar="K", help="classes to name for each image (default: 5)")
    form = p.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON list instead of the table")
    form.add_argument("--csv", action="store_true", help="CSV instead of the table")
    p.add_argument("--batch-size", type=int, metavar="B", help="images at once (default: as in the run's test)")
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: the GPU if there is one")
    p.add_argument("--serve", action="store_true", help="show a page on this machine instead")
    p.add_argument("--port", type=int, default=8000, help="of the page; 0 takes a free one (default: 8000)")
    p.add_argument("--host", default="127.0.0.1", help="address of the page; another one than this machine's own lets "
                   "others use it")
    return p


def add_model_flags(p: argparse.ArgumentParser) -> None:
    """The flags by which `classifier_of` finds a run or a backbone."""
    p.add_argument("--run", default="", metavar="FOLDER", help="run folder, as tools/train.py leaves it")
    p.add_argument("--classes", default="", metavar="NAMES",
                   help='"a, b, c", or a file of them: one per line, or JSON (default: those of the run)')
    p.add_argument("--template", default="", help='sentence for class names, "a photo of a {}."; zero-shot only')
    p.add_argument("--backbone", default="", help="e.g. ViT-B/16, tiny, a file of weights; with --run: where the run's "
                   "weights are now")
    command.add_run_flags(p, command.FOR_CLASSES)
    p.add_argument("--allow-cpu-shim", action="store_true", help="run its calls for CUDA on the CPU if there is none")


def load(run: str | Path, *, classes: Sequence[str] = (), template: str = "", epoch: int | None = None,
         backbone: str = "", device: str = "auto", plugins: Sequence[str] = ()):
    """The classifier of a run folder; the dataset is not needed, and the folder may have moved.

    Args:
        run: the folder, as tools/train.py leaves it.
        classes: other class names, for prompts that serve any.
        template: other sentence for class names, for runs of ZeroshotCLIP.
        epoch: of the checkpoint; None: the one that the run was tested with.
        backbone: file of CLIP's weights, where it has moved; it has to be the same file.
        device: "auto", "cpu" or "cuda".
        plugins: files or modules that define the run's trainer.
    Returns:
        `tools.prediction.classifier.Classifier`: `.predict(images, topk=5)` takes paths, PIL images and NumPy arrays
        and gives a list of `Prediction` (`image`, `label`, `confidence`, `top`); `.classnames`, `.facts`.
    Raises:
        dassl.utils.UserError: no run, other weights, classes that its prompts do not serve.
    """
    _register(plugins)
    from tools.prediction.rebuild import from_run

    return from_run(run, classes=classes, template=template, epoch=epoch, backbone=backbone, device=device,
                    plugins=plugins)


def classifier_of(args: argparse.Namespace, float32: bool = False, classes: Sequence[str] = ()):
    """The classifier that the flags describe.

    Args:
        float32: compute in it, whatever the run did. classes: instead of --classes.
    """
    _register(args.plugin)
    from tools.prediction.rebuild import from_run, zero_shot

    classes = classes or _names(args.classes)
    if args.run:
        return from_run(args.run, classes=classes, template=args.template, epoch=args.epoch, backbone=args.backbone,
                        device=args.device, root=args.root, plugins=args.plugin, float32=float32)
    if not (args.backbone and classes):
        raise UserError("What is known of the classes comes from a run (--run FOLDER) or, for zero-shot CLIP, from "
                        '--backbone and --classes, as in --backbone tiny --classes "circle, square, star".')
    return zero_shot(args.backbone, classes, args.template, args.device)


def main(args: argparse.Namespace) -> int:
    """Predict and print, or serve. Returns 0, or 1 where images could not be read."""
    if args.serve:
        from tools.labs.serve.server import serve

        return serve(lambda names: classifier_of(args, classes=names), args)
    from tools.prediction import images, show

    paths, nothing = images.find(args.images)
    for word, why in nothing.items():
        print(f"{word}: {why}", file=sys.stderr)
    if not paths:
        raise UserError("There is no image to look at. Name files, folders or patterns after the flags.")
    answers = _answers(classifier_of(args), paths, args)
    shown = show.as_json(answers) if args.json else show.as_csv(answers) if args.csv else show.as_table(answers)
    if shown:
        print(shown)
    unread = [answer for answer in answers if hasattr(answer, "reason")]
    for answer in unread:
        print(answer.reason, file=sys.stderr)
    if unread or nothing:
        print(f"images predicted: {len(answers) - len(unread):,}; unreadable, listed above: "
              f"{len(unread) + len(nothing):,}", file=sys.stderr)
    return 1 if unread or nothing else 0


cli = command.entry(parser, main, of_others=True)


def _register(plugins: Sequence[str]) -> None:
    from tools import train

    train.register(list(plugins))       # this checkout's packages first, whatever else is installed under their names


def _names(text: str) -> list[str]:
    """Class names of a comma-separated list, which may end in a comma, or of a text file with one in each line."""
    path = Path(text).expanduser()
    if text and "," not in text and (path.is_file() or path.suffix in (".txt", ".csv", ".json")
                                     or len(path.parts) > 1 and path.parent.is_dir()):
        from datasets.own_lists import names_in

        return names_in(path)
    return [name.strip() for name in text.strip().removesuffix(",").split(",")] if text.strip() else []


def _answers(classifier, paths: list[str], args: argparse.Namespace) -> list:
    from tqdm import tqdm

    stream = classifier.stream(paths, args.topk, args.batch_size)
    return list(tqdm(stream, total=len(paths), desc="predicting", unit=" images", file=sys.stderr, leave=False,
                     dynamic_ncols=True, mininterval=0.1 if sys.stderr.isatty() else 10, delay=1))


if __name__ == "__main__":
    command.script(cli)
