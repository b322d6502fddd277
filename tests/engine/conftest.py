"""A dataset of tiny PNGs, a small trainer of its own, and configs of both."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer

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
        super().__init__(**splits)


@TRAINER_REGISTRY.register()
class Linear(TrainerX):
    """A linear classifier with dropout on pixels; may stop by an exception after `stop_after` epochs."""

    stop_after: int | None = None

    def build_model(self):
        self.model = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(3 * SIZE * SIZE, self.num_classes))
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("linear", self.model, self.optim, self.sched)
        self.rates, self.seen = [], []

    def before_epoch(self):
        if self.epoch == self.stop_after:
            raise InterruptedError("the machine is taken away")
        self.rates.append(self.get_current_lr())

    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        loss = nn.functional.cross_entropy(self.model(image), label)
        self.model_backward_and_update(loss)
        self.seen.append(batch["img"].double().sum().item())
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
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
    """engine_cfg(OPTIM__LR=0.1, ...) -> a frozen config of the linear trainer on the tiny images."""

    def make(**changes):
        cfg = get_cfg_default()
        settings = dict(
            OUTPUT_DIR=str(tmp_path / "run"), SEED=1, USE_CUDA=False, VERBOSE=False, DATASET__NAME="EngineToy",
            DATASET__ROOT=str(toy_folder), DATALOADER__NUM_WORKERS=0, DATALOADER__TRAIN_X__BATCH_SIZE=4,
            INPUT__SIZE=(SIZE, SIZE), INPUT__TRANSFORMS=("random_resized_crop", "random_flip", "normalize"),
            OPTIM__NAME="sgd", OPTIM__LR=0.05, OPTIM__LR_SCHEDULER="cosine", OPTIM__MAX_EPOCH=5,
            OPTIM__WARMUP_EPOCH=1, OPTIM__WARMUP_TYPE="constant", TRAINER__NAME="Linear")
        for key, value in {**settings, **changes}.items():
            *path, name = key.split("__")
            node = cfg
            for part in path:
                node = node[part]
            assert name in node, key
            node[name] = value
        cfg.freeze()
        return cfg

    return make


@pytest.fixture(autouse=True)
def _streams_as_before():
    """What a test draws or seeds does not reach the next one."""
    with torch.random.fork_rng(devices=[]):
        yield
