"""The flags of tools/train.py: those of CoOp's train.py, and ours. Imports nothing heavy."""
from __future__ import annotations

import argparse

from tools import command

DESCRIPTION = "Train and test one method on one dataset: the flags of CoOp's train.py, plugins, readable errors."


def parser() -> argparse.ArgumentParser:
    """The flags; KEY VALUE pairs for the config follow them and end up in `args.opts`."""
    p = command.parser("train", DESCRIPTION)
    p.add_argument("--root", default="", help="folder of the datasets (default: $DATA, else data/ of the checkout)")
    p.add_argument("--output-dir", default="", help="run folder: log.txt, checkpoints, results.json")
    p.add_argument("--resume", default="", metavar="DIR",
                   help="continue from what is saved in this run folder; not needed for an interrupted run: "
                        "the same command does")
    p.add_argument("--anew", action="store_true",
                   help="start from scratch where an interrupted run would resume, and replace another run's result in "
                        "the folder that --dataset-dir gives")
    p.add_argument("--on-nan", default=None, choices=("stop", "skip"),
                   help="at a step whose loss or gradient is infinite or NaN: stop and say where (default), or leave "
                        "it out and count it")
    p.add_argument("--deterministic", action="store_true",
                   help="on a GPU too, the same seed gives the same bits; slower (a CPU always does)")
    p.add_argument("--seed", type=int, default=None,
                   help="0 is a seed too; without the flag, or with -1, the run is unseeded (as in Dassl)")
    p.add_argument("--source-domains", nargs="+", default=None, help="for domain adaptation and generalisation sets")
    p.add_argument("--target-domains", nargs="+", default=None, help="for domain adaptation and generalisation sets")
    p.add_argument("--transforms", nargs="+", default=None, help="training transforms, e.g. random_flip normalize")
    p.add_argument("--config-file", default="", help="trainer yaml, e.g. configs/trainers/CoOp/vit_b16.yaml")
    p.add_argument("--dataset-config-file", default="", help="dataset yaml, e.g. configs/datasets/dtd.yaml")
    command.add_own_images(p)
    p.add_argument("--trainer", default="", help="registered name, see --list")
    p.add_argument("--backbone", default="",
                   help="e.g. ViT-B/16, RN50, tiny, a file of weights, or ARCH:FILE for open_clip's")
    p.add_argument("--head", default="", help="head of the network, for trainers that use one")
    p.add_argument("--eval-only", action="store_true", help="test only, with the prompts of --model-dir")
    p.add_argument("--model-dir", default="", help="run folder to load from, for --eval-only")
    p.add_argument("--load-epoch", type=int, default=None, help="which of its checkpoints (default: best, else last)")
    p.add_argument("--no-train", action="store_true", help="build everything and stop")
    command.add_code_of_others(p)
    p.add_argument("--list", action="store_true", help="print the registered trainers and datasets, and stop")
    p.add_argument("--print-config", action="store_true", help="print the merged config as yaml, and stop")
    p.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config options, e.g. OPTIM.LR 0.01")
    return p
