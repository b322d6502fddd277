"""The loop, with Dassl's method names: it knows neither data nor config."""
from __future__ import annotations

from collections.abc import Callable, Iterable

from dassl.data.sharing import Share
from dassl.utils.meters import MetricMeter

from .hooks import Hook, parallel
from .hooks.autosave import Autosave
from .hooks.domains import Domains
from .hooks.logits import SaveLogits
from .hooks.on_nan import OnNaN
from .hooks.progress import Progress
from .hooks.record import Record
from .hooks.scalars import Curves, Scalars
from .hooks.stages import Stages
from .hooks.trackers import Trackers
from .step import StepMethods
from .streams import random_streams, set_random_streams


def _undefined(method: str) -> Callable:
    def undefined(self, *args, **kwargs):
        raise NotImplementedError(f"{type(self).__name__} does not define {method}().")

    return undefined


class TrainerBase(StepMethods):
    """Runs before_train, (before_epoch, run_epoch, after_epoch) per epoch, after_train.

    Attributes:
        epoch, start_epoch, max_epoch: counted from 0. batch_idx, num_batches: within an epoch.
        best_result: of the validation split, percent.
        adapts: what it learns from while it is tested: "" nothing; "image" each one by itself; "stream" all before.
        hooks: called in this order at the moments that `Hook` names; append your own. on_nan, autosave, stages: three
            of them. The engine reads engine_hooks, engine_domains and engine_stages: a trainer may give the short names
            to something else.
        recorded: what else results.json shall say, of whoever started the run.
        share: this process's part of the training batch; None in a run of one process.
        is_training: a test does not end the run. has_trained: all epochs were learned.
    """

    adapts = ""
    epoch = start_epoch = max_epoch = batch_idx = num_batches = 0
    best_result = float("-inf")
    share: Share | None = None
    is_training = has_trained = False

    def __init__(self):
        super().__init__()
        self._writer, self.recorded = None, {}
        self.on_nan, self.autosave, self.engine_domains, self.engine_stages = OnNaN(), Autosave(), Domains(), Stages()
        self.engine_hooks: list[Hook] = [self.on_nan, parallel.Parallel(), self.autosave, Progress(), Curves(),
                                         Trackers(), self.engine_domains, self.engine_stages, SaveLogits(), Record()]
        self.hooks, self.stages = self.engine_hooks, self.engine_stages     # names that other people's trainers take

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """The loop."""
        self.start_epoch, self.max_epoch = start_epoch, max_epoch
        self.before_train()
        self.call_hooks("before_epochs")
        for epoch in range(self.start_epoch, self.max_epoch):
            self.epoch = epoch
            self.call_hooks("before_epoch")
            self.before_epoch()
            self.run_epoch()
            self.call_hooks("after_batches")
            self.after_epoch()
            self.call_hooks("safe_point", epoch + 1, 0)
        self.end_training()
        self.after_train()

    def end_training(self) -> None:
        """All epochs were learned, so a test is final from now on. Another call does nothing."""
        if not self.has_trained:
            self.is_training, self.has_trained = False, True
            self.call_hooks("after_train")

    def train_on(self, batches: Iterable[tuple], num_batches: int, first: int = 0) -> None:
        """An epoch: `forward_backward(*batch)` of each batch, between the hooks.

        Args:
            first: number of the first batch in its epoch, from 0.
        """
        self.set_model_mode("train")
        self.num_batches, losses = num_batches, MetricMeter()
        self.call_hooks("before_batches", first)
        for self.batch_idx, batch in enumerate(batches, first):
            self.call_hooks("before_step")
            with parallel.draws_of_the_batch(self.share):
                losses.update(parallel.average(self.on_nan.step(self, batch), self.share))
            self.call_hooks("after_step", losses)
            if self.batch_idx + 1 < num_batches:
                self.call_hooks("safe_point", self.epoch, self.batch_idx + 1)

    def call_hooks(self, moment: str, *values) -> None:
        """Call a method of every hook with the trainer and `values`."""
        for hook in list(self.engine_hooks):
            getattr(hook, moment)(self, *values)

    def training_state(self) -> dict:
        """What a resumed run needs besides models, optimisers and schedules. Plain data only."""
        return {**random_streams(), "best_result": float(self.best_result), "on_nan": self.on_nan.state(),
                "stages": self.engine_stages.state()}

    def load_training_state(self, state: dict) -> None:
        set_random_streams(state)
        self.best_result = state.get("best_result", self.best_result)
        self.on_nan.load_state(state.get("on_nan", self.on_nan.state()))
        self.engine_stages.load_state(state.get("stages", []))

    def before_task(self, task: int, tasks: int) -> None:
        """Called once as the classes of a task arrive, the first being 0; not where a run resumes within it."""

    def test_state(self) -> dict:
        """What was learned from the test images so far. Plain data and tensors only."""
        return {}

    def load_test_state(self, state: dict | None) -> None:
        """Bring it back; None: as before the first image."""

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

    def _do_nothing(self) -> None:
        pass

    before_train = after_train = before_epoch = after_epoch = _do_nothing
    run_epoch, test, parse_batch_train, parse_batch_test, forward_backward, model_inference = map(_undefined, (
        "run_epoch", "test", "parse_batch_train", "parse_batch_test", "forward_backward", "model_inference"))
