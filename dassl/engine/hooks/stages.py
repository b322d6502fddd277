"""Classes that arrive in tasks, one after the other, as in class-incremental learning (TRAIN.TASKS).

A task trains OPTIM.MAX_EPOCH epochs on the images of its classes alone, with optimisers and schedules that begin again.
After each, all tasks are tested: A[i, t] is the accuracy on task i after task t, among the classes of the tasks up to
the later of the two. Nothing is chosen by these tests.
"""
from __future__ import annotations

import logging

import torch
from torch import Tensor

from dassl.data.data_manager import build_data_loader
from dassl.metrics.continual import average_accuracy, forgetting, forward_transfer
from dassl.optim import build_lr_scheduler
from dassl.utils.errors import UserError
from dassl.utils.logger import tell

from . import Hook

logger = logging.getLogger(__name__)


class Stages(Hook):
    """Of a run with TRAIN.TASKS 2 or more; otherwise there is one task, and nothing happens.

    Attributes:
        groups: the labels of each task. now: the present task, from 0; -1 before the first.
        columns: what the tests found so far: accuracies of all tasks, percent; first those of the untrained model.
    """

    def __init__(self):
        self.groups: list[list[int]] = []
        self.now, self.columns, self._places = -1, [], None

    def __bool__(self) -> bool:
        return len(self.groups) > 1

    def divide(self, trainer) -> None:
        """Share the classes out over the tasks.

        Raises:
            UserError: what cannot be done with these classes, this trainer or this config.
        """
        tasks, cfg = tasks_of(trainer.cfg), trainer.cfg
        if tasks == 1:
            return
        if why := _unable(trainer):
            raise UserError(f"{type(trainer).__name__} cannot learn {tasks} tasks one after the other: {why}. Leave "
                            "TRAIN.TASKS out, or take another trainer.")
        if cfg.TEST.FINAL_MODEL == "best_val":
            raise UserError(f"An epoch of {tasks} tasks cannot be chosen on validation images of all of them, as "
                            "TEST.FINAL_MODEL best_val asks. Set it to last_step.")
        if 0 < trainer.max_epoch < tasks:
            raise UserError(f"{tasks} tasks need an epoch each, got {trainer.max_epoch} for all of them.")
        dataset, self.groups = trainer.dm.dataset, _groups(trainer, tasks)
        for split in ("train_x", "test"):
            present = {item.label for item in getattr(dataset, split) or ()}
            for number, labels in enumerate(self.groups, 1):
                if not present & set(labels):
                    names = ", ".join([trainer.lab2cname[label] for label in labels[:3]] + ["..."] * (len(labels) > 3))
                    raise UserError(f"Task {number} of {tasks} on {cfg.DATASET.NAME} ({names}) has no "
                                    f"{'training' if split == 'train_x' else 'test'} images. Set TRAIN.TASKS to fewer "
                                    "tasks, or add images of these classes.")

    def mask(self, device=None) -> Tensor:
        """(C,) bool: the classes of the present task."""
        return self._among(self.groups[self.now], device)

    def places(self, indices) -> list[int]:
        """Where images of the present task's loader lie among all training images."""
        return [int(i) if self._places is None else self._places[int(i)] for i in indices]

    def state(self) -> list[list[float]]:
        return [list(column) for column in self.columns]

    def load_state(self, columns: list[list[float]]) -> None:
        self.columns = [list(column) for column in columns]

    def before_epochs(self, trainer) -> None:
        if self and not self.columns:
            self._test(trainer, 0)

    def before_epoch(self, trainer) -> None:
        if not self:
            return
        if (now := self._task_of(trainer, trainer.epoch)) == self.now:
            return
        begins = self._task_of(trainer, trainer.epoch - 1) != now and not trainer.autosave.finished_batches
        epochs = sum(self._task_of(trainer, epoch) == now for epoch in range(trainer.max_epoch))
        self.now = now
        labels = set(self.groups[now])
        items = trainer.dm.dataset.train_x
        self._places = [place for place, item in enumerate(items) if item.label in labels]
        trainer.train_loader_x = _loader(trainer, [items[place] for place in self._places])
        _renew_schedules(trainer, epochs, begins)
        logger.info("Task %d of %d: %d classes, %d images", now + 1, len(self.groups), len(labels), len(self._places))
        if begins:
            trainer.before_task(now, len(self.groups))

    def after_batches(self, trainer) -> None:
        if self and self._task_of(trainer, trainer.epoch + 1) != self.now:
            self._test(trainer, self.now + 1)

    def after_train(self, trainer) -> None:
        if self and not trainer.max_epoch:                      # nothing was learned at any task
            self._test(trainer, *range(len(self.groups) + 1))

    def fields(self, trainer) -> dict:
        """What results.json says of the tasks: {} where there is one, or where they were not tested."""
        if not self or len(self.columns) <= len(self.groups):
            return {}
        untrained, accuracy = self.columns[0], [list(row) for row in zip(*self.columns[1:], strict=True)]
        found = {"average_accuracy": average_accuracy(accuracy), "forgetting": forgetting(accuracy),
                 "forward_transfer": forward_transfer(accuracy, untrained)}
        rows = (f"* task {i}: {' '.join(f'{value:5.1f}' for value in row)}" for i, row in enumerate(accuracy, 1))
        tell(logger, "=> accuracy on each task after tasks 1 to %d\n%s\n* average accuracy %.1f%%, forgetting %.1f, "
                     "forward transfer %.1f", len(accuracy), "\n".join(rows), *found.values())
        return {"tasks": {"classes": [[trainer.lab2cname[label] for label in labels] for labels in self.groups],
                          "accuracy": accuracy, "untrained": untrained, **found,
                          "candidates": "classes of the tasks up to the later of i and t"}}

    def _task_of(self, trainer, epoch: int) -> int:
        """Of an epoch; they are shared out evenly over the tasks."""
        return epoch * len(self.groups) // trainer.max_epoch

    def _test(self, trainer, *columns: int) -> None:
        """Test all tasks once; `columns` says after how many tasks this is."""
        trainer.set_model_mode("eval")
        scores, labels = [], []
        with torch.no_grad():
            for _, output, label in trainer.answers(trainer.test_loader, "test"):
                scores.append((output[0] if isinstance(output, (tuple, list)) else output).float().cpu())
                labels.append(label.cpu())
        scores, labels = torch.cat(scores), torch.cat(labels)
        self.columns = self.columns[:columns[0]] + [self._column(scores, labels, t) for t in columns]

    def _column(self, scores: Tensor, labels: Tensor, t: int) -> list[float]:
        """Accuracy on each task, percent, after `t` of them."""
        found = []
        for i, own in enumerate(self.groups):
            rows = self._among(own)[labels]
            known = self._among([label for group in self.groups[:max(i + 1, t)] for label in group])
            guesses = scores[rows].masked_fill(~known, -torch.inf).argmax(dim=1)
            found.append(100.0 * (guesses == labels[rows]).double().mean().item())
        return found

    def _among(self, labels: list[int], device=None) -> Tensor:
        chosen = torch.zeros(sum(map(len, self.groups)), dtype=torch.bool, device=device)
        chosen[labels] = True
        return chosen


def tasks_of(cfg) -> int:
    """How many tasks a run learns one after the other; raises UserError for fewer than 1."""
    if (tasks := cfg.TRAIN.get("TASKS", 1)) < 1:
        raise UserError(f"TRAIN.TASKS must be at least 1, got {tasks}.")
    return tasks


def refuse_all_images(trainer) -> None:
    """Raises UserError where a run of several tasks asks for the training images of all of them at once."""
    if trainer.engine_stages:
        raise UserError(f"{type(trainer).__name__} looks at all training images at once, and of "
                        f"{len(trainer.engine_stages.groups)} tasks one after the other, those of later tasks are not "
                        "there yet. Leave TRAIN.TASKS out, or take another trainer.")


def _unable(trainer) -> str:
    from ..trainer import TrainerX

    if not isinstance(trainer, TrainerX):
        return "it does not train on labelled batches alone"
    if trainer.adapts:
        return "it learns while it is tested"
    if getattr(trainer, "learns", "steps") == "closed form":
        return "it learns from all images in one step"
    if type(trainer).run_epoch is not TrainerX.run_epoch:
        return "its epochs are of its own making"
    return trainer.one_task_only


def _groups(trainer, tasks: int) -> list[list[int]]:
    """Labels in their order, in groups whose sizes differ by at most one; or the datasets of a union."""
    C, name = trainer.num_classes, trainer.cfg.DATASET.NAME
    if (task_of_class := getattr(trainer.dm.dataset, "task_of_class", None)) is not None:
        if tasks != (datasets := max(task_of_class) + 1):
            raise UserError(f"Each of the {datasets} datasets in {name} is a task, got TRAIN.TASKS {tasks}.")
        return [[label for label in range(C) if task_of_class[label] == task] for task in range(tasks)]
    if tasks > C:
        raise UserError(f"Every task needs a class: {name} has {C} classes, got TRAIN.TASKS {tasks}.")
    return [labels.tolist() for labels in torch.arange(C).tensor_split(tasks)]


def _loader(trainer, items: list):
    """As the trainer's own, of some of its images."""
    c, whole = trainer.cfg.DATALOADER.TRAIN_X, trainer.train_loader_x
    return build_data_loader(trainer.cfg, c.SAMPLER, items, c.BATCH_SIZE, c.N_DOMAIN, c.N_INS, whole.dataset.transform,
                             is_train=True, dataset_wrapper=type(whole.dataset),
                             cache=getattr(trainer.dm, "image_cache", None),
                             drop_last=None if whole.batch_sampler.drop_last else False)


def _renew_schedules(trainer, epochs: int, begins: bool) -> None:
    """Optimisers and schedules of a task: as at the start of a training or, within a task, as they were saved."""
    c = trainer.cfg.OPTIM.clone()
    c.defrost()
    c.MAX_EPOCH = epochs
    steps = len(trainer.train_loader_x) if getattr(trainer, "schedule_per", "epoch") == "iteration" else 1
    for name, _, optim, sched in trainer.registered():
        if optim is None or sched is None:
            continue
        rates = [group["lr"] for group in optim.param_groups]
        if begins:
            optim.state.clear()
            for group in optim.param_groups:
                group["lr"] = group["initial_lr"]
        new = trainer.schedules[name] = build_lr_scheduler(optim, c, steps)
        if not begins:
            new.load_state_dict(sched.state_dict())
            for group, rate in zip(optim.param_groups, rates, strict=True):
                group["lr"] = rate
        if getattr(trainer, "sched", None) is sched:
            trainer.sched = new
