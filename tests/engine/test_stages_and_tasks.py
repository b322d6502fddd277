"""Classes that arrive one after the other, and several tasks in one model, from the data to the test."""
import pytest
import torch
import torch.nn.functional as F

from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.datasets.union import UnionDataset
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.engine.stages import Staged
from dassl.utils import UserError
from trainers.coop import CoOp
from trainers.parts.tasks import only_classes, only_own_task


def with_name(cfg, trainer, **keys):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TRAINER.NAME = trainer
    cfg.merge_from_list([part for key, value in keys.items() for part in (key.replace("__", "."), value)])
    return cfg


def staged(groups):
    class Incremental(Staged, CoOp):
        def stages(self):
            return groups

        def before_stage(self):
            self.began = [*getattr(self, "began", []), self.stage]

        def after_stage(self):
            self.ended = [*getattr(self, "ended", []), self.stage]

        def loss(self, out, batch):
            self.met = [*getattr(self, "met", []), (self.stage, set(batch["label"].tolist()))]
            allowed = self.classes_so_far
            return {"ce": F.cross_entropy(only_classes(out.logits, allowed), batch["label"])}

    TRAINER_REGISTRY.register(force=True)(Incremental)
    return "Incremental"


@pytest.mark.parametrize("epochs", [2, 3, 4])
def test_a_stage_sees_its_own_classes_alone_and_the_run_is_tested_on_all(make_cfg, epochs):
    groups = [[2, 0], [1, 3]]
    trainer = build_trainer(with_name(make_cfg("CoOp", "OPTIM.MAX_EPOCH", epochs), staged(groups)))
    trainer.train()
    assert {stage for stage, _ in trainer.met} == {0, 1} and trainer.began == trainer.ended == [0, 1]
    assert all(labels <= set(groups[stage]) for stage, labels in trainer.met)
    assert trainer.classes_so_far.all() and trainer.classes_now.tolist() == [False, True, False, True]


def test_a_resumed_run_continues_in_its_stage_to_the_bit(make_cfg, tmp_path):
    name = staged([[0, 1], [2], [3]])

    def run(folder, resume="", stop_before=None):
        cfg = with_name(make_cfg("CoOp", "OPTIM.MAX_EPOCH", 6, "TRAIN.CHECKPOINT_FREQ", 1, "TEST.NO_TEST", True,
                                 output=tmp_path / folder), name, RESUME=resume)
        trainer = build_trainer(cfg)
        begin = trainer.before_epoch

        def before_epoch():
            if trainer.epoch == stop_before:
                raise KeyboardInterrupt
            begin()

        trainer.before_epoch = before_epoch
        try:
            trainer.train()
        except KeyboardInterrupt:
            trainer.close_loaders()
        return trainer.model.brick("text").ctx.detach()

    whole = run("whole")
    run("cut", stop_before=3)
    assert torch.equal(run("cut", resume=str(tmp_path / "cut")), whole)


@pytest.mark.parametrize("groups, got", [([[0, 1], [1, 2]], r"\[1, 2\]"), ([[0], [9]], r"\[9\]"),
                                         ([[0], [1], [2]], "MAX_EPOCH 2")])
def test_impossible_stages_are_refused(make_cfg, groups, got):
    trainer = build_trainer(with_name(make_cfg("CoOp"), staged(groups)))
    with pytest.raises(UserError, match=got):
        trainer.train()


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
    trainer = build_trainer(with_name(make_cfg("CoOp", dataset="Both"), "Multi"))
    trainer.train()
    names = [*DATASET_REGISTRY.get("Toy").names, *DATASET_REGISTRY.get("ToyOther").names]
    assert trainer.dm.dataset.classnames == names and trainer.dm.dataset.task_of_class == [0] * 4 + [1] * 3
    assert trainer.tasks_met == {0, 1}
    assert len((tmp_path / "run" / "predictions.csv").read_text().splitlines()) == 1 + 42
