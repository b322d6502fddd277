"""Features of the frozen image tower: computed once for each view of an image, and kept on disk."""
from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Sampler

from dassl.data.data_manager import build_data_loader
from dassl.data.samplers import SeededIndex
from dassl.data.sharing import in_turns
from dassl.data.transforms import build_transform
from dassl.engine.hooks import progress
from dassl.utils import UserError, cache_dir, distributed
from dassl.utils.row_store import RowStore
from dassl.utils.tensor_cache import file_facts
from trainers._base import PromptTrainer

_OF_A_TEST = ("SIZE", "INTERPOLATION", "PIXEL_MEAN", "PIXEL_STD", "NO_TRANSFORM")      # what its transform depends on
_BYTES = 2 ** 24                        # features that are written at once


class CachedFeatures:
    """Image features of a split, as the tower gives them (not normalised), in the split's order.

    A view of an image is computed when it is first asked for, by whichever run; other methods, shots and seeds find it
    on disk, under the tower, its precision, the image file, the transform and the view's number. A random crop depends
    on that number and on the names of the image and of its folder, not on the run's seed. Of several processes of a
    run, each computes its part; several runs wait for each other.

    Args:
        trainer: whose towers, dataset and config count.
        split: "train_x", "val" or "test".
        transform: "test", which has one view, or "train", whose views are random crops.
        joint: in the space that both towers share, else in the tower's width, before the projection.
    Attributes:
        labels: (N,) int64, on the trainer's device.
    Raises:
        InputError: not `joint`, and a tower without such features.
    """

    def __init__(self, trainer: PromptTrainer, split: str, transform: str = "test", joint: bool = True):
        clip = trainer.model.clip
        if not joint:
            clip.require_tokens("What reads features before the projection")
        self.trainer, self.split, self.transform, self.joint = trainer, split, transform, joint
        self.items = getattr(trainer.dm.dataset, split)
        self.width = clip.embed_dim if joint else clip.vision_width
        self.labels = torch.tensor([item.label for item in self.items], device=trainer.device)
        self._held: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.items)

    def view(self, number: int = 0) -> Tensor:
        """(N, D) float32 on the trainer's device; `number`, from 0, tells the views of "train" apart."""
        return self.views([number])[0]

    def views(self, numbers: Sequence[int]) -> Tensor:
        """(v, N, D): the views of these numbers; those that nobody has computed go through the tower together."""
        absent = [number for number in dict.fromkeys(numbers) if number not in self._held]
        if absent:
            self._held |= dict(zip(absent, self._found_or_computed(absent), strict=True))
        return torch.stack([self._held[number] for number in numbers])

    def mean(self, views: int) -> Tensor:
        """(N, D): of the first so many views."""
        return self.views(range(views)).mean(0)

    def _found_or_computed(self, numbers: list[int]) -> Tensor:
        images = [_digest(*facts) for facts in file_facts([item.impath for item in self.items])]
        wanted = {f"{image}.{number}": (number, i) for number in numbers for i, image in enumerate(images)}
        names, places, store = list(wanted), list(wanted.values()), self._store()
        rows, missing = self._read(store, names)
        if missing:
            with store.writing() if store is not None and distributed.rank() == 0 else contextlib.nullcontext():
                rows, missing = self._read(store, names)                # another run may have computed them meanwhile
                if missing:
                    rows[missing] = self._compute([places[m] for m in missing], store, [names[m] for m in missing])
        row = {name: r for r, name in enumerate(names)}                 # a file that is listed twice has one
        index = torch.tensor([[row[f"{image}.{number}"] for image in images] for number in numbers])
        return rows[index].to(self.trainer.device)                                # (v, N, D)

    def _read(self, store: RowStore | None, names: list[str]) -> tuple[Tensor, list[int]]:
        """The first process's rows, and which are missing; in all processes."""
        if store is None:
            return torch.zeros(len(names), self.width), list(range(len(names)))
        return distributed.from_first(store.read(names) if distributed.rank() == 0 else None)

    def _reader(self) -> type | None:
        return getattr(getattr(self.trainer.dm.dataset, "task", None), "reader", None)

    def _store(self) -> RowStore | None:
        """None for random weights, which are others each time."""
        trainer, cfg, clip = self.trainer, self.trainer.cfg, self.trainer.model.clip
        if clip.sha256 == "random":
            return None
        pixels = {key: str(cfg.INPUT[key]) for key in _OF_A_TEST} if self.transform == "test" else str(cfg.INPUT)
        chosen = [name for name in cfg.INPUT.TRANSFORMS if name in ("normalize", "instance_norm")]
        key = {"weights": clip.sha256, "backbone": clip.name, "precision": trainer.precision, "joint": self.joint,
               "transform": self.transform, "pixels": pixels, "chosen": chosen}
        if self._reader() is not None:
            key["clips"] = str(cfg.VIDEO)
        dtype = "float16" if cfg.TRAIN.get("FEATURES_FP16", False) else "float32"
        own = Path(cfg.DATASET.get("DIR", "") or "").name               # of images of the user's own
        dataset = f"{cfg.DATASET.NAME}-{own}" if own else cfg.DATASET.NAME
        folder = Path(cache_dir(), "features", dataset, _digest(json.dumps(key | {"dtype": dtype})))
        return RowStore(folder, self.width, dtype, cfg.TRAIN.get("FEATURES_MB", 2048) * 2 ** 20)

    @torch.no_grad()
    def _compute(self, places: list[tuple[int, int]], store: RowStore | None, names: list[str]) -> Tensor:
        """(k, D) of k pairs of a view's number and an image's place, kept as they come."""
        trainer, cfg = self.trainer, self.trainer.cfg
        loader = build_data_loader(cfg, data_source=[self.items[i] for _, i in places],
                                   batch_size=cfg.DATALOADER.TEST.BATCH_SIZE, is_train=False,
                                   tfm=build_transform(cfg, is_train=self.transform == "train"),
                                   dataset_wrapper=self._reader(),
                                   cache=getattr(trainer.dm, "image_cache", None) if self.split != "test" else None)
        loader.batch_sampler.sampler = _Crops([_crop(self.items[i].impath, number) for number, i in places])
        features, kept = torch.zeros(len(places), self.width, device=trainer.device), 0
        streams = store is not None and distributed.world_size() == 1
        with in_turns(loader), trainer.mixed.autocast(enabled=trainer.half_towers):
            for batch in progress.over(loader, f"features of {self.split}"):
                images, index = trainer.on_device(batch["img"], batch["index"])
                features[index] = trainer.model.clip.encode_image(images, joint=self.joint, unit_norm=False)
                if streams and (last := int(index[-1]) + 1) - kept >= _BYTES // (4 * self.width):
                    store.add(names[kept:last], self._checked(features[kept:last]))
                    kept = last
        distributed.sum_(features)
        self._checked(features[kept:])
        if store is not None and distributed.rank() == 0 and kept < len(names):
            store.add(names[kept:], features[kept:])
        return features.cpu()

    def _checked(self, features: Tensor) -> Tensor:
        if bad := int((~features.isfinite().all(dim=1)).sum()):
            raise UserError(f"{bad} of {len(features)} images of {self.split} have features that are not finite. "
                            "Compute in fp32 (TRAINER.<NAME>.PREC fp32), or check the weights.")
        return features


class _Crops(Sampler):
    """Every image once, in order, each with a seed of its own."""

    def __init__(self, seeds: list[int]):
        self.seeds = seeds

    def __iter__(self) -> Iterator[SeededIndex]:
        return (SeededIndex(i, seed) for i, seed in enumerate(self.seeds))

    def __len__(self) -> int:
        return len(self.seeds)


def _crop(path: str, number: int) -> int:
    """The seed of a view of an image, the same wherever the dataset lies."""
    return zlib.crc32("/".join(Path(path).parts[-2:]).encode()) * 1_000_003 + number


def _digest(*values) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:24]
