"""Trainers over a config: SimpleTrainer, TrainerX (labelled batches) and TrainerXU (labelled and unlabelled ones).

Method names, registered models, result lines and folders are Dassl 0.6.3's.
"""
from __future__ import annotations

import datetime
import logging
import os.path as osp
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dassl import stop
from dassl.compat.fork_hooks import ForkHooks
from dassl.compat.passed_on import passed_on
from dassl.config.checks import check_values
from dassl.data import DataManager
from dassl.data.loader import end_workers
from dassl.data.sharing import share_of
from dassl.evaluation import build_evaluator
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import distributed
from dassl.utils.errors import UserError
from dassl.utils.logger import tell
from dassl.utils.meters import AverageMeter, MetricMeter  # noqa: F401 - Dassl has both here
from dassl.utils.tools import count_num_param, mkdir_if_missing
from dassl.utils.torchtools import load_initial_weights

from . import answering, plan, selection
from .hooks import parallel, trackers
from .hooks.record import dataset_of
from .hooks.stages import tasks_of
from .simple_net import SimpleNet
from .trainer_base import TrainerBase

logger = logging.getLogger(__name__)
__getattr__ = passed_on(__name__)


class SimpleTrainer(ForkHooks, TrainerBase):
    """Builds data, model and evaluator from a config; trains, saves and tests.

    Attributes:
        cfg, device, output_dir, evaluator. dm: DataManager; its loaders, num_classes, num_source_domains and lab2cname
            are the trainer's too.
        one_process_only: why a trainer cannot learn in several processes; "" where it can.
        one_task_only: why it cannot learn tasks one after the other (TRAIN.TASKS); "" where it can.
        resumes_within_epoch: whether models, optimisers, schedules, random streams and `training_state()` are all that
            a step depends on, so that a stopped run resumes in the middle of an epoch; otherwise after the last whole.
    """

    one_process_only, one_task_only, resumes_within_epoch = "", "", False

    def __init__(self, cfg):
        super().__init__()
        check_values(cfg)
        self.check_cfg(cfg)
        self.device = distributed.device(cfg.USE_CUDA)
        self.max_epoch, self.output_dir, self.cfg = cfg.OPTIM.MAX_EPOCH * tasks_of(cfg), cfg.OUTPUT_DIR, cfg
        self.time_start, self._started = time.time(), time.monotonic()
        selection.check_choices(self, SimpleTrainer)
        self.on_nan.policy(self)
        trackers.names_of(cfg.TRAIN.get("TRACKERS", ""))
        with distributed.first_then_others():
            self.build_data_loader()
            self.engine_stages.divide(self)
            self.build_model()
        dataset = dataset_of(self)
        self.evaluator = build_evaluator(cfg, dataset.task.evaluator if dataset else "", lab2cname=self.lab2cname)

    def check_cfg(self, cfg) -> None:
        """Refuse a config that this trainer cannot use (raise UserError); called first."""

    def build_data_loader(self) -> None:
        self.use_data(DataManager(self.cfg))

    def use_data(self, dm: DataManager) -> None:
        self.train_loader_x, self.train_loader_u = dm.train_loader_x, dm.train_loader_u
        self.val_loader, self.test_loader = dm.val_loader, dm.test_loader
        self.num_classes, self.num_source_domains = dm.num_classes, dm.num_source_domains
        self.lab2cname, self.dm = dm.lab2cname, dm

    def build_model(self) -> None:
        cfg = self.cfg
        self.model = SimpleNet(cfg, cfg.MODEL, self.num_classes)
        if cfg.MODEL.INIT_WEIGHTS:
            load_initial_weights(self.model, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        logger.info("# params: %s", f"{count_num_param(self.model):,}")
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("model", self.model, self.optim, self.sched)

    def train(self) -> None:
        parallel.check(self)
        super().train(self.start_epoch, self.max_epoch)
        self.call_hooks("finished")

    def before_train(self) -> None:
        selection.check_best_val(self)
        if self.cfg.RESUME:
            self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME)
            plan.check_resumed(self)
        plan.tell(self)
        mkdir_if_missing(self.output_dir)
        self.call_hooks("before_writing")
        if self.start_epoch == self.max_epoch > 0 and not osp.samefile(self.cfg.RESUME, self.output_dir):
            self.save_model(self.max_epoch - 1, self.output_dir)            # trained in another folder, kept here too
        self.is_training, self.has_trained = True, False
        self.time_start, self._started = time.time(), time.monotonic()
        self.call_hooks("before_train")

    def after_epoch(self) -> None:
        selection.save_epoch(self)

    def after_train(self) -> None:
        self.end_training()
        logger.info("Finish training")
        if self.cfg.TEST.NO_TEST:
            self.call_hooks("untested")
        else:
            selection.deploy(self)
            self.test()
        tell(logger, "Elapsed: %s", datetime.timedelta(seconds=round(time.monotonic() - self._started)))
        self.close_writer()
        self.close_loaders()

    @torch.no_grad()
    def test(self, split: str | None = None, is_final: bool = False) -> float:
        """Evaluate on a split, TEST.SPLIT by default.

        Args:
            is_final: of forks of Dassl; nothing here depends on it.
        Returns:
            The evaluator's first value: accuracy, percent. After training (or without any) results.json and
            predictions.csv are written.
        """
        self.set_model_mode("eval")
        self.evaluator.reset()
        split, loader = selection.split_to_test(self, split)
        self.evaluator.dataset, self.evaluator.split = dataset_of(self), split      # for metrics that need all labels
        logger.info("Evaluate on the *%s* set", split)
        self.call_hooks("before_test", not self.is_training)
        for batch, output, label in self.answers(loader, split):
            self.evaluator.process(output, label)
            self.call_hooks("answered", batch, output, label)
        if not self.is_training:
            self.call_hooks("before_writing")
        results = self.evaluator.evaluate()
        self.call_hooks("tested", split, results)
        if self.adapts and not self.is_training:
            answering.end(self)
        return next(iter(results.values()))

    def answers(self, loader, split: str) -> Iterator[tuple[dict, Tensor, Tensor]]:
        """Batches of a split, each with the output and the labels; in all processes."""
        return answering.answers(self, loader, split)

    def run_record_fields(self) -> dict:
        """What else results.json should say; extend it with `{**super().run_record_fields(), ...}`."""
        learned = [p for _, model, *_ in self.registered() for p in model.parameters() if p.requires_grad]
        return {"learned_parameters": count_num_param(params=learned)}

    def classifier_fields(self) -> dict:
        """What else classes.json should say, from which a run predicts without its dataset."""
        return {}

    @property
    def val_is_test(self) -> bool:
        """Whether the validation images are the test images, as in CoOp's ImageNet."""
        return (dataset := dataset_of(self)) is not None and dataset.val_is_test

    def model_inference(self, input: Tensor) -> Tensor:
        return self.model(input)

    def on_device(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Tensors of a batch where the model is; from pinned memory they are copied while the GPU keeps computing."""
        return tuple(v.to(self.device, non_blocking=True) for v in values)

    def parse_batch_test(self, batch: dict):
        return self.on_device(batch["img"], batch["label"])

    def close_loaders(self) -> None:
        """End the loaders' worker processes; a loader that is used again starts new ones."""
        for name in ("train_loader_x", "train_loader_u", "val_loader", "test_loader"):
            end_workers(getattr(self, name, None))


class TrainerX(SimpleTrainer):
    """Trains on labelled batches.

    Attributes:
        schedule_per: "epoch", or "iteration" where the learning rate steps after every batch.
    """

    schedule_per = "epoch"

    def register_learner(self, name: str, learner: nn.Module,
                         param_groups: list[dict] | None = None) -> tuple[Optimizer, LRScheduler]:
        """Register a module with an optimiser and a schedule of its own; `param_groups` may have rates of their own."""
        optim = build_optimizer(learner, self.cfg.OPTIM, param_groups)
        steps = len(self.train_loader_x) if self.schedule_per == "iteration" else 1
        sched = build_lr_scheduler(optim, self.cfg.OPTIM, steps_per_epoch=steps)
        self.register_model(name, learner, optim, sched)
        return optim, sched

    def run_epoch(self) -> None:
        with stop.at_safe_points():
            batches = ((batch,) for batch in self.training_batches())
            self.train_on(batches, len(self.train_loader_x), self.autosave.finished_batches)

    def training_batches(self) -> Iterator[dict]:
        """An epoch's batches; of several processes each sees its share of every one."""
        first = self.autosave.finished_batches
        self.autosave.begin_epoch(self)
        for number, batch in enumerate(self.train_loader_x, first):
            self.autosave.begin_step()
            self.share = share_of(self.train_loader_x, number)
            yield batch

    def own(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Of values for the images of a training batch, without the placeholder of an empty share."""
        return values if self.share is None else tuple(v[:self.share.size] for v in values)

    def parse_batch_train(self, batch: dict):
        return self.on_device(batch["img"], batch["label"], batch["domain"])


class TrainerXU(SimpleTrainer):
    """Trains on pairs of a labelled and an unlabelled batch; the shorter loader starts again when it ends."""

    one_process_only = "its labelled and unlabelled batches may have different sizes"

    def run_epoch(self) -> None:
        sizes = {"train_x": len(self.train_loader_x), "train_u": len(self.train_loader_u)}
        sizes["smaller_one"] = min(sizes.values())
        if self.cfg.TRAIN.COUNT_ITER not in sizes:
            raise UserError(f"TRAIN.COUNT_ITER must be one of {', '.join(sizes)}, got {self.cfg.TRAIN.COUNT_ITER!r}.")
        num_batches = sizes[self.cfg.TRAIN.COUNT_ITER]
        pairs = zip(range(num_batches), _endless(self.train_loader_x), _endless(self.train_loader_u), strict=False)
        self.train_on(((x, u) for _, x, u in pairs), num_batches)

    def parse_batch_train(self, batch_x: dict, batch_u: dict):
        return self.on_device(batch_x["img"], batch_x["label"], batch_u["img"])


def _endless(loader):
    while True:
        yield from loader
