"""STAdapter (ST-Adapter): convolutions over time in the blocks of the frozen image tower, for clips of frames.

Source: ST-Adapter (Pan et al., NeurIPS 2022), authors' code b914b38. What is easily missed:
- No non-linearity between the bottleneck's layers, and the class token passes by; the convolution starts at zero.
- The class token is averaged over frames before the last norm; CLIP's projection is not used.
- The rate changes after every step: it rises evenly over OPTIM.WARMUP_EPOCH epochs, then falls by half a cosine to 0.
- Biases do not decay. The authors keep the frozen weights in half precision.
- Of the last block the class token alone is read, so its adapter before the MLP gets no gradient.
- The paper puts the one adapter of a block before its attention, the released model of 12 before the MLP.
"""
from torch import nn

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.space_time import FrameHead, SpaceTimeTuner


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.STADAPTER = CfgNode()
    c.LAYERS = 0                        # adapted blocks, the last ones; 0 is all of them
    c.DIM = 384                         # width of the bottleneck; half of the tower's, as published
    c.KERNEL = (3, 1, 1)                # of the convolution over frames, rows and columns; odd
    c.PLACES = "attention"              # before the "attention" of each block, its "mlp", or "both"
    c.DROPOUT = 0.5                     # before the classifier, in training
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class STAdapter(PromptTrainer):
    section, needs_vit, schedule_per = "STADAPTER", True, "iteration"
    bounds = {**PromptTrainer.bounds, "KERNEL": (1, 63)}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        clip.require_tokens("A space-time adapter")
        tuner = SpaceTimeTuner(clip, c.LAYERS or clip.depth, c.DIM, tuple(c.KERNEL), c.PLACES)
        names = {f"visual.{name}": _saved(name, tuner.first) for name, _ in tuner.named_parameters()}
        return PromptedModel(clip, visual=tuner, head=FrameHead(clip, len(classes), c.DROPOUT), want="class_tokens",
                             saved_as={**names, "head.weight": "fc.weight", "head.bias": "fc.bias"})

    def register_prompts(self, learner: nn.Module) -> None:
        cfg = self.cfg = self.cfg.clone()
        cfg.defrost()
        if cfg.OPTIM.WARMUP_EPOCH > 0:
            cfg.OPTIM.WARMUP_STEPS, cfg.OPTIM.WARMUP_EPOCH = cfg.OPTIM.WARMUP_EPOCH * len(self.train_loader_x), 0
        cfg.freeze()
        weights, biases = ([p for name, p in learner.named_parameters() if name.endswith("bias") == bias]
                           for bias in (False, True))
        self.optim, self.sched = self.register_learner(
            "prompt_learner", learner, [{"params": weights}, {"params": biases, "weight_decay": 0.0}])

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "a linear classifier"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        attention, mlp = ([name for name in weights if name.endswith(f"adapter_{place}.conv.weight")]
                          for place in ("pre_attn", "pre_mlp"))
        if not attention + mlp or "fc.weight" not in weights:
            return None
        dim, _, *kernel = weights[(attention + mlp)[0]].shape
        return {"LAYERS": len(attention or mlp), "DIM": dim, "KERNEL": tuple(kernel),
                "PLACES": "both" if attention and mlp else "attention" if attention else "mlp"}


def _saved(name: str, first: int) -> str:
    """"pre_attn.0.fc1.weight" -> "transformer.resblocks.<first>.adapter_pre_attn.fc1.weight"."""
    place, block, rest = name.split(".", 2)
    return f"transformer.resblocks.{int(block) + first}.adapter_{place}.{rest}"
