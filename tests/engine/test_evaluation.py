"""Results of an evaluation, meters and metrics."""
import logging

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dassl.config import get_cfg_default
from dassl.evaluation import Classification, build_evaluator
from dassl.metrics import compute_accuracy, compute_distance_matrix
from dassl.utils import AverageMeter, MetricMeter, UserError

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


def evaluator(true, pred, lab2cname=None, **test):
    cfg = get_cfg_default()
    for key, value in test.items():
        (cfg if key == "OUTPUT_DIR" else cfg.TEST)[key] = value
    evaluator = build_evaluator(cfg, lab2cname=lab2cname)
    scores = torch.nn.functional.one_hot(torch.tensor(pred), 5).float()
    for part in torch.arange(len(true)).split(7):                       # in batches
        evaluator.process(scores[part], torch.tensor(true)[part])
    return evaluator


@settings(max_examples=30, deadline=None)
@given(pairs)
def test_accuracy_and_macro_f1_are_scikit_learns(pairs):
    sklearn = pytest.importorskip("sklearn.metrics")
    true, pred = map(list, zip(*pairs, strict=True))
    results = evaluator(true, pred).evaluate()
    assert list(results) == ["accuracy", "error_rate", "macro_f1", "ece", "adaptive_ece", "nll"]
    accuracy = 100 * sklearn.accuracy_score(true, pred)
    f1 = 100 * sklearn.f1_score(true, pred, average="macro", labels=np.unique(true))
    assert list(results.values())[:3] == pytest.approx([accuracy, 100 - accuracy, f1], abs=1e-9)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs)
def test_the_confusion_matrix_is_scikit_learns(tmp_path, pairs):
    sklearn = pytest.importorskip("sklearn.metrics")
    true, pred = map(list, zip(*pairs, strict=True))
    evaluator(true, pred, OUTPUT_DIR=str(tmp_path), COMPUTE_CMAT=True).evaluate()
    saved = torch.load(tmp_path / "cmat.pt", weights_only=False)
    np.testing.assert_allclose(np.asarray(saved), sklearn.confusion_matrix(true, pred, normalize="true"), atol=1e-12)


def test_result_lines_are_dassls(caplog):
    caplog.set_level(logging.INFO)
    true = [0] * 1000 + [1] * 234
    pred = [0] * 900 + [1] * 334
    evaluator(true, pred).evaluate()
    assert caplog.messages[0] == ("=> result\n* total: 1,234\n* correct: 1,134\n* accuracy: 91.9%\n* error: 8.1%\n"
                                  "* macro_f1: 88.6%")
    assert len(caplog.messages) == 2 and caplog.messages[1].startswith("Calibration: ECE ")


def test_results_per_class_are_dassls_lines_and_their_mean(caplog):
    caplog.set_level(logging.INFO)
    names = {0: "ant", 1: "bee", 2: "cat"}
    results = evaluator([0, 0, 0, 0, 2], [0, 0, 0, 1, 1], names, PER_CLASS_RESULT=True).evaluate()
    assert results["perclass_accuracy"] == pytest.approx(37.5)
    lines = caplog.messages[1].split("\n")
    assert lines == ["=> per-class result", "* class: 0 (ant)\ttotal: 4\tcorrect: 3\tacc: 75.0%",
                     "* class: 2 (cat)\ttotal: 1\tcorrect: 0\tacc: 0.0%", "* average: 37.5%"]
    with pytest.raises(UserError, match="PER_CLASS_RESULT needs the class names"):
        evaluator([0], [0], None, PER_CLASS_RESULT=True)


@settings(max_examples=20, deadline=None)
@given(classes=st.integers(2, 9), seed=st.integers(0, 99))
def test_top5_is_told_of_more_than_five_classes_and_accuracies_of_every_class_always(classes, seed):
    g = torch.Generator().manual_seed(seed)
    scores, labels = torch.rand(30, classes, generator=g), torch.randint(classes, (30,), generator=g)
    names = {label: f"class {min(label, 3)}" for label in range(classes)}           # 3 and all above share a name
    e = build_evaluator(get_cfg_default(), lab2cname=names)
    for part in torch.arange(30).split(7):
        e.process(scores[part], labels[part])
    results = e.evaluate()
    assert ("top5" in results) == (classes > 5)
    if classes > 5:
        assert results["top5"] == pytest.approx(compute_accuracy(scores, labels, topk=(5,))[0].item(), abs=1e-4)
    hits = {label: 100 * (scores.argmax(1)[labels == label] == label).double().mean().item()
            for label in labels.unique().tolist()}
    shared = [label for label in hits if label >= 3]
    assert e.per_class == pytest.approx({names[label] if label < 3 or len(shared) == 1 else f"class 3 ({label})": value
                                         for label, value in hits.items()})
    e.reset()
    assert e.per_class == {}


def test_a_tuple_counts_by_its_first_item_and_reset_forgets():
    e = evaluator([0], [1])
    e.reset()
    with pytest.raises(UserError, match="Nothing was evaluated"):
        e.evaluate()
    e.process((torch.tensor([[0.0, 1.0]]), "features"), torch.tensor([1]))
    assert e.evaluate()["accuracy"] == 100


def test_an_unknown_evaluator_is_told_with_the_nearest():
    with pytest.raises(UserError, match="'Clasification'.*Classification"):
        evaluator([0], [0], EVALUATOR="Clasification")


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 9), classes=st.integers(1, 6), ks=st.lists(st.integers(1, 8), min_size=1, max_size=3),
       seed=st.integers(0, 99))
def test_top_k_accuracy_counts_labels_among_the_k_highest_scores(n, classes, ks, seed):
    g = torch.Generator().manual_seed(seed)
    scores, labels = torch.rand(n, classes, generator=g), torch.randint(classes, (n,), generator=g)
    shares = [sum(label in sorted(range(classes), key=lambda c: -row[c])[:k]
                  for row, label in zip(scores.tolist(), labels.tolist(), strict=True)) / n * 100 for k in ks]
    got = compute_accuracy((scores, None), labels, topk=tuple(ks))
    assert [v.item() for v in got] == pytest.approx(shares, rel=1e-6)
    assert all(v.shape == (1,) for v in got)


def test_distances_are_the_literal_ones():
    a, b = torch.randn(4, 3), torch.randn(5, 3)
    for metric, literal in (("euclidean", lambda x, y: ((x - y) ** 2).sum()),
                            ("cosine", lambda x, y: 1 - x @ y / x.norm() / y.norm())):
        expected = torch.stack([torch.stack([literal(x, y) for y in b]) for x in a])
        torch.testing.assert_close(compute_distance_matrix(a, b, metric), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="got 'manhattan'"):
        compute_distance_matrix(a, b, "manhattan")


@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(1, 5)), min_size=1, max_size=10))
def test_an_average_meter_weighs_values_by_their_counts(updates):
    meter = AverageMeter()
    for value, n in updates:
        meter.update(torch.tensor(value, dtype=torch.float64), n)
    values = [v for v, n in updates for _ in range(n)]
    assert meter.avg == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert (meter.val, meter.count) == (updates[-1][0], len(values))


def test_an_exponential_meter_weighs_the_latest_by_a_tenth():
    meter = AverageMeter(ema=True)
    for value in (10, 20):
        meter.update(value)
    assert meter.avg == pytest.approx(0.9 * (0.1 * 10) + 0.1 * 20)


def test_a_metric_meter_prints_value_and_average_by_name():
    meter = MetricMeter()
    meter.update({"loss": 1.0, "acc": torch.tensor([50.0])})
    meter.update({"loss": 2.0})
    meter.update(None)
    assert str(meter) == "loss 2.0000 (1.5000) acc 50.0000 (50.0000)"
    with pytest.raises(TypeError, match="got float"):
        meter.update(1.0)


def test_a_subclass_finds_labels_and_counts_where_dassl_has_them(engine_cfg):
    class Halved(Classification):
        def evaluate(self):
            results = super().evaluate()
            wrong = [(t, p) for t, p in zip(self._y_true, self._y_pred, strict=True) if t != p]
            return {**results, "wrong": wrong, "share": self._correct / self._total}

    evaluator = Halved(engine_cfg())
    for labels in ([0, 1], [1]):
        evaluator.process(torch.eye(2)[[0] * len(labels)], torch.tensor(labels))
    results = evaluator.evaluate()
    assert results["wrong"] == [(1, 0), (1, 0)] and results["share"] == 1 / 3 and results["accuracy"] == 100 / 3
    evaluator.reset()
    assert evaluator._total == evaluator._correct == 0 and evaluator._y_true == []


def test_a_subclass_sets_its_attributes_after_the_constructor_and_counts_as_dassl_does(engine_cfg):
    class OfFeatures(Classification):
        """Other arguments, and lines of Dassl's process and evaluate."""

        def __init__(self, cfg, lab2cname=None, **kwargs):
            super().__init__(cfg, lab2cname)
            self.features = []

        def reset(self):
            self.features.clear()
            super().reset()

        def process(self, mo, gt, features):
            super().process(mo, gt)
            self.features.extend(features)
            if self._per_class_res is not None:
                self._per_class_res[5].append(0)

        def evaluate(self, scale):
            if self._per_class_res is None:
                return {"accuracy": scale * self._correct}
            return {label: scale * sum(right) / len(right) for label, right in self._per_class_res.items()}

    for per_class, expected in ((False, {"accuracy": 4}), (True, {0: 2.0, 1: 1.0, 5: 0.0})):
        evaluator = OfFeatures(engine_cfg(TEST__PER_CLASS_RESULT=per_class), {0: "odd", 1: "even"})
        evaluator.reset()
        evaluator.process(torch.eye(2)[[0, 0, 1]], torch.tensor([0, 1, 1]), [1, 2, 3])
        assert evaluator.evaluate(2) == expected and evaluator.features == [1, 2, 3]
