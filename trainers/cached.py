"""What a method computes from its training images before the first step, kept on disk under all that it depends on."""
from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dassl.engine.hooks.stages import refuse_all_images
from dassl.utils.tensor_cache import cached_tensor, file_facts


def cached(trainer, kind: str, compute: Callable[[], Tensor], **key) -> Tensor:
    """What needs data before the first step, e.g. prototypes: computed once and kept on disk, under `kind`.

    `key` is what it depends on besides towers, precision, training images, their transform and the seed; "images",
    "labels" and "seed" in it take the place of these.
    """
    if "images" not in key:
        refuse_all_images(trainer)
    cfg, clip, items = trainer.cfg, trainer.model.clip, trainer.dm.dataset.train_x
    key = {"weights": clip.sha256, "backbone": clip.name, "seed": cfg.SEED, "input": str(cfg.INPUT),
           "precision": trainer.precision, "labels": [item.label for item in items], **key}
    if trainer.dm.dataset.task.reader is not None:
        key["clips"] = str(cfg.get("VIDEO", ""))
    key.setdefault("images", file_facts([item.impath for item in items]))
    return cached_tensor(kind, key, compute).to(trainer.device)
