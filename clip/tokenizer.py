"""CLIP's byte-pair tokenizer (open_clip's), with OpenAI's `tokenize` around it."""
from __future__ import annotations

import contextlib
import re
from functools import lru_cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from torch import Tensor

from .errors import InputError

CONTEXT_LENGTH, VOCABULARY_SIZE = 77, 49408
START, END = 49406, 49407
_IDS = {"<|startoftext|>": START, "<|endoftext|>": END}
_SPECIAL = re.compile(r"(<\|startoftext\|>|<\|endoftext\|>)", re.IGNORECASE)


class TextTooLong(InputError, RuntimeError):
    """A text of more tokens than the context holds; OpenAI's `tokenize` raises RuntimeError here."""


@lru_cache(maxsize=1)
def simple_tokenizer():
    """The one tokenizer of this process: open_clip's, from its file alone, for the whole package takes seconds."""
    if package := find_spec("open_clip"):
        spec = spec_from_file_location("clip._tokenizer", Path(package.submodule_search_locations[0], "tokenizer.py"))
        module = module_from_spec(spec)
        with contextlib.suppress(ImportError):          # a version whose file needs others of its package
            spec.loader.exec_module(module)
            return module.SimpleTokenizer()
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


@lru_cache(maxsize=100_000)
def encode(text: str) -> tuple[int, ...]:
    """BPE ids of a text, without start and end; OpenAI's spelling of those two, inside a text, stands for their ids."""
    parts = _SPECIAL.split(text)
    return tuple(i for part in parts for i in ([_IDS[part.lower()]] if _SPECIAL.fullmatch(part)
                                               else simple_tokenizer().encode(part)))


def decode(ids) -> str:
    """Text of BPE ids; words come back in lower case, followed by a space."""
    return simple_tokenizer().decode([int(i) for i in ids])


def tokenize(texts: str | list[str], context_length: int = CONTEXT_LENGTH, truncate: bool = False) -> Tensor:
    """Start, BPE ids, end, zeros.

    Args:
        texts: N texts, or one.
        context_length: length of every row.
        truncate: cut a longer text and end it with the end-of-text token, instead of raising.
    Returns:
        (N, context_length) int64; the end-of-text id is the largest of a row, so `argmax` finds it.
    Raises:
        TextTooLong: a text is longer than `context_length` and `truncate` is off.
    """
    texts = [texts] if isinstance(texts, str) else texts
    rows = torch.zeros(len(texts), context_length, dtype=torch.long)
    for row, text in zip(rows, texts):
        ids = [START, *encode(text), END]
        if len(ids) > context_length:
            if not truncate:
                seen = text if len(text) <= 500 else f"{text[:100]} [... {len(text) - 100:,} characters]"
                raise TextTooLong(f"Input {seen} is too long for context length {context_length}: it has {len(ids)} "
                                  "tokens. Shorten the class name or the context.")
            ids = [*ids[:context_length - 1], END]
        row[:len(ids)] = torch.tensor(ids)
    return rows
