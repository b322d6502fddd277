"""How long a training step waits for its batch: the engine's loader, and the field's over the same files."""
from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from clip.backbones import PIXEL_MEAN, PIXEL_STD
from tools.labs.bench.rows import Row, Settings
from tools.labs.bench.workload import build_config, write_images

FIELD_WORKERS = 8           # CoOp's configs/trainers/CoOp/vit_b16.yaml; never more than there are cores
PHOTO = (500, 375)          # width and height in pixels, as in ImageNet, Caltech101 and Pets on average


@dataclass(frozen=True)
class Loading:
    """ms: for a batch, with nothing else running. in_workers: other processes do it, and can while a GPU computes."""

    ms: float
    in_workers: bool

    def waits(self, device: str, working: float) -> float:
        """ms that a step of `working` ms waits for its batch; on a CPU all of them, as the same cores do both."""
        return max(0.0, self.ms - working) if device == "cuda" and self.in_workers else self.ms


class FieldImages(Dataset):
    """Files opened, decoded and transformed one by one. Source: Dassl.pytorch 0.6.3, data_manager.py DatasetWrapper."""

    def __init__(self, items, size: int):
        self.items = items
        self.transform = T.Compose([
            T.RandomResizedCrop(size, interpolation=T.InterpolationMode.BICUBIC), T.RandomHorizontalFlip(),
            T.ToTensor(), T.Normalize(PIXEL_MEAN, PIXEL_STD)])

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        item = self.items[index]
        return {"img": self.transform(Image.open(item.impath).convert("RGB")), "label": item.label}


def measure(row: Row, settings: Settings, folder: Path, images: int = 512, epochs: int = 3) -> dict[str, Loading]:
    """{"field", "ours"}: time for each batch over whole epochs; medians over epochs.

    The first epoch of ours, which may fill a cache, is not counted; the field starts its workers in every one.

    Args:
        images: in the training set; 512 are 16 shots of 32 classes.
    """
    from dassl.data import DataManager
    from dassl.utils import set_random_seed

    root = write_images(folder / "photos", images, min(32, images), images, PHOTO)
    cfg = build_config(row, settings, root)
    set_random_seed(settings.seed)
    manager = DataManager(cfg)
    mine = manager.train_loader_x
    workers = min(FIELD_WORKERS, os.cpu_count() or 1)
    field = DataLoader(FieldImages(manager.dataset.train_x, row.input_size), batch_size=row.batch,
                       shuffle=True, num_workers=workers, drop_last=True, pin_memory=settings.device == "cuda")
    _epoch(mine, settings.device)
    times = [(_epoch(field, settings.device), _epoch(mine, settings.device)) for _ in range(epochs)]
    mine._iterator = None                   # ends workers that are kept between epochs
    return {side: Loading(statistics.median(own), loader.num_workers > 0)
            for side, loader, own in zip(("field", "ours"), (field, mine), zip(*times))}


def _epoch(loader, device: str) -> float:
    start = time.perf_counter()
    for batch in loader:
        batch["img"].to(device), batch["label"].to(device)
    return (time.perf_counter() - start) / len(loader) * 1e3
