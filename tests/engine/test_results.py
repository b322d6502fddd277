"""results.json: what a run was and found; checkpoints that it leaves."""
import json
import re

import pytest
import torch
from torch import nn

from dassl.engine import build_trainer
from dassl.utils import UserError


def test_results_json_says_what_was_run_and_found(engine_cfg, tmp_path):
    trainer = build_trainer(engine_cfg(DATASET__NUM_SHOTS=4))
    trainer.train()
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    expected = {"finished": True, "mode": "train", "trainer": "Linear", "dataset": "EngineToy", "shots": 4, "seed": 1,
                "classes": "all", "split": "test", "num_test": 12, "epochs": 5, "learned_parameters": 192 * 3 + 3,
                "device": "cpu", "transforms": ["random_resized_crop", "random_flip", "normalize"],
                "model_selection": "the last epoch; nothing was selected on the test split"}
    assert {k: record[k] for k in expected} == expected
    assert set(record) >= {"metrics", "seconds", "peak_memory_mb", "split_hash", "class_hash", "config_hash",
                           "versions", "commit", "command", "date", "machine"}
    assert set(record["metrics"]) == {"accuracy", "error_rate", "macro_f1", "ece", "adaptive_ece", "nll"}
    assert set(record["seconds"]) == {"train", "test", "total"}
    assert record["metrics"]["accuracy"] == pytest.approx(trainer.test())
    assert {"python", "torch"} <= set(record["versions"]) and all(
        re.fullmatch("[0-9a-f]{64}", record[key]) for key in ("split_hash", "class_hash", "config_hash"))


def test_a_training_without_a_test_says_that_it_ended_and_claims_no_result(engine_cfg, tmp_path):
    build_trainer(engine_cfg(TEST__NO_TEST=True, TEST__FINAL_MODEL="best_val")).train()
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (record["finished"], record["mode"], record["metrics"], record["at_chance"]) == (True, "train", {}, False)
    assert not {"split", "num_test"} & set(record) and record["model_selection"].startswith("the last epoch")
    assert not (tmp_path / "run" / "predictions.csv").exists()


def test_hashes_follow_images_and_settings_but_not_folders(engine_cfg, tmp_path, write_splits):
    def record(output, **changes):
        build_trainer(engine_cfg(output, DATASET__NUM_SHOTS=2, **changes)).test()
        return json.loads((tmp_path / output / "results.json").read_text())

    write_splits(tmp_path / "data")
    one, moved = record("a"), record("b", DATASET__ROOT=str(tmp_path / "data"))
    seed, rate = record("c", SEED=2), record("d", OPTIM__LR=0.5)
    assert one["mode"] == "eval-only" and one["epochs"] == 0
    assert one["split_hash"] == moved["split_hash"] == rate["split_hash"] != seed["split_hash"]
    assert one["config_hash"] == moved["config_hash"] != rate["config_hash"]
    assert one["class_hash"] == seed["class_hash"]


def test_checkpoints_hold_plain_data_in_dassls_layout(engine_cfg, tmp_path):
    build_trainer(engine_cfg(TRAIN__CHECKPOINT_FREQ=2)).train()
    folder = tmp_path / "run" / "linear"
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint", "model.pth.tar-2", "model.pth.tar-4",
                                                        "model.pth.tar-5"]
    assert (folder / "checkpoint").read_text() == "model.pth.tar-5\n"
    state = torch.load(folder / "model.pth.tar-5", weights_only=True)      # torch's own reader takes it
    assert {"state_dict", "epoch", "optimizer", "scheduler", "val_result"} <= set(state) and state["epoch"] == 5


def test_only_the_last_epoch_is_saved_by_default(engine_cfg, tmp_path):
    build_trainer(engine_cfg(OPTIM__MAX_EPOCH=2)).train()
    assert {p.name for p in (tmp_path / "run" / "linear").iterdir()} == {"checkpoint", "model.pth.tar-2"}


def test_load_model_takes_an_epoch_or_tells_which_file_lacks(engine_cfg, tmp_path):
    trained = build_trainer(engine_cfg(TRAIN__CHECKPOINT_FREQ=1))
    trained.train()
    other = build_trainer(engine_cfg("other", SEED=9))
    other.load_model(str(tmp_path / "run"), epoch=5)
    assert all(torch.equal(a, b) for a, b in zip(trained.model.parameters(), other.model.parameters(), strict=True))
    other.load_model(str(tmp_path / "run"), epoch=2)
    assert not torch.equal(trained.model[2].weight, other.model[2].weight)
    with pytest.raises(UserError, match="No checkpoint at .*model.pth.tar-50"):
        other.load_model(str(tmp_path / "run"), epoch=50)
    wider = build_trainer(engine_cfg(INPUT__SIZE=(8, 8)))
    wider.model[2] = nn.Linear(5, 3)
    with pytest.raises(UserError, match="does not fit this model: .*size mismatch"):
        wider.load_model(str(tmp_path / "run"), epoch=5)
