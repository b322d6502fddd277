"""A dataset of tiny PNGs, small trainers of its own, and configs of both: for the engine alone, without CLIP."""
from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX, TrainerXU
from dassl.metrics import compute_accuracy
from dassl.modeling import BACKBONE_REGISTRY, Backbone
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import set_random_seed

NAMES = ["ant", "bee", "cat"]
COUNTS = {"train_x": 6, "val": 3, "test": 4}            # images per class
SIZE = 8                                                # pixels


def write_image(path: Path, seed: int, size=(12, 10)) -> str:
    """A noisy image (width, height) whose channel `seed % 3` is bright."""
    pixels = np.random.RandomState(seed).randint(0, 120, (size[1], size[0], 3))
    pixels[..., seed % 3] += 100
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return str(path)


def _write_splits(folder: Path) -> dict[str, list[Datum]]:
    return {split: [Datum(write_image(folder / split / f"{name}_{i}.png", 300 * s + 3 * i + label), label, i % 2, name)
                    for label, name in enumerate(NAMES) for i in range(count)]
            for s, (split, count) in enumerate(COUNTS.items())}


@DATASET_REGISTRY.register()
class EngineToy(DatasetBase):
    """Reads DATASET.ROOT, which `toy_folder` or a test has written."""

    def __init__(self, cfg):
        splits = {split: [Datum(str(path), NAMES.index(path.stem.split("_")[0]), int(path.stem[-1]) % 2,
                                path.stem.split("_")[0]) for path in sorted((Path(cfg.DATASET.ROOT) / split).iterdir())]
                  for split in COUNTS if (Path(cfg.DATASET.ROOT) / split).is_dir()}
        if cfg.DATASET.ALL_AS_UNLABELED:
            splits["train_u"] = splits["train_x"][:12]
        splits["train_x"] = self.generate_fewshot_dataset(splits["train_x"], num_shots=cfg.DATASET.NUM_SHOTS)
        super().__init__(**splits)


@BACKBONE_REGISTRY.register()
def engine_pixels(pretrained=True):
    return Pixels()


class Pixels(Backbone):
    """Pixels themselves are the features, for trainers with Dassl's own `build_model`."""

    def __init__(self):
        super().__init__()
        self._out_features = 3 * SIZE * SIZE

    def forward(self, images):
        return images.flatten(1)


@TRAINER_REGISTRY.register()
class Linear(TrainerX):
    """A linear classifier with dropout on pixels; draws from Python's, numpy's and torch's streams in every step."""

    def build_model(self):
        self.model = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(3 * SIZE * SIZE, self.num_classes))
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("linear", self.model, self.optim, self.sched)
        self.rates = []

    def before_epoch(self):
        self.rates.append(self.get_current_lr())

    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        scores = self.model(image * (1 + 0.01 * random.random() + 0.01 * np.random.rand()))
        loss = nn.functional.cross_entropy(scores, label)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(scores, label)[0].item()}


@TRAINER_REGISTRY.register()
class LinearXU(TrainerXU):
    """Learns from pairs of batches and counts them."""

    def build_model(self):
        Linear.build_model(self)
        self.pairs = []

    def forward_backward(self, batch_x, batch_u):
        image, label, unlabelled = self.parse_batch_train(batch_x, batch_u)
        self.pairs.append((len(image), len(unlabelled)))
        loss = nn.functional.cross_entropy(self.model(image), label) + 0.1 * self.model(unlabelled).square().mean()
        self.model_backward_and_update(loss)
        return {"loss": loss.item()}


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    _write_splits(folder)
    return folder


@pytest.fixture
def write_splits():
    """write_splits(folder): the tiny images, in a folder that a test may damage."""
    return _write_splits


@pytest.fixture
def engine_cfg(toy_folder, tmp_path):
    """engine_cfg(OPTIM__LR=0.1, ...) -> a frozen config of the linear trainer on the tiny images.

    Runs go to tmp_path / `output`. The random streams are seeded as well, as tools/train.py does before it builds.
    """

    def make(output="run", **changes):
        cfg = get_cfg_default()
        settings = dict(
            OUTPUT_DIR=str(tmp_path / output), SEED=1, USE_CUDA=False, VERBOSE=False, DATASET__NAME="EngineToy",
            DATASET__ROOT=str(toy_folder), DATALOADER__NUM_WORKERS=0, DATALOADER__TRAIN_X__BATCH_SIZE=4,
            INPUT__SIZE=(SIZE, SIZE), INPUT__TRANSFORMS=("random_resized_crop", "random_flip", "normalize"),
            OPTIM__NAME="sgd", OPTIM__LR=0.002, OPTIM__LR_SCHEDULER="cosine", OPTIM__MAX_EPOCH=5,
            OPTIM__WARMUP_EPOCH=1, OPTIM__WARMUP_TYPE="constant", TRAINER__NAME="Linear")
        for key, value in {**settings, **changes}.items():
            *path, name = key.split("__")
            node = cfg
            for part in path:
                node = node[part]
            assert name in node, key
            node[name] = value
        cfg.freeze()
        set_random_seed(cfg.SEED)
        return cfg

    return make


@pytest.fixture(autouse=True)
def _streams_as_before():
    """What a test draws or seeds does not reach the next one."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(python)
    np.random.set_state(numpy)
