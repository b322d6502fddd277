"""A method's model on its towers, for training, predicting and measuring alike: no data, no loop, no folder."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from clip import FrozenCLIP, InputError, load_clip
from dassl.config import CfgNode
from dassl.engine.checkpoint_files import read_weights
from dassl.utils import UserError
from dassl.utils.torchtools import load_initial_weights
from trainers import MAX_TOKENS
from trainers._checks import check_images
from trainers._precision import MixedPrecision
from trainers.errors import as_user_error, refusal_as_user_error
from trainers.options import not_at_default
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.starting import initial_weights, options_learned_with


def build_on(method: type, cfg: CfgNode, classes: Classes, device: torch.device,
             clip: FrozenCLIP | None = None) -> tuple[PromptedModel, MixedPrecision]:
    """The untrained model of a `PromptTrainer` class, and the precision of its towers.

    Args:
        cfg: whose MODEL.BACKBONE, INPUT, TRAIN and the method's section count.
        clip: towers that are there already, on `device`; None loads them.
    Raises:
        UserError: a name, size or option that does not fit.
    """
    options = cfg.TRAINER[method.section] if method.section else None
    if start := initial_weights(cfg):
        options = method.starting_from(options, read_weights(start)["state_dict"], options_learned_with(start))
    if method.adapts and len(classes) < 2:
        raise UserError(f"{method.__name__} learns from how sure an answer is, which takes at least 2 classes, got "
                        f"{', '.join(map(repr, classes.names)) or 'none'}.")
    with as_user_error():
        clip = clip or load_clip(cfg.MODEL.BACKBONE.NAME, device)
        clip.max_tokens = cfg.TRAIN.get("MAX_TOKENS", MAX_TOKENS)
        check_images(method, clip, cfg)
        if method.needs_vit:
            clip.require_tokens(method.__name__)
        mixed = MixedPrecision(clip, options.get("PREC", "fp32") if options is not None else "fp32", method.half_towers,
                               cfg.TRAIN.get("ONEDNN", "auto"))
        if cfg.TRAIN.get("COMPILE", False):
            clip.compile_image_blocks()
        try:
            model = method.build(clip, classes, options)
        except InputError as error:
            raise UserError(f"{error}{not_at_default(method, options)}") from error
        return model.to(device), mixed


def build_to_train(method: type, cfg: CfgNode, classes: Classes,
                   device: torch.device) -> tuple[PromptedModel, MixedPrecision]:
    """What `build_on` gives, with what training starts from: weights of MODEL.INIT_WEIGHTS, where they are named."""
    model, mixed = build_on(method, cfg, classes, device)
    if (start := initial_weights(cfg)) and any(True for _ in model.prompt_learner.parameters()):
        load_initial_weights(model.prompt_learner, start)
    return model, mixed


def infer(method: type, model: PromptedModel, mixed: MixedPrecision, images: Tensor,
          options: CfgNode | None) -> Tensor:
    """(B, 3, H, W) -> logits (B, C), in the precision in which the method is tested.

    Several clips of each video (B, V, T, 3, H, W) give the log of their mean probabilities.
    """
    if images.dim() == 6:
        logits = infer(method, model, mixed, images.flatten(0, 1), options).unflatten(0, images.shape[:2])
        return logits.log_softmax(-1).logsumexp(1) - math.log(images.shape[1])
    with torch.inference_mode(not method.adapts), torch.no_grad(), mixed.autocast(enabled=method.half_towers), \
            refusal_as_user_error():
        return method.predict(model, images, options)
