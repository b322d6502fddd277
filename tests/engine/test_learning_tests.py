"""Tests that learn: their order, what an interrupted one resumes with, domains, and corrupted images."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dassl import stop
from dassl.data.image_order import DomainBatches, ImageOrder
from dassl.engine import build_trainer
from dassl.engine.answering import FILE
from dassl.utils import UserError
from datasets.corruptions import NAMES, corrupt

STREAM = ("DATALOADER.TEST.BATCH_SIZE", 5)
DOMAINS = ("DATASET.CORRUPTIONS", "('fog:3', 'contrast:5')")


def record_of(folder):
    return json.loads((Path(folder) / "results.json").read_text())


@pytest.fixture
def items(make_cfg):
    """Of two domains."""
    return build_trainer(make_cfg("TDA", *DOMAINS)).dm.dataset.test


def test_an_images_draws_depend_on_the_seed_and_its_file_alone(items):
    whole = {(items[i].impath, items[i].domain): i.seed for i in ImageOrder(items, 1, shuffled=True)}
    few = items[3:40:7]
    assert all(whole[few[i].impath, few[i].domain] == i.seed for i in ImageOrder(few, 1, shuffled=False))
    assert not set(whole.values()) & {i.seed for i in ImageOrder(items, 2, shuffled=True)}


def test_a_stream_is_shuffled_within_each_domain_and_no_batch_has_two(items):
    order, other = ([int(i) for i in ImageOrder(items, seed, shuffled=True)] for seed in (1, 2))
    assert sorted(order) == list(range(48)) and order != other
    assert [items[i].domain for i in order] == [0] * 24 + [1] * 24 and order[:24] != sorted(order[:24])
    batches = DomainBatches(ImageOrder(items, 1, shuffled=True), 5)
    assert len(list(batches)) == len(batches) == 10
    assert all(len({items[i].domain for i in batch}) == 1 for batch in batches)


@pytest.mark.parametrize("name", ["TDA", "ZERO"])
def test_a_killed_test_resumes_to_the_same_bits(name, make_cfg, tmp_path, monkeypatch):
    opts = (*STREAM, *DOMAINS) if name == "TDA" else (*STREAM, "TRAINER.ZERO.VIEWS", 12)
    whole = build_trainer(make_cfg(name, *opts, output=tmp_path / "whole"))
    whole.train()
    killed = build_trainer(make_cfg(name, *opts, output=tmp_path / "killed"))
    calls, answer = [], killed.model_inference

    def killing(images):
        calls.append(len(images))
        if len(calls) == 3:
            monkeypatch.setattr(stop, "_signal", 15)
        return answer(images)

    monkeypatch.setattr(killed, "model_inference", killing)
    with pytest.raises(stop.Terminated):
        killed.train()
    monkeypatch.setattr(stop, "_signal", None)
    assert (tmp_path / "killed" / FILE).exists() and not (tmp_path / "killed" / "results.json").exists()
    resumed = build_trainer(make_cfg(name, *opts, "RESUME", str(tmp_path / "killed"), output=tmp_path / "killed"))
    seen, answer = [], resumed.model_inference
    monkeypatch.setattr(resumed, "model_inference", lambda images: seen.append(len(images)) or answer(images))
    torch.rand(3)
    resumed.train()
    records = [record_of(tmp_path / folder) for folder in ("whole", "killed")]
    assert records[0]["metrics"] == records[1]["metrics"] and records[0].get("domains") == records[1].get("domains")
    assert sum(seen) == records[0]["num_test"] - 15
    assert len({(tmp_path / folder / "predictions.csv").read_text() for folder in ("whole", "killed")}) == 1
    assert not (tmp_path / "killed" / FILE).exists()


def test_what_was_answered_before_an_image_that_cannot_be_is_not_lost(make_cfg, tmp_path, monkeypatch):
    trainer, calls = build_trainer(make_cfg("TDA", *STREAM)), []
    answer = trainer.model_inference
    monkeypatch.setattr(trainer, "model_inference", lambda images: calls.append(1) or answer(
        images * float("nan") if len(calls) == 3 else images))
    with pytest.raises(UserError, match="not finite"):
        trainer.train()
    kept = torch.load(tmp_path / "run" / FILE, weights_only=True)
    assert len(kept["answered"]) == 2 and all(part["keys"].isfinite().all() for part in kept["learned"]["parts"])


def test_a_saved_test_of_other_settings_is_left_alone(make_cfg, tmp_path, caplog):
    torch.save({"key": {"config": "another"}, "answered": []}, tmp_path / FILE)
    trainer = build_trainer(make_cfg("TDA", "RESUME", str(tmp_path)))
    trainer.train()
    assert "is of another test" in caplog.text and record_of(tmp_path / "run")["num_test"] == 24


def test_results_name_the_order_and_each_domain_with_and_without_reset(make_cfg, tmp_path):
    records = []
    for reset in (False, True):
        trainer = build_trainer(make_cfg("TDA", *STREAM, *DOMAINS, "TEST.RESET", reset, output=tmp_path / str(reset)))
        states = []
        load = trainer.load_test_state
        trainer.load_test_state = lambda state, load=load, states=states: states.append(state) or load(state)
        trainer.test()
        records.append(record_of(tmp_path / str(reset)))
        assert states == [None] * (1 + reset)
    for record, reset in zip(records, (False, True), strict=True):
        assert record["order_seed"] == 1 and record["learned_at_test_time_from"] == "stream"
        assert list(record["domains"]) == ["fog:3", "contrast:5"] and record["reset_at_each_domain"] is reset
        assert {domain["images"] for domain in record["domains"].values()} == {24} and record["num_test"] == 48
        errors = [domain["error_rate"] for domain in record["domains"].values()]
        assert record["mean_error"] == pytest.approx(sum(errors) / 2)
        assert record["metrics"]["error_rate"] == pytest.approx(record["mean_error"])
    assert records[0]["domains"]["fog:3"] == records[1]["domains"]["fog:3"]


def test_a_stream_is_answered_alike_whatever_its_batches(make_cfg, tmp_path):
    answers = []
    for size in (1, 7):
        trainer = build_trainer(make_cfg("TDA", "DATALOADER.TEST.BATCH_SIZE", size, output=tmp_path / str(size)))
        trainer.set_model_mode("eval")
        trainer.load_test_state(None)
        answers.append(torch.cat([trainer.model_inference(batch["img"]) for batch in trainer.test_loader]))
    torch.testing.assert_close(*answers, rtol=0, atol=1e-5 * float(answers[0].abs().max()))


def test_only_validation_and_test_images_are_corrupted(make_cfg):
    clean, changed = (build_trainer(make_cfg("ZeroshotCLIP", *opts)) for opts in ((), DOMAINS))
    assert [d.impath for d in clean.dm.dataset.train_x] == [d.impath for d in changed.dm.dataset.train_x]
    assert len(changed.dm.dataset.test) == 2 * len(clean.dm.dataset.test)
    first, again = (next(iter(changed.test_loader))["img"] for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, next(iter(clean.test_loader))["img"])


@pytest.mark.parametrize("name", NAMES)
def test_a_corruption_is_stronger_at_a_higher_severity_and_the_same_again(name):
    rng = np.random.RandomState(0)
    for size in (32, 224):
        coarse = Image.fromarray(rng.randint(40, 216, (8, 8, 3), dtype=np.uint8))
        fine = rng.randint(0, 40, (size, size, 3), dtype=np.uint8)
        image = Image.fromarray(np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)) // 2 + 2 * fine)
        change = []
        for severity in (1, 5) if size == 32 or name != "glass_blur" else (5,):
            found = corrupt(image, name, severity, 3)
            assert found.size == image.size and found.mode == "RGB"
            assert severity == 1 or np.array_equal(found, corrupt(image, name, severity, 3))
            change.append(np.abs(np.asarray(found, float) - np.asarray(image, float)).mean())
        assert change[-1] > 0.5
        # The first elastic transforms move pixels the farthest, and frost darkens what it covers.
        assert change[0] <= change[-1] or name in ("elastic_transform", "frost")


@pytest.mark.parametrize(("value", "message"), [
    ("('fogg:3',)", "Did you mean fog"), ("('fog:6',)", "severity from 1 to 5"), ("('fog',)", "severity from 1 to 5"),
    ("('fog:1', 'fog:1')", "twice")])
def test_a_wrong_corruption_is_refused(value, message, make_cfg):
    with pytest.raises(UserError, match=message):
        build_trainer(make_cfg("ZeroshotCLIP", "DATASET.CORRUPTIONS", value))


@pytest.mark.parametrize(("name", "opts", "message"), [
    ("TPT", ("TRAINER.TPT.VIEWS", 1, "TRAINER.TPT.SELECT", 1.0), "VIEWS must be at least 2"),
    ("ZERO", ("TRAINER.ZERO.VIEWS", 1), "VIEWS must be at least 2"),
    ("ZERO", ("TRAINER.ZERO.VIEWS", 3), "selects at least 1"),
    ("TDA", ("TRAINER.TDA.VIEWS", 8), "selects at least 1"),
    ("TDA", ("TRAINER.TDA.SIZE", 7), "room for 28 images of 4 classes, and the stream has 24"),
    ("CTPT", ("TRAINER.CTPT.STEPS", 0), "STEPS must be at least 1")])
def test_settings_that_cannot_work_are_refused(name, opts, message, make_cfg):
    with pytest.raises(UserError, match=message):
        build_trainer(make_cfg(name, *opts))


@pytest.mark.parametrize("name", ["TPT", "ZERO", "TDA"])
def test_one_class_is_refused(name, make_cfg):
    with pytest.raises(UserError, match="at least 2 classes, got 'red square'"):
        build_trainer(make_cfg(name, *(("TRAINER.TDA.SIZE", 1) if name == "TDA" else ()), dataset="ToyOne"))


@pytest.mark.parametrize("name", ["TPT", "ZERO", "TDA"])
def test_scores_that_are_not_finite_are_refused(name, make_cfg):
    trainer = build_trainer(make_cfg(name))
    images = next(iter(trainer.test_loader))["img"][:2]
    with pytest.raises(UserError, match="not finite"):
        trainer.model_inference(images * float("nan"))


def test_tuned_words_start_from_the_run_of_any_coop(make_cfg, tmp_path):
    for number, (name, opts) in enumerate((("CoOp", ("TRAINER.COOP.N_CTX", 3, "TRAINER.COOP.CSC", False)),
                                           ("CoOp", ("TRAINER.COOP.N_CTX", 2, "TRAINER.COOP.CSC", True)),
                                           ("CoCoOp", ("TRAINER.COCOOP.N_CTX", 4)))):
        run = build_trainer(make_cfg(name, *opts, "TEST.NO_TEST", True, output=tmp_path / str(number)))
        run.train()
        trainer = build_trainer(make_cfg("TPT", "MODEL.INIT_WEIGHTS", str(tmp_path / str(number)),
                                         "TRAINER.TPT.LR", 1e-6, output=tmp_path / "tpt"))
        theirs = dict(run.model.prompt_learner.named_parameters())
        for key, value in trainer.model.prompt_learner.named_parameters():
            assert torch.equal(value, theirs[key])
        images = next(iter(trainer.test_loader))["img"][:3, :12]
        together = trainer.model_inference(images)
        alone = torch.cat([trainer.model_inference(image[None]) for image in images])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6 * float(alone.abs().max()))
        plain = run.model(images[:, 0]).logits                                # at that rate next to nothing is tuned
        torch.testing.assert_close(together, plain, rtol=0, atol=1e-2 * float(plain.detach().abs().max()))
