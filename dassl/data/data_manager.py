"""A dataset's splits as data loaders."""
from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Sequence
from operator import attrgetter

import numpy as np
import torch
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset

from dassl.compat.passed_on import passed_on
from dassl.utils import distributed
from dassl.utils.errors import UserError
from dassl.utils.tools import read_image, why_unreadable

from .check import check_dataset
from .datasets import Datum, build_dataset
from .image_cache import ImageCache, build_cache
from .loader import Loader
from .samplers import SeededSampler, build_sampler
from .sharing import batches_of
from .transforms import arithmetic_apart, build_transform, plain_transform

logger = logging.getLogger(__name__)
__getattr__ = passed_on(__name__)


def build_data_loader(cfg, sampler_type: str = "SequentialSampler", data_source: Sequence[Datum] | None = None,
                      batch_size: int = 64, n_domain: int = 0, n_ins: int = 2, tfm=None, is_train: bool = True,
                      dataset_wrapper=None, drop_last: bool | None = None,
                      cache: ImageCache | None = None) -> DataLoader:
    """Batches of a list of Datum.

    The augmentation of an image depends on the seed and on its place in the order, not on the number of workers nor
    on the cache. A run of several processes shares the images of each training batch among them. With TRAIN.STREAMS
    "dassl", order, workers and augmentations draw as Dassl 0.6.3's do, from Python's, NumPy's and torch's streams.

    Args:
        drop_last: leave a last short batch out; None does so in training, unless it is the only one.
        cache: keeps the decoded images, if all of them fit.
    """
    wrapper = dataset_wrapper or DatasetWrapper
    sampler = build_sampler(sampler_type, cfg=cfg, data_source=data_source, batch_size=batch_size, n_domain=n_domain,
                            n_ins=n_ins)
    workers, keep = cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.NUM_WORKERS > 0
    if cfg.TRAIN.get("STREAMS", "images") == "dassl":
        own_stream, keep = None, False
        if distributed.world_size() > 1:
            raise UserError("TRAIN.STREAMS dassl follows the random stream of one process. Run it in one process.")
    else:
        sampler = SeededSampler(sampler, max(cfg.SEED, 0) if sampler_type == "SequentialSampler" else None)
        # A loader draws a number each time it starts workers; from the global stream, that would make every later draw
        # depend on how many workers there are and on whether they were kept between epochs.
        own_stream, workers = torch.Generator().manual_seed(max(cfg.SEED, 0)), min(workers, os.cpu_count() or 1)
    drop_last = is_train and len(data_source) >= batch_size if drop_last is None else drop_last
    dataset = wrapper(cfg, data_source, transform=tfm, is_train=is_train)
    if isinstance(dataset, DatasetWrapper) and cache is not None \
            and cache.has_room_for([item.impath for item in data_source]):
        dataset.cache = cache
    loader = Loader(dataset, **batches_of(sampler, batch_size, drop_last, is_train),
                    num_workers=workers, persistent_workers=keep, generator=own_stream,
                    pin_memory=torch.cuda.is_available() and cfg.USE_CUDA)
    if not len(loader):
        raise UserError("A data loader without a single batch: the split is empty, or the sampler needs more images.")
    return loader


class DataManager:
    """The dataset of a config and its loaders.

    Attributes:
        dataset: DatasetBase. train_loader_x, train_loader_u, val_loader, test_loader: None where the split is absent.
        num_classes, num_source_domains, lab2cname: of the dataset.
        image_cache: what training and validation images are kept in; None with DATALOADER.CACHE_MB 0.
    """

    def __init__(self, cfg, custom_tfm_train=None, custom_tfm_test=None, dataset_wrapper=None):
        dataset = build_dataset(cfg)
        dataset_wrapper = dataset_wrapper or dataset.task.reader
        check_dataset(dataset, cfg.DATASET.NAME,
                      getattr(dataset_wrapper, "why_unreadable", None) if dataset_wrapper else why_unreadable)
        if cfg.DATASET.get("TRAIN_ON_VAL", False):
            dataset.train_on_val()
        tfm_train = custom_tfm_train or build_transform(cfg, is_train=True)
        tfm_test = custom_tfm_test or build_transform(cfg, is_train=False)
        loader, test = cfg.DATALOADER, cfg.DATALOADER.TEST
        self.image_cache = build_cache(loader.CACHE_MB)

        def training(source, c):
            return build_data_loader(cfg, c.SAMPLER, source, c.BATCH_SIZE, c.N_DOMAIN, c.N_INS, tfm_train,
                                     is_train=True, dataset_wrapper=dataset_wrapper, cache=self.image_cache,
                                     drop_last=None if c.get("DROP_LAST", True) else False)

        def testing(source, cache=None):
            return build_data_loader(cfg, test.SAMPLER, source, test.BATCH_SIZE, tfm=tfm_test, is_train=False,
                                     dataset_wrapper=dataset_wrapper, cache=cache)

        self.train_loader_x = training(dataset.train_x, loader.TRAIN_X)
        self.train_loader_u = None
        if dataset.train_u:
            self.train_loader_u = training(dataset.train_u,
                                           loader.TRAIN_X if loader.TRAIN_U.SAME_AS_X else loader.TRAIN_U)
        self.val_loader = testing(dataset.val, self.image_cache) if dataset.val else None
        self.test_loader = testing(dataset.test) if dataset.test else None
        self.dataset = dataset
        self._num_classes = dataset.num_classes
        self._num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self._lab2cname = dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    num_classes, num_source_domains, lab2cname = (property(attrgetter(f"_{name}"))
                                                  for name in ("num_classes", "num_source_domains", "lab2cname"))

    def show_dataset_summary(self, cfg) -> None:
        """Log a table of names and sizes."""
        rows = [["Dataset", cfg.DATASET.NAME]]
        for key, domains in (("Source", cfg.DATASET.SOURCE_DOMAINS), ("Target", cfg.DATASET.TARGET_DOMAINS)):
            rows += [[key, ", ".join(domains)]] if domains else []
        rows.append(["# classes", f"{self.num_classes:,}"])
        rows += [[f"# {split}", f"{len(items):,}"] for split in ("train_x", "train_u", "val", "test")
                 if (items := getattr(self.dataset, split))]
        logger.info("%s", tabulate(rows, tablefmt="plain"))


class DatasetWrapper(Dataset):
    """Reads and transforms images: {"img", "label", "domain", "impath", "index"}.

    Args:
        cfg: DATALOADER.K_TRANSFORMS and RETURN_IMG0 are read.
        data_source: list of Datum.
        transform: one callable, or several for several views ("img", "img2", ...), or None for the PIL image.
        is_train: K_TRANSFORMS > 1 gives a list of augmented copies in training only.
    """

    cache: ImageCache | None = None

    def __init__(self, cfg, data_source: Sequence[Datum], transform=None, is_train: bool = False):
        self.cfg, self.data_source, self.transform, self.is_train = cfg, data_source, transform, is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise UserError(f"DATALOADER.K_TRANSFORMS {self.k_tfm} makes augmented copies, but no transform is set.")
        self.to_tensor = plain_transform(cfg)           # subclasses in public code use it without RETURN_IMG0 too

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx) -> dict:
        with streams_kept() if hasattr(idx, "seed") else contextlib.nullcontext():
            return self._item(idx, self.transform)

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        """`[self[i] for i in indices]`; streams are put back and pixels are normalised once for all of them.

        A batch of 32 digits takes 7.2 ms of CPU so, and 19.0 image by image (docs/performance.md).
        """
        if not self._is_ours("__getitem__") or not all(hasattr(i, "seed") for i in indices):
            return [self[i] for i in indices]
        apart = arithmetic_apart(self.transform) if self.k_tfm == 1 and self._is_ours("_transform_image") else None
        transform, finish = apart or (self.transform, list)
        with streams_kept():
            items = [self._item(i, transform) for i in indices]
        images = finish([item["img"] for item in items])
        return [{**item, "img": image} for item, image in zip(items, images, strict=True)]

    def before_workers(self) -> None:
        """Decode what the cache is to hold, so that worker processes that are forked afterwards share it."""
        if self.cache is not None and self._is_ours("__getitem__"):
            self.cache.fill([item.impath for item in self.data_source])

    def _is_ours(self, name: str) -> bool:
        return getattr(type(self), name) is getattr(DatasetWrapper, name)

    def _item(self, idx, transform) -> dict:
        """Draws from the global streams, which start from the seed of `idx` if it has one."""
        item = self.data_source[idx]
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": int(idx)}
        img0 = item.seen(self.cache.read(item.impath).copy() if self.cache is not None else read_image(item.impath))
        if hasattr(idx, "seed"):
            seed_streams(idx.seed)
        if transform is None:
            output["img"] = img0
        else:
            for i, tfm in enumerate(transform if isinstance(transform, (list, tuple)) else [transform]):
                output["img" if i == 0 else f"img{i + 1}"] = self._transform_image(tfm, img0)
        if self.return_img0:
            output["img0"] = self.to_tensor(img0)
        return output

    def _transform_image(self, tfm, img0):
        copies = [tfm(img0) for _ in range(self.k_tfm)]
        return copies[0] if len(copies) == 1 else copies


@contextlib.contextmanager
def streams_kept():
    """Afterwards Python's, NumPy's and torch's streams continue as if nothing had been drawn inside."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        for put_back, state in zip((torch.set_rng_state, random.setstate, np.random.set_state), states):
            put_back(state)


def seed_streams(seed: int) -> None:
    """Start Python's, NumPy's and torch's streams from a seed."""
    torch.random.default_generator.manual_seed(seed)        # torch.manual_seed would also start the GPU's stream again
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
