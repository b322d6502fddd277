"""Alignment and uniformity: the authors' numbers, slow formulas, and what results.json says of them."""
import json

import pytest
import torch
import torch.nn.functional as F

from dassl.engine import build_trainer
from dassl.metrics.embedding import alignment, alignment_within, measures, uniformity


@pytest.mark.parametrize("alpha", [1, 2])
def test_alignment_and_its_gradient_are_the_authors(golden, alpha):
    theirs = golden("align_uniform")
    x = theirs.tensor("x").requires_grad_()
    value = alignment(x, theirs.tensor("y"), alpha)
    value.backward()
    torch.testing.assert_close(value.detach(), theirs.tensor(f"align_alpha{alpha}"), rtol=1e-5, atol=0)
    torch.testing.assert_close(x.grad, theirs.tensor(f"align_alpha{alpha}_grad_x"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("t", [2, 3])
def test_uniformity_and_its_gradient_are_the_authors(golden, t):
    theirs = golden("align_uniform")
    x = theirs.tensor("x").requires_grad_()
    value = uniformity(x, t)
    value.backward()
    torch.testing.assert_close(value.detach(), theirs.tensor(f"uniform_t{t}"), rtol=1e-5, atol=0)
    torch.testing.assert_close(x.grad, theirs.tensor(f"uniform_t{t}_grad"), rtol=1e-5, atol=1e-6)


def test_alignment_within_classes_is_over_all_pairs_of_a_class():
    x, groups = F.normalize(torch.randn(9, 4), dim=1), torch.tensor([0, 1, 0, 2, 1, 0, 1, 1, 3])
    pairs = [(x[i] - x[j]).square().sum() for i in range(9) for j in range(i) if groups[i] == groups[j]]
    torch.testing.assert_close(alignment_within(x, groups), torch.stack(pairs).mean())
    assert alignment_within(x[:2], torch.tensor([0, 1])) is None


def test_texts_of_a_class_and_the_image_beside_them_are_measured():
    images, labels = F.normalize(torch.randn(5, 4), dim=1), torch.tensor([0, 1, 1, 0, 1])
    texts = F.normalize(torch.randn(3, 2, 4), dim=-1)
    found = measures(images, labels, texts)
    beside = [(images[i] - texts[m, labels[i]]).square().sum() for i in range(5) for m in range(3)]
    within = [(texts[i, c] - texts[j, c]).square().sum() for c in range(2) for i in range(3) for j in range(i)]
    assert found["alignment"]["both"] == pytest.approx(float(torch.stack(beside).mean()), rel=1e-5)
    assert found["alignment"]["texts"] == pytest.approx(float(torch.stack(within).mean()), rel=1e-5)
    assert found["uniformity"]["both"] == pytest.approx(float(uniformity(torch.cat([images, texts.flatten(0, 1)]))))
    assert measures(images, labels, None)["uniformity"]["texts"] is None


@pytest.mark.parametrize("name", ["CoOp", "ProDA", "LinearProbe", "CoCoOp", "TipAdapter"])
def test_results_say_how_test_features_lie(make_cfg, tmp_path, name):
    build_trainer(make_cfg(name)).train()
    found = json.loads((tmp_path / "run" / "results.json").read_text())["embedding"]
    assert found["images"] == 24 and found["uniformity"]["images"] < 0 < found["alignment"]["images"]
    assert (found["alignment"]["both"] is None) == (name in ("LinearProbe", "CoCoOp"))
