"""A toy task for the engine alone: three classes of coloured noise as PNG files, a linear net with dropout, no CLIP."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from dassl.config import get_cfg_default, merge_opts
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX, TrainerXU
from dassl.metrics import compute_accuracy
from dassl.modeling import BACKBONE_REGISTRY, Backbone
from dassl.utils import set_random_seed

CLASSES = ("red", "green", "blue")
COUNTS = {"train_x": 8, "val": 2, "test": 4}
OPTS = (
    "TRAINER.NAME",
    "EngineTrainer",
    "DATASET.NAME",
    "EngineColours",
    "MODEL.BACKBONE.NAME",
    "engine_pixels",
    "INPUT.SIZE",
    (12, 12),
    "INPUT.TRANSFORMS",
    ("random_resized_crop", "random_flip", "normalize"),
    "DATALOADER.NUM_WORKERS",
    0,
    "DATALOADER.TRAIN_X.BATCH_SIZE",
    6,
    "OPTIM.NAME",
    "sgd",
    "OPTIM.LR",
    0.05,
    "OPTIM.MAX_EPOCH",
    4,
    "OPTIM.LR_SCHEDULER",
    "cosine",
    "OPTIM.WARMUP_EPOCH",
    1,
    "OPTIM.WARMUP_TYPE",
    "constant",
    "TRAIN.PRINT_FREQ",
    2,
    "USE_CUDA",
    False,
    "SEED",
    1,
)


class EngineColours(DatasetBase):
    def __init__(self, cfg):
        splits = {
            split: [
                Datum(impath=f"{cfg.DATASET.ROOT}/{split}_{label}_{i}.png", label=label, classname=name)
                for label, name in enumerate(CLASSES)
                for i in range(count)
            ]
            for split, count in COUNTS.items()
        }
        splits["train_x"] = self.generate_fewshot_dataset(splits["train_x"], num_shots=cfg.DATASET.NUM_SHOTS)
        super().__init__(**splits)


class EngineColoursTwice(EngineColours):
    def __init__(self, cfg):
        super().__init__(cfg)
        self._train_u = self._train_x[:15]


class EngineNoVal(EngineColours):
    def __init__(self, cfg):
        super().__init__(cfg)
        self._val = []


class _Pixels(Backbone):
    def __init__(self):
        super().__init__()
        self._out_features = 16
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 12 * 12, 16), torch.nn.Dropout(0.3))

    def forward(self, images):
        return self.layers(images)


def engine_pixels(pretrained=True):
    return _Pixels()


class EngineTrainer(TrainerX):
    """Dassl's usual trainer; also draws from Python's and numpy's streams, as public ones do."""

    def forward_backward(self, batch):
        images, label, _ = self.parse_batch_train(batch)
        logits = self.model(images * (1 + 0.01 * random.random() + 0.01 * np.random.rand()))
        loss = F.cross_entropy(logits, label)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(logits, label)[0].item()}


class EngineTrainerXU(TrainerXU):
    def forward_backward(self, batch_x, batch_u):
        images, label, unlabelled = self.parse_batch_train(batch_x, batch_u)
        loss = F.cross_entropy(self.model(images), label) + 0.1 * self.model(unlabelled).square().mean()
        self.model_backward_and_update(loss)
        return {"loss": loss.item()}


for registry, thing in (
    (DATASET_REGISTRY, EngineColours),
    (DATASET_REGISTRY, EngineColoursTwice),
    (DATASET_REGISTRY, EngineNoVal),
    (BACKBONE_REGISTRY, engine_pixels),
    (TRAINER_REGISTRY, EngineTrainer),
    (TRAINER_REGISTRY, EngineTrainerXU),
):
    registry.register(thing, force=True)


def write_colours(folder):
    """The toy's image files: the same bytes at every call."""
    folder.mkdir(parents=True, exist_ok=True)
    for s, (split, count) in enumerate(COUNTS.items()):
        for label in range(len(CLASSES)):
            for i in range(count):
                pixels = np.random.RandomState(1000 * s + 100 * label + i).randint(0, 120, (14, 18, 3))
                pixels[..., label] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{split}_{label}_{i}.png")
    return folder


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("colours"))


@pytest.fixture
def engine_cfg(colours, tmp_path):
    """engine_cfg("OPTIM.LR", 0.1, ..., output="run") -> frozen config of the toy, streams seeded as by train.py."""

    def make(*opts, output="run", root=None):
        cfg = get_cfg_default()
        merge_opts(cfg, [*OPTS, "DATASET.ROOT", str(root or colours), "OUTPUT_DIR", str(tmp_path / output), *opts])
        cfg.freeze()
        set_random_seed(cfg.SEED)
        return cfg

    return make


@pytest.fixture
def own_colours(tmp_path):
    """A copy of the images that a test may damage."""
    return write_colours(tmp_path / "own_colours")
