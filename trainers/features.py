"""Features of the frozen image tower: computed once for each view of a split, and what trainers learn from them."""
from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dassl.data.data_manager import build_data_loader
from dassl.data.sharing import in_turns, share_of
from dassl.data.transforms import build_transform
from dassl.engine.hooks import progress
from dassl.utils import distributed
from dassl.utils.tensor_cache import file_facts
from trainers._base import PromptTrainer
from trainers.parts.prompted_model import Output


class CachedFeatures:
    """Image features of a split, as the tower gives them (not normalised), in the split's order.

    A view is computed when it is first asked for and kept on disk, N * D floats, under all that determines it. Of
    several processes, each computes its part.

    Args:
        trainer: whose towers, dataset and config count.
        split: "train_x", "val" or "test".
        transform: "test", which has one view, or "train", whose views are random crops that depend on SEED.
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

    def __len__(self) -> int:
        return len(self.items)

    def view(self, number: int = 0) -> Tensor:
        """(N, D) float32 on the trainer's device; `number`, from 0, tells the views of "train" apart."""
        seed = max(self.trainer.cfg.SEED, 0) + 1_000_000 * number if self.transform == "train" else 0
        return self.trainer.cached("features", lambda: self._compute(seed, number), seed=seed, joint=self.joint,
                                   transform=self.transform, images=file_facts([item.impath for item in self.items]),
                                   labels=self.labels.tolist())

    def mean(self, views: int) -> Tensor:
        """(N, D): of the first so many views."""
        total = self.view(0)
        for number in range(1, views):
            total = total + self.view(number)
        return total / views

    @torch.no_grad()
    def _compute(self, seed: int, number: int) -> Tensor:
        trainer, cfg = self.trainer, self.trainer.cfg
        loader = build_data_loader(cfg, data_source=self.items, batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
                                   tfm=build_transform(cfg, is_train=self.transform == "train"), is_train=False,
                                   cache=getattr(trainer.dm, "image_cache", None) if self.split != "test" else None)
        loader.batch_sampler.sampler.seed = seed
        features = torch.zeros(len(self), self.width, device=trainer.device)
        with in_turns(loader):
            for batch in progress.over(loader, f"{self.split}, view {number + 1}"):
                images, index = trainer.on_device(batch["img"], batch["index"])
                features[index] = trainer.model.clip.encode_image(images, joint=self.joint, unit_norm=False)
        distributed.sum_(features)
        return features


class FeatureTrainer(PromptTrainer):
    """Learns from features of random crops, a view of its own for each epoch: the image tower runs for none twice.

    Attributes:
        train_features: of the training images.
    """

    @property
    def train_features(self) -> CachedFeatures:
        return CachedFeatures(self, "train_x", "train")

    def view_of(self, epoch: int) -> int:
        """The view on which an epoch trains."""
        return epoch

    def training_batches(self) -> Iterator[dict]:
        """As of images, with their features (B, D) as "img"."""
        labels, features = self.train_features.labels, self.train_features.view(self.view_of(self.epoch))
        first = self.autosave.finished_batches
        self.autosave.begin_epoch(self)
        for number, indices in enumerate(self.train_loader_x.batch_sampler, first):
            self.autosave.begin_step()
            self.share = share_of(self.train_loader_x, number)
            rows = torch.tensor([int(i) for i in indices], device=labels.device)
            yield {"img": features[rows], "label": labels[rows]}

    def output(self, batch: dict) -> Output:
        features = batch["img"]
        return self.model.compare(F.normalize(features, dim=-1) if self.model.unit_norm else features)
