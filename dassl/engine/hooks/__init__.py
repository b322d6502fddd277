"""Everything a training does beside learning: each file is one hook, which reads the trainer's public state alone."""
from __future__ import annotations


class Hook:
    """The loop calls these of every hook in `trainer.hooks`, in the order of that list; here they do nothing."""

    def before_train(self, trainer) -> None:
        """The run folder exists, and an interrupted run has its state back."""

    def before_epochs(self, trainer) -> None:
        """All that trainers do before the training is done."""

    def before_batches(self, trainer, first: int) -> None:
        """An epoch begins; its first `first` batches were trained before the interruption."""

    def before_step(self, trainer) -> None:
        """A batch has come from the loader."""

    def after_step(self, trainer, losses) -> None:
        """A batch was learned; `losses` is the epoch's MetricMeter."""

    def safe_point(self, trainer, epoch: int, batch: int) -> None:
        """Between two steps, after `epoch` epochs and `batch` batches of the next."""

    def after_batches(self, trainer) -> None:
        """An epoch was learned; it is tested and saved next."""

    def after_train(self, trainer) -> None:
        """The last epoch was learned; the final test comes next."""

    def before_writing(self, trainer) -> None:
        """The run is about to write what it learns or finds in its folder; may be called more than once."""

    def before_test(self, trainer, final: bool) -> None:
        """A split is about to be tested; `final` unless the training continues after it."""

    def answered(self, trainer, batch, output, label) -> None:
        """A batch of the split was tested."""

    def tested(self, trainer, split: str, results: dict[str, float]) -> None:
        """The split was tested; `results` are the evaluator's."""

    def untested(self, trainer) -> None:
        """A training without a final test has ended."""

    def finished(self, trainer) -> None:
        """The run is complete."""
