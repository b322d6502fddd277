"""Classes that arrive one after the other, and several tasks in one model, from the data to the test."""
import json
import signal

import pytest
import torch
import torch.nn.functional as F

from dassl import stop
from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.datasets.union import UnionDataset
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.metrics.continual import average_accuracy, forgetting, forward_transfer
from dassl.utils import UserError
from trainers.coop import CoOp
from trainers.parts.tasks import only_own_task


def with_name(cfg, trainer, **keys):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TRAINER.NAME = trainer
    cfg.merge_from_list([part for key, value in keys.items() for part in (key.replace("__", "."), value)])
    return cfg


def staged():
    class Incremental(CoOp):
        def before_task(self, task, tasks):
            self.began = [*getattr(self, "began", []), (task, tasks)]

        def loss(self, out, batch):
            self.met = [*getattr(self, "met", []), (self.stages.now, set(batch["label"].tolist()))]
            self.competing = [*getattr(self, "competing", []), out.logits.isfinite().all(dim=0).tolist()]
            return {"ce": F.cross_entropy(out.logits, batch["label"])}

    TRAINER_REGISTRY.register(force=True)(Incremental)
    return "Incremental"


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_task_trains_on_its_own_classes_which_alone_compete(make_cfg, epochs):
    trainer = build_trainer(with_name(make_cfg("CoOp", "OPTIM.MAX_EPOCH", epochs, "TRAIN.TASKS", 2), staged()))
    trainer.train()
    assert trainer.began == [(0, 2), (1, 2)] and trainer.epoch + 1 == 2 * epochs
    assert {stage for stage, _ in trainer.met} == {0, 1}
    for (stage, labels), competing in zip(trainer.met, trainer.competing, strict=True):
        assert labels <= set([[0, 1], [2, 3]][stage])
        assert competing == ([True, True, False, False] if stage == 0 else [False, False, True, True])


def test_each_task_begins_with_a_new_optimiser_and_the_first_rate(make_cfg):
    cfg = make_cfg("CoOp", "OPTIM.MAX_EPOCH", 2, "TRAIN.TASKS", 2, "OPTIM.NAME", "adam", "OPTIM.LR_SCHEDULER", "cosine",
                   "OPTIM.WARMUP_EPOCH", -1, "OPTIM.LR", 0.01, "TEST.NO_TEST", True)
    trainer, rates, steps = build_trainer(with_name(cfg, staged())), [], []
    step = trainer.forward_backward

    def recorded(batch):
        rates.append(round(trainer.get_current_lr(), 6))
        values = step(batch)
        steps.append(int(next(iter(trainer.optim.state.values()))["step"]))
        return values

    trainer.forward_backward = recorded
    trainer.train()
    half = len(rates) // 2
    assert rates[:half] == rates[half:] and steps[:half] == steps[half:] and len(set(rates)) == 2


def test_the_matrix_is_what_a_literal_count_gives_after_each_task(make_cfg, tmp_path):
    trainer = build_trainer(make_cfg("CoOp", "TRAIN.TASKS", 3, "OPTIM.LR", 0.1))
    groups, literal = [[0, 1], [2], [3]], []
    test = trainer.stages._test

    def counted(trainer, *columns):
        test(trainer, *columns)
        column = []
        for i, own in enumerate(groups):
            candidates, right, images = sum(groups[:max(i + 1, columns[0])], []), 0, 0
            for batch in trainer.test_loader:
                scores = trainer.model_inference(batch["img"])
                for row, label in zip(scores, batch["label"].tolist(), strict=True):
                    if label in own:
                        images += 1
                        right += label == max(candidates, key=lambda c: row[c].item())
            column.append(100 * right / images)
        literal.append(column)

    trainer.stages._test = counted
    trainer.train()
    found = json.loads((tmp_path / "run" / "results.json").read_text())["tasks"]
    assert found["untrained"] == pytest.approx(literal[0])
    assert [list(column) for column in zip(*found["accuracy"], strict=True)] == [pytest.approx(c) for c in literal[1:]]
    rows = [line.split(",") for line in (tmp_path / "run" / "predictions.csv").read_text().splitlines()[1:]]
    assert len(rows) == 24 and [len(names) for names in found["classes"]] == [2, 1, 1]


def test_measures_of_a_sequence_follow_their_definitions():
    accuracy, untrained = [[90, 60, 70], [20, 80, 50], [30, 40, 100]], [10, 15, 25]
    assert average_accuracy(accuracy) == pytest.approx((70 + 50 + 100) / 3)
    assert forgetting(accuracy) == pytest.approx(((90 - 70) + (80 - 50)) / 2)
    assert forward_transfer(accuracy, untrained) == pytest.approx(((20 - 15) + (40 - 25)) / 2)


def test_what_learns_nothing_has_a_matrix_whose_columns_differ_by_the_candidates_alone(make_cfg, tmp_path):
    build_trainer(make_cfg("ZeroshotCLIP", "TRAIN.TASKS", 4)).train()
    found = json.loads((tmp_path / "run" / "results.json").read_text())["tasks"]
    assert len(found["accuracy"]) == 4 and found["forward_transfer"] == 0
    for i, row in enumerate(found["accuracy"]):
        assert row[:i + 1] == [found["untrained"][i]] * (i + 1) and row[i:] == sorted(row[i:], reverse=True)


@pytest.mark.parametrize("name", ["CoOp", "CLIPLoRA", "CLIPAdapter"])
@pytest.mark.parametrize("stop_after", [1, 4, 6])
def test_a_resumed_run_continues_in_its_task_to_the_bit(make_cfg, tmp_path, name, stop_after):
    """After some steps: within a task's first epoch, at its second, within the next task."""
    def run(folder, resume="", steps=None):
        cfg = make_cfg(name, "OPTIM.MAX_EPOCH", 2, "TRAIN.TASKS", 2, "DATALOADER.TRAIN_X.BATCH_SIZE", 4,
                       "OPTIM.LR_SCHEDULER", "cosine", "OPTIM.NAME", "adam", output=tmp_path / folder)
        cfg.defrost()
        cfg.RESUME, cfg.DATASET.NUM_SHOTS = resume, 4
        if name == "CLIPLoRA":
            cfg.TRAINER.CLIPLORA.ITERATIONS = 0
        trainer = build_trainer(cfg)
        step, count = trainer.forward_backward, []

        def counted(batch):
            count.append(1)
            if len(count) == (steps or -1):
                signal.raise_signal(signal.SIGTERM)
            return step(batch)

        trainer.forward_backward = counted
        try:
            with stop.on_signals():
                trainer.train()
        except SystemExit:
            trainer.close_loaders()
        return trainer

    whole, cut = run("whole"), run("cut", steps=stop_after)
    again = run("cut", resume=str(tmp_path / "cut"))
    assert len(cut.stages.columns) < 3 and again.stages.columns == whole.stages.columns
    learned = [trainer.model.prompt_learner.state_dict().values() for trainer in (whole, again)]
    assert all(torch.equal(a, b) for a, b in zip(*learned, strict=True))


def test_epochs_that_a_method_counts_itself_are_shared_out_over_the_tasks(make_cfg):
    trainer, seen = build_trainer(make_cfg("CLIPLoRA", "TRAIN.TASKS", 3, "TRAINER.CLIPLORA.ITERATIONS", 2)), []
    trainer.before_epoch = lambda: seen.append(trainer.stages.now)
    trainer.train()
    assert seen == [0, 0, 1, 2] and len(trainer.stages.columns) == 4


@pytest.mark.parametrize("trainer, options, got", [
    ("CLIPLoRA", ["TRAIN.TASKS", 3, "TRAINER.CLIPLORA.ITERATIONS", 1], "3 tasks need an epoch each, got 2"),
    ("CoOp", ["TRAIN.TASKS", 5], "4 classes, got TRAIN.TASKS 5"), ("CoOp", ["TRAIN.TASKS", 0], "at least 1, got 0"),
    ("CoOp", ["TRAIN.TASKS", 2, "TEST.FINAL_MODEL", "best_val"], "best_val"),
    ("GDA", ["TRAIN.TASKS", 2], "GDA cannot learn 2 tasks"), ("TwoSFS", ["TRAIN.TASKS", 2], "two stages"),
    ("ProGrad", ["TRAIN.TASKS", 2], "a teacher's"),
    ("TDA", ["TRAIN.TASKS", 2], "while it is tested"), ("DVPcse", ["TRAIN.TASKS", 2], "of its own making")])
def test_impossible_tasks_are_refused_before_anything_is_trained(make_cfg, trainer, options, got):
    with pytest.raises(UserError, match=got):
        build_trainer(make_cfg(trainer, *options))


@pytest.mark.parametrize("split, word", [("test", "test images"), ("train_x", "training images")])
def test_a_task_without_images_is_named(make_cfg, split, word):
    make_cfg("CoOp")

    class Gap(DATASET_REGISTRY.get("Toy")):
        def __init__(self, cfg):
            super().__init__(cfg)
            setattr(self, f"_{split}", [item for item in getattr(self, split) if item.label != 3])

    DATASET_REGISTRY.register(force=True)(Gap)
    with pytest.raises(UserError, match=rf"Task 4 of 4 on Gap \(grey.square\) has no {word}"):
        build_trainer(make_cfg("CoOp", "TRAIN.TASKS", 4, dataset="Gap"))


def test_prototypes_of_all_classes_are_refused_where_later_tasks_are_not_there_yet(make_cfg):
    with pytest.raises(UserError, match="DAPT looks at all training images"):
        build_trainer(make_cfg("DAPT", "TRAIN.TASKS", 2)).train()


def test_classes_of_other_tasks_do_not_compete():
    logits, task_of_class = torch.randn(3, 5), torch.tensor([0, 0, 1, 1, 1])
    shares = only_own_task(logits, task_of_class, torch.tensor([0, 1, 0])).softmax(-1)
    for image, own in enumerate(([0, 1], [2, 3, 4], [0, 1])):
        torch.testing.assert_close(shares[image, own], logits[image, own].softmax(-1))
        assert shares[image].sum().item() == pytest.approx(1) and (shares[image] > 0).sum() == len(own)


def test_two_datasets_train_and_test_as_one_with_a_mask_for_each_task(make_cfg, tmp_path):
    make_cfg("CoOp")                                        # registers the toy sets

    class Both(UnionDataset):
        def __init__(self, cfg):
            super().__init__([DATASET_REGISTRY.get(name)(cfg) for name in ("Toy", "ToyOther")])

    class Multi(CoOp):
        def loss(self, out, batch):
            self.tasks_met = getattr(self, "tasks_met", set()) | set(batch["domain"].tolist())
            task_of_class = torch.tensor(self.dm.dataset.task_of_class)
            assert torch.equal(task_of_class[batch["label"]], batch["domain"])
            return {"ce": F.cross_entropy(only_own_task(out.logits, task_of_class, batch["domain"]), batch["label"])}

    DATASET_REGISTRY.register(force=True)(Both)
    TRAINER_REGISTRY.register(force=True)(Multi)
    with pytest.raises(UserError, match="2 datasets in Both is a task, got TRAIN.TASKS 3"):
        build_trainer(make_cfg("CoOp", "TRAIN.TASKS", 3, dataset="Both"))
    stages = build_trainer(make_cfg("CoOp", "TRAIN.TASKS", 2, dataset="Both")).stages
    assert stages.groups == [[0, 1, 2, 3], [4, 5, 6]]
    trainer = build_trainer(with_name(make_cfg("CoOp", dataset="Both"), "Multi"))
    trainer.train()
    names = [*DATASET_REGISTRY.get("Toy").names, *DATASET_REGISTRY.get("ToyOther").names]
    assert trainer.dm.dataset.classnames == names and trainer.dm.dataset.task_of_class == [0] * 4 + [1] * 3
    assert trainer.tasks_met == {0, 1}
    assert len((tmp_path / "run" / "predictions.csv").read_text().splitlines()) == 1 + 42
