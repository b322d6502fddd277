"""CODAPrompt: keys and values that are a weighted sum of components, of which every task adds some.

Source: CODA-Prompt (Smith et al., CVPR 2023), GT-RIPL/CODA-Prompt 6417d4f, on CLIP's image tower. What is easily
missed:
- A component's weight is the cosine of its key with the query times its learned attention; weights have no softmax.
- Half of the sum is in front of the keys, half in front of the values, after their projection.
- A task's components are drawn orthogonal to the former ones, which are no longer trained.
- The released script has no penalty on what is not orthogonal (ORTHO 0); the paper has 0.1.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.headed import add_head_options, head_of, on_class_token
from trainers.incremental import IncrementalTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.queried import ComposedPrefixes, QueriedModel


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.CODAPROMPT = CfgNode()
    c.BLOCKS = (0, 1, 2, 3, 4)          # blocks with prompts, from 0
    c.COMPONENTS = 100                  # of all tasks together; at least TRAIN.TASKS
    c.LENGTH = 8                        # of a component: half of it keys, half values
    c.ORTHO = 0.0                       # weight of what is not orthonormal among keys, attentions and components
    add_head_options(c)


@TRAINER_REGISTRY.register()
class CODAPrompt(IncrementalTrainer):
    section, shared_out = "CODAPROMPT", "COMPONENTS"
    bounds = {**IncrementalTrainer.bounds, "LENGTH": (2, 512)}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        prompts = ComposedPrefixes(clip, c.BLOCKS, c.COMPONENTS, c.LENGTH)
        return on_class_token(clip, classes, prompts, c.HEAD, QueriedModel)

    def loss(self, out: Output, batch: dict) -> dict:
        ortho = {"ortho": self.options.ORTHO * out.aux["overlap"]} if self.options.ORTHO else {}
        return {**super().loss(out, batch), **ortho}

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if not {"visual.components", "visual.keys", "visual.attention"} <= weights.keys():
            return None                 # which blocks these are is not in the file
        _, count, length, _ = weights["visual.components"].shape
        return {"COMPONENTS": count, "LENGTH": length, "HEAD": head_of(weights)}
