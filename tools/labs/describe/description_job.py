"""One file of descriptions in the making: what it has, what it lacks, and asking for that."""
from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from dassl.errors import UserError
from dassl.names import listed
from tools.labs.describe import questions
from tools.labs.describe.chat import Chat, ChatError
from tools.labs.describe.description_check import usable

_ATTEMPTS = 4                                       # questions about one class until it has enough sentences


class Job:
    """One file to make.

    Every answer is kept in `part` at once, which is replaced whole or not at all, so that a run which stops resumes
    from there. `out` is written when all classes have their sentences; what it had before stays in it.
    """

    def __init__(self, kind: str, out: Path, classnames: list[str], per_class: int, topic: str, cause: str,
                 prompt: str = ""):
        from trainers.parts.description_files import read_descriptions
        from trainers.parts.descriptions import match_classes

        self.kind, self.out, self.classnames, self.per_class = kind, out.expanduser(), classnames, per_class
        self.topic, self.cause, self.prompt = topic, cause, prompt
        self.part = self.out.with_name(f"{self.out.name}.part")
        self.found: dict[str, list[str]] = {}
        for path in filter(Path.is_file, (self.out, self.part)):
            content = read_descriptions(path)
            class_of = {key: name for name, key in match_classes(classnames, content).items()}
            self.found.update({class_of.get(key, key): sentences for key, sentences in content.items()})

    @property
    def open(self) -> list[str]:
        """Classes that lack sentences."""
        return [name for name in self.classnames if self.lacks(name)]

    def lacks(self, name: str) -> int:
        """How many sentences the class still needs."""
        return max(0, self.per_class - len(set(usable(self.found.get(name, [])))))

    def question(self, name: str) -> str:
        return questions.question(self.kind, name, self.lacks(name), self.topic, self.cause, self.prompt)

    def add(self, name: str, sentences: list[str]) -> None:
        from dassl.utils import write_json

        self.found[name] = list(dict.fromkeys([*self.found.get(name, []), *usable(sentences)]))
        write_json(self.found, str(self.part))

    def finish(self) -> None:
        """Make `part`, if there is one, the file: classes in their order."""
        from dassl.utils import write_json

        if self.part.is_file():
            write_json({name: self.found[name] for name in dict.fromkeys([*self.classnames, *self.found])},
                       str(self.out))
            self.part.unlink()


def ask_all(todo: list[tuple[Job, str]], chat: Chat) -> None:
    """Ask for every class until it has its sentences.

    Raises:
        UserError: the server refused or failed, or answers about some classes were of no use; all others were kept.
    """
    failed: dict[str, str] = {}
    for job, name in tqdm(todo, desc="describing", unit="class", file=sys.stderr,
                          mininterval=0.1 if sys.stderr.isatty() else 30):
        reason = "too few different sentences of use"
        for _ in range(_ATTEMPTS):
            try:
                job.add(name, questions.read_answer(chat.ask(job.question(name))))
            except ValueError as error:
                reason = str(error)
            except ChatError as error:
                raise UserError(f"{job.out.name} was stopped at {name!r}: {error}. All answers so far were kept; the "
                                "same command asks for the rest.") from error
            if not job.lacks(name):
                break
        else:
            failed[name] = reason
    if failed:
        which = listed(f"{name!r} ({reason})" for name, reason in failed.items())
        raise UserError(f"{len(failed)} of {len(todo)} classes could not be described in {_ATTEMPTS} attempts each: "
                        f"{which}. All other answers were kept; the same command asks for the rest, and --prompt or "
                        "--model may help.")
