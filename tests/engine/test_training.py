"""A whole training with a small model: resumed exactly, selected on val, recorded, and stopped with reasons."""
import json
import re

import pytest
import torch
from torch import nn

from dassl.engine import TRAINER_REGISTRY, TrainerXU, build_trainer
from dassl.optim import build_optimizer
from dassl.utils import UserError, load_checkpoint, set_random_seed


def start(cfg, seed=1):
    set_random_seed(seed)
    return build_trainer(cfg)


def weights(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("final", ["last_step", "best_val"])
def test_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(engine_cfg, tmp_path, workers, final):
    def cfg(folder, resume=""):
        return engine_cfg(OUTPUT_DIR=str(tmp_path / folder), RESUME=resume and str(tmp_path / resume),
                          TRAIN__CHECKPOINT_FREQ=1, DATALOADER__NUM_WORKERS=workers, TEST__FINAL_MODEL=final)

    whole = start(cfg("whole"))
    whole.train()
    first = start(cfg("cut"))
    first.stop_after = 2
    with pytest.raises(InterruptedError):
        first.train()
    second = start(cfg("cut", resume="cut"), seed=77)               # its own draws must not matter
    second.train()
    assert second.start_epoch == 2
    assert first.rates + second.rates == whole.rates and len(set(whole.rates)) == 5
    assert first.seen + second.seen == whole.seen and len(whole.seen) == 20
    last = [load_checkpoint(str(tmp_path / f / "linear" / "model.pth.tar-5"))["state_dict"] for f in ("whole", "cut")]
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))
    assert all(torch.equal(last[0][k], last[1][k]) for k in last[0])


def test_resuming_where_nothing_is_starts_from_scratch(engine_cfg, tmp_path):
    trainer = start(engine_cfg(RESUME=str(tmp_path / "nothing"), OPTIM__MAX_EPOCH=1))
    trainer.train()
    assert trainer.start_epoch == 0 and len(trainer.rates) == 1


def test_checkpoints_hold_plain_data_in_dassls_layout(engine_cfg, tmp_path):
    start(engine_cfg(TRAIN__CHECKPOINT_FREQ=2)).train()
    folder = tmp_path / "run" / "linear"
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint", "model.pth.tar-2", "model.pth.tar-4",
                                                        "model.pth.tar-5"]
    assert (folder / "checkpoint").read_text() == "model.pth.tar-5\n"
    state = torch.load(folder / "model.pth.tar-5", weights_only=True)      # torch's own reader takes it
    assert {"state_dict", "epoch", "optimizer", "scheduler", "val_result"} <= set(state) and state["epoch"] == 5


def test_load_model_takes_an_epoch_or_tells_which_file_lacks(engine_cfg, tmp_path):
    trained = start(engine_cfg(TRAIN__CHECKPOINT_FREQ=1))
    trained.train()
    other = start(engine_cfg(), seed=9)
    other.load_model(str(tmp_path / "run"), epoch=5)
    assert all(torch.equal(a, b) for a, b in zip(weights(trained), weights(other), strict=True))
    other.load_model(str(tmp_path / "run"), epoch=2)
    assert not torch.equal(weights(trained)[0], weights(other)[0])
    with pytest.raises(UserError, match="No checkpoint at .*model.pth.tar-50"):
        other.load_model(str(tmp_path / "run"), epoch=50)
    wider = start(engine_cfg(INPUT__SIZE=(8, 8)))
    wider.model[2] = nn.Linear(5, 3)
    with pytest.raises(UserError, match="does not fit this model: .*size mismatch"):
        wider.load_model(str(tmp_path / "run"), epoch=5)


def test_best_val_deploys_the_epoch_that_is_best_on_val_and_never_looks_at_test(engine_cfg, tmp_path, monkeypatch):
    trainer, asked, scripted = start(engine_cfg(TEST__FINAL_MODEL="best_val")), [], iter([40.0, 70.0, 60.0, 70.0, 10.0])
    real = trainer.test

    def test(split=None):
        asked.append(split)
        return next(scripted) if split == "val" else real(split)

    monkeypatch.setattr(trainer, "test", test)
    trainer.train()
    assert asked == ["val"] * 5 + [None]
    best = load_checkpoint(str(tmp_path / "run" / "linear" / "model-best.pth.tar"))
    assert (best["epoch"], best["val_result"]) == (2, 70.0)
    assert all(torch.equal(a, b) for a, b in zip(weights(trainer), best["state_dict"].values(), strict=True))
    assert "validation split" in json.loads((tmp_path / "run" / "results.json").read_text())["model_selection"]


def test_best_val_without_a_validation_split_is_refused(engine_cfg, tmp_path, write_splits):
    import shutil

    write_splits(tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "val")
    with pytest.raises(UserError, match="best_val"):
        start(engine_cfg(DATASET__ROOT=str(tmp_path / "data"), TEST__FINAL_MODEL="best_val")).train()


def test_the_last_step_is_deployed_by_default(engine_cfg, tmp_path, caplog):
    caplog.set_level("INFO")
    trainer = start(engine_cfg(TRAIN__PRINT_FREQ=2))
    trainer.train()
    assert "Deploy the last-epoch model" in caplog.messages
    assert "Evaluate on the *test* set" in caplog.messages and "Evaluate on the *val* set" not in caplog.messages
    line = next(m for m in caplog.messages if m.startswith("epoch [3/5] batch [4/4]"))
    assert re.fullmatch(r"epoch \[3/5\] batch \[4/4\] time [\d.]+ \([\d.]+\) data [\d.]+ \([\d.]+\) "
                        r"loss [\d.]+ \([\d.]+\) lr [\d.]+e-\d\d eta \d:\d\d:\d\d", line)
    assert any(re.fullmatch(r"Elapsed: \d:\d\d:\d\d", m) for m in caplog.messages)


def test_results_json_says_what_was_run_and_found(engine_cfg, tmp_path):
    trainer = start(engine_cfg())
    trainer.train()
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    expected = {"finished": True, "mode": "train", "trainer": "Linear", "dataset": "EngineToy", "shots": -1, "seed": 1,
                "classes": "all", "split": "test", "num_test": 12, "epochs": 5, "learned_parameters": 192 * 3 + 3,
                "device": "cpu", "transforms": ["random_resized_crop", "random_flip", "normalize"],
                "model_selection": "the last epoch; nothing was selected on the test split"}
    assert {k: record[k] for k in expected} == expected
    assert set(record) >= {"metrics", "seconds", "peak_memory_mb", "split_hash", "class_hash", "config_hash",
                           "versions", "commit", "command", "date", "machine"}
    assert set(record["metrics"]) == {"accuracy", "error_rate", "macro_f1"} and set(record["seconds"]) == {
        "train", "test", "total"}
    assert record["metrics"]["accuracy"] == pytest.approx(trainer.test())
    assert {"python", "torch"} <= set(record["versions"]) and re.fullmatch("[0-9a-f]{64}", record["split_hash"])


def test_hashes_ignore_folders_and_tell_settings_apart(engine_cfg, tmp_path):
    def record(folder, **changes):
        start(engine_cfg(OUTPUT_DIR=str(tmp_path / folder), **changes)).test()
        return json.loads((tmp_path / folder / "results.json").read_text())

    one, other, third = record("a"), record("b"), record("c", OPTIM__LR=0.1)
    assert one["config_hash"] == other["config_hash"] != third["config_hash"]
    assert one["split_hash"] == third["split_hash"] and one["mode"] == "eval-only" and one["epochs"] == 0


@TRAINER_REGISTRY.register()
class LinearXU(TrainerXU):
    """Counts the pairs of batches that it is given."""

    def build_model(self):
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(192, self.num_classes))
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.register_model("linear", self.model, self.optim)
        self.pairs = []

    def forward_backward(self, batch_x, batch_u):
        image, label, unlabelled = self.parse_batch_train(batch_x, batch_u)
        self.pairs.append((len(image), len(unlabelled)))
        loss = nn.functional.cross_entropy(self.model(image), label) + 0 * self.model(unlabelled).sum()
        self.model_backward_and_update(loss)
        return {"loss": loss.item()}


@pytest.mark.parametrize("count, batches", [("train_x", 4), ("train_u", 6), ("smaller_one", 4)])
def test_trainer_xu_pairs_batches_and_starts_the_shorter_loader_again(engine_cfg, count, batches):
    trainer = start(engine_cfg(TRAINER__NAME="LinearXU", DATASET__ALL_AS_UNLABELED=True, OPTIM__MAX_EPOCH=2,
                               DATALOADER__TRAIN_U__SAME_AS_X=False, DATALOADER__TRAIN_U__BATCH_SIZE=2,
                               TRAIN__COUNT_ITER=count))
    trainer.train()
    assert trainer.pairs == [(4, 2)] * 2 * batches


def test_trainer_xu_tells_an_unknown_way_to_count(engine_cfg):
    trainer = start(engine_cfg(TRAINER__NAME="LinearXU", DATASET__ALL_AS_UNLABELED=True, TRAIN__COUNT_ITER="both"))
    with pytest.raises(UserError, match="train_x, train_u, smaller_one; got 'both'"):
        trainer.train()


def test_a_nan_loss_names_term_epoch_batch_and_images(engine_cfg):
    trainer = start(engine_cfg())
    trainer.epoch, trainer.batch_idx, trainer.num_batches = 2, 6, 9
    terms = {"cross_entropy": torch.tensor(1.0), "inter": torch.tensor(float("nan"))}
    with pytest.raises(FloatingPointError) as error:
        trainer.check_finite(terms, {"impath": ["cat_1.png", "dog_2.png"]})
    told = str(error.value)
    assert isinstance(error.value, UserError)
    assert "in its term inter at epoch 3, batch 7 of 9" in told and "cat_1.png, dog_2.png" in told
    assert "smaller OPTIM.LR" in told and "smaller weight on inter" in told
    trainer.check_finite({"cross_entropy": torch.tensor(1.0)})


def test_a_loss_that_diverges_stops_the_training(engine_cfg):
    trainer = start(engine_cfg(OPTIM__WARMUP_EPOCH=0))
    with torch.no_grad():
        trainer.model[2].weight.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="epoch 1, batch 1 of 4 .*images .*png"):
        trainer.train()
