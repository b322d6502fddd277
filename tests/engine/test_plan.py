"""What contradicts a resumed or a short training is refused or reported, and images that no epoch sees are counted."""
import json
import logging

import pytest
import yaml

from dassl.engine import build_trainer
from dassl.utils import UserError


def run(cfg):
    trainer = build_trainer(cfg)
    trainer.train()
    return trainer


def test_a_run_is_not_resumed_with_fewer_epochs_than_it_has(engine_cfg, tmp_path):
    run(engine_cfg("four", OPTIM__MAX_EPOCH=4))
    with pytest.raises(UserError, match="four has trained 4 epochs, and OPTIM.MAX_EPOCH is 1.*--eval-only --model-dir"):
        run(engine_cfg("one", OPTIM__MAX_EPOCH=1, RESUME=str(tmp_path / "four")))
    assert not (tmp_path / "one" / "results.json").exists()


def test_a_finished_run_that_is_resumed_in_another_folder_leaves_its_checkpoint_there(engine_cfg, tmp_path):
    run(engine_cfg("first", OPTIM__MAX_EPOCH=2))
    run(engine_cfg("second", OPTIM__MAX_EPOCH=2, RESUME=str(tmp_path / "first")))
    assert (tmp_path / "second" / "linear" / "model.pth.tar-2").exists()
    assert json.loads((tmp_path / "second" / "results.json").read_text())["epochs"] == 2


def test_more_epochs_than_the_schedule_was_made_for_are_told(engine_cfg, tmp_path, caplog):
    run(engine_cfg("short", OPTIM__MAX_EPOCH=2, OPTIM__LR_SCHEDULER="cosine"))
    (tmp_path / "short" / "config.yaml").write_text(yaml.safe_dump({"OPTIM": {"MAX_EPOCH": 2}}))
    run(engine_cfg("long", OPTIM__MAX_EPOCH=3, OPTIM__LR_SCHEDULER="cosine", RESUME=str(tmp_path / "short")))
    assert "was to train 2 epochs and this run is to train 3" in caplog.text


@pytest.mark.parametrize(("warmup", "told"), [(1, True), (3, True), (0, False)])
def test_a_training_that_is_all_warm_up_is_reported(warmup, told, engine_cfg, caplog):
    run(engine_cfg(OPTIM__MAX_EPOCH=1, OPTIM__WARMUP_EPOCH=warmup, OPTIM__WARMUP_CONS_LR=1e-5))
    assert ("the learning rate begins at 1e-05 and never is" in caplog.text) == told


@pytest.mark.parametrize(("batch", "sampler", "left"), [
    (7, "RandomSampler", 4), (6, "RandomSampler", 0), (7, "SequentialSampler", 4)])
def test_images_in_no_batch_of_an_epoch_are_counted_and_told(batch, sampler, left, engine_cfg, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run(engine_cfg(OPTIM__MAX_EPOCH=1, DATALOADER__TRAIN_X__BATCH_SIZE=batch, DATALOADER__TRAIN_X__SAMPLER=sampler))
    assert json.loads((tmp_path / "run" / "results.json").read_text())["left_out_of_each_epoch"] == left
    told = [r for r in caplog.records if "left out of each epoch" in r.getMessage()]
    assert bool(told) == bool(left)
    if left:
        assert f"18 training images in batches of {batch}: 4 are" in told[0].getMessage()
        assert (told[0].levelno == logging.WARNING) == (sampler == "SequentialSampler")
