"""Calibration against slow formulas."""
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.config import get_cfg_default
from dassl.evaluation import Classification
from dassl.metrics.calibration import adaptive_ece, best_temperature, ece, measures, reliability

confidences = st.one_of(st.floats(0, 1), st.sampled_from([0, 1 / 3, 0.2, 1]))
answers = st.lists(st.tuples(confidences, st.booleans()), min_size=1, max_size=60)


def split(pairs):
    confidence, correct = zip(*pairs, strict=True)
    return torch.tensor(confidence, dtype=torch.float64), torch.tensor(correct)


@settings(max_examples=50, deadline=None)
@given(answers)
def test_errors_over_equal_widths_are_the_papers_formula(pairs):
    """Guo et al., equation 3: bin m holds the confidences in ((m - 1) / 15, m / 15]."""
    total, edges = 0.0, torch.linspace(0, 1, 16, dtype=torch.float64).tolist()
    for m in range(15):
        own = [p for p in pairs if edges[m] < p[0] <= edges[m + 1] or (m == 0 and p[0] == 0)]
        if own:
            total += abs(sum(right for _, right in own) / len(own) - sum(c for c, _ in own) / len(own)) * len(own)
    assert ece(*split(pairs)) == pytest.approx(total / len(pairs), abs=1e-9)
    assert sum(b.count for b in reliability(*split(pairs))) == len(pairs)


@settings(max_examples=50, deadline=None)
@given(answers)
def test_errors_over_equal_counts_are_those_of_the_sorted_answers(pairs):
    ordered, at, total = sorted(pairs), 0, 0.0
    for m in range(15):
        size = len(pairs) // 15 + (m < len(pairs) % 15)
        own, at = ordered[at:at + size], at + size
        total += abs(sum(right for _, right in own) - sum(c for c, _ in own))
    assert adaptive_ece(*split(pairs)) == pytest.approx(total / len(pairs), abs=1e-9)
    shuffled = list(reversed(pairs))
    assert adaptive_ece(*split(shuffled)) == pytest.approx(adaptive_ece(*split(pairs)), abs=1e-12)


def test_the_evaluator_measures_what_its_scores_say_whatever_the_batches():
    torch.manual_seed(0)
    scores, labels = 3 * torch.randn(50, 4), torch.randint(4, (50,))
    evaluator = Classification(get_cfg_default())
    for part in torch.arange(50).split(16):
        evaluator.process(scores[part], labels[part])
    found = evaluator.evaluate()
    shares = scores.double().exp() / scores.double().exp().sum(1, keepdim=True)
    confidence, guess = shares.max(1)
    nll = -sum(math.log(shares[i, labels[i]]) for i in range(50)) / 50
    expected = measures(confidence, guess == labels, torch.tensor([nll]))
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_an_evaluator_that_saw_no_scores_measures_no_calibration():
    class Own(Classification):
        def process(self, mo, gt):
            self._total, self._y_true, self._y_pred = self._total + 1, self._y_true + [0], self._y_pred + [0]

    own = Own(get_cfg_default())
    own.process(None, None)
    assert list(own.evaluate()) == ["accuracy", "error_rate", "macro_f1"]


@pytest.mark.parametrize("true", [0.05, 1.0, 7.0])
def test_the_temperature_is_the_one_of_least_loss(true):
    torch.manual_seed(1)
    logits = torch.randn(4000, 5)
    labels = torch.multinomial(logits.softmax(1), 1).squeeze(1)
    found = best_temperature(logits * true, labels)
    loss = [F.cross_entropy(logits.double() * true / t, labels) for t in (found * 0.999, found, found * 1.001)]
    assert found == pytest.approx(true, rel=0.1) and loss[1] == min(loss)
