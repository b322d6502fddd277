"""TwoSFS (2SFS): first the towers' norms learn against sentences, then a classifier that begins as their features.

Source: Rethinking Few-Shot Adaptation of Vision-Language Models in Two Stages (Farina et al., CVPR 2025), 64ac143. What
is easily missed:
- Both stages together have ITERATIONS steps per shot, of which the first has FIRST_SHARE; here each has whole epochs.
- The classifier begins as the *tuned* text features, and nothing else learns in the second stage.
- Classes that training saw are scored by the classifier, others by the text tower of the first stage. A run that is
  tested says which classes it saw; where nothing does, the test is refused.
The recipe leaves open whether one schedule spans both stages; here each stage has its own, as its optimiser.
"""
import math

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers._base import PromptTrainer
from trainers.iterations import train_for_iterations
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.released import BIASES, NORMS, release
from trainers.parts.sentences import Sentences
from trainers.parts.staged_head import StagedHead
from trainers.two_stages import TwoStages

LEARN = {"norms": NORMS, "biases": BIASES}


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.TWOSFS = CfgNode()
    c.LEARN = "norms"                   # of the towers in the first stage: "norms" or "biases"
    c.FIRST_SHARE = 0.6                 # of the training that the first stage has; 0 learns the classifier alone
    c.TEMPLATE = "a photo of a {}."     # sentence of a class; "" takes the dataset's own
    c.ITERATIONS = 300                  # training steps per shot, which decide the epochs; 0: OPTIM.MAX_EPOCH does
    c.PREC = "amp"                      # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class TwoSFS(TwoStages, PromptTrainer):
    section, half_towers = "TWOSFS", False
    bounds = {**PromptTrainer.bounds, "FIRST_SHARE": (0, 1), "ITERATIONS": (0, math.inf)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.TWOSFS
        if c.LEARN not in LEARN:
            raise UserError(f"TRAINER.TWOSFS.LEARN must be {' or '.join(LEARN)}, got {c.LEARN!r}.")

    def build_data_loader(self) -> None:
        super().build_data_loader()
        train_for_iterations(self, self.options.ITERATIONS)

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        tower = release(clip, LEARN[options.LEARN])
        return PromptedModel(clip, text=Sentences(clip, classes.sentences(options.TEMPLATE)), tower=tower,
                             head=StagedHead(clip, len(classes), classes.seen))

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if "head.classifier" not in weights or not any("ln_" in name for name in weights):
            return None
        return {"LEARN": "biases" if any("attn" in name for name in weights) else "norms"}

    def first_share(self, options: CfgNode) -> float:
        return options.FIRST_SHARE

    def enter_stage(self, first: bool) -> None:
        self.model.head.second = not first
        self.model.head.classifier.requires_grad_(not first)
        self.model.brick("tower").requires_grad_(first)

    def before_second_stage(self) -> None:
        self.model.head.start(self.model.text_features().detach())
