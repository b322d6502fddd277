"""What a checkpoint looks like: which method knows it as its own, and the settings that its shapes tell."""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

# Words of class names and towers, by OpenAI's names and by those of code that builds on CoOp's.
_FIXED = re.compile(r"token_(prefix|suffix|embedding)|image_encoder|text_encoder|ZS_image_encoder|fixed_embeddings|"
                    r"logit_scale|positional_embedding|ln_final|text_projection|transformer\.|"
                    r"visual\.(conv|bn|layer|ln_|transformer|class_embedding|positional_embedding|proj|attnpool)")
_ELSEWHERE = "needs its trainer, e.g. the authors' with --plugin"


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
    learned = ("VPT", "lora", "proj_rep", "adapter_pre")             # inside the towers
    return _FIXED.match(bare(name)) is not None and not any(part in name for part in learned)


def kind_of(weights: Mapping[str, Tensor], trainer: object = None) -> Kind:
    """The methods that know these weights as theirs (`options_of`), or else a hint.

    Args:
        trainer: the name that the file gives; where several know the weights, that one alone counts.
    """
    from dassl.config import CfgNode, get_cfg_default
    from dassl.engine import TRAINER_REGISTRY
    from dassl.engine.plugins import extend_all
    from tools import train

    w = {bare(name): value for name, value in weights.items() if hasattr(value, "shape")}
    learned = {name: value for name, value in w.items() if not is_fixed(name)}
    extend_all(cfg := get_cfg_default(), modules := train.register())
    known = {module.__name__ for module in modules}
    words, found = w.get("token_prefix"), {}
    prompts = words.shape[0] if words is not None and words.dim() == 3 else 0
    for name in sorted(TRAINER_REGISTRY.registered_names()):
        method = TRAINER_REGISTRY.get(name)
        options = getattr(method, "options_of", lambda _: None)(learned) if method.__module__ in known else None
        if options is not None and (not prompts or method.fits_prompts(learned, prompts)):
            found[name] = method, options
    found = {trainer: found[trainer]} if trainer in found else found
    if not found:
        return _hint(w, learned)
    names, method, options = " or ".join(found), *next(iter(found.values()))
    merged = CfgNode({**cfg.TRAINER[method.section], **options}) if method.section else None
    bound = method.bound_to_classes(merged)
    return Kind(names, "the authors'" if len(w) > len(learned) else "this project's", names,
                tuple(dict.fromkeys(f"TRAINER.{own.section}.{key} {value}" for own, told in found.values()
                                    for key, value in told.items())), f"holds {bound}" if bound else "")


def _hint(w: Mapping[str, Tensor], learned: Mapping[str, Tensor]) -> Kind:
    if {"visual.proj", "token_embedding.weight"} <= w.keys() or "visual.attnpool.positional_embedding" in w:
        return Kind("CLIP", "OpenAI's", remark="a whole CLIP; name the file as MODEL.BACKBONE.NAME")
    if "ctx" in w and any(name.startswith("text_encoder") for name in learned):
        return Kind("prompts in both towers", "others'", remark=_ELSEWHERE)
    if "ctx" in w and (others := [name for name in learned if name != "ctx"]):
        return Kind("context words and more", "others'", remark=f"also holds {others[0]} ...; {_ELSEWHERE}")
    return Kind("no method that is known here", "other")
