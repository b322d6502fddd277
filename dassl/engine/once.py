"""A pass over labelled images outside the loop: prototypes, features, a solver's data."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor

from dassl.data.data_manager import build_data_loader
from dassl.data.sharing import in_turns
from dassl.data.transforms import build_transform

from .hooks import progress
from .hooks.stages import refuse_all_images


def training_images(trainer, view: str = "train", shared: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """The labelled training images in their order, nothing dropped: (images (B, 3, H, W), labels (B,)).

    Args:
        view: "train" for the training transform (random crops), "test" for the test transform.
        shared: each of several processes sees its part of the batches; otherwise every one sees all.
    """
    refuse_all_images(trainer)
    cfg = trainer.cfg
    loader = build_data_loader(cfg, sampler_type="SequentialSampler", data_source=trainer.dm.dataset.train_x,
                               batch_size=cfg.DATALOADER.TEST.BATCH_SIZE, is_train=False,
                               tfm=build_transform(cfg, is_train=view == "train"),
                               cache=getattr(trainer.dm, "image_cache", None))
    with in_turns(loader) if shared else contextlib.nullcontext():
        for batch in progress.over(loader, "training images, once"):
            yield trainer.on_device(batch["img"], batch["label"])
