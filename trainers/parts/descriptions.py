"""Sentences about classes: matched to the class names, filtered and drawn as the authors do it.

A kind is "des" (how a class looks), "dist" (what sets it apart) or "cse_i" (its cause i, e.g. shape, colour, texture).
A file is JSON, {class: [sentences]}, named <stem>_<kind>.json.

Source: AttrVR (Cai et al., ICLR 2025) and DVP (Cai et al., ICML 2025); rule and draws of clip_txt in tools.py of
caichengyi/DecoupledVP 4976ad4.
"""
from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from clip import InputError
from trainers.parts.description_files import KINDS, fetch_file, find_file, read_descriptions

logger = logging.getLogger(__name__)

MIN_CHARACTERS = 20


def load_descriptions(kind: str, classnames: Sequence[str], *, stem: str = "", root: str = "", path: str = "",
                      own: dict[str, dict[str, list[str]]] | None = None, download: bool = True) -> list[list[str]]:
    """What is said of each class.

    The first of these that has the kind counts: `path`, `own`, `root`, the user's cache, the authors' repository.

    Args:
        kind: "des", "dist" or "cse_<i>".
        classnames: C names; `_`, letter case and punctuation do not matter.
        stem: the dataset's name in file names, e.g. "oxford_pets" ("imagenet" also finds the authors' I_des.json); ""
            has no file but `path`.
        root: folder of all datasets. It and the folders in it are searched, and in each of them the folders
            descriptions, attributes and causes.
        path: a file, or a folder that holds <stem>_<kind>.json or <kind>.json; then nothing else is tried.
        own: what a dataset brings itself, {kind: {class: [sentences]}}.
        download: fetch what is nowhere on this machine; its SHA-256 must be that of the authors' file.
    Returns:
        C lists of at least one sentence of MIN_CHARACTERS or more, in the order of `classnames`.
    Raises:
        InputError: nothing is found, a file is damaged, or a class has no such sentence.
    """
    if not KINDS.fullmatch(kind):
        raise InputError(f"Kinds of descriptions must be des, dist and cse_1, cse_2, ..., got {kind!r}.")
    if not path and own and kind in own:
        content, where = own[kind], "the dataset"
    else:
        where = find_file(kind, stem=stem, root=root, path=path) or fetch_file(kind, stem, root, download)
        content = read_descriptions(where)
        logger.info("Read the descriptions %s of %d classes from %s", kind, len(classnames), where)
    keys = match_classes(classnames, content)
    lacking = [name for name in classnames if name not in keys]
    if lacking:
        raise InputError(f"{where} has no descriptions of {_some(lacking, content)}: each class needs some. Its names "
                         "may differ: rename its keys, or add the classes, by hand or with tools/describe.py make.")
    kept = [[s for s in content[keys[name]] if len(s) >= MIN_CHARACTERS] for name in classnames]
    empty = [name for name, sentences in zip(classnames, kept) if not sentences]
    if empty:
        raise InputError(f"{where} has no sentence of {MIN_CHARACTERS} or more characters about {_some(empty)}, and "
                         "shorter ones are left out. Write longer ones.")
    return kept


def sample_descriptions(sentences: list[list[str]], m: int, rng: random.Random) -> list[list[str]]:
    """m sentences of each class, drawn in class order: without replacement where there are more than m, else with.

    Source: clip_txt of the authors; the same draws for the same random stream.
    """
    if few := [len(own) for own in sentences if len(own) < m]:
        logger.info("%d of %d classes have fewer than %d descriptions (the fewest: %d): theirs are drawn with "
                    "replacement, as by the authors", len(few), len(sentences), m, min(few))
    return [rng.sample(own, m) if m < len(own) else rng.choices(own, k=m) for own in sentences]


def match_classes(classnames: Iterable[str], keys: Iterable[str]) -> dict[str, str]:
    """{class: its key} for the classes that have one; `_`, letter case and, where that is clear, punctuation aside."""
    keys, found = list(keys), {}
    for plain in (str, _spaced, _letters):
        by_plain: dict[str, list[str]] = {}
        for key in keys:
            by_plain.setdefault(plain(key), []).append(key)
        for name in classnames:
            if name not in found and len(same := by_plain.get(plain(name), [])) == 1:
                found[name] = same[0]
    return found


def _some(names: Sequence[str], known: Iterable[str] = ()) -> str:
    """Up to five names, each with the nearest known one, and how many there are."""
    spaced = {_spaced(k): k for k in known}
    near = {name: get_close_matches(_spaced(name), spaced, 1, 0.7) for name in names[:5]}
    shown = ", ".join(f"{name!r}" + (f" (nearest: {spaced[hit[0]]!r})" if hit else "") for name, hit in near.items())
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more classes"


def _spaced(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))
