"""L2P: an image takes the prompts of a pool whose keys are nearest to it, while classes arrive task by task.

Source: Learning to Prompt for Continual Learning (Wang et al., CVPR 2022), JH-LEE-KR/l2p-pytorch f7bc994, on CLIP's
image tower. What is easily missed:
- The query is the class token of the tower without prompts, after the last norm.
- Prompts stand behind the class token, and each has the class token's position embedding.
- The classifier reads the mean of the prompts' tokens after the last norm, before CLIP's projection.
- The sum of the chosen keys' cosines is not divided by their number. Gradients are clipped to norm 1.
- With a pool for 5-datasets, each task trains prompts of its own (use_prompt_mask, shared_prompt_pool): see PER_TASK.
- Their code takes the prompts that most images of a batch chose, at test time too: see BATCHWISE.
"""
import logging
import math

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.hooks.stages import tasks_of
from dassl.utils import UserError, distributed
from trainers.headed import add_head_options, head_of
from trainers.incremental import IncrementalTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import Output
from trainers.parts.queried import MeanTokenHead, PromptPool, QueriedModel

logger = logging.getLogger(__name__)
LEAK = "the prompts of an image are voted for by all images of its test batch"


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.L2P = CfgNode()
    c.SIZE = 10                         # prompts in the pool
    c.LENGTH = 5                        # tokens of a prompt
    c.TOP = 5                           # prompts that an image takes
    c.PULL = 0.1                        # weight of the cosines of chosen keys; larger pulls keys to images
    c.BATCHWISE = False                 # whether a batch votes for the prompts of all its images, at test time too: the
                                        # authors' way, by which an answer depends on the other images of its batch
    c.PER_TASK = False                  # with TRAIN.TASKS: each task trains TOP prompts of its own, at first those of
                                        # the one before; a test chooses from all
    c.CLIP_NORM = 1.0                   # gradients are scaled down to this norm; 0: never
    add_head_options(c)


@TRAINER_REGISTRY.register()
class L2P(IncrementalTrainer):
    section = "L2P"
    saved_as = {"visual.prompts": "prompt.prompt", "visual.keys": "prompt.prompt_key"}
    bounds = {**IncrementalTrainer.bounds, "LENGTH": (1, 512), "CLIP_NORM": (0, math.inf)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c, tasks = cfg.TRAINER.L2P, tasks_of(cfg)
        if c.PER_TASK and tasks > 1 and c.SIZE < tasks * c.TOP:
            raise UserError(f"TRAINER.L2P.SIZE must be at least {tasks * c.TOP}, TRAINER.L2P.TOP {c.TOP} prompts for "
                            f"each of TRAIN.TASKS {tasks}, got {c.SIZE}. Or set TRAINER.L2P.PER_TASK False.")
        if cfg.TRAINER.L2P.BATCHWISE and distributed.world_size() > 1:
            raise UserError("TRAINER.L2P.BATCHWISE lets a whole batch vote, of which each of "
                            f"{distributed.world_size()} processes sees a part. Run it in one process.")
        if cfg.TRAINER.L2P.BATCHWISE:
            logger.warning("With TRAINER.L2P.BATCHWISE, %s: accuracies depend on the size and order of batches", LEAK)

    @property
    def max_grad_norm(self) -> float:
        return self.options.CLIP_NORM

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> QueriedModel:
        c = options
        pool = PromptPool(clip, c.SIZE, c.LENGTH, c.TOP, c.BATCHWISE, c.get("PER_TASK", False))
        if c.HEAD == "texts":
            return QueriedModel(clip, visual=pool, text=encode_texts(clip, classes.sentences()), saved_as=cls.saved_as)
        return QueriedModel(clip, visual=pool, head=MeanTokenHead(clip, len(classes)), saved_as=cls.saved_as,
                            want=list(range(1, 1 + c.TOP * c.LENGTH)))

    def loss(self, out: Output, batch: dict) -> dict:
        return {**super().loss(out, batch), "pull": -self.options.PULL * out.aux["similarity"]}

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if not set(cls.saved_as.values()) <= weights.keys():
            return None                 # how many prompts an image takes is not in the file
        size, length, _ = weights["prompt.prompt"].shape
        return {"SIZE": size, "LENGTH": length, "PER_TASK": "visual.task" in weights, "HEAD": head_of(weights)}

    def run_record_fields(self) -> dict:
        return {**super().run_record_fields(), **({"leaks": LEAK} if self.options.BATCHWISE else {})}
