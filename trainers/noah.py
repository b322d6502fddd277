"""NOAH: a network of all prompts, low-rank updates and adapters is trained, searched, and the best part trained again.

Source: Neural Prompt Search (Zhang et al., TPAMI 2024), authors' code e9c55f3, on CLIP's image tower. As there:
- Every step draws a dimension for every part of every block, each as likely as the others.
- The search compares sub-networks with the shared weights, on validation images; the found one starts from scratch.
- The limit counts prompts, updates and adapters, without the classifier, which a record's "learned_parameters" has as
  well: those of the found network, not of the whole one. See `SubNet` for the parts themselves.
Differences: every block may be without a part, where theirs draws how many first blocks have it (3, 6, 9 or 12 of 12);
a mixture of two networks takes each dimension from one of them, theirs all of a part; a changed copy of theirs has its
parts in more or fewer blocks. Their runs are of a ViT trained on ImageNet-21k; the few-shot ones augment images as
configs/trainers/NOAH/vit_b16.yaml does, those on VTAB not at all.
The found one is written as a recipe for `SubNet`, and all that was compared to search.json.
"""
from torch import nn

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.errors import as_user_error
from trainers.found_recipe import as_recipe
from trainers.headed import HeadedTrainer, on_class_token
from trainers.mixed_images import MixedImages, add_mixing_options
from trainers.parts.classes import Classes
from trainers.parts.evolution import Evolution
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.subnet import PARTS, BlockParts, parameters_of
from trainers.searching import drawn, rows, search
from trainers.two_stages import TwoStages


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.NOAH = CfgNode()
    c.CHOICES = (0, 5, 10, 50, 100)     # dimensions that a part of a block may have, ascending
    c.LIMIT = 640000                    # numbers that the found one may learn, without the classifier
    c.SHARE = 0.75                      # of the epochs that train the whole network; the others train the found one
    c.RETRAIN_LR = 0.0                  # learning rate of the found one; 0: that of the whole network, OPTIM.LR
    c.GENERATIONS = 15                  # of the search
    c.POPULATION = 60                   # sub-networks compared in a generation, its parents among them
    c.PARENTS = 10                      # the best of it, which live on
    c.MUTATED = 25                      # changed copies of them in the next
    c.CROSSED = 25                      # mixtures of two of them
    c.MUTATION = 0.2                    # probability that a dimension of a changed copy is drawn again
    c.DROPOUT = 0.1                     # of prompts, of what updates read and within adapters
    add_mixing_options(c)


@TRAINER_REGISTRY.register()
class NOAH(TwoStages, MixedImages, HeadedTrainer):
    section, one_process_only = "NOAH", "the search runs in one process"
    bounds = {**HeadedTrainer.bounds, **MixedImages.bounds, "LIMIT": (1, 10 ** 9), "GENERATIONS": (1, 4096),
              "SHARE": (0, 1), "RETRAIN_LR": (0, 1e30), "MUTATION": (0, 1)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.NOAH
        if max(c.CHOICES, default=0) <= 0:
            raise UserError(f"TRAINER.NOAH.CHOICES needs a dimension above 0, as (0, 1, 5), got {tuple(c.CHOICES)}.")
        if cfg.OPTIM.MAX_EPOCH > 1 and not 0 < round(c.SHARE * cfg.OPTIM.MAX_EPOCH) < cfg.OPTIM.MAX_EPOCH:
            raise UserError("Both trainings of NOAH need an epoch, got OPTIM.MAX_EPOCH "
                            f"{cfg.OPTIM.MAX_EPOCH} and TRAINER.NOAH.SHARE {c.SHARE}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        parts = BlockParts(clip, [max(options.CHOICES)] * len(PARTS), options.DROPOUT, options.get("DROP_PATH", 0.0))
        return on_class_token(clip, classes, parts, options.HEAD)

    def register_prompts(self, learner: nn.Module) -> None:
        if self.val_loader is None or self.val_is_test:
            raise UserError(f"NOAH compares networks on validation images; {self.cfg.DATASET.NAME} has none "
                            "besides its test images. Take SubNet with dimensions of your own, or another dataset.")
        super().register_prompts(learner)
        c, self.parts = self.options, self.model.brick("visual")
        self.first_weights = {k: v.clone() for k, v in learner.state_dict().items()}
        with as_user_error():
            self.evolution = Evolution(
                tuple(c.CHOICES), len(PARTS) * self.model.clip.depth,
                lambda genes: parameters_of(rows(genes), self.parts.width), c.LIMIT, c.POPULATION, c.PARENTS,
                c.MUTATED, c.CROSSED, c.MUTATION, max(self.cfg.SEED, 0))

    def first_share(self, options: CfgNode) -> float:
        return options.SHARE

    def second_rate(self, options: CfgNode) -> float:
        return options.RETRAIN_LR or self.cfg.OPTIM.LR

    def enter_stage(self, first: bool) -> None:
        learns = set(map(id, self.parts.parameters() if first else self.parts.in_use()))
        for parameter in self.parts.parameters():
            parameter.requires_grad_(id(parameter) in learns)
            parameter.grad = parameter.grad if id(parameter) in learns else None

    def output(self, batch: dict) -> Output:
        if self.epoch < self.first_epochs and self.is_training:
            self.parts.choose(rows(drawn(self.evolution)))
        return super().output(batch)

    def before_second_stage(self) -> None:
        found = search(self, self.evolution, self.options.GENERATIONS)
        self.model.prompt_learner.load_state_dict(self.first_weights)
        self.parts.choose(rows(found))
        as_recipe(self, self.parts.dims)

    def run_record_fields(self) -> dict:
        found, rest = self.parts.count(), self.learned_parameters - sum(p.numel() for p in self.parts.parameters())
        return {**super().run_record_fields(), "found": dict(zip(PARTS, self.parts.dims, strict=True)),
                "found_parameters": found, "limit": self.options.LIMIT, "learned_parameters": rest + found}
