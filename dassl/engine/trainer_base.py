"""The loop and the book-keeping of models, with Dassl's hooks: it knows neither data nor config."""
from __future__ import annotations

import logging
import os.path as osp
import time
import warnings
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

from dassl.utils import distributed, stop
from dassl.utils.errors import UserError
from dassl.utils.tools import tolist_if_not
from dassl.utils.torchtools import load_weights, save_checkpoint

from . import parallel
from .autosave import Autosave
from .checkpoint_files import find_checkpoint, read_weights
from .on_nan import NotFinite, OnNaN, first_not_finite
from .scalars import Scalars
from .streams import random_streams, set_random_streams

logger = logging.getLogger(__name__)


class TrainerBase:
    """Runs before_train, (before_epoch, run_epoch, after_epoch) per epoch, after_train; keeps registered models.

    Attributes:
        epoch, start_epoch, max_epoch: counted from 0. batch_idx, num_batches: within an epoch.
    """

    _loaded: tuple[str, ...] = ()               # files that load_model took the weights from

    def __init__(self):
        self._models: OrderedDict[str, nn.Module | None] = OrderedDict()
        self._optims: OrderedDict = OrderedDict()
        self._scheds: OrderedDict = OrderedDict()
        self._writer = None
        self.autosave, self.on_nan = Autosave(self), OnNaN(self)
        self._phase, self._train_seconds = "built", 0.0
        self._created = self._started = time.monotonic()

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

    def save_model(self, epoch: int, directory: str, is_best: bool = False, val_result: float | None = None,
                   model_name: str = "") -> None:
        """A checkpoint of every model: `<directory>/<name>/model.pth.tar-<epoch + 1>`, or `model_name`."""
        for name in self.get_model_names():
            optim, sched = self._optims[name], self._scheds[name]
            save_checkpoint({"state_dict": self._models[name].state_dict(), "epoch": epoch + 1,
                             "optimizer": optim.state_dict() if optim is not None else None,
                             "scheduler": sched.state_dict() if sched is not None else None,
                             "val_result": val_result, "training": self.training_state()},
                            osp.join(directory, name), is_best=is_best, model_name=model_name)

    def training_state(self) -> dict:
        """What a resumed run needs beside models, optimisers and schedules: the random streams. Plain data only."""
        return random_streams()

    def load_training_state(self, state: dict) -> None:
        set_random_streams(state)

    def resume_model_if_exist(self, directory: str) -> int:
        """Continue from the latest checkpoint of all models, exactly: weights, optimisers, schedules, random streams.

        Returns:
            Finished epochs; 0 if any model has no checkpoint there.
        """
        names = self.get_model_names()
        pointers = [osp.join(directory, name, "checkpoint") for name in names]
        if not names or not all(osp.exists(p) for p in pointers):
            logger.info("No checkpoint found in %s, training from scratch", directory)
            return 0
        paths = {}
        for name, pointer in zip(names, pointers, strict=True):
            with open(pointer, encoding="utf-8") as file:
                paths[name] = osp.join(directory, name, file.readline().strip())
        states = {name: read_weights(path) for name, path in paths.items()}
        if len(epochs := {state["epoch"] for state in states.values()}) > 1:
            # The run was stopped between the files of two models: the earlier epoch is the last that all of them have.
            paths = {name: osp.join(directory, name, f"model.pth.tar-{min(epochs)}") for name in names}
            if not all(map(osp.exists, paths.values())):
                logger.info("The checkpoints in %s are of different epochs, training from scratch", directory)
                return 0
            states = {name: read_weights(path) for name, path in paths.items()}
        for name, path in paths.items():
            state = states[name]
            load_weights(self._models[name], state["state_dict"], path)
            optim, sched = self._optims[name], self._scheds[name]
            if optim is not None and isinstance(state.get("optimizer"), dict):
                optim.load_state_dict(state["optimizer"])
            if sched is not None:
                _resume_schedule(sched, state)
        if "training" in state:
            self.load_training_state(state["training"])
        logger.info("Resumed from %s after epoch %d", directory, state["epoch"])
        return state["epoch"]

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
        self._loaded = ()
        for name in self.get_model_names():
            path = find_checkpoint(directory, name, self._models, epoch)
            state = read_weights(path)
            load_weights(self._models[name], state["state_dict"], path)
            logger.info("Loaded %s from %s (epoch %s)", name, path, state.get("epoch"))
            self._loaded += (f"{'/'.join(Path(path).parts[-2:])} (epoch {state.get('epoch')})",)

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """"train", "eval" or "test" (as "eval")."""
        if mode not in ("train", "test", "eval"):
            raise UserError(f'A model\'s mode is "train", "eval" or "test"; got {mode!r}.')
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names: str | list[str] | None = None) -> None:
        """Step the schedules; once per epoch."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def detect_anomaly(self, loss: Tensor) -> None:
        """Raises NotFinite for a loss that is."""
        if not torch.isfinite(loss).all():
            self.check_finite({"loss": loss})

    def check_finite(self, terms: dict[str, Tensor], batch: dict | None = None) -> None:
        """Raises NotFinite, which names the term, the epoch, the batch and its images, and says what to try."""
        finite = torch.stack([value.isfinite().all() for value in terms.values()]).tolist()     # a GPU is asked once
        bad = [name for name, fine in zip(terms, finite, strict=True) if not fine]
        if not bad:
            return
        raise NotFinite(
            self.where(f"The loss is infinite or NaN in its term {', '.join(bad)}", batch)
            + " Try a smaller OPTIM.LR first, then fp32 precision (TRAINER.<NAME>.PREC fp32), a smaller weight on "
            f"{bad[0]}, or a longer warm-up; --on-nan skip leaves such steps out.")

    def check_gradients(self, batch: dict | None = None) -> None:
        """Raises NotFinite, which names the parameter, if a gradient is infinite or NaN though the loss is not."""
        if bad := first_not_finite(self._models.values(), gradients=True):
            raise NotFinite(self.where(f"The gradient of {bad} is infinite or NaN, though the loss is finite", batch)
                            + " Nothing was updated by it. Try fp32 precision (TRAINER.<NAME>.PREC fp32) or a smaller "
                            "OPTIM.LR; --on-nan skip leaves such steps out.")

    def where(self, what: str, batch: dict | None = None) -> str:
        """A sentence: what happened at which epoch, batch, learning rate and images."""
        batch = batch if batch is not None else getattr(self, "_batch", None)
        parts = batch if isinstance(batch, tuple) else (batch or {},)
        images = [path for part in parts if isinstance(part, dict) for path in part.get("impath", [])][:4]
        rates = [f"{optim.param_groups[0]['lr']:.3g}" for optim in self._optims.values() if optim is not None]
        return (f"{what} at epoch {self.epoch + 1}, batch {self.batch_idx + 1} of {self.num_batches} (learning rate "
                f"{', '.join(rates) or 'unknown'}{'; images ' + ', '.join(images) if images else ''}).")

    def step_left_out(self) -> None:
        """Instead of a step that was not finite: what else a step does, which is the schedule's after an epoch."""
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()

    def init_writer(self, log_dir: str) -> None:
        if self._writer is None:
            self._writer = Scalars(log_dir)

    def close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """To TensorBoard; nothing happens while no writer is open."""
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """The generic loop."""
        self.start_epoch, self.max_epoch = start_epoch, max_epoch
        self.before_train()
        parallel.begin(self)
        for epoch in range(self.start_epoch, self.max_epoch):
            self.epoch = epoch
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
            self.safe_point(epoch + 1, 0)
        self.after_train()

    def safe_point(self, epoch: int, batch: int) -> None:
        """Between two steps, after `epoch` epochs and `batch` batches of the next: ends the run if it is asked to."""
        stop.check()

    def before_writing(self) -> None:
        """Before the run first writes what it learns or finds in its folder; it may come again."""

    def before_train(self) -> None:
        pass

    def after_train(self) -> None:
        pass

    def before_epoch(self) -> None:
        pass

    def after_epoch(self) -> None:
        pass

    def run_epoch(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not define run_epoch().")

    def test(self, *args, **kwargs):
        raise NotImplementedError(f"{type(self).__name__} does not define test().")

    def parse_batch_train(self, batch):
        raise NotImplementedError(f"{type(self).__name__} does not define parse_batch_train(batch).")

    def parse_batch_test(self, batch):
        raise NotImplementedError(f"{type(self).__name__} does not define parse_batch_test(batch).")

    def forward_backward(self, batch):
        raise NotImplementedError(f"{type(self).__name__} does not define forward_backward(batch).")

    def model_inference(self, input):
        raise NotImplementedError(f"{type(self).__name__} does not define model_inference(input).")

    def model_zero_grad(self, names: str | list[str] | None = None) -> None:
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss: Tensor) -> None:
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: str | list[str] | None = None) -> None:
        parallel.average_gradients(self, names)
        self.check_gradients()
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss: Tensor, names: str | list[str] | None = None) -> None:
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)


def _resume_schedule(sched, state: dict) -> None:
    """Put a schedule where the checkpoint was; Dassl's own files hold an object there: its epochs are counted off."""
    saved = state.get("scheduler")
    if isinstance(saved, dict) and isinstance(saved.get("successor", {}), dict):
        sched.load_state_dict(saved)
        return
    for group, lr in zip(sched.optimizer.param_groups, sched.get_last_lr(), strict=True):
        group["lr"] = lr                        # the optimiser was loaded at the rate of the saved epoch
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step\\(\\)`")    # its steps were taken before
        for _ in range(state["epoch"]):
            sched.step()
