"""DVPcse and DVPcls: decoupled padding prompts, each for its own descriptions, reweighted class by class by counting.

Source: Understanding Model Reprogramming for CLIP via Decoupling Visual Prompts (Cai et al., ICML 2025),
experiments/fs_dvp_cse.py and fs_dvp_cls.py. Its "balanced" clustering is plain k-means.
"""
import logging
from functools import partial

import torch

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.hooks import progress
from dassl.utils import distributed
from trainers.described import DescriptionTrainer, add_description_options
from trainers.parts.classes import Classes
from trainers.parts.label_mapping import ReweightingMatrix, cluster
from trainers.parts.pixel_prompt import PixelPrompts
from trainers.parts.prompted_model import Output, PromptedModel

logger = logging.getLogger(__name__)


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.DVPCSE = CfgNode()
    add_description_options(c)
    c.CAUSES = (1, 2, 3)                # numbers of the files cse_<i>; each cause gets a visual prompt of its own
    c = cfg.TRAINER.DVPCLS = CfgNode()
    add_description_options(c)
    c.NUM_CLUSTERS = 3                  # groups of descriptions, and so visual prompts
    c.KMEANS_STARTS = 1                 # of which the best clustering counts


class DVP(DescriptionTrainer):
    """v prompts with an optimiser and a schedule each. The first epoch only counts which descriptions match."""

    counting_epochs = 1

    @classmethod
    def decoupled(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode, v: int, assign) -> PromptedModel:
        """Of v prompts; `assign` says which prompt scores each description, see `DescriptionBank`."""
        weights = ReweightingMatrix(len(classes), len(cls.kinds(options)) * options.NUM_DESCRIPTIONS, options.TOP_K)
        return PromptedModel(clip, pixel=PixelPrompts(v, clip.image_size, classes.image_size),
                             head=cls.bank(clip, classes, options, weights, assign))

    @property
    def weights(self) -> ReweightingMatrix:
        return self.model.head.mapping

    def register_prompts(self, learner: torch.nn.Module) -> None:
        for number, prompt in enumerate(learner["pixel"], 1):
            self.register_learner(f"pixel_prompt_{number}", prompt)
        self.register_model("prompt_learner", learner)     # all of it once more, with weights and sentences

    @property
    def resumes_within_epoch(self) -> bool:
        return distributed.world_size() == 1     # each process has counts of its own until the epoch ends

    def training_state(self) -> dict:
        return {**super().training_state(), "counts": self.weights.counts}

    def load_training_state(self, state: dict) -> None:
        super().load_training_state(state)
        self.weights.counts.copy_(state.get("counts", self.weights.counts))

    def run_epoch(self) -> None:
        if self.epoch < self.counting_epochs:
            logger.info("Epoch %d counts which descriptions match; nothing is trained in it", self.epoch + 1)
            with torch.no_grad():
                batches = progress.over(self.training_batches(), "counting descriptions")
                for images, label in map(self.parse_batch_train, batches):
                    self.weights.observe(*self.own(self.model(images).aux["scores"], label))
        else:
            super().run_epoch()
        distributed.sum_(self.weights.counts)
        self.weights.update()               # from this epoch's augmented images, for its test and the next epoch

    def observe(self, out: Output, batch: dict) -> None:
        self.weights.observe(*self.own(out.aux["scores"], batch["label"]))


@TRAINER_REGISTRY.register(aliases=("DVP-cse",))
class DVPcse(DVP):
    section = "DVPCSE"
    told_by = staticmethod(lambda v, m: {"NUM_DESCRIPTIONS": m // v} if v else None)

    @classmethod
    def kinds(cls, options: CfgNode) -> list[str]:
        return [f"cse_{i}" for i in options.CAUSES]

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        of_cause = torch.arange(len(options.CAUSES)).repeat_interleave(options.NUM_DESCRIPTIONS)      # (v*m,)
        return cls.decoupled(clip, classes, options, len(options.CAUSES),
                             lambda features: of_cause.expand(len(features), -1))


@TRAINER_REGISTRY.register(aliases=("DVP-cls", "DVP-PRM"))
class DVPcls(DVP):
    section, bounds = "DVPCLS", {**DVP.bounds, "KMEANS_STARTS": (1, 4096)}
    told_by = staticmethod(lambda v, m: {"NUM_CLUSTERS": v, "NUM_DESCRIPTIONS": m} if v else None)

    @classmethod
    def kinds(cls, options: CfgNode) -> list[str]:
        return ["des"]

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        v = options.NUM_CLUSTERS
        return cls.decoupled(clip, classes, options, v, partial(cluster, n_clusters=v, n_init=options.KMEANS_STARTS))
