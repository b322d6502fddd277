"""OpenAI's `SimpleTokenizer` over the one tokenizer of this process."""
from __future__ import annotations

from functools import cached_property

from .tokenizer import END, START, decode, encode, simple_tokenizer


class SimpleTokenizer:
    """CLIP's byte-pair tokenizer with OpenAI's attributes; made at once, as the vocabulary is read at the first use.

    Whatever else it is asked for (`bpe`, `bpe_ranks`, `byte_encoder`, ...) is open_clip's of that name.
    """

    def encode(self, text: str) -> list[int]:
        """BPE ids, without start and end."""
        return list(encode(text))

    def decode(self, tokens) -> str:
        """Text of BPE ids; words come back in lower case, followed by a space."""
        text = decode(tokens)
        for token in (START, END):
            text = text.replace(simple_tokenizer().decoder[token], self.decoder[token])
        return text

    @cached_property
    def encoder(self) -> dict[str, int]:
        """Token to id, 49,408 of them."""
        return {token: i for i, token in self.decoder.items()}

    @cached_property
    def decoder(self) -> dict[int, str]:
        """Id to token."""
        return {**simple_tokenizer().decoder, START: "<|startoftext|>", END: "<|endoftext|>"}

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(simple_tokenizer(), name)
