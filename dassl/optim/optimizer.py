"""OPTIM -> a torch optimiser."""
from __future__ import annotations

import logging

import torch
from torch import nn

from dassl.utils.errors import UserError
from dassl.utils.registry import nearest

from .radam import RAdam

logger = logging.getLogger(__name__)

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]


def build_optimizer(model, optim_cfg, param_groups=None) -> torch.optim.Optimizer:
    """The optimiser that `optim_cfg.NAME` names.

    Args:
        model: a module, or an iterable of parameters or parameter groups.
        optim_cfg: cfg.OPTIM, or a section with Dassl's keys of it. With STAGED_LR, layers outside NEW_LAYERS learn at
            LR * BASE_LR_MULT.
        param_groups: used instead of the model's parameters.
    """
    name, lr, decay = optim_cfg.NAME, optim_cfg.LR, optim_cfg.WEIGHT_DECAY
    if name not in AVAI_OPTIMS:
        raise UserError(f"OPTIM.NAME must be one of {', '.join(AVAI_OPTIMS)}, got {name!r}."
                        f"{nearest(name, AVAI_OPTIMS)}")
    if param_groups is None:
        param_groups = _staged(model, optim_cfg) if optim_cfg.STAGED_LR else _parameters(model)
    if not (param_groups := list(param_groups)):
        raise UserError("The optimiser got no parameters: nothing in the model learns. Check what build_model freezes.")
    adam = {"lr": lr, "weight_decay": decay, "betas": (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2),
            "eps": optim_cfg.get("ADAM_EPS", 1e-8)}
    if name == "sgd":
        return torch.optim.SGD(param_groups, lr=lr, momentum=optim_cfg.MOMENTUM, weight_decay=decay,
                               dampening=optim_cfg.SGD_DAMPNING, nesterov=optim_cfg.SGD_NESTEROV)
    if name == "rmsprop":
        return torch.optim.RMSprop(param_groups, lr=lr, momentum=optim_cfg.MOMENTUM, weight_decay=decay,
                                   alpha=optim_cfg.RMSPROP_ALPHA)
    if name in ("adam", "amsgrad"):
        return torch.optim.Adam(param_groups, **adam, amsgrad=name == "amsgrad")
    return (RAdam if name == "radam" else torch.optim.AdamW)(param_groups, **adam)


def _parameters(model):
    return list(model.parameters()) if isinstance(model, nn.Module) else model


def _staged(model: nn.Module, optim_cfg) -> list[dict]:
    if not isinstance(model, nn.Module):
        raise TypeError("OPTIM.STAGED_LR splits a module by the names of its layers; build_optimizer got no module.")
    new_layers = [optim_cfg.NEW_LAYERS] if isinstance(optim_cfg.NEW_LAYERS, str) else list(optim_cfg.NEW_LAYERS)
    if not new_layers:
        logger.warning("OPTIM.NEW_LAYERS is empty, so OPTIM.STAGED_LR slows every layer down")
    model = model.module if isinstance(model, nn.DataParallel) else model
    children = [name for name, _ in model.named_children()]
    for name in new_layers:
        if name not in children:
            raise UserError(f"OPTIM.NEW_LAYERS names {name!r}, which is not a layer of the model."
                            f"{nearest(name, children)} There are {', '.join(children)}.")
    base, new = [], []
    for name, module in model.named_children():
        (new if name in new_layers else base).extend(module.parameters())
    return [{"params": base, "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT}, {"params": new}]
