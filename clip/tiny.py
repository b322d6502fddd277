"""The embedded CLIP: `tiny.safetensors`, trained by tools/pretrain_tiny.py, in OpenAI's key layout.

Only the vocabulary rows of its captions were trained and are stored; every other BPE id has a row from a fixed hash,
so any text has features, but only known words mean something.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from .tokenizer import VOCABULARY_SIZE

TINY_FILE = Path(__file__).with_name("tiny.safetensors")


def read_tiny(path: Path = TINY_FILE) -> tuple[dict[str, Tensor], frozenset[int]]:
    """Weights with the whole vocabulary, and the BPE ids whose rows were trained."""
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        row_std = float(file.metadata()["row_std"])
    ids, rows = weights.pop("token_embedding.ids").long(), weights.pop("token_embedding.rows").float()
    table = hashed_rows(VOCABULARY_SIZE, rows.shape[1], row_std)
    table[ids] = rows
    return {**weights, "token_embedding.weight": table}, frozenset(ids.tolist())


def hashed_rows(count: int, width: int, std: float) -> Tensor:
    """(count, width) float32 of mean 0: entry (i, j) depends on i and j alone, on every machine and version."""
    with np.errstate(over="ignore"):
        x = np.arange(count * width, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):            # splitmix64
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        x ^= x >> np.uint64(31)
    uniform = (x >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24) - np.float32(0.5)
    return torch.from_numpy(uniform.reshape(count, width)) * (std * 12 ** 0.5)
