"""What tools/describe.py does: make, check and list files of descriptions."""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from unittest import mock

from tabulate import tabulate

from dassl.errors import UserError
from tools.labs.describe import description_check, questions
from tools.labs.describe.chat import Chat
from tools.labs.describe.description_job import Job, ask_all
from tools.runs.by_hand import dataset_names

_TOKENS_PER_SENTENCE, _CHARACTERS_PER_TOKEN = 30, 4     # of English, roughly; only for the estimate


def check(args: argparse.Namespace) -> int:
    classnames, _ = _classes(args)
    reports = [description_check.inspect(path, classnames, args.m) for path in args.files]
    print(tabulate([report.row() for report in reports], headers=description_check.HEADERS))
    for report in reports:
        for line in [*report.problems, *report.notes]:
            print(f"\n{report.path}: {line}")
    return 2 if any(report.problems for report in reports) else 0


def show(args: argparse.Namespace) -> int:
    from dassl.data.datasets import DATASET_REGISTRY
    from trainers.parts.description_files import find_file, is_published

    kinds, rows, files = ("des", "dist", "cse_1", "cse_2", "cse_3"), [], []
    known = sorted(DATASET_REGISTRY.registered_names())
    names = [dataset_names().get(args.dataset, args.dataset)] if args.dataset else known
    for name in names:
        dataset = DATASET_REGISTRY.get(name)
        if not (stem := _stem(dataset)):
            continue
        found = {kind: find_file(kind, stem=stem, root=args.root) for kind in kinds}
        rows.append([name, stem, *("its own" if hasattr(dataset, "descriptions") else "here" if found[kind] else
                                   "to fetch" if is_published(kind, stem) else "-" for kind in kinds)])
        files += [path for path in found.values() if path]
    print(tabulate(rows, headers=["dataset", "files", *kinds]))
    print("\nhere: a file on this machine; to fetch: the authors' file, fetched on first use; its own: sentences that "
          "come with the dataset")
    if args.dataset:
        print(*(f"  {path}" for path in files), sep="\n")
    return 0


def make(args: argparse.Namespace) -> int:
    classnames, stem = _classes(args)
    _check_options(args)
    topic, causes = questions.TOPICS.get(stem, (questions.DEFAULT_TOPIC, questions.DEFAULT_CAUSES))
    topic = args.topic or topic
    causes = tuple(c.strip() for c in args.causes.split(",") if c.strip()) if args.causes else causes
    questions.check_prompt(args.prompt or questions.QUESTION)
    jobs = [Job(kind, args.out or Path(args.root, "descriptions", f"{stem}_{kind}.json"), classnames, args.per_class,
                topic, questions.cause_of(kind, causes), args.prompt or "") for kind in args.kind]
    chat = Chat(args.endpoint, args.model, args.temperature)
    todo = [(job, name) for job in jobs for name in job.open]
    _say_cost(jobs, todo, args)
    if args.dry_run:
        return 0
    if todo:
        if not args.yes:
            _confirm()
        ask_all(todo, chat)
        print(f"The server counted {chat.tokens[0]:,} prompt and {chat.tokens[1]:,} answer tokens.")
    for job in jobs:
        job.finish()
    args.files, args.m = [job.out for job in jobs], min(args.m, args.per_class)
    return check(args)


def _check_options(args: argparse.Namespace) -> None:
    from trainers.parts.description_files import KINDS

    if wrong := [kind for kind in args.kind if not KINDS.fullmatch(kind)]:
        raise UserError(f"Kinds of descriptions must be des, dist and cse_1, cse_2, ..., got {wrong[0]!r}.")
    if args.out and len(args.kind) > 1:
        raise UserError(f"--out names one file, and there are {len(args.kind)} kinds: leave it out, or make one "
                        "kind at a time.")
    if args.per_class < 1 or args.m < 1:
        raise UserError(f"--per-class and --m must be at least 1, got {args.per_class} and {args.m}.")


def _say_cost(jobs: list[Job], todo: list[tuple[Job, str]], args: argparse.Namespace) -> None:
    for job in jobs:
        lacking = len(job.open)
        print(f"{job.out}: {len(job.classnames) - lacking} of {len(job.classnames)} classes are done, {lacking} to do, "
              f"{job.per_class} sentences each")
    prompt = sum(len(job.question(name)) for job, name in todo) // _CHARACTERS_PER_TOKEN
    answer = sum(job.lacks(name) for job, name in todo) * _TOKENS_PER_SENTENCE
    print(f"{len(todo):,} requests to {args.model} at {args.endpoint}: about {prompt:,} prompt and {answer:,} answer "
          "tokens, more where an answer is of no use")
    if args.dry_run and todo:
        print(f"\nThe first question:\n{todo[0][0].question(todo[0][1])}")


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise UserError("Nothing was asked: this costs what is shown above, and there is no terminal to confirm it "
                        "on. Add --yes, or --dry-run to see more.")
    if input("Continue? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("Nothing was asked.")


def _classes(args: argparse.Namespace) -> tuple[list[str], str]:
    """The class names and the stem of the files about them."""
    from datasets.own_lists import names_in

    if args.dataset:
        return _classes_of_dataset(args.dataset, args.root)
    names = names_in(args.classes)
    if not names or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        raise UserError(f"{args.classes} holds class names, one per line, each once; "
                        + (f"{twice!r} is there twice." if twice else "it is empty."))
    return names, args.classes.stem


def _classes_of_dataset(name: str, root: str) -> tuple[list[str], str]:
    from datasets.benchmarks import DatasetNotFound
    from tools.running.datasets import build, registered

    try:
        with mock.patch.dict(os.environ, DASSL_OFFLINE="1"):        # names are not worth a download of all images
            dataset = build(registered(name), Path(root))
    except DatasetNotFound as error:
        raise UserError(f"The class names of {name} are read from the dataset itself, which is not complete in {root}. "
                        f"Get it (python tools/data.py get {name}), name its root with --root or DATA, or name a file "
                        "of the class names, one per line, with --classes.") from error
    return dataset.classnames, _stem(type(dataset)) or name


def _stem(dataset: type) -> str:
    card = getattr(dataset, "card", None)
    return card.descriptions if hasattr(card, "descriptions") else getattr(dataset, "descriptions_stem", "")
