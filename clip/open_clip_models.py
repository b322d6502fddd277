"""FrozenCLIP from a model of open_clip's.

A standard ViT becomes our tower, which tuners can enter; a CLIP ResNet gives its tokens too; any other image tower
(ConvNeXt, EVA ...) is used as it is. The text tower must be a plain transformer over CLIP's 49,408 BPE tokens.
"""
from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from .errors import InputError
from .tokenizer import VOCABULARY_SIZE
from .towers import FrozenCLIP, TowerShape
from .vision import OpaqueTower, VisionTransformer, build_resnet

_BLOCKS = (r"transformer\.resblocks\.\d+\.(ln_[12]\.(weight|bias)|ls_[12]\.gamma|attn\.in_proj_(weight|bias)|"
           r"(attn\.out_proj|mlp\.c_fc|mlp\.c_proj)\.(weight|bias))")
_VIT_KEYS = re.compile(
    rf"class_embedding|positional_embedding|proj|conv1\.(weight|bias)|ln_(pre|post)\.(weight|bias)|{_BLOCKS}")
_TEXT_KEYS = re.compile(
    rf"token_embedding\.weight|positional_embedding|text_projection|ln_final\.(weight|bias)|{_BLOCKS}")
_READ_AT = {"argmax": "eot", "eos": "eot", "last": "last"}       # open_clip's names of where a text is read


def from_open_clip(model: nn.Module, name: str = "this open_clip model") -> FrozenCLIP:
    """The same towers, frozen, in float32.

    Args:
        model: what `open_clip.create_model` returns.
        name: for messages.
    Raises:
        InputError: the text tower is no plain transformer over CLIP's own vocabulary.
    """
    text_tower = model.text if hasattr(model, "text") else model
    text = _text_weights(model, text_tower, name)
    block = text_tower.transformer.resblocks[0]
    visual = model.visual.float()
    weights, vision_heads = visual.state_dict(), 0
    if _is_plain_vit(visual):
        vision_heads = visual.transformer.resblocks[0].attn.num_heads
        tower = VisionTransformer(weights, vision_heads, _activation(visual.transformer.resblocks[0]))
        tower.load_state_dict(weights)
    elif type(visual).__name__ == "ModifiedResNet":
        vision_heads = visual.attnpool.num_heads
        tower = build_resnet(weights, vision_heads)
        tower.load_state_dict(weights)
    else:
        size = visual.image_size
        tower = OpaqueTower(visual, size[0] if isinstance(size, (tuple, list)) else size)
    shape = TowerShape(vision_heads, block.attn.num_heads, _activation(block),
                       causal=getattr(text_tower, "attn_mask", None) is not None, read_at=_READ_AT[_pool(text_tower)])
    clip = FrozenCLIP(tower, text, shape)
    clip.load_state_dict({**text, **{f"visual.{k}": v for k, v in tower.state_dict().items()}})
    if getattr(model, "logit_bias", None) is not None:
        clip.bias.copy_(model.logit_bias.detach().reshape(()))
    clip.mean = tuple(getattr(visual, "image_mean", None) or clip.mean)
    clip.std = tuple(getattr(visual, "image_std", None) or clip.std)
    return clip


def _text_weights(model: nn.Module, tower: nn.Module, name: str) -> dict[str, Tensor]:
    from open_clip.model import CLIP
    from open_clip.transformer import TextTransformer

    weights = tower.state_dict()
    if isinstance(tower, CLIP):
        weights = {k: v for k, v in weights.items() if not k.startswith("visual.")}
    logit_scale = model.logit_scale.detach()
    if isinstance(weights.get("text_projection.weight"), Tensor) and "text_projection.bias" not in weights:
        weights["text_projection"] = weights.pop("text_projection.weight").T
    weights = {k: v.float() for k, v in weights.items() if k not in ("logit_scale", "logit_bias", "attn_mask")}
    fits = (isinstance(tower, (CLIP, TextTransformer)) and _pool(tower) in _READ_AT
            and all(_TEXT_KEYS.fullmatch(k) for k in weights)
            and len(weights["token_embedding.weight"]) == VOCABULARY_SIZE and not getattr(tower, "use_pad_mask", False))
    if not fits:
        raise InputError(f"{name} reads text with {type(tower).__name__}, not with a plain transformer over CLIP's "
                         f"{VOCABULARY_SIZE} BPE tokens, so prompts cannot enter it. Choose an architecture with "
                         "CLIP's text tower, such as ViT-B-16 or RN50.")
    return {**weights, "logit_scale": logit_scale.float().reshape(())}


def _pool(tower: nn.Module) -> str | None:
    return getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", None)


def _is_plain_vit(visual: nn.Module) -> bool:
    from open_clip.transformer import VisionTransformer as OpenCLIPViT

    return (isinstance(visual, OpenCLIPViT) and visual.pool_type == "tok" and visual.attn_pool is None
            and all(_VIT_KEYS.fullmatch(k) for k in visual.state_dict()) and "proj" in visual.state_dict())


def _activation(block: nn.Module) -> str:
    activation = block.mlp.gelu
    if type(activation).__name__ == "QuickGELU":
        return "quick_gelu"
    if isinstance(activation, nn.GELU) and torch.allclose(activation(torch.ones(1)), nn.functional.gelu(torch.ones(1))):
        return "gelu"
    raise InputError(f"The activation {activation} is neither QuickGELU nor GELU; no tower here has it.")
