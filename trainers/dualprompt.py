"""DualPrompt: keys and values that all tasks share in the first blocks, and a task's own in the next.

Source: DualPrompt (Wang et al., ECCV 2022) as GT-RIPL/CODA-Prompt 6417d4f runs it, on CLIP's image tower. What is
easily missed:
- Half of a prompt is in front of the keys, half in front of the values, after their projection.
- Training takes the prompt of the present task; a test takes that of the nearest key, in each block by itself.
- The query is the class token of the tower without prompts. The keys' loss is a sum over blocks and images.
Here a test asks the keys of the tasks so far alone; those of later tasks were never trained.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.headed import add_head_options, head_of, on_class_token
from trainers.incremental import IncrementalTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.queried import DualPrefixes, QueriedModel


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.DUALPROMPT = CfgNode()
    c.SHARED_BLOCKS = (0, 1)            # blocks with prompts that all tasks share, from 0
    c.SHARED_LENGTH = 6                 # half of them keys, half values
    c.EXPERT_BLOCKS = (2, 3, 4)         # blocks with prompts of each task
    c.EXPERT_LENGTH = 20
    c.POOL = 10                         # tasks that have prompts of their own; at least TRAIN.TASKS
    c.PULL = 1.0                        # weight of the distance between queries and the task's keys
    add_head_options(c)


@TRAINER_REGISTRY.register()
class DualPrompt(IncrementalTrainer):
    section, shared_out = "DUALPROMPT", "POOL"
    one_process_only = "its keys' loss is a sum over all images of a batch"
    bounds = {**IncrementalTrainer.bounds, "SHARED_LENGTH": (2, 512), "EXPERT_LENGTH": (2, 512)}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        prompts = DualPrefixes(clip, c.SHARED_BLOCKS, c.EXPERT_BLOCKS, c.POOL, (c.SHARED_LENGTH, c.EXPERT_LENGTH))
        return on_class_token(clip, classes, prompts, c.HEAD, QueriedModel)

    def loss(self, out: Output, batch: dict) -> dict:
        return {**super().loss(out, batch), "keys": self.options.PULL * out.aux["distance"]}

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if not {"visual.shared", "visual.expert", "visual.keys"} <= weights.keys():
            return None                 # which blocks these are is not in the file
        return {"SHARED_LENGTH": weights["visual.shared"].shape[1], "EXPERT_LENGTH": weights["visual.expert"].shape[2],
                "POOL": weights["visual.expert"].shape[1], "HEAD": head_of(weights)}
