"""A plain CLIP that answers as a model does whose learning is no more than other weights of its towers."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from clip import InputError
from trainers.parts.prompted_model import PromptedModel


@torch.no_grad()
def merged_weights(model: PromptedModel) -> dict[str, Tensor]:
    """State dict in OpenAI's key layout, in float32 on the CPU: released weights and low-rank updates are in it.

    Its logits are the model's for the sentences with which the model was trained.

    Raises:
        InputError: something learned that is not a weight of the towers, such as words, tokens or a classifier.
    """
    towers = model.clip.frozen_copy()
    for name, brick in model.prompt_learner.items():
        if name != "tower" and not hasattr(brick, "merge_into") and any(True for _ in brick.parameters()):
            raise InputError(f"What a {type(brick).__name__} learned is not a weight of the towers, so it cannot be "
                             "merged into them.")
    for name, tower in (("visual", towers.visual), ("text_tuner", towers)):
        if (tuner := model.brick(name)) is not None:
            tuner.merge_into(tower.transformer.resblocks)
    if (scale := getattr(model.head, "scale", None)) is not None:
        towers.logit_scale.fill_(math.log(scale))
    weights = {name: value.detach().float().cpu().clone() for name, value in towers.state_dict().items()}
    return weights | ({"logit_bias": towers.bias.cpu().clone()} if towers.bias else {})
