"""Synthetic images, and the trainer that a row takes its step with."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tools import train
from tools.labs.bench.rows import BACKBONES, OF_224_PIXELS, OF_TINY, Row, Settings, class_names

CONFIGS = train.ROOT / "configs" / "trainers"


def write_images(folder: Path, items: int, C: int, files: int, size: tuple[int, int]) -> Path:
    """A folder that `BenchImages` reads: `items` labelled entries over `files` JPEG files of `size` (width, height).

    The pictures are smooth colours with fine noise, so that decoding one costs what a photograph costs.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng, names = np.random.RandomState(0), class_names(C)
    for i in range(files):
        coarse = Image.fromarray(rng.randint(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size, Image.BICUBIC)
        pixels = np.asarray(coarse, dtype=np.float32) + rng.standard_normal((size[1], size[0], 3)) * 6
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:05d}.jpg", quality=90)
    entries = [(f"{i % files:05d}.jpg", i % C, names[i % C]) for i in range(items)]
    (folder / "items.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


def build_config(row: Row, settings: Settings, images: Path, *opts: str):
    """The frozen config of the row's trainer over the images of a folder, registered under "BenchImages"."""
    name, size, section = row.name, row.input_size, row.method.section
    precision = [f"TRAINER.{section}.PREC", settings.precision] if section else []
    sizes = [word for key, pixels in OF_224_PIXELS.get(name, {}).items()
             for word in (key, str(row.image_size * pixels // 224))]
    sizes += [str(part) for pair in OF_TINY.get(name, {}).items() for part in pair] if row.backbone == "tiny" else []
    args = train.parser().parse_args([
        "--root", str(images), "--trainer", name, "--seed", str(settings.seed), "--output-dir", str(images / "run"),
        "--config-file", str(_config_of(name)), "DATASET.NAME", "BenchImages",
        "MODEL.BACKBONE.NAME", BACKBONES[row.backbone], "INPUT.SIZE", f"({size}, {size})", "VERBOSE", "False",
        "DATALOADER.TRAIN_X.BATCH_SIZE", str(row.batch), "USE_CUDA", str(settings.device == "cuda"),
        "TRAIN.ONEDNN", settings.onednn, *precision, *sizes, *opts])
    _register_images()
    return train.setup_cfg(args)


def _config_of(name: str) -> Path:
    """For ViT-B/16, or for the tower that its authors used."""
    return next(file for size in ("16", "32") for file in sorted((CONFIGS / name).glob(f"vit_b{size}*.yaml")))


def build_trainer(row: Row, settings: Settings, folder: Path):
    """The row's trainer in training mode, on random weights drawn from the seed; its data are placeholders."""
    from dassl import engine
    from dassl.utils import set_random_seed

    images = write_images(folder / f"{row.classes}_classes", row.classes, row.classes, 1, (48, 40))
    cfg = build_config(row, settings, images, "DATALOADER.NUM_WORKERS", "0")
    set_random_seed(settings.seed)
    trainer = engine.build_trainer(cfg)
    trainer.use_stand_ins()
    trainer.set_model_mode("train" if row.trains else "eval")
    return trainer


def batch_of(row: Row, settings: Settings) -> dict[str, Tensor]:
    """One batch as the loader gives it: random images, normalised or in [0, 1], labels over all classes."""
    generator = torch.Generator().manual_seed(settings.seed)
    size = row.input_size
    draw = torch.randn if row.method.normalised else torch.rand
    views = (row.views,) if row.views else ()
    return {"img": draw(row.batch, *views, 3, size, size, generator=generator).to(settings.device),
            "label": torch.randint(row.classes, (row.batch,), generator=generator).to(settings.device),
            "domain": torch.zeros(row.batch, dtype=torch.int64), "impath": ["synthetic"] * row.batch,
            "index": torch.arange(row.batch)}


def _register_images() -> None:
    """Make the dataset known to the engine; only here, so that nothing but a benchmark ever sees it."""
    from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum

    if "BenchImages" in DATASET_REGISTRY:
        return

    class BenchImages(DatasetBase):
        def __init__(self, cfg):
            root = Path(cfg.DATASET.ROOT)
            entries = json.loads((root / "items.json").read_text(encoding="utf-8"))
            super().__init__(train_x=[Datum(str(root / file), label, 0, name) for file, label, name in entries])

    DATASET_REGISTRY.register(BenchImages)
