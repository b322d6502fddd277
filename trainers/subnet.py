"""SubNet: prompts, low-rank updates and adapters in the image tower, each of a dimension of its own in every block.

Source: the sub-networks of NOAH (Zhang et al., TPAMI 2024), authors' code e9c55f3, on CLIP's image tower; with one kind
of part alone it is VPT, LoRA or an adapter as that paper compares with. What is easily missed:
- A block without prompts keeps those of the block before, and the next block with some adds its own to them.
- LoRA updates q, k and v together and is not scaled; the adapter has a connection of its own around it.
- The tokens that their code also has in front of the first block never reach an attention; they are left out.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.headed import HeadedTrainer, head_of, on_class_token
from trainers.mixed_images import MixedImages, add_mixing_options
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.subnet import PARTS, BlockParts


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.SUBNET = CfgNode()
    c.PROMPT = [8]                     # prompts of each block; one number for all of them, or one for each; 0: none
    c.LORA = [8]                       # rank of the update of q, k and v; as above
    c.ADAPTER = [8]                    # width of the adapter; as above
    c.DROPOUT = 0.1                    # of prompts, of what updates read and within adapters
    add_mixing_options(c)


@TRAINER_REGISTRY.register()
class SubNet(MixedImages, HeadedTrainer):
    section = "SUBNET"
    bounds = {**HeadedTrainer.bounds, **MixedImages.bounds}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        parts = BlockParts(clip, [options[part.upper()] for part in PARTS], options.DROPOUT,
                           options.get("DROP_PATH", 0.0))
        return on_class_token(clip, classes, parts, options.HEAD)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        dims = weights.get("visual.chosen")
        if dims is None:
            return None
        names = ("visual.prompts.{}", "visual.A.{}", "visual.down.{}.weight")
        held = [[len(weights.get(name.format(block), ())) for block in range(dims.shape[1])] for name in names]
        if held != dims.tolist():
            return None                 # of a network that holds more than it uses: NOAH's
        return {**{part.upper(): tuple(row) for part, row in zip(PARTS, held, strict=True)}, "HEAD": head_of(weights)}
