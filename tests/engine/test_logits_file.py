"""logits.npz: what TEST.SAVE_LOGITS leaves of a test."""
import json

import numpy as np
import pytest

from dassl.engine import build_trainer


def test_logits_labels_paths_and_features_give_the_recorded_numbers(make_cfg, tmp_path):
    trainer = build_trainer(make_cfg("CoOp", "TEST.SAVE_LOGITS", "True"))
    trainer.train()
    arrays = np.load(tmp_path / "run" / "logits.npz")
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    logits, labels = arrays["logits"].astype(np.float64), arrays["labels"]
    assert list(arrays["paths"]) == [item.impath for item in trainer.dm.dataset.test]
    assert list(arrays["classnames"]) == trainer.dm.dataset.classnames
    assert 100 * (logits.argmax(1) == labels).mean() == pytest.approx(record["metrics"]["accuracy"])
    log = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True)) - logits.max(
        1, keepdims=True)
    assert -log[np.arange(len(labels)), labels].mean() == pytest.approx(record["metrics"]["nll"], abs=1e-5)
    hits = {name: 100 * (logits.argmax(1)[labels == i] == i).mean() for i, name in enumerate(arrays["classnames"])
            if (labels == i).any()}
    assert record["per_class"] == pytest.approx(hits)
    features = arrays["features"]
    assert features.ndim == 2 and len(features) == len(labels)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-4)


def test_without_the_option_and_during_training_there_is_no_file(make_cfg, tmp_path):
    trainer = build_trainer(make_cfg("CoOp", "TEST.SAVE_LOGITS", "True"))
    trainer.before_train()
    trainer.test()
    trainer.close_writer()
    assert not (tmp_path / "run" / "logits.npz").exists()
