"""Plain sentences into the text tower: embedded, cut after the last end-of-text, and encoded in chunks."""
from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from .packing import TextTokens
from .towers import FrozenCLIP

logger = logging.getLogger(__name__)


def embed_texts(clip: FrozenCLIP, texts: list[str], share: bool = False, words: Sequence[str] | None = None,
                truncate: bool = False) -> TextTokens:
    """Token sequences of N sentences, on CLIP's device, without what no causal tower would look at.

    Args:
        share: with the tokens that all sentences begin with as one prefix, which is faster where they are computed
            again and again; without, where they are encoded once.
        words: of which to warn if the model does not know them; default all texts.
        truncate: cut what is longer than the context, as captions of photos may be, instead of raising.
    Raises:
        InputError: a sentence is longer than the context length.
    """
    warn_of_unknown_words(clip, texts if words is None else list(words))
    cut = {"truncate": True} if truncate else {}
    ids = clip.tokenizer.tokenize(texts, clip.context_length, **cut).to(clip.logit_scale.device)    # (N, 77)
    eot = ids.argmax(dim=-1)                                                    # (N,)
    if clip.read_at == "last":
        eot = torch.full_like(eot, clip.context_length - 1)
    ids = ids[:, :int(eot.max()) + 1] if clip.causal else ids                   # (N, L)
    p = int((ids == ids[0]).all(dim=0).long().cumprod(0).sum().clamp(max=int(eot.min()))) if share else 0
    embeddings = clip.embed_tokens(ids)                                         # (N, L, W); learned where released
    return TextTokens(embeddings[:, p:], eot.cpu() - p, embeddings[0, :p]) if p else TextTokens(embeddings, eot)


@torch.no_grad()
def encode_texts(clip: FrozenCLIP, texts: list[str], chunk: int = 256, unit_norm: bool = True) -> Tensor:
    """(N, D) features of N sentences, `chunk` of them at a time."""
    tokens = embed_texts(clip, texts)
    chunks = list(zip(tokens.embeddings.split(chunk), tokens.eot.split(chunk)))
    shown = tqdm(chunks, f"{len(texts):,} sentences through the text tower", delay=2, leave=False, file=sys.stderr,
                 disable=not sys.stderr.isatty(), dynamic_ncols=True)
    return torch.cat([clip.encode_text(TextTokens(e, i), unit_norm=unit_norm) for e, i in shown])


def warn_of_long_texts(clip: FrozenCLIP, texts: Sequence[str]) -> None:
    """One warning that counts the texts that `truncate` cuts."""
    room = clip.context_length - 2
    if long := [text for text in texts if len(clip.tokenizer.encode(text)) > room]:
        logger.warning("%s of %s texts are longer than the %d tokens that the text tower takes, and are cut, first %r",
                       f"{len(long):,}", f"{len(texts):,}", room, long[0][:80])


def warn_of_unknown_words(clip: FrozenCLIP, texts: list[str]) -> None:
    """One warning that names the words the embedded model was never trained on; silent for a full vocabulary."""
    if clip.known_tokens is None:
        return
    unknown = {i for text in texts for i in clip.tokenizer.encode(text)} - clip.known_tokens
    if unknown:
        words = sorted({w for t in texts for w in t.replace(",", " ").replace(".", " ").split()
                        if unknown & set(clip.tokenizer.encode(w))})
        logger.warning("The embedded CLIP was never trained on %s: what it says of them means nothing. "
                       "It knows digits, letters, shapes, colours and textures.",
                       ", ".join(words) or ", ".join(clip.tokenizer.decode([i]).strip() for i in sorted(unknown)))
