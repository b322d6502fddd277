"""What is wrong with a file of descriptions: every finding names the classes and the way out."""
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dassl.names import closest, listed

HEADERS = ("file", "classes", "sentences", "of use, per class", "different", "verdict")


@dataclass
class Report:
    """Findings on one file.

    Attributes:
        problems: what stops or spoils a run. notes: what one may want to know.
        counts: of the sentences of use of each class that has any.
    """

    path: Path
    classes: str = "-"
    sentences: int = 0
    counts: list[int] = field(default_factory=list)
    different: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self) -> list:
        spread = f"{min(self.counts)} - {max(self.counts)}" if self.counts else "-"
        verdict = f"{len(self.problems)} to fix" if self.problems else "fine"
        return [self.path, self.classes, self.sentences, spread, self.different, verdict]


def usable(sentences: Iterable[str]) -> list[str]:
    """Those long enough for the authors' filter and short enough for CLIP's text tower."""
    from trainers.parts.descriptions import MIN_CHARACTERS

    return [s for s in sentences if len(s) >= MIN_CHARACTERS and not _too_long(s)]


def inspect(path: Path, classnames: list[str], m: int) -> Report:
    """Args: m: sentences that a run draws of each class."""
    from clip import InputError
    from trainers.parts.description_files import read_descriptions
    from trainers.parts.descriptions import match_classes

    report = Report(path)
    try:
        content = read_descriptions(path)
        twice = _keys_that_stand_twice(path)
    except InputError as error:
        report.problems.append(str(error))
        return report
    keys = match_classes(classnames, content)
    unknown = [key for key in content if key not in keys.values()]
    missing = [name for name in classnames if name not in keys]
    report.classes = f"{len(keys)} of {len(classnames)}"
    report.sentences = sum(map(len, content.values()))
    report.counts = [len(usable(content[key])) for key in keys.values()]
    report.different = sum(len(set(usable(content[key]))) for key in keys.values())
    if missing:
        report.problems.append(f"{_count(missing, 'class')} missing: {_named(missing, unknown)}. Add them, or rename "
                               "keys that mean them.")
    if unknown:
        what = "a class" if len(unknown) == 1 else "classes"
        report.problems.append(f"{_count(unknown, 'key')} not {what}: {_named(unknown, missing or classnames)}. Rename "
                               "or remove them.")
    if twice:
        report.problems.append(f"{_count(twice, 'class')} there twice: {_named(twice)}. Only the last is read: merge "
                               "them.")
    _look_at_sentences(report, {name: content[key] for name, key in keys.items()}, m)
    return report


def _look_at_sentences(report: Report, content: dict[str, list[str]], m: int) -> None:
    from trainers.parts.descriptions import MIN_CHARACTERS

    counts = {name: len(usable(own)) for name, own in content.items()}
    few = {name: count for name, count in counts.items() if count < m}
    short = {name: n for name, own in content.items() if (n := sum(len(s) < MIN_CHARACTERS for s in own))}
    copies = {name: n for name, own in content.items() if (n := counts[name] - len(set(usable(own))))}
    long = [name for name, own in content.items() if any(map(_too_long, own))]
    if few:
        report.problems.append(f"{_count(few, 'class')} short of the {m} sentences that are drawn: {_numbered(few)}. "
                               "Write more (tools/describe.py make adds to a file), or draw fewer: "
                               "TRAINER.<NAME>.NUM_DESCRIPTIONS, and --m here. As it is, some are drawn twice, and a "
                               "class without any stops the run.")
    if long:
        report.problems.append(f"{_count(long, 'class')} described by a sentence of more than CLIP's 77 tokens: "
                               f"{_named(long)}. Shorten it to about 50 words.")
    if short:
        report.notes.append(f"sentences of fewer than {MIN_CHARACTERS} characters, which are left out: "
                            f"{_numbered(short)}.")
    if copies:
        report.notes.append(f"sentences that repeat another of their class, and so may be drawn again: "
                            f"{_numbered(copies)}.")


def _keys_that_stand_twice(path: Path) -> list[str]:
    found: list[str] = []

    def collect(pairs: list[tuple[str, object]]) -> dict:
        found.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return dict(pairs)

    json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=collect)
    return found


def _too_long(sentence: str) -> bool:
    from clip.tokenizer import CONTEXT_LENGTH, encode

    return len(sentence) > CONTEXT_LENGTH and len(encode(sentence)) > CONTEXT_LENGTH - 2


def _count(names: Iterable[str], noun: str) -> str:
    number = len(list(names))
    return f"1 {noun} is" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'} are"


def _named(names: list[str], near: Iterable[str] = ()) -> str:
    return listed(repr(name) + (f" (nearest: {found!r})" if (found := closest(name, near)) else "") for name in names)


def _numbered(counts: dict[str, int]) -> str:
    return listed(f"{name!r} ({count})" for name, count in counts.items())
