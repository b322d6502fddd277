"""Ways in which public trainers depart from the default loop: own data, own constructor, own training, own loaders."""
import copy
import json
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dassl.data.datasets import DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, SimpleTrainer, TrainerX, build_trainer
from dassl.engine.trainer import TrainerBase
from dassl.evaluation import EvaluatorBase, build_evaluator
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import AverageMeter, MetricMeter, UserError, setup_logger


class OnTensors(TrainerX):
    """Batches are pairs, there is no data manager."""

    def build_data_loader(self):
        g = torch.Generator().manual_seed(0)
        images, labels = torch.randn(20, 3, generator=g), torch.arange(20) % 2
        self.train_loader_x = self.test_loader = DataLoader(TensorDataset(images, labels), batch_size=4)
        self.val_loader = None
        self.num_classes, self.lab2cname = 2, {0: "odd", 1: "even"}

    def build_model(self):
        self.model = nn.Linear(3, 2)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("linear", self.model, self.optim, self.sched)

    def forward_backward(self, batch):
        images, labels = batch
        loss = F.cross_entropy(self.model(images), labels)
        self.model_backward_and_update(loss)
        return {"loss": loss.item()}

    def parse_batch_test(self, batch):
        return batch


class OwnConstructor(OnTensors):
    """Copies the constructor of SimpleTrainer, as trainers do that change its order."""

    def __init__(self, cfg):
        TrainerBase.__init__(self)
        self.device, self.cfg = torch.device("cpu"), cfg
        self.start_epoch = self.epoch = 0
        self.max_epoch, self.output_dir = cfg.OPTIM.MAX_EPOCH, cfg.OUTPUT_DIR
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = float("-inf")


class OwnTraining(SimpleTrainer):
    """Extracts features with loaders of its own and trains on them, batch by batch, without run_epoch's help."""

    def build_model(self):
        self.model = nn.Linear(3 * 8 * 8, self.num_classes)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("adapter", self.model, self.optim, self.sched)

    def features(self, loader):
        batches = [self.parse_batch_test(batch) for batch in loader]
        return torch.cat([x.flatten(1) for x, _ in batches]), torch.cat([y for _, y in batches])

    def train(self):
        self.set_model_mode("eval")
        self.test_set = self.features(copy.deepcopy(self.test_loader))
        self.train_set = self.features(DataLoader(
            copy.deepcopy(self.train_loader_x.dataset), batch_size=self.train_loader_x.batch_size,
            sampler=self.train_loader_x.sampler, num_workers=self.train_loader_x.num_workers, drop_last=False))
        self.before_train()
        for self.epoch in range(self.start_epoch, self.max_epoch):  # noqa: B020 - as public trainers write it
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def run_epoch(self):
        losses, seconds, size = MetricMeter(), AverageMeter(), self.train_loader_x.batch_size
        self.num_batches, end = len(self.train_loader_x), time.time()
        for self.batch_idx in range(self.num_batches):  # noqa: B020
            x, y = (values[self.batch_idx * size:(self.batch_idx + 1) * size] for values in self.train_set)
            loss = F.cross_entropy(self.model(x), y)
            self.model_backward_and_update(loss)
            losses.update({"loss": loss.item()})
            seconds.update(time.time() - end)
            self.write_scalar("train/lr", self.get_current_lr(), self.epoch * self.num_batches + self.batch_idx)
        self.update_lr()

    def after_train(self):
        print("Finish training", f"{time.time() - self.time_start >= 0}")
        self.close_writer()


class OwnEvaluator(EvaluatorBase):
    """Gets what model_inference returned, tuple or not."""

    def reset(self):
        self.kinds = []

    def process(self, mo, gt):
        self.kinds.append(type(mo))

    def evaluate(self):
        return {"tuples": float(sum(kind is tuple for kind in self.kinds))}


@pytest.mark.parametrize("trainer_class", [OnTensors, OwnConstructor])
def test_a_trainer_without_a_data_manager_trains_and_has_results(engine_cfg, trainer_class):
    trainer = trainer_class(engine_cfg(OPTIM__MAX_EPOCH=2))
    trainer.train()
    record = json.loads((Path(trainer.output_dir) / "results.json").read_text())
    assert record["num_test"] == 20 and record["epochs"] == 2
    assert record["num_classes"] is record["split_hash"] is record["class_hash"] is None
    assert record["seconds"]["total"] >= record["seconds"]["train"] > 0
    assert (Path(trainer.output_dir) / "linear" / "model.pth.tar-2").is_file()


def test_a_loss_that_breaks_is_told_when_batches_are_no_dicts(engine_cfg):
    trainer = OnTensors(engine_cfg(OPTIM__MAX_EPOCH=1))
    trainer.model.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="epoch 1, batch 1 of 5"):
        trainer.train()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_trainer_with_its_own_training_on_extracted_features_runs(engine_cfg, workers, monkeypatch, capsys):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    trainer = OwnTraining(engine_cfg(OPTIM__MAX_EPOCH=3, OPTIM__LR=0.5, DATALOADER__NUM_WORKERS=workers))
    trainer.train()
    assert "Finish training True" in capsys.readouterr().out
    assert len(trainer.train_set[1]) == 18 and len(trainer.test_set[1]) == 12
    assert (Path(trainer.output_dir) / "adapter" / "model.pth.tar-3").is_file()


def test_an_evaluator_of_ones_own_gets_the_whole_output(engine_cfg):
    trainer = OnTensors(engine_cfg())
    trainer.evaluator = OwnEvaluator(trainer.cfg)
    trainer.model_inference = lambda images: (trainer.model(images), images)
    assert trainer.test() == 5.0


def test_every_batch_has_its_line_in_the_log_when_an_epoch_has_few(engine_cfg):
    trainer = OnTensors(engine_cfg(OPTIM__MAX_EPOCH=2, TRAIN__PRINT_FREQ=10))
    with setup_logger(trainer.output_dir) as log:
        trainer.train()
    lines = [line.split(" time ")[0] for line in Path(log.path).read_text().splitlines() if line.startswith("epoch [")]
    assert lines == [f"epoch [{e}/2] batch [{b}/5]" for e in (1, 2) for b in range(1, 6)]


@pytest.mark.parametrize("method", ["run_epoch", "test", "parse_batch_train", "parse_batch_test", "forward_backward",
                                    "model_inference"])
def test_what_a_trainer_must_define_says_so_with_dassls_type_of_error(method):
    arguments = () if method in ("run_epoch", "test") else ({},)
    with pytest.raises(NotImplementedError, match=f"TrainerBase does not define {method}"):
        getattr(TrainerBase(), method)(*arguments)


def test_a_trainer_that_chooses_its_final_model_itself_may_name_its_own_way(engine_cfg):
    class Patient(OnTensors):
        def after_train(self):
            self.deployed = self.cfg.TEST.FINAL_MODEL

    trainer = Patient(engine_cfg(OPTIM__MAX_EPOCH=1, TEST__FINAL_MODEL="min_loss"))
    trainer.train()
    assert trainer.deployed == "min_loss"
    with pytest.raises(UserError, match="TEST.FINAL_MODEL must be last_step or best_val, got 'min_loss'"):
        OnTensors(engine_cfg(TEST__FINAL_MODEL="min_loss"))


class TwoLosses(OnTensors):
    """A step of ProGrad's fork: `step(trainer, cross entropy, the other loss)`."""

    opposed = True

    def forward_backward(self, batch):
        images, labels = batch
        logits = self.model(images)
        own = F.cross_entropy(logits, labels)
        other = F.cross_entropy(logits, (1 - labels) if self.opposed else labels)
        self.step(own, other)
        return {"loss": own.item()}


@pytest.mark.parametrize("opposed", [True, False])
@pytest.mark.parametrize("name", ["prograd_backward_and_update", "vertical_grad_backward_and_update"])
def test_a_step_of_prograds_fork_takes_off_the_part_that_it_says(engine_cfg, name, opposed):
    """Source: ProGrad, Dassl.ProGrad.pytorch/dassl/engine/trainer.py: g - lambda (g . u) u, u = h / |h|."""
    trainer = TwoLosses(engine_cfg(OPTIM__NAME="sgd", OPTIM__MOMENTUM=0.0, OPTIM__WEIGHT_DECAY=0.0))
    rate = trainer.get_current_lr()
    trainer.opposed, trainer.step = opposed, lambda own, other: getattr(trainer, name)(own, other, 0.5)
    images, labels = next(iter(trainer.train_loader_x))
    expected = []
    for p in trainer.model.parameters():
        logits = trainer.model(images)
        own, = torch.autograd.grad(F.cross_entropy(logits, labels), p, retain_graph=True)
        other, = torch.autograd.grad(F.cross_entropy(logits, (1 - labels) if opposed else labels), p)
        unit, along = other / other.norm(), float((own * other).sum() / other.norm())
        projected = along < 0 or name.startswith("vertical")
        expected.append(p.detach() - rate * (own - 0.5 * along * unit if projected else own))
    trainer.forward_backward((images, labels))
    torch.testing.assert_close([p.detach() for p in trainer.model.parameters()], expected)


def test_a_test_takes_the_flag_of_a_fork(engine_cfg):
    trainer = OnTensors(engine_cfg())
    assert trainer.test(is_final=True) == trainer.test("test")


def test_a_dataset_of_lasp_gives_all_class_names_and_any_other_may_keep_its_own():
    dataset = DatasetBase(train_x=[Datum("a.png", 0, classname="cat")])
    assert not hasattr(dataset, "all_class_names")
    dataset.all_classnames = ["cat", "dog"]
    assert dataset.all_class_names == ["cat", "dog"]
    dataset.all_class_names = ["bird"]
    assert dataset.all_class_names == ["bird"]


def test_a_config_of_dassls_keys_alone_gets_the_defaults_of_the_others(engine_cfg, monkeypatch):
    """UPL's train.py starts from a copy of Dassl's defaults."""
    monkeypatch.setitem(TRAINER_REGISTRY._obj_map, "OnTensors", OnTensors)
    cfg = engine_cfg(TRAINER__NAME="OnTensors", OPTIM__MAX_EPOCH=1).clone()
    cfg.defrost()
    for section, key in (("TRAIN", "STREAMS"), ("DATALOADER", "CACHE_MB"), ("TEST", "SAVE_LOGITS"),
                         ("OPTIM", "MIN_LR")):
        cfg[section].pop(key)
    cfg.DATALOADER.CACHE_MB, cfg.DATASET.NUM_SHOTS = 7, None
    cfg.freeze()
    trainer = build_trainer(cfg)
    assert trainer.cfg is cfg and cfg.TRAIN.STREAMS == "images" and cfg.DATALOADER.CACHE_MB == 7
    assert cfg.DATASET.NUM_SHOTS == -1
    trainer.train()


def test_a_trainer_may_keep_what_it_likes_in_names_that_the_engine_has_too(engine_cfg):
    """PDA and DAPL keep "a-w" in self.domains."""
    class Crowded(OnTensors):
        def build_model(self):
            super().build_model()
            self.domains, self.stages, self.hooks = "a-w", 2, [self.model.register_forward_hook(lambda *args: None)]

    trainer = Crowded(engine_cfg(OPTIM__MAX_EPOCH=1))
    trainer.train()
    assert (trainer.domains, trainer.stages) == ("a-w", 2)
    assert json.loads((Path(trainer.output_dir) / "results.json").read_text())["num_test"] == 20


@pytest.mark.parametrize("schedule", ["single_step", "cosine"])
def test_a_second_section_with_dassls_keys_of_an_optimiser_serves(engine_cfg, schedule):
    """ProMetaR's cfg.OPTIM_VNET."""
    cfg = engine_cfg(OPTIM__NAME="adam", OPTIM__LR_SCHEDULER=schedule).OPTIM.clone()
    cfg.defrost()
    for key in ("ADAM_EPS", "MIN_LR", "WARMUP_STEPS"):
        cfg.pop(key)
    optimiser = build_optimizer(nn.Linear(2, 2), cfg)
    schedule = build_lr_scheduler(optimiser, cfg)
    optimiser.step()
    schedule.step()
    assert optimiser.defaults["eps"] == 1e-8 and "ADAM_EPS" not in cfg
