"""What a language model is asked about a class, and how its answer is read.

Source: topics and causes of the papers' datasets as generate_causes.py of caichengyi/DecoupledVP 4976ad4 has them (the
first three); the wording is ours.
"""
from __future__ import annotations

import json
import re
import string

from dassl.errors import UserError

KIND_OF_QUESTION = {
    "des": "what {name} looks like in a photo",
    "dist": "what sets {name} apart, in a photo, from every other {topic}",
    "cse": "the {cause} of {name} as a photo shows it",
}
QUESTION = ("You see photos that each show one {topic}. Write {count} different sentences that describe {what}. Say "
            "only what can be seen, name {name} in most of them, and keep each between 8 and 40 words. Answer with a "
            "JSON array of {count} strings and nothing else.")
FIELDS = ("name", "topic", "cause", "count", "what")
DEFAULT_TOPIC, DEFAULT_CAUSES = "object", ("shape", "colour", "texture")
TOPICS = {                                  # stem: topic, causes
    "caltech101": ("object", ("shape", "color", "texture")),
    "dtd": ("texture", ("pattern", "coarseness or granularity", "contrast")),
    "eurosat": ("remote sensing land cover", ("texture", "spectral information", "spatial characteristics")),
    "fgvc": ("aircraft model", ("shape and structure", "size and proportions", "surface features")),
    "food101": ("food", ("texture", "shape and composition", "color")),
    "imagenet": ("object", ("shape", "color", "texture")),
    "oxford_flowers": ("flower", ("flower structure", "shape of the petals", "color")),
    "oxford_pets": ("pet", ("fur or coat type", "species and body shape", "facial features")),
    "resisc45": ("remote sensing scene", ("spectral information", "texture", "spatial characteristics")),
    "stanford_cars": ("fine-grained automobile", ("front and rear design", "shape and body style", "wheels and rims")),
    "sun397": ("scene", ("spatial layout and composition", "texture", "color and lighting")),
    "ucf101": ("action", ("motion and poses", "contextual elements", "intensity and speed")),
}


def cause_of(kind: str, causes: tuple[str, ...]) -> str:
    """The cause that a kind is about; "" for des and dist.

    Raises:
        UserError: there are fewer causes.
    """
    if not kind.startswith("cse_"):
        return ""
    number = int(kind[4:])
    if number > len(causes):
        raise UserError(f"{kind} is about cause {number}, and there are {len(causes)}: {', '.join(causes)}. Name "
                        "more with --causes, separated by commas.")
    return causes[number - 1]


def question(kind: str, name: str, count: int, topic: str, cause: str, prompt: str = "") -> str:
    """What is asked for `count` sentences about one class; `prompt` replaces QUESTION and may hold its FIELDS."""
    facts = {"name": f"\"{name.replace('_', ' ')}\"", "topic": topic, "cause": cause, "count": count}
    return (prompt or QUESTION).format(what=KIND_OF_QUESTION[kind.split("_")[0]].format(**facts), **facts)


def check_prompt(prompt: str) -> None:
    """Raises UserError for a text that `question` cannot fill."""
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(prompt) if field is not None}
    except ValueError as error:
        raise UserError(f"--prompt has a single brace ({error}): write {{{{ and }}}} for braces.") from error
    if unknown := fields - set(FIELDS):
        raise UserError(f"--prompt has {{{sorted(unknown)[0]}}}; known are {', '.join(f'{{{f}}}' for f in FIELDS)}.")
    if not fields & {"name", "what"}:
        raise UserError("--prompt names no class: write {name} where it belongs.")


def read_answer(text: str) -> list[str]:
    """The sentences of an answer, a JSON array of strings that other text may surround.

    Raises:
        ValueError: there is no such array.
    """
    found = re.search(r"\[.*\]", text, re.DOTALL)
    sentences = json.loads(found[0]) if found else None
    if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
        raise ValueError("the answer is not a JSON array of sentences")
    return list(dict.fromkeys(" ".join(s.split()) for s in sentences if s.strip()))
