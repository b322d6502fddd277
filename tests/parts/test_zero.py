"""ZERO's votes against counting by hand, and C-TPT's penalty against its formula."""
import pytest
import torch

from trainers.parts.losses import dispersion
from trainers.zero import votes


def slow_literal(logits, share):
    """The winner of one image's views (V, C), and the shares of votes."""
    p = logits.softmax(-1)
    ranked = sorted(range(len(p)), key=lambda v: float(-(p[v] * p[v].log()).sum()))
    k = int(len(p) * share)
    counts = [sum(int(p[v].argmax()) == c for v in ranked[:k]) for c in range(p.shape[1])]
    tied = [c for c, n in enumerate(counts) if n == max(counts)]
    winner = next((int(p[v].argmax()) for v in ranked[k:] if int(p[v].argmax()) in tied), tied[0])
    return winner if len(tied) > 1 else tied[0], torch.tensor(counts) / k


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_the_most_confident_views_vote_and_the_next_ones_break_ties(share):
    torch.manual_seed(0)
    logits, ties = 3 * torch.randn(200, 20, 3), 0
    ours = votes(logits, share)
    for row, views in zip(ours, logits):
        winner, shares = slow_literal(views, share)
        assert int(row.argmax()) == winner
        torch.testing.assert_close(row.softmax(-1), shares, rtol=0, atol=2e-4)
        ties += int((shares == shares.max()).sum() > 1)
    assert ties > 10


def test_dispersion_is_the_mean_distance_from_the_mean():
    features = torch.randn(2, 5, 7)
    slow = [[float(((f - c.mean(0)) ** 2).sum().sqrt()) for f in c] for c in features]
    torch.testing.assert_close(dispersion(features), torch.tensor(slow).mean(1))
