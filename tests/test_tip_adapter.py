"""TipAdapter and TipAdapterF as trainers: their cache, where alpha and beta are chosen and that the record says so, and
that the tower runs once per view."""
import json

import pytest
import torch
import torch.nn.functional as F

from dassl.engine import build_trainer
from dassl.utils import UserError
from trainers.cached_features import CachedFeatures

SECTION = "TRAINER.TIPADAPTER."


pytestmark = pytest.mark.usefixtures("own_cache")


def test_keys_are_means_of_random_crops_normalised_once(make_cfg):
    trainer = build_trainer(make_cfg("TipAdapter", SECTION + "CROPS", 3, "TEST.NO_TEST", True))
    trainer.train()
    views = torch.stack([trainer.train_features.view(i) for i in range(3)])
    torch.testing.assert_close(trainer.model.head.keys.detach(), F.normalize(views.mean(0), dim=-1))
    assert torch.equal(trainer.model.head.values.argmax(1), trainer.train_features.labels)


def test_every_epoch_trains_on_a_view_of_its_own_and_a_second_training_runs_no_tower(make_cfg, towers):
    opts = SECTION + "CROPS", 2, SECTION + "SELECT", "fixed", "OPTIM.MAX_EPOCH", 3, "TEST.NO_TEST", True
    trainer = build_trainer(make_cfg("TipAdapterF", *opts))
    seen, step = [], trainer.forward_backward
    trainer.forward_backward = lambda batch: seen.append(batch) or step(batch)
    trainer.train()
    assert sum(towers) == (2 + 3) * 16 and len(seen) == 3 * 2
    for epoch in range(3):
        rows = torch.cat([batch["img"] for batch in seen[2 * epoch:2 * epoch + 2]])
        view = trainer.train_features.view(2 + epoch)
        assert sorted(rows.tolist()) == sorted(view.tolist())
    build_trainer(make_cfg("TipAdapterF", *opts)).train()
    assert sum(towers) == (2 + 3) * 16


def test_an_interrupted_training_of_keys_resumes_to_the_same_keys(make_cfg, tmp_path):
    def trained(folder, *opts):
        settings = SECTION + "SELECT", "test", "OPTIM.LR", 0.05, "OPTIM.MAX_EPOCH", 4, "TRAIN.CHECKPOINT_FREQ", 1
        return build_trainer(make_cfg("TipAdapterF", "TEST.NO_TEST", True, *settings, *opts, output=tmp_path / folder))

    whole = trained("whole")
    whole.train()
    part = trained("part")
    after = part.after_epoch

    class Stop(Exception):
        pass

    def stop():
        after()
        if part.epoch == 1:
            raise Stop

    part.after_epoch = stop
    with pytest.raises(Stop):
        part.train()
    resumed = trained("part", "RESUME", str(tmp_path / "part"))
    resumed.train()
    assert resumed.start_epoch == 2
    for a, b in zip(whole.model.head.state_dict().values(), resumed.model.head.state_dict().values()):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["TipAdapter", "TipAdapterF"])
@pytest.mark.parametrize(("select", "words"), [("val", "on the validation images"), ("test", "on the test images"),
                                               ("fixed", "nothing was selected on the test split")])
def test_the_record_says_on_which_images_was_chosen(name, select, words, make_cfg, tmp_path, caplog):
    trainer = build_trainer(make_cfg(name, SECTION + "SELECT", select, SECTION + "ALPHA", 2.0))
    trainer.train()
    said = json.loads((tmp_path / "run" / "results.json").read_text())["model_selection"]
    assert words in said and ("the epoch, alpha" in said) == (select == "test" and name == "TipAdapterF")
    assert (trainer.model.head.alpha.item() == 2.0) == (select == "fixed")
    assert any("test images" in r.message for r in caplog.records if r.levelname == "WARNING") == (select == "test")


def test_the_epoch_is_chosen_on_the_test_images_where_asked(make_cfg, tmp_path):
    trainer = build_trainer(make_cfg("TipAdapterF", SECTION + "SELECT", "test", "OPTIM.MAX_EPOCH", 4, "OPTIM.LR", 0.3,
                                     "TEST.NO_TEST", True))
    features, labels = CachedFeatures(trainer, "test").view(), CachedFeatures(trainer, "test").labels
    epochs, after = [], trainer.compare_with_best

    def judged():
        with torch.no_grad():
            logits = trainer.model.compare(F.normalize(features, dim=-1)).logits
        epochs.append(((logits.argmax(1) == labels).sum().item(), trainer.model.head.keys.detach().clone()))
        after()

    trainer.compare_with_best = judged
    trainer.train()
    best = max(right for right, _ in epochs)
    expected = next(keys for right, keys in epochs if right == best)
    assert len(epochs) == 4 and torch.equal(trainer.model.head.keys, expected)


def test_a_class_without_images_is_named(make_cfg):
    trainer = build_trainer(make_cfg("TipAdapter"))
    trainer.dm.dataset._train_x = [item for item in trainer.dm.dataset.train_x if item.label != 2]
    with pytest.raises(UserError, match=r"classes \[2\] have none"):
        trainer.train()


@pytest.mark.parametrize(("key", "value", "words"), [
    (SECTION + "SELECT", "train", "got 'train'"), (SECTION + "CROPS", 0, "got 0"), (SECTION + "ALPHA_MAX", 0.1, "0.1"),
    ("TEST.FINAL_MODEL", "best_val", "last_step")])
def test_what_does_not_fit_is_refused(key, value, words, make_cfg):
    with pytest.raises(UserError, match=words):
        build_trainer(make_cfg("TipAdapterF", key, value))
