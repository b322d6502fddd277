"""The random streams of Python, NumPy, torch and its GPU in use, as plain data that a checkpoint can hold."""
from __future__ import annotations

import random

import numpy as np
import torch


def random_streams() -> dict:
    """Where they are."""
    kind, keys, *rest = np.random.get_state()
    return {"torch": torch.get_rng_state(), "python": random.getstate(),
            "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
            "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []}


def set_random_streams(state: dict) -> None:
    """Put them where `random_streams` found them; a GPU's only if one is in use on both sides."""
    torch.set_rng_state(state["torch"].cpu())
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    if state["cuda"] and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"][0].cpu())
