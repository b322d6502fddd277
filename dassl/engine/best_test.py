"""The best test epoch in addition to the last one's result, for methods whose authors report it."""
from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


class BestTestEpoch:
    """A mixin for a TrainerX. The result is the last epoch's; the best is recorded under a name that says what it is.

    Attributes:
        best_test: {"epoch", "accuracy"} of the best test epoch so far; empty before any.
        counting_epochs: first epochs in which nothing is trained, hence not tested either.
    """

    counting_epochs, best_test = 0, {}

    def tests_every_epoch(self) -> bool:
        """Whether the run asks for it; it costs a test per epoch."""
        raise NotImplementedError(f"{type(self).__name__} does not define tests_every_epoch().")

    def after_epoch(self) -> None:
        test = self.cfg.TEST
        if self.tests_every_epoch() and not test.NO_TEST and test.SPLIT == "test" \
                and self.epoch >= self.counting_epochs:
            accuracy = float(self.test())
            if accuracy > self.best_test.get("accuracy", -1):
                self.best_test = {"epoch": self.epoch + 1, "accuracy": accuracy}
        super().after_epoch()

    def after_train(self) -> None:
        super().after_train()
        if self.best_test:
            logger.info("Best test epoch: %d of %d, %.1f%% (selected on the test set, as in the authors' code; the "
                        "result above is the last epoch's)", self.best_test["epoch"], self.max_epoch,
                        self.best_test["accuracy"])

    def training_state(self) -> dict:
        return {**super().training_state(), "best_test": self.best_test}

    def load_training_state(self, state: dict) -> None:
        super().load_training_state(state)
        self.best_test = state.get("best_test", {})

    def run_record_fields(self) -> dict:
        return {**super().run_record_fields(), **({"best_test_epoch": self.best_test} if self.best_test else {})}
