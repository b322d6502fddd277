"""What breaks a run's classifier: attacks, corruptions, covered and shuffled patches. robustness.json keeps it."""
from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl.errors import UserError  # noqa: E402
from tools import command  # noqa: E402

PATCHES = (0.02, 0.05, 0.1)


def parser() -> argparse.ArgumentParser:
    p = command.parser("evaluate", __doc__)
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run, of any trainer")
    p.add_argument("--attack", action="append", default=[], metavar="KIND:EPS[:STEPS]",
                   help="pgd, cw, pyramid, random, autoattack, or one of its parts, as pgd:4/255:10; repeatable")
    p.add_argument("--corrupt", nargs="+", default=[], metavar="NAME", help="all, names such as fog, or fog:3")
    p.add_argument("--reference", choices=("auto", "alexnet", "zeroshot"), default="auto",
                   help="whose errors mCE is a share of: AlexNet's on ImageNet-C, or those of zero-shot CLIP of the "
                        "same backbone (default: the first for ImageNet, else the second)")
    p.add_argument("--occlude", nargs="+", action="append", default=[], metavar="WORD",
                   help="random or salient, then shares of the patches that are covered: random 0.1 0.5 0.9")
    p.add_argument("--shuffle", nargs="+", type=int, default=[], metavar="PIECES", help="square numbers: 4 16 64")
    p.add_argument("--patches", nargs="*", type=float, metavar="SHARE",
                   help="attacks on a square of the image, without any bound; shares of the image (default: "
                        f"{' '.join(map(str, PATCHES))})")
    p.add_argument("--images", type=command.number(1), metavar="N", help="of the split, taken evenly (default: all)")
    p.add_argument("--seed", type=command.number(0), default=0, help="of all that is drawn (default: 0)")
    p.add_argument("--no-figure", action="store_true", help="do not draw plots/robustness.png in the run folder")
    command.add_run_flags(p)
    return p


def evaluate(folder: Path, args: argparse.Namespace) -> dict:
    """What robustness.json then holds.

    Raises:
        UserError: no run, an attack or a share that is none, or a trainer whose images get no gradient.
    """
    from tools.evaluating import corrupting, measure, record
    from tools.evaluating.tested import rebuild, split_of
    from tools.plotting.style import THEMES, write
    from tools.runs.run import Run
    from trainers.under_attack import Attackable

    attacks, occlusions, kinds = asked(args)
    run = Run(folder, args.epoch, args.root, args.plugin)
    trainer = rebuild(run, exact=True)
    model = Attackable(trainer)
    split, loader = split_of(run, trainer)
    images, squares = measure.Images(model, loader, args.images), PATCHES if args.patches == [] else args.patches or []
    measure.check_asked(images, occlusions, args.shuffle, squares)
    of = {"weights": weights_of(trainer), "split": split, "images": len(images)}
    whole = {**record.kept(folder, of), "of": of, "clean": images.accuracy()}

    def keep(part: str, found: dict) -> None:               # at once: what follows may take hours, or be stopped
        whole[part] = {**whole.get(part, {}), **found}
        record.save(folder, whole)

    for text, attack in attacks.items():
        keep("attacks", {text: measure.attacked(images, attack, args.seed)})
    for kind, shares in occlusions:
        keep("occlusion", {kind: measure.occluded(images, kind, shares, args.seed)})
    for pieces in args.shuffle:
        keep("shuffle", measure.shuffled(images, [pieces], args.seed))
    for share in squares:
        keep("patches", measure.patched(images, [share], args.seed))
    if kinds:
        alexnet = args.reference == "alexnet" or args.reference == "auto" and run.dataset == "ImageNet"
        for found in corrupting.measure(model, kinds, split, args.images, "alexnet" if alexnet else "zeroshot",
                                        whole.get("corruptions", {})):
            keep("corruptions", found)
    trainer.close_loaders()
    if not args.no_figure and record.curves(whole):
        write(lambda theme: record.draw(run, whole, theme), run.folder / "plots" / "robustness.png", THEMES["light"])
    return whole


def asked(args: argparse.Namespace) -> tuple[dict, list, list[str]]:
    """Attacks by their words, kinds of occlusion with their shares, and corruptions, checked before anything runs."""
    from tools.evaluating import corrupting
    from trainers.errors import refusal_as_user_error
    from trainers.parts.attack_names import Attack

    with refusal_as_user_error():
        attacks = {text: Attack.parse(text) for text in args.attack}
    occlusions = []
    for kind, *shares in args.occlude:
        try:
            numbers = [float(share) for share in shares]
        except ValueError:
            numbers = []
        if kind not in ("random", "salient") or not numbers:
            raise UserError("--occlude takes random or salient, then shares of the patches, as in --occlude random 0.1 "
                            f"0.5; got {' '.join((kind, *shares))!r}.")
        occlusions.append((kind, numbers))
    if not (attacks or occlusions or args.corrupt or args.shuffle or args.patches is not None):
        raise UserError("Say what to change the images with: --attack pgd:1/255:10, --corrupt all, --occlude random "
                        "0.5, --shuffle 4 16 or --patches.")
    return attacks, occlusions, corrupting.chosen(args.corrupt)


def weights_of(trainer) -> str:
    """By which the same weights are known again: of the towers, and of what was learned."""
    digest = hashlib.sha256(str(trainer.classifier_fields().get("backbone")).encode())
    for learner in trainer.registered():
        for name, value in learner.model.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def main(args: argparse.Namespace) -> int:
    from tools.evaluating import record

    found = {str(folder): evaluate(folder, args) for folder in args.runs}
    print(record.table(found), "", *record.notes(found), sep="\n")
    for folder in args.runs:
        print(f"written: {folder / record.FILE}")
    return 0


cli = command.entry(parser, main, "Interrupted. What was measured is in the robustness.json of its run.",
                    of_others=True)

if __name__ == "__main__":
    sys.exit(cli())
