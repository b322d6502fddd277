"""The models of a trainer by their names: kept, saved, loaded, and switched between modes together."""
from __future__ import annotations

import logging
import os.path as osp
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from torch import nn
from torch.optim import Optimizer

from dassl.utils import distributed
from dassl.utils.errors import UserError
from dassl.utils.tools import tolist_if_not
from dassl.utils.torchtools import load_weights, save_checkpoint

from .checkpoint_files import find_checkpoint, read_weights
from .resume import resume

logger = logging.getLogger(__name__)


class Registered(NamedTuple):
    """A model, and the optimiser and schedule that it has, if any."""

    name: str
    model: nn.Module
    optim: Optimizer | None
    sched: object | None

    def state(self) -> dict:
        optim, sched = (part and part.state_dict() for part in (self.optim, self.sched))
        return {"state_dict": self.model.state_dict(), "optimizer": optim, "scheduler": sched}


class Public:
    """An attribute under a public name too, which a trainer may still use for something of its own."""

    def __init__(self, name: str):
        self._name = name

    def __get__(self, trainer, owner=None):
        return self if trainer is None else getattr(trainer, self._name)


class RegisteredModels:
    """Dassl's methods for the models that a trainer registers.

    Attributes:
        models, optimisers, schedules: by name; None where there is none.
        loaded_files: those that `load_model` took the weights from.
    """

    models, optimisers, schedules = Public("_models"), Public("_optims"), Public("_scheds")
    loaded_files: tuple[str, ...] = ()

    def __init__(self):
        self._models: OrderedDict[str, nn.Module | None] = OrderedDict()
        self._optims: OrderedDict = OrderedDict()
        self._scheds: OrderedDict = OrderedDict()

    def register_model(self, name: str = "model", model: nn.Module | None = None, optim=None, sched=None) -> None:
        """Have a model saved, loaded, switched between modes, and its schedule stepped, under `name`."""
        if self.__dict__.get("_models") is None:
            raise TypeError("Call super().__init__() before registering a model.")
        if name in self._models:
            raise ValueError(f"A model named {name!r} is registered already: {', '.join(self._models)}.")
        self._models[name], self._optims[name], self._scheds[name] = model, optim, sched

    def get_model_names(self, names: str | list[str] | None = None) -> list[str]:
        """All registered names, or `names` after a check that they are."""
        if names is None:
            return list(self._models)
        names = tolist_if_not(names)
        if unknown := [n for n in names if n not in self._models]:
            raise ValueError(f"No model named {', '.join(unknown)}; registered: {', '.join(self._models)}.")
        return names

    def registered(self, names: str | list[str] | None = None) -> list[Registered]:
        """The registered models, or those of `names`."""
        return [Registered(name, self._models[name], self._optims[name], self._scheds[name])
                for name in self.get_model_names(names) if self._models[name] is not None]

    def save_model(self, epoch: int, directory: str, is_best: bool = False, val_result: float | None = None,
                   model_name: str = "") -> None:
        """A checkpoint of every model: `<directory>/<name>/model.pth.tar-<epoch + 1>`, or `model_name`."""
        self.on_nan.after_batches(self)
        for model in self.registered():
            save_checkpoint({**model.state(), "epoch": epoch + 1, "val_result": val_result,
                             "trainer": type(self).__name__, "training": self.training_state()},
                            osp.join(directory, model.name), is_best=is_best, model_name=model_name)

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Weights of every model from a run folder.

        Args:
            directory: the folder, or what else `find_checkpoint` takes; "" keeps the models as they are, as Dassl does.
            epoch: of model.pth.tar-<epoch>; None takes model-best.pth.tar, or else the latest.
        Raises:
            UserError: no such file, or one that does not fit.
        """
        if not directory:
            logger.info("Note that load_model() is skipped as no pretrained model is given")
            return
        directory = distributed.from_first(directory)        # the others have saved nothing that lasts
        self.loaded_files = ()
        for name, model, *_ in self.registered():
            path = find_checkpoint(directory, name, self._models, epoch)
            state = read_weights(path)
            load_weights(model, state["state_dict"], path)
            logger.info("Loaded %s from %s (epoch %s)", name, path, state.get("epoch"))
            self.loaded_files += (f"{'/'.join(Path(path).parts[-2:])} (epoch {state.get('epoch')})",)
        self.weights_loaded(directory)

    def weights_loaded(self, directory: str) -> None:
        """Called when `load_model` has taken weights from there."""

    def resume_model_if_exist(self, directory: str) -> int:
        """Bring back the newest state of a run folder, exactly; returns finished epochs, 0 if there is none."""
        if (state := resume(self, directory)) is None:
            return 0
        self.autosave.resumed(state)
        return state.epoch

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """"train", "eval" or "test" (as "eval")."""
        if mode not in ("train", "test", "eval"):
            raise UserError(f'The mode of a model must be "train", "eval" or "test", got {mode!r}.')
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names: str | list[str] | None = None) -> None:
        """Step the schedules; once per epoch."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()
