"""Make, check and list descriptions of classes, as AttrVR and DVP read them.

A file is JSON, {class: [sentences]}, named <dataset>_<kind>.json; kinds are des, dist and cse_1, cse_2, ... (causes).
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import command, train  # noqa: E402
from tools.describing import description_check, questions  # noqa: E402
from tools.describing.chat import Chat, ChatError  # noqa: E402
from tools.describing.description_job import Job, ask_all  # noqa: E402

EXAMPLES = """
examples:
  python tools/describe.py list                                  which descriptions of which dataset are here
  python tools/describe.py check mine_des.json --classes names.txt
  python tools/describe.py make --dataset oxford_pets --kind cse_1 cse_2 cse_3 \\
      --endpoint https://api.openai.com/v1 --model gpt-4o-mini --dry-run
  python tools/describe.py make --classes names.txt --topic bird --causes "beak,plumage,posture" \\
      --kind cse_1 --endpoint http://localhost:8000/v1 --model my-model

environment: OPENAI_API_KEY (for make; it is written nowhere), DATA (root of the datasets, default ./data)
exit codes: 0 all is well; 2 something is for you to mend, and a paragraph says what; 130 interrupted
"""
_TOKENS_PER_SENTENCE, _CHARACTERS_PER_TOKEN = 30, 4     # of English, roughly; only for the estimate


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(prog="tools/describe.py", description=__doc__, epilog=EXAMPLES, formatter_class=raw)
    actions = p.add_subparsers(dest="action", required=True)
    make = actions.add_parser("make", help="ask a language model; goes on where an interrupted run stopped")
    check = actions.add_parser("check", help="tell what is wrong with files")
    here = actions.add_parser("list", help="which descriptions are on this machine")
    for sub in (make, check):
        who = sub.add_mutually_exclusive_group(required=True)
        who.add_argument("--dataset", help="as in configs/datasets (oxford_pets) or as registered (OxfordPets)")
        who.add_argument("--classes", type=Path, metavar="FILE", help="class names, one per line")
        sub.add_argument("--m", type=int, default=20, help="sentences that a run draws of each class (default: 20)")
    here.add_argument("--dataset", help="only this one, with the places of its files")
    for sub in (make, check, here):
        sub.add_argument("--root", default=os.environ.get("DATA") or "./data",
                         help="folder of the datasets (default: $DATA)")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    make.add_argument("--kind", nargs="+", required=True, metavar="KIND", help="des, dist, cse_1, cse_2, ...")
    make.add_argument("--endpoint", required=True, metavar="URL", help="of an OpenAI-compatible API, e.g. .../v1")
    make.add_argument("--model", required=True, metavar="NAME", help="as the endpoint names it")
    make.add_argument("--out", type=Path, metavar="FILE", help="default: <root>/descriptions/<dataset>_<kind>.json")
    make.add_argument("--per-class", type=int, default=25, metavar="N", help="sentences of each class (default: 25)")
    make.add_argument("--topic", help="what all classes are, e.g. flower (default: the papers', else object)")
    make.add_argument("--causes", help="comma-separated, for cse_1, cse_2, ... (default: the papers', else shape, "
                                       "colour, texture)")
    make.add_argument("--prompt", help="another question, with any of "
                                       + " ".join(f"{{{field}}}" for field in questions.FIELDS))
    make.add_argument("--temperature", type=float, default=1.0)
    make.add_argument("--price-per-million", type=float, nargs="+", metavar="PRICE",
                      help="of tokens, or of prompt and answer tokens; then the estimate has a price")
    make.add_argument("--dry-run", action="store_true", help="show the estimate and the first question, ask nobody")
    make.add_argument("--yes", action="store_true", help="do not ask before spending")
    return p


def main(argv: list[str] | None = None) -> int:
    """The command line; see EXAMPLES for what it returns."""
    args = parser().parse_args(argv)
    train.register()
    return command.run({"make": make, "check": check, "list": show}[args.action], args,
                       "Interrupted; the same command goes on where it stopped.")


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
    names = [_registered(args.dataset)] if args.dataset else sorted(DATASET_REGISTRY.registered_names())
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
    from dassl.utils import UserError

    classnames, stem = _classes(args)
    _check_options(args)
    topic, causes = questions.TOPICS.get(stem, (questions.DEFAULT_TOPIC, questions.DEFAULT_CAUSES))
    topic = args.topic or topic
    causes = tuple(c.strip() for c in args.causes.split(",") if c.strip()) if args.causes else causes
    try:
        questions.check_prompt(args.prompt or questions.QUESTION)
        jobs = [Job(kind, args.out or Path(args.root, "descriptions", f"{stem}_{kind}.json"), classnames,
                    args.per_class, topic, questions.cause_of(kind, causes), args.prompt or "") for kind in args.kind]
        chat = Chat(args.endpoint, args.model, args.temperature)
    except (ValueError, ChatError) as error:
        raise UserError(f"{str(error)[0].upper()}{str(error)[1:]}.".replace("..", ".")) from error
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
    from dassl.utils import UserError
    from trainers.parts.description_files import KINDS

    if wrong := [kind for kind in args.kind if not KINDS.fullmatch(kind)]:
        raise UserError(f"Kinds of descriptions are des, dist and cse_1, cse_2, ...; got {wrong[0]!r}.")
    if args.out and len(args.kind) > 1:
        raise UserError(f"--out names one file, and there are {len(args.kind)} kinds: leave it out, or make one "
                        "kind at a time.")
    if args.per_class < 1 or args.m < 1:
        raise UserError(f"--per-class and --m are at least 1; got {args.per_class} and {args.m}.")
    if len(args.price_per_million or [0]) > 2:
        raise UserError("--price-per-million takes one price for all tokens, or two: of prompt and of answer tokens.")


def _say_cost(jobs: list[Job], todo: list[tuple[Job, str]], args: argparse.Namespace) -> None:
    for job in jobs:
        lacking = len(job.open)
        print(f"{job.out}: {len(job.classnames) - lacking} of {len(job.classnames)} classes are done, {lacking} to do, "
              f"{job.per_class} sentences each")
    prompt = sum(len(job.question(name)) for job, name in todo) // _CHARACTERS_PER_TOKEN
    answer = sum(job.lacks(name) for job, name in todo) * _TOKENS_PER_SENTENCE
    print(f"{len(todo):,} requests to {args.model} at {args.endpoint}: about {prompt:,} prompt and {answer:,} answer "
          "tokens, more where an answer is of no use")
    if price := args.price_per_million:
        print(f"At {' and '.join(map(str, price))} per million that is about "
              f"{(prompt * price[0] + answer * price[-1]) / 1e6:.4f}.")
    if args.dry_run and todo:
        print(f"\nThe first question:\n{todo[0][0].question(todo[0][1])}")


def _confirm() -> None:
    from dassl.utils import UserError

    if not sys.stdin.isatty():
        raise UserError("Nothing was asked: this costs what stands above, and there is no terminal on which to confirm "
                        "it. Add --yes, or --dry-run to see more.")
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("Nothing was asked.")


def _classes(args: argparse.Namespace) -> tuple[list[str], str]:
    """The class names and the stem of the files about them."""
    from dassl.utils import UserError
    from tools.class_names import read_class_names

    if args.dataset:
        return _classes_of_dataset(args.dataset, args.root)
    names = read_class_names(args.classes)
    if not names or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        raise UserError(f"{args.classes} holds class names, one per line, each once; "
                        + (f"{twice!r} stands there twice." if twice else "it is empty."))
    return names, args.classes.stem


def _classes_of_dataset(name: str, root: str) -> tuple[list[str], str]:
    from dassl.config import get_cfg_default
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.utils import UserError
    from datasets import extend_cfg
    from datasets.benchmarks import DatasetNotFound

    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS = root, -1
    before = os.environ.get("DASSL_OFFLINE")
    os.environ["DASSL_OFFLINE"] = "1"               # names are not worth a download of all images
    try:
        dataset = DATASET_REGISTRY.get(_registered(name))(cfg)
    except DatasetNotFound as error:
        raise UserError(f"The class names of {name} are read from the dataset itself, which is not complete in {root}. "
                        f"Get it (python tools/data.py get {name}), name its root with --root or DATA, or name a file "
                        "of the class names, one per line, with --classes.") from error
    finally:
        os.environ.pop("DASSL_OFFLINE") if before is None else os.environ.update(DASSL_OFFLINE=before)
    return dataset.classnames, _stem(type(dataset)) or name


def _registered(name: str) -> str:
    """The registered name of a dataset that is named so, or as its file in configs/datasets."""
    import yaml

    path = ROOT / "configs" / "datasets" / f"{name}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))["DATASET"]["NAME"] if path.is_file() else name


def _stem(dataset: type) -> str:
    card = getattr(dataset, "card", None)
    return card.descriptions if card else getattr(dataset, "descriptions_stem", "")


if __name__ == "__main__":
    sys.exit(main())
