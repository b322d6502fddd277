"""Words that make no sense, for every command: flags without values, values without flags, files of another kind."""
from __future__ import annotations

import argparse
import importlib
import random
from collections.abc import Iterator
from pathlib import Path

from tools import train

from .bad_configs import command
from .cases import Case, in_folder, some

# Exit code 1 of a command that looks at something: it differs, is not ready, or a part of it could not be read.
COMMANDS = {"train": (0, 2), "sweep": (0, 2), "table": (0, 1, 2), "compare": (0, 1, 2), "plot": (0, 2),
            "predict": (0, 1, 2), "export": (0, 2), "checkpoint": (0, 2), "share": (0, 2), "data": (0, 1, 2),
            "describe": (0, 1, 2), "new_trainer": (0, 2), "parse_test_res": (0, 2),
            "merge": (0, 2), "interpolate": (0, 2), "calibrate": (0, 2), "evaluate": (0, 1, 2)}
WORDS = ("", "-1", "0", "nan", "1e9", "x", "ñ\u202e", "a,b", "../nowhere", "nowhere.json", "--", "-", "=", "{}", "None",
         "DAPT", "digits", "dapt", "16", "all", "OPTIM.LR", "lower.case", "A" * 300, "%s", "*", "show", "convert",
         "check", "list", "push", "pull", "curves", "report", "words", "embeddings", "confusion", "prm", "prompts")
# These listen, ask a machine, or take long by right.
NEVER = ("--serve", "--port", "--host", "--endpoint", "--launcher", "get", "make", "doctor", "--jobs")


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """Option strings of a parser and of its subcommands."""
    found = []
    for action in parser._actions:
        found += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found += flags_of(below)
    return [flag for flag in dict.fromkeys(found) if flag not in NEVER]


def arguments(folder: Path, scale: float = 1.0, seed: int = 0) -> Iterator[Case]:
    """One to five words, half of them flags of the command; some runs and files are there."""
    rng, place = random.Random(seed), folder / "place"
    place.mkdir(parents=True)
    assert train.cli(command(folder / "data", place / "run", "CoOp", "TEST.NO_TEST", "False")) == 0
    (place / "junk.json").write_text("{", encoding="utf-8")
    (place / "junk.bin").write_bytes(bytes(range(256)))
    (place / "empty").mkdir()
    there = ("run", "junk.json", "junk.bin", "empty", "run/results.json", "run/prompt_learner/model.pth.tar-1", ".")
    for number in range(some(260, scale)):
        name = list(COMMANDS)[number % len(COMMANDS)]
        tool = importlib.import_module(f"tools.{name}")
        flags = flags_of(tool.parser())
        words = [rng.choice(flags) if rng.random() < 0.5 else rng.choice((*WORDS, *there))
                 for _ in range(rng.randrange(1, 6))]
        if name in ("sweep", "new_trainer"):        # nothing is run, nothing is written into the checkout
            words = ["--dry-run", *words]
        yield Case("arguments", f"tools/{name}.py {words}", lambda tool=tool, words=words: started(tool, words, place),
                   codes=COMMANDS[name])


def started(tool, words: list[str], place: Path) -> int | None:
    with in_folder(place):
        return (getattr(tool, "cli", None) or tool.main)(words)
