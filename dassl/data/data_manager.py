"""A dataset's splits as data loaders."""
from __future__ import annotations

import contextlib
import logging
import os
import random
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset

from dassl.utils.errors import UserError
from dassl.utils.tools import read_image

from .check import check_dataset
from .datasets import Datum, build_dataset
from .image_cache import ImageCache, build_cache
from .loader import Loader, MadeBatch, ThreadedLoader, collate
from .samplers import SeededSampler, build_sampler
from .sharing import batches_of
from .transforms import build_transform, plain_transform
from .transforms.steps import Batched, batched

logger = logging.getLogger(__name__)


def build_data_loader(cfg, sampler_type: str = "SequentialSampler", data_source: Sequence[Datum] | None = None,
                      batch_size: int = 64, n_domain: int = 0, n_ins: int = 2, tfm=None, is_train: bool = True,
                      dataset_wrapper=None, drop_last: bool | None = None,
                      cache: ImageCache | None = None) -> DataLoader:
    """Batches of a list of Datum.

    The augmentation of an image depends on the seed and on its place in the order, not on the number of workers nor
    on the cache. Workers are processes, or threads where the images fit into the cache and the transform allows it. A
    run of several processes shares the images of each training batch among them.

    Args:
        drop_last: leave a last short batch out; None does so in training, unless it is the only one.
        cache: keeps the decoded images, if all of them fit.
    """
    wrapper = dataset_wrapper or DatasetWrapper
    sampler = build_sampler(sampler_type, cfg=cfg, data_source=data_source, batch_size=batch_size, n_domain=n_domain,
                            n_ins=n_ins)
    fixed = max(cfg.SEED, 0) if sampler_type == "SequentialSampler" else None
    # A loader draws a number each time it starts workers; from the global stream, that would make every later draw
    # depend on how many workers there are and on whether they were kept between epochs.
    own_stream = torch.Generator().manual_seed(max(cfg.SEED, 0))
    workers = min(cfg.DATALOADER.NUM_WORKERS, os.cpu_count() or 1)
    drop_last = is_train and len(data_source) >= batch_size if drop_last is None else drop_last
    dataset = wrapper(cfg, data_source, transform=tfm, is_train=is_train)
    ours = isinstance(dataset, DatasetWrapper)
    if ours and cache is not None and cache.has_room_for([item.impath for item in data_source]):
        dataset.cache = cache
    in_threads = workers and ours and dataset.cache is not None and dataset.batched_slots() is not None
    loader = (ThreadedLoader if in_threads else Loader)(
        dataset, **batches_of(SeededSampler(sampler, fixed), batch_size, drop_last, is_train), num_workers=workers,
        persistent_workers=workers > 0, generator=own_stream, collate_fn=collate,
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
        check_dataset(dataset, cfg.DATASET.NAME, decode=dataset_wrapper is None)
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

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @property
    def num_source_domains(self) -> int:
        return self._num_source_domains

    @property
    def lab2cname(self) -> dict[int, str]:
        return self._lab2cname

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
        item = self.data_source[idx]
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": int(idx)}
        img0 = self.cache.read(item.impath).copy() if self.cache is not None else read_image(item.impath)
        with _seeded(getattr(idx, "seed", None)):
            if self.transform is None:
                output["img"] = img0
            else:
                for i, tfm in enumerate(self._views()):
                    output[_view_name(i)] = self._transform_image(tfm, img0)
            if self.return_img0:
                output["img0"] = self.to_tensor(img0)
        return output

    def __getitems__(self, indices: Sequence[int]) -> Sequence[dict]:
        """A batch, for `collate`, equal to the collated `[self[i] for i in indices]`; several threads may ask."""
        slots = self.batched_slots() if all(hasattr(i, "seed") for i in indices) else None
        if slots is None:
            return [self[i] for i in indices]
        items, read = [self.data_source[i] for i in indices], self.cache.read if self.cache is not None else read_image
        generator, pixels = torch.Generator(), [[] for _ in slots]
        for idx, item in zip(indices, items, strict=True):
            image = read(item.impath)
            generator.manual_seed(idx.seed)
            for (_, view), arrays in zip(slots, pixels, strict=True):
                arrays.append(view.geometry(image, generator))
        batch = {"label": torch.tensor([item.label for item in items]),
                 "domain": torch.tensor([item.domain for item in items]),
                 "impath": [item.impath for item in items], "index": torch.tensor(list(map(int, indices)))}
        images = defaultdict(list)
        for (name, view), arrays in zip(slots, pixels, strict=True):
            images[name].append(view.finish(arrays))
        return MadeBatch({**batch, **{name: v if len(v) > 1 else v[0] for name, v in images.items()}})

    def batched_slots(self) -> list[tuple[str, Batched]] | None:
        """(name in the batch, transform) of all that is made of one image, as drawn; None if one is not batched."""
        if any(getattr(type(self), name) is not getattr(DatasetWrapper, name)
               for name in ("__getitem__", "_transform_image")):
            return None                         # a subclass may lack what is asked for below
        views = [(_view_name(i), batched(tfm)) for i, tfm in enumerate(self._views())]
        slots = [slot for slot in views for _ in range(self.k_tfm)]
        slots += [("img0", batched(self.to_tensor))] if self.return_img0 else []
        return slots if slots and all(form is not None for _, form in slots) else None

    def _views(self) -> Sequence:
        return self.transform if isinstance(self.transform, (list, tuple)) else [self.transform]

    def _transform_image(self, tfm, img0):
        copies = [tfm(img0) for _ in range(self.k_tfm)]
        return copies[0] if len(copies) == 1 else copies


def _view_name(i: int) -> str:
    return "img" if i == 0 else f"img{i + 1}"


@contextlib.contextmanager
def _seeded(seed: int | None):
    """Every random stream starts from `seed` inside, and goes on as before outside; None leaves them alone."""
    if seed is None:
        yield
        return
    torch_state, python_state, numpy_state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    torch.random.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
