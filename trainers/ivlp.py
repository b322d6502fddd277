"""IVLP: learned words in the text tower and learned tokens in the image tower, deep in both, with nothing between them.

Source: independent vision-language prompting, the baseline of MaPLe (Khattak et al., CVPR 2023; 69bce21,
trainers/independentVL.py) and of PromptSRC (Khattak et al., ICCV 2023; bb95c77). The two publish different settings and
numbers: vit_b16.yaml and ivlp.yaml are MaPLe's, vit_b16_promptsrc.yaml and ivlp_promptsrc.yaml PromptSRC's. As in their
code:
- With N_CTX_TEXT 2 of "a photo of a", two words are learned and the sentence still is "[v1] [v2] of a <class>."; the
  initial words count only up to N_CTX_TEXT 4, and every dataset has the same ones.
- Visual tokens stand behind the patches; those of the first block pass `ln_pre`, and have no position.
- PROMPT_DEPTH_VISION 0 learns words alone ("deep language prompting"); the text tower has one prompted block at least.
"""
from clip import FrozenCLIP, InputError
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.deep_prompt import DeepTextPrompt
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.text_prompt import TextPrompt, initial_words
from trainers.parts.visual_prompt import VisualPrompt


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.IVLP = CfgNode()
    c.N_CTX_TEXT = 2                    # learned words; more fit better and transfer worse
    c.N_CTX_VISION = 2                  # visual tokens in each prompted block
    c.CTX_INIT = "a photo of a"         # words whose first N_CTX_TEXT are learned; "" or N_CTX_TEXT > 4: random
    c.PROMPT_DEPTH_TEXT = 9             # blocks of the text tower with words of their own; 1 is shallow
    c.PROMPT_DEPTH_VISION = 9           # blocks of the image tower with tokens of their own; 0: no visual tokens
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class IVLP(PromptTrainer):
    section, needs_vit = "IVLP", True

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c, visual, deep = options, None, None
        if c.PROMPT_DEPTH_TEXT < 1:
            raise InputError(f"Text prompts enter 1 to {clip.text_depth} blocks of the text tower, got "
                             f"{c.PROMPT_DEPTH_TEXT}.")
        text = TextPrompt(clip, classes.names, c.N_CTX_TEXT, initial_words(c.CTX_INIT, c.N_CTX_TEXT),
                          n_learned=c.N_CTX_TEXT)
        if c.PROMPT_DEPTH_VISION != 0:
            visual = VisualPrompt(clip, c.N_CTX_VISION, c.PROMPT_DEPTH_VISION, placement="end")
        if c.PROMPT_DEPTH_TEXT > 1:
            deep = DeepTextPrompt(clip, text.n_ctx, c.PROMPT_DEPTH_TEXT)
        return PromptedModel(clip, text=text, visual=visual, text_tuner=deep,
                             saved_as=_names(c.PROMPT_DEPTH_TEXT, c.PROMPT_DEPTH_VISION))

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        text, vision = (sum(name.startswith(f"{tower}_encoder.") for name in weights) for tower in ("text", "image"))
        names = {name for saved in _names(text + 1, vision).values() for name in ([saved] if saved == "ctx" else saved)}
        if weights.keys() != names or {value.dim() for value in weights.values()} != {2}:
            return None                 # without any deeper words, nor visual tokens, it would be CoOp's
        found = {"N_CTX_TEXT": len(weights["ctx"]), "PROMPT_DEPTH_TEXT": text + 1, "PROMPT_DEPTH_VISION": vision}
        return {**found, "N_CTX_VISION": len(weights["image_encoder.VPT"])} if vision else found if text else None


def _names(depth_text: int, depth_vision: int) -> dict[str, str | list[str]]:
    """The authors' model keeps the deeper ones inside the blocks of the towers."""
    deeper = "{}_encoder.transformer.resblocks.{}.VPT_shallow"
    names = {"text.ctx": "ctx"}
    if depth_vision:
        names["visual.tokens"] = ["image_encoder.VPT", *(deeper.format("image", i) for i in range(1, depth_vision))]
    if depth_text > 1:
        names["text_tuner.tokens"] = [deeper.format("text", i) for i in range(1, depth_text)]
    return names
