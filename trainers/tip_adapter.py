"""TipAdapter: labelled images vote together with the classes' texts.

Source: Tip-Adapter (Zhang et al., ECCV 2022), authors' code d0e2d6f, main.py, main_imagenet.py and utils.py. What is
easily missed: the features of ten random crops are averaged before they are normalised, and never after; cosines count
100 times, whatever CLIP's own scale is; the search begins at 0.1, leaves the largest values out and takes the first of
equals. On ImageNet the authors choose alpha and beta on the test images: SELECT "test", which results.json then says.
"""
import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.errors import as_user_error
from trainers.parts.cache_search import search
from trainers.parts.classes import Classes
from trainers.parts.heads import CacheHead
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.teacher import mean_text_features
from trainers.selecting import SelectingTrainer


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.TIPADAPTER = CfgNode()
    c.ALPHA = 1.17                      # weight of the votes; where a search or the learning begins
    c.BETA = 1.0                        # how fast they fall with the distance
    c.ALPHA_MAX = 3.0                   # largest values of the search, 20 of alpha and 200 of beta
    c.BETA_MAX = 7.0
    c.SELECT = "val"                    # where alpha and beta are sought: "val", "test" (published, for ImageNet), or
                                        # "fixed": they stay as above
    c.CROPS = 10                        # random crops of an image whose features are averaged
    c.TEMPLATES = ()                    # sentences of a class, averaged; () is the dataset's own one
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class TipAdapter(SelectingTrainer):
    section, learns = "TIPADAPTER", "closed form"

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER[self.section]
        if c.CROPS < 1 or min(c.ALPHA, c.BETA) < 0 or min(c.ALPHA_MAX, c.BETA_MAX) <= 0.1:
            raise UserError(f"TRAINER.{self.section} needs CROPS of at least 1, ALPHA and BETA of at least 0, and "
                            f"ALPHA_MAX and BETA_MAX above 0.1, got {c.CROPS}, {c.ALPHA}, {c.BETA}, {c.ALPHA_MAX}, "
                            f"{c.BETA_MAX}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        text = mean_text_features(clip, classes, c.TEMPLATES)
        head = CacheHead(clip, len(classes), c.ALPHA, c.BETA, learned=cls.learns == "steps", scale=100.0)
        return PromptedModel(clip, text=text, head=head, saved_as=cls.saved_as)

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "labelled images of its classes"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        keys = cls.saved_as.get("head.keys", "head.keys")
        return {} if weights.keys() == {keys, "head.values", "head.alpha", "head.beta"} else None

    def before_train(self) -> None:
        self.check_selection()
        self.fill_cache()
        super().before_train()

    def fill_cache(self) -> None:
        with as_user_error():
            self.model.head.fill(*self.keys_and_labels())

    def keys_and_labels(self) -> tuple[Tensor, Tensor]:
        """(K, D), unit norm, and (K,) of the training images."""
        features = self.train_features
        return F.normalize(features.mean(self.options.CROPS), dim=-1), features.labels

    def run_epoch(self) -> None:
        self.select()

    def select(self) -> None:
        """Seek alpha and beta."""
        c, model = self.options, self.model
        if c.SELECT == "fixed":
            return
        features, labels = self.selection_images()
        found = search(model.head, features, labels, model.text_features(), model.clip, c.BETA_MAX, c.ALPHA_MAX)
        self.say_chosen("alpha and beta", f"beta {found.beta:.4g} and alpha {found.alpha:.4g}", found.accuracy)
