"""Metrics against scikit-learn and against slow formulas; Dassl's result lines to the letter."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score

from dassl.config import get_cfg_default, merge_opts
from dassl.evaluation import build_evaluator
from dassl.metrics import compute_accuracy, compute_distance_matrix
from dassl.utils import UserError


def evaluator(tmp_path, *opts):
    cfg = get_cfg_default()
    merge_opts(cfg, ["OUTPUT_DIR", str(tmp_path), *opts])
    return build_evaluator(cfg, lab2cname={i: f"class{i}" for i in range(20)})


def feed(judge, true, pred, classes=20, batch=7):
    logits = torch.eye(classes)[torch.tensor(pred)]
    for i in range(0, len(true), batch):
        judge.process(logits[i : i + batch], torch.tensor(true[i : i + batch]))
    return judge.evaluate()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 8)), min_size=1, max_size=60))
def test_accuracy_error_and_macro_f1_are_scikit_learns(tmp_path_factory, pairs):
    true, pred = map(list, zip(*pairs))
    results = feed(evaluator(tmp_path_factory.getbasetemp()), true, pred)
    accuracy = 100 * np.mean(np.equal(true, pred))
    assert list(results) == ["accuracy", "error_rate", "macro_f1"]
    assert results["accuracy"] == pytest.approx(accuracy)
    assert results["error_rate"] == pytest.approx(100 - accuracy)
    theirs = 100 * f1_score(true, pred, average="macro", labels=np.unique(true))
    assert results["macro_f1"] == pytest.approx(theirs, abs=1e-9)


def test_results_stand_in_the_log_as_dassl_prints_them(tmp_path, caplog):
    true, pred = [0] * 1000 + [1] * 234, [0] * 900 + [1] * 334
    with caplog.at_level(logging.INFO):
        feed(evaluator(tmp_path), true, pred)
    assert (
        "=> result\n* total: 1,234\n* correct: 1,134\n* accuracy: 91.9%\n* error: 8.1%\n* macro_f1: 88.6%"
        in caplog.text
    )


def test_results_per_class_are_listed_with_their_mean(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        results = feed(evaluator(tmp_path, "TEST.PER_CLASS_RESULT", True), [3, 3, 3, 5], [3, 3, 4, 5])
    assert "=> per-class result" in caplog.text
    assert "* class: 3 (class3)\ttotal: 3\tcorrect: 2\tacc: 66.7%" in caplog.text
    assert "* class: 5 (class5)\ttotal: 1\tcorrect: 1\tacc: 100.0%" in caplog.text
    assert "* average: 83.3%" in caplog.text
    assert results["perclass_accuracy"] == pytest.approx(100 * (2 / 3 + 1) / 2)


def test_the_confusion_matrix_is_scikit_learns_normalised_by_row(tmp_path):
    rng = np.random.RandomState(0)
    true, pred = rng.randint(0, 5, 60).tolist(), rng.randint(0, 6, 60).tolist()
    feed(evaluator(tmp_path, "TEST.COMPUTE_CMAT", True), true, pred)
    ours = torch.load(tmp_path / "cmat.pt", weights_only=True)
    np.testing.assert_allclose(ours.numpy(), confusion_matrix(true, pred, normalize="true"))


def test_a_tuple_is_judged_by_its_first_item_and_reset_forgets(tmp_path):
    judge = evaluator(tmp_path)
    judge.process((torch.eye(3), "features"), torch.tensor([0, 0, 0]))
    judge.reset()
    judge.process((torch.eye(3), "features"), torch.tensor([0, 1, 2]))
    assert judge.evaluate()["accuracy"] == 100


def test_an_empty_evaluation_and_an_unknown_evaluator_are_user_errors(tmp_path):
    with pytest.raises(UserError):
        evaluator(tmp_path).evaluate()
    with pytest.raises(UserError, match="Classification"):
        evaluator(tmp_path, "TEST.EVALUATOR", "Clasification")


@given(st.integers(1, 9), st.integers(2, 7), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_top_k_accuracy_counts_labels_among_the_k_best(B, C, rng):
    logits = torch.tensor([rng.sample(range(C), C) for _ in range(B)]).float()  # no ties
    label = torch.tensor([rng.randrange(C) for _ in range(B)])
    ks = tuple(range(1, C + 1))
    for output in (logits, (logits, None), [logits]):
        found = compute_accuracy(output, label, topk=ks)
        for k, value in zip(ks, found):
            slow = sum(int(label[b]) in sorted(range(C), key=lambda c: -logits[b, c])[:k] for b in range(B))
            assert value.shape == (1,) and value.item() == pytest.approx(100 * slow / B, abs=1e-4)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_equal_the_formula_pair_by_pair(metric):
    a, b = torch.randn(4, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    for i, row in enumerate(compute_distance_matrix(a, b, metric)):
        for j, value in enumerate(row):
            slow = (
                ((a[i] - b[j]) ** 2).sum() if metric == "euclidean" else 1 - a[i] @ b[j] / (a[i].norm() * b[j].norm())
            )
            torch.testing.assert_close(value, slow)
