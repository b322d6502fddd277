"""Trainers over a config: SimpleTrainer, TrainerX (labelled batches) and TrainerXU (labelled and unlabelled ones).

Hooks, registered models, result lines and folders are Dassl 0.6.3's.
"""
from __future__ import annotations

import datetime
import logging
import os.path as osp
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from dassl.config.checks import check_values
from dassl.data import DataManager
from dassl.data.datasets import DatasetBase
from dassl.data.sharing import Share, share_of
from dassl.evaluation import build_evaluator
from dassl.evaluation.predictions import FILE as PREDICTIONS
from dassl.evaluation.predictions import Predictions
from dassl.modeling import build_backbone, build_head
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import distributed, stop
from dassl.utils.classes_file import write_classes
from dassl.utils.errors import UserError
from dassl.utils.logger import tell
from dassl.utils.meters import AverageMeter, MetricMeter
from dassl.utils.registry import nearest
from dassl.utils.tools import count_num_param, mkdir_if_missing
from dassl.utils.torchtools import BEST, load_initial_weights

from . import parallel, plan, progress
from .results import write_result
from .trainer_base import TrainerBase

logger = logging.getLogger(__name__)


def __getattr__(name: str):
    if name == "SummaryWriter":          # public code imports it from here; TensorBoard is slow to import
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter
    raise AttributeError(name)


class SimpleNet(nn.Module):
    """A backbone, an optional head, and a linear classifier over `num_classes` (0: none)."""

    def __init__(self, cfg, model_cfg, num_classes: int, **kwargs):
        super().__init__()
        self.backbone = build_backbone(model_cfg.BACKBONE.NAME, verbose=cfg.VERBOSE,
                                       pretrained=model_cfg.BACKBONE.PRETRAINED, **kwargs)
        fdim = self.backbone.out_features
        self.head = None
        if model_cfg.HEAD.NAME and model_cfg.HEAD.HIDDEN_LAYERS:
            h = model_cfg.HEAD
            self.head = build_head(h.NAME, verbose=cfg.VERBOSE, in_features=fdim, hidden_layers=h.HIDDEN_LAYERS,
                                   activation=h.ACTIVATION, bn=h.BN, dropout=h.DROPOUT, **kwargs)
            fdim = self.head.out_features
        self.classifier = nn.Linear(fdim, num_classes) if num_classes > 0 else None
        self._fdim = fdim

    @property
    def fdim(self) -> int:
        return self._fdim

    def forward(self, x: Tensor, return_feature: bool = False):
        """(B, ...) -> scores (B, C), features (B, fdim), or both."""
        f = self.backbone(x)
        f = self.head(f) if self.head is not None else f
        if self.classifier is None:
            return f
        y = self.classifier(f)
        return (y, f) if return_feature else y


class SimpleTrainer(TrainerBase):
    """Builds data, model and evaluator from a config; trains, saves and tests.

    Attributes:
        cfg, device, output_dir. dm: DataManager; train_loader_x, train_loader_u, val_loader, test_loader,
        num_classes, num_source_domains, lab2cname: its. evaluator. best_result: of the validation split, percent.
        one_process_only: why a trainer cannot learn in several processes; "" where it can.
        share: this process's part of the training batch; None in a run of one process.
        resumes_within_epoch: whether models, optimisers, schedules, random streams and `training_state()` are all that
            a step depends on, so that a stopped run goes on in the middle of an epoch; otherwise after the last whole.
    """

    one_process_only = ""
    resumes_within_epoch = False
    share: Share | None = None

    def __init__(self, cfg):
        super().__init__()
        check_values(cfg)
        self.check_cfg(cfg)
        self.device = distributed.device(cfg.USE_CUDA)
        self.start_epoch = self.epoch = self.batch_idx = self.num_batches = 0
        self.max_epoch, self.output_dir, self.cfg = cfg.OPTIM.MAX_EPOCH, cfg.OUTPUT_DIR, cfg
        self.best_result = -np.inf
        self.time_start = time.time()
        self._check_test_section(cfg)
        self.on_nan.check()
        with distributed.first_then_others():
            self.build_data_loader()
            self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)

    def _check_test_section(self, cfg) -> None:
        """A trainer whose own hooks read these keys may give them other values."""
        for key, known, readers in (("SPLIT", ("test", "val"), ("test",)),
                                    ("FINAL_MODEL", ("last_step", "best_val"), ("after_epoch", "after_train"))):
            own = any(getattr(type(self), name) is not getattr(SimpleTrainer, name) for name in readers)
            if cfg.TEST[key] not in known and not own:
                raise UserError(f"TEST.{key} is {' or '.join(known)}; got {cfg.TEST[key]!r}."
                                f"{nearest(cfg.TEST[key], known)}")

    def check_cfg(self, cfg) -> None:
        """Refuse a config that this trainer cannot use (raise UserError); called first."""

    def build_data_loader(self) -> None:
        dm = DataManager(self.cfg)
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
        self.autosave.remove()

    def before_train(self) -> None:
        if self.cfg.TEST.FINAL_MODEL == "best_val" and not self.cfg.TEST.NO_TEST and self.val_loader is None:
            raise UserError("TEST.FINAL_MODEL best_val chooses the epoch on a validation split; "
                            f"{self.cfg.DATASET.NAME} has none, and nothing is chosen on the test split. "
                            "Set TEST.FINAL_MODEL last_step.")
        if self.cfg.TEST.FINAL_MODEL == "best_val" and self.val_is_test:
            raise UserError("TEST.FINAL_MODEL best_val chooses the epoch on a validation split; that of "
                            f"{self.cfg.DATASET.NAME} is its test split, on which nothing is chosen. "
                            "Set TEST.FINAL_MODEL last_step.")
        if self.cfg.RESUME:
            self.start_epoch = self.autosave.load(self.cfg.RESUME, self.resume_model_if_exist(self.cfg.RESUME))
            plan.check_resumed(self)
        plan.tell(self)
        mkdir_if_missing(self.output_dir)
        self.before_writing()
        if self.start_epoch == self.max_epoch > 0 and not osp.samefile(self.cfg.RESUME, self.output_dir):
            self.save_model(self.max_epoch - 1, self.output_dir)            # trained in another folder, kept here too
        if self.max_epoch > self.start_epoch:
            self._write_classes()
            self.init_writer(osp.join(self.output_dir, "tensorboard"))
        self._phase, self.time_start, self._started = "training", time.time(), time.monotonic()
        self._progress = None
        self.autosave.start()

    def safe_point(self, epoch: int, batch: int) -> None:
        self.autosave.safe_point(epoch, batch)

    def after_train(self) -> None:
        self._train_seconds = time.monotonic() - self._started
        self._end_progress()
        self._phase = "trained"
        logger.info("Finish training")
        if self.cfg.TEST.NO_TEST:
            write_result(self, {})
        else:
            if self.cfg.TEST.FINAL_MODEL == "best_val" and self.max_epoch > 0:
                logger.info("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                logger.info("Deploy the last-epoch model")
            self.test()
        elapsed = datetime.timedelta(seconds=round(time.monotonic() - self._started))
        tell(logger, "Elapsed: %s", elapsed)
        self.close_writer()
        self.close_loaders()

    def close_loaders(self) -> None:
        """End the loaders' worker processes; a loader that is used again starts new ones.

        Left to the garbage collector, each worker may cost torch's five seconds of waiting.
        """
        for name in ("train_loader_x", "train_loader_u", "val_loader", "test_loader"):
            if getattr(loader := getattr(self, name, None), "_iterator", None) is not None:
                loader._iterator = None

    def after_epoch(self) -> None:
        parallel.check_same(self)
        cfg, is_last = self.cfg, self.epoch + 1 == self.max_epoch
        if not cfg.TEST.NO_TEST and cfg.TEST.FINAL_MODEL == "best_val":
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name=BEST)
        if is_last:
            self.save_model(self.epoch, self.output_dir)
        elif cfg.TRAIN.CHECKPOINT_FREQ > 0 and (self.epoch + 1) % cfg.TRAIN.CHECKPOINT_FREQ == 0:
            try:
                self.save_model(self.epoch, self.output_dir)
            except OSError as error:
                logger.warning("No checkpoint of epoch %d (%s); training goes on", self.epoch + 1, error)

    def training_state(self) -> dict:
        return {**super().training_state(), "best_result": float(self.best_result), "on_nan": self.on_nan.state()}

    def load_training_state(self, state: dict) -> None:
        super().load_training_state(state)
        self.best_result = state.get("best_result", self.best_result)
        self.on_nan.load_state(state.get("on_nan", self.on_nan.state()))

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on a split, TEST.SPLIT by default.

        Returns:
            The evaluator's first value: accuracy, percent. After training (or without any) results.json and
            predictions.csv are written.
        """
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        if split == "val" and self.val_loader is None:
            logger.warning("There is no validation split; evaluating on the test split instead")
            split = "test"
        loader = self.val_loader if split == "val" else self.test_loader
        if loader is None:
            raise UserError(f"{self.cfg.DATASET.NAME} has no {split} split to evaluate on.")
        logger.info("Evaluate on the *%s* set", split)
        start, count, predictions = time.monotonic(), 0, Predictions()
        for batch, output, label in parallel.answers(self, loader, f"{split} split"):
            self.evaluator.process(output, label)
            count += len(label)
            if self._phase != "training":
                predictions.add(batch, output, label)
        if self._phase != "training":
            self.before_writing()
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        if self._phase != "training":
            predictions.write(osp.join(self.output_dir, PREDICTIONS), self.lab2cname)
            self._write_classes()
            write_result(self, results, time.monotonic() - start, split=split, num_test=count)
        return next(iter(results.values()))

    def run_record_fields(self) -> dict:
        """What else results.json should say; extend it with `{**super().run_record_fields(), ...}`."""
        learned = [p for m in self._models.values() if m is not None for p in m.parameters() if p.requires_grad]
        return {"learned_parameters": count_num_param(params=learned)}

    def classifier_fields(self) -> dict:
        """What else classes.json should say, from which a run predicts without its dataset."""
        return {}

    def _write_classes(self) -> None:
        if (dataset := self._dataset()) is not None:
            write_classes(self.output_dir, self.cfg, dataset, **self.classifier_fields())

    @property
    def val_is_test(self) -> bool:
        """Whether the validation images are the test images, as in CoOp's ImageNet."""
        return (dataset := self._dataset()) is not None and dataset.val_is_test

    def _dataset(self) -> DatasetBase | None:
        """Of the run; None where a trainer loads data without a manager, or not as a dataset of Dassl's kind."""
        dataset = getattr(getattr(self, "dm", None), "dataset", None)
        return dataset if isinstance(dataset, DatasetBase) else None

    def model_inference(self, input: Tensor) -> Tensor:
        return self.model(input)

    def on_device(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Tensors of a batch where the model is; those in pinned memory move while the GPU goes on computing."""
        return tuple(v.to(self.device, non_blocking=True) for v in values)

    def parse_batch_test(self, batch: dict):
        return self.on_device(batch["img"], batch["label"])

    def get_current_lr(self, names: str | list[str] | None = None) -> float:
        return self._optims[self.get_model_names(names)[0]].param_groups[0]["lr"]

    def _run_batches(self, batches, num_batches: int, first: int = 0) -> None:
        """Train on each of `batches`; a line to log.txt every PRINT_FREQ, one line to the console for all.

        Args:
            first: number of the first batch in its epoch, from 0: those before were trained by an earlier process.
        """
        self.set_model_mode("train")
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        self.num_batches, freq = num_batches, max(self.cfg.TRAIN.PRINT_FREQ, 1)
        if getattr(self, "_progress", None) is None:
            label = f"{self.cfg.TRAINER.NAME} {self.cfg.DATASET.NAME} seed {self.cfg.SEED}"
            self._progress = progress.Progress(self.max_epoch * num_batches, self.epoch * num_batches + first, label)
        end = time.monotonic()
        for self.batch_idx, batch in enumerate(batches, first):
            data_time.update(time.monotonic() - end)
            self._batch = batch
            with parallel.draws_of_the_batch(self.share):
                losses.update(parallel.average(self.on_nan.step(batch), self.share))
            batch_time.update(time.monotonic() - end)
            latest = " ".join(f"{name} {m.val:.3f}" for name, m in list(losses.meters.items())[:2])
            self._progress.step(self.epoch + 1, self.max_epoch, latest)
            if (self.batch_idx + 1) % freq == 0 or num_batches < freq:
                self._log_batch(losses, batch_time, data_time)
            for name, meter in losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, self.epoch * num_batches + self.batch_idx)
            if self._optims:
                self.write_scalar("train/lr", self.get_current_lr(), self.epoch * num_batches + self.batch_idx)
            if self.batch_idx + 1 < num_batches:
                self.safe_point(self.epoch, self.batch_idx + 1)
            end = time.monotonic()

    def _step(self, batch) -> dict:
        return self.forward_backward(batch)

    def _log_batch(self, losses: MetricMeter, batch_time: AverageMeter, data_time: AverageMeter) -> None:
        left = self.num_batches - self.batch_idx - 1 + (self.max_epoch - self.epoch - 1) * self.num_batches
        logger.info("epoch [%d/%d] batch [%d/%d] time %.3f (%.3f) data %.3f (%.3f) %s lr %.4e eta %s",
                    self.epoch + 1, self.max_epoch, self.batch_idx + 1, self.num_batches, batch_time.val,
                    batch_time.avg, data_time.val, data_time.avg, losses,
                    self.get_current_lr() if self._optims else float("nan"),
                    datetime.timedelta(seconds=int(batch_time.avg * left)))

    def _end_progress(self) -> None:
        if getattr(self, "_progress", None) is not None:
            self._progress.close()
            self._progress = None


class TrainerX(SimpleTrainer):
    """Trains on labelled batches."""

    def run_epoch(self) -> None:
        with stop.at_safe_points():
            self._run_batches(self.training_batches(), len(self.train_loader_x), self.autosave.finished_batches)

    def training_batches(self) -> Iterator[dict]:
        """An epoch's batches; of several processes each sees its share of every one."""
        for number, batch in enumerate(self.train_loader_x, self.autosave.begin_epoch()):
            self.autosave.go_on()
            self.share = share_of(self.train_loader_x, number)
            yield batch

    def own(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Of values for the images of a training batch, without the image that stands in for an empty share."""
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
            raise UserError(f"TRAIN.COUNT_ITER is one of {', '.join(sizes)}; got {self.cfg.TRAIN.COUNT_ITER!r}.")
        num_batches = sizes[self.cfg.TRAIN.COUNT_ITER]
        pairs = zip(range(num_batches), _endless(self.train_loader_x), _endless(self.train_loader_u), strict=False)
        self._run_batches(((x, u) for _, x, u in pairs), num_batches)

    def _step(self, batch: tuple[dict, dict]) -> dict:
        return self.forward_backward(*batch)

    def parse_batch_train(self, batch_x: dict, batch_u: dict):
        return self.on_device(batch_x["img"], batch_x["label"], batch_u["img"])


def _endless(loader):
    while True:
        yield from loader
