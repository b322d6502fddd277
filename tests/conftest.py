"""Shared by all tests: a tiny random CLIP, no network, no GPU, a cache folder of their own."""
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
sys.path[:0] = [str(ROOT), str(GOLDEN)]


@pytest.fixture(autouse=True, scope="session")
def _one_thread_and_own_caches(tmp_path_factory):
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("DASSL_OFFLINE", "1")
    patch.delenv("CLIP_CACHE", raising=False)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def tiny_clip_weights():
    """Random weights in OpenAI's key layout; origin: tests/golden/README.md."""
    from tiny_clip import tiny_clip_state_dict

    return tiny_clip_state_dict()


@pytest.fixture(scope="session")
def tiny_clip(tiny_clip_weights):
    """Frozen, so one serves all tests: image 32, patch 8, widths 64, 3 + 3 blocks, joint width 32."""
    from clip import FrozenCLIP

    clip = FrozenCLIP.from_state_dict(tiny_clip_weights)
    clip.name, clip.sha256 = "random tiny", "0" * 64
    return clip


class Golden:
    """One file of reference numbers from the authors' code (tests/golden/README.md)."""

    def __init__(self, name: str):
        self.data = np.load(GOLDEN / f"{name}.npz")

    def tensor(self, key: str) -> torch.Tensor:
        return torch.tensor(self.data[key])

    def json(self, key: str):
        return json.loads(str(self.data[key]))

    @property
    def classnames(self) -> list[str]:
        return self.json("classnames")


@pytest.fixture(scope="session")
def golden():
    return Golden
