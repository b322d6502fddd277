"""The loop, with Dassl's method names: it knows neither data nor config."""
from __future__ import annotations

from torch import Tensor

from dassl.optim.loss_scaler import LossScaler

from . import step
from .hooks import Hook
from .hooks.autosave import Autosave
from .hooks.on_nan import OnNaN
from .hooks.parallel import Parallel
from .hooks.progress import Progress
from .hooks.record import Record
from .hooks.scalars import Curves, Scalars
from .registered import RegisteredModels
from .streams import random_streams, set_random_streams


class TrainerBase(RegisteredModels):
    """Runs before_train, (before_epoch, run_epoch, after_epoch) per epoch, after_train.

    Attributes:
        epoch, start_epoch, max_epoch: counted from 0. batch_idx, num_batches: within an epoch.
        hooks: called in this order at the moments that `Hook` names; append your own. on_nan, autosave: two of them.
        recorded: what else results.json shall say, of whoever started the run.
    """

    epoch = start_epoch = max_epoch = batch_idx = num_batches = 0

    def __init__(self):
        super().__init__()
        self._writer, self._unchecked, self.recorded = None, {}, {}
        self.on_nan, self.autosave = OnNaN(), Autosave()
        self.hooks: list[Hook] = [self.on_nan, Parallel(), self.autosave, Progress(), Curves(), Record()]

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """The loop."""
        self.start_epoch, self.max_epoch = start_epoch, max_epoch
        self.before_train()
        self.call_hooks("before_epochs")
        for epoch in range(self.start_epoch, self.max_epoch):
            self.epoch = epoch
            self.before_epoch()
            self.run_epoch()
            self.call_hooks("after_batches")
            self.after_epoch()
            self.call_hooks("safe_point", epoch + 1, 0)
        self.after_train()

    def call_hooks(self, moment: str, *values) -> None:
        """Call a method of every hook with the trainer and `values`."""
        for hook in list(self.hooks):
            getattr(hook, moment)(self, *values)

    def finish_step(self, terms: dict[str, Tensor], summary: dict[str, Tensor], names: str | list[str] | None = None,
                    scaler: LossScaler | None = None) -> dict[str, float]:
        """After backward: average the gradients over the processes, check that all is finite, update the models.

        Reads from the device once.

        Args:
            terms: of the loss, by their names. summary: any numbers that are worth reading, () or (1,) each.
            names: of the models to update; None for all.
            scaler: what the loss was scaled by; it leaves out a step whose gradients the scale made infinite.
        Returns:
            `summary` as numbers.
        Raises:
            NotFinite: a term, a gradient or a learned number is infinite or NaN; nothing was updated.
        """
        return step.finish(self, terms, summary, names, scaler or LossScaler(enabled=False))

    def training_state(self) -> dict:
        """What a resumed run needs beside models, optimisers and schedules: the random streams. Plain data only."""
        return random_streams()

    def load_training_state(self, state: dict) -> None:
        set_random_streams(state)

    def step_left_out(self) -> None:
        """Called instead of the rest of a step that was not finite: here, the schedule's step after an epoch."""
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()

    def detect_anomaly(self, loss: Tensor) -> None:
        """Raises NotFinite for a loss that is infinite or NaN."""
        if loss is not self._unchecked.get("loss"):
            self.on_nan.judge(self, step.read_together({"loss": loss})[0])

    def model_zero_grad(self, names: str | list[str] | None = None) -> None:
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss: Tensor) -> None:
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: str | list[str] | None = None) -> None:
        terms, self._unchecked = self._unchecked, {}
        self.finish_step(terms, {}, names)

    def model_backward_and_update(self, loss: Tensor, names: str | list[str] | None = None) -> None:
        self.model_zero_grad(names)
        self._unchecked = {"loss": loss}            # model_update checks it with the gradients, in one read
        self.model_backward(loss)
        self.model_update(names)

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

    def before_train(self) -> None:
        pass

    def after_train(self) -> None:
        pass

    def before_epoch(self) -> None:
        pass

    def after_epoch(self) -> None:
        pass

    def run_epoch(self) -> None:
        raise self._undefined("run_epoch()")

    def test(self, *args, **kwargs):
        raise self._undefined("test()")

    def parse_batch_train(self, batch):
        raise self._undefined("parse_batch_train(batch)")

    def parse_batch_test(self, batch):
        raise self._undefined("parse_batch_test(batch)")

    def forward_backward(self, batch):
        raise self._undefined("forward_backward(batch)")

    def model_inference(self, input):
        raise self._undefined("model_inference(input)")

    def _undefined(self, method: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} does not define {method}.")
