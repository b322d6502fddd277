"""What a checkpoint looks like: whose method, whose names, and the settings that its shapes tell.

Source of the names: the authors' code (CoOp and CoCoOp, KaiyangZhou/CoOp ff61507; DAPT, mlvlab/DAPT cacb311; MaPLe, VPT
and IVLP, muzairkhattak/multimodal-prompt-learning 69bce21) and this project's own checkpoints.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

FIXED = ("token_prefix", "token_suffix", "image_encoder", "text_encoder", "logit_scale", "visual.", "transformer.",
         "ZS_image_encoder", "fixed_embeddings", "token_embedding", "positional_embedding", "ln_final",
         "text_projection")
_TABLES = ("ctx", "txt_ctx", "vis_ctx", "bank.prompt_of", "weight")           # have rows


@dataclass(frozen=True)
class Kind:
    """Attributes: method; whose names they are; our trainer that reads it ("" none); its options; a remark."""

    method: str
    whose: str
    trainer: str = ""
    options: tuple[str, ...] = ()
    remark: str = ""


def bare(name: str) -> str:
    """A weight's name without what DataParallel and whole models put before it."""
    return name.removeprefix("module.").removeprefix("prompt_learner.")


def is_fixed(name: str) -> bool:
    """Not learned by a prompt method: words of class names, the towers."""
    return bare(name).startswith(FIXED) and "VPT" not in name


def kind_of(weights: Mapping[str, Tensor]) -> Kind:
    """The first kind whose names are all there."""
    w = {bare(name): value for name, value in weights.items() if hasattr(value, "shape")}
    w = {name: value for name, value in w.items() if value.dim() >= 2 or not (name in _TABLES or "VPT" in name)}
    ours = "this project's"
    whose = "the authors'" if "token_prefix" in w or any(n.startswith("image_encoder.t") for n in w) else ours
    vision = sorted((n for n in w if n.startswith("image_encoder") and "VPT" in n), key=_block)
    text = [n for n in w if n.startswith("text_encoder") and "VPT" in n]
    if {"txt_ctx", "vis_ctx"} <= w.keys():
        return Kind("DAPT", whose, "DAPT", (f"TRAINER.DAPT.TXT_NUM_TOKENS {w['txt_ctx'].shape[-2]}",
                                            f"TRAINER.DAPT.VIS_NUM_TOKENS {w['vis_ctx'].shape[-2]}",
                                            f"TRAINER.DAPT.VIS_DEPTH {len(w['vis_ctx'])}"))
    if "ctx" in w and any(n.startswith("compound_prompts") for n in w):
        depth = 1 + sum(n.startswith("compound_prompts_text") for n in w)
        return Kind("MaPLe", "the authors'", remark=f"{len(w['ctx'])} context words, depth {depth}; needs a MaPLe "
                                                    "trainer, e.g. the authors' with --plugin")
    if "ctx" in w and (vision or text):
        return Kind("IVLP or PromptSRC", "the authors'",
                    remark=f"{len(w['ctx'])} context words, {len(text) + 1} prompted text blocks, {len(vision)} image "
                           "blocks; needs its trainer, e.g. the authors' with --plugin")
    if vision:
        return Kind("VPT", whose if whose != ours else "MaPLe's and this project's", "VPT",
                    (f"TRAINER.VPT.N_CTX_VISION {len(w[vision[0]])}", f"TRAINER.VPT.PROMPT_DEPTH_VISION {len(vision)}"))
    if "ctx" in w and "meta_net.linear1.weight" in w:
        return Kind("CoCoOp", whose, "CoCoOp", (f"TRAINER.COCOOP.N_CTX {w['ctx'].shape[-2]}",))
    if "ctx" in w and (others := [name for name in w if name != "ctx" and not is_fixed(name)]):
        return Kind("a relative of CoOp", "other",
                    remark=f"{w['ctx'].shape[-2]} context words, and {others[0]} ...; needs its trainer, e.g. the "
                           "authors' with --plugin")
    if "ctx" in w and w["ctx"].dim() in (2, 3):
        own = w["ctx"].dim() == 3
        return Kind("CoOp", whose, "CoOp", (f"TRAINER.COOP.N_CTX {w['ctx'].shape[-2]}", f"TRAINER.COOP.CSC {own}"),
                    f"class-specific contexts of {len(w['ctx'])} classes, for these only" if own else
                    "the place of the class name (TRAINER.COOP.CLASS_TOKEN_POSITION) is not in the file")
    return _pixels_and_others(w)


def _pixels_and_others(w: Mapping[str, Tensor]) -> Kind:
    if "pixel.0.program" in w:
        count = sum(bool(re.fullmatch(r"pixel\.\d+\.program", n)) for n in w)
        return Kind("DVP", "this project's", "DVPcse or DVPcls", remark=f"{count} pixel prompts, {_descriptions(w)}")
    if "pixel.program" in w:
        return Kind("AttrVR", "this project's", "AttrVR", remark=_descriptions(w)) if "bank.text" in w else \
            Kind("VP or AR", "this project's", "VP or AR")
    if w.keys() == {"weight", "bias"}:
        return Kind("LinearProbe", "this project's", "LinearProbe", remark=f"{len(w['weight'])} classes")
    if {"visual.proj", "token_embedding.weight"} <= w.keys() or "visual.attnpool.positional_embedding" in w:
        return Kind("CLIP", "OpenAI's", remark="a whole CLIP; name the file as MODEL.BACKBONE.NAME")
    return Kind("no method that is known here", "other")


def _descriptions(w: Mapping[str, Tensor]) -> str:
    size = tuple(w["bank.prompt_of"].shape) if "bank.prompt_of" in w else None
    return f"{size[1]} descriptions for each of {size[0]} classes, in the file" if size else "no descriptions"


def _block(name: str) -> int:
    found = re.search(r"resblocks\.(\d+)\.", name)
    return int(found.group(1)) if found else 0
