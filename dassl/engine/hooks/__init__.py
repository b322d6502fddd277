"""Everything a training does besides learning: each file is one hook, which reads the trainer's public state alone."""
from __future__ import annotations


class Hook:
    """Methods that the loop calls for every hook of `trainer.engine_hooks`, in that list's order. All do nothing here.

    before_train(trainer): the run folder exists, and an interrupted run has its state back.
    before_epochs(trainer): whatever trainers do before training is done.
    before_epoch(trainer): an epoch is prepared, before what the trainer does. before_batches(trainer, first): it
        begins, from its batch `first`.
    before_step(trainer): a batch has come from the loader. after_step(trainer, losses): it was learned; a MetricMeter.
    safe_point(trainer, epoch, batch): between two steps, after `epoch` epochs and `batch` batches of the next.
    after_batches(trainer): an epoch was learned; it is tested and saved next.
    after_train(trainer): all epochs were learned; the final test comes next, or untested(trainer). finished(trainer).
    before_writing(trainer): the run is about to write what it learns or finds; may be called more than once.
    before_test(trainer, final): a split is tested next; `final` unless training continues after it.
    before_answer(trainer, batch): a batch of it is. answered(trainer, batch, output, label): it was.
    tested(trainer, split, results): all of it was. tested_itself(trainer, results): by a test() of the trainer's own,
        which calls none of these.
    """

    def ignore(self, trainer, *values) -> None:
        pass

    before_train = before_epochs = before_epoch = before_batches = before_step = after_step = safe_point = ignore
    after_batches = after_train = before_writing = before_test = before_answer = answered = tested = ignore
    untested = tested_itself = finished = ignore
