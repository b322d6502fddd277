"""Write a run whose learning is other weights of CLIP's towers as one plain CLIP file, which open_clip loads.

Low-rank updates (CLIPLoRA) and released weights (BitFit) are in it; learned words, tokens and classifiers cannot be.
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


def parser() -> argparse.ArgumentParser:
    p = command.parser("merge", __doc__)
    p.add_argument("run", metavar="RUN", help="run folder, as tools/train.py leaves it")
    p.add_argument("out", type=Path, metavar="OUT", help="x.safetensors; any other name becomes a PyTorch file")
    p.add_argument("--backbone", default="", help="where the run's weights are now")
    command.add_run_flags(p, command.FOR_CLASSES)
    p.add_argument("--force", action="store_true", help="replace OUT if it exists")
    return p


def main(args: argparse.Namespace) -> None:
    import io

    import torch
    from safetensors.torch import save

    from dassl.files.whole import write_whole
    from tools.prediction.rebuild import from_run
    from trainers.errors import as_user_error
    from trainers.parts.merging import merged_weights

    if args.out.exists() and not args.force:
        raise UserError(f"{args.out} exists. Give another name, or --force to replace it.")
    classifier = from_run(args.run, epoch=args.epoch, backbone=args.backbone, device="cpu", root=args.root,
                          plugins=args.plugin, float32=True)
    if classifier.model is None:
        raise UserError(f"{classifier.facts['trainer']} brings an answer of its own, which no plain CLIP gives.")
    with as_user_error():
        weights = merged_weights(classifier.model)
    if args.out.suffix == ".safetensors":
        write_whole(args.out, save({name: value.contiguous() for name, value in weights.items()}))
    else:
        torch.save(weights, buffer := io.BytesIO())
        write_whole(args.out, buffer.getvalue())
    print(f"Wrote {args.out}: {len(weights)} weights in OpenAI's layout. MODEL.BACKBONE.NAME {args.out} uses it.")


cli = command.entry(parser, main, of_others=True)


if __name__ == "__main__":
    sys.exit(cli())
