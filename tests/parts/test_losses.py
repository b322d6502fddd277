"""DAPT's two losses against their formulas, written as loops."""
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clip import InputError
from trainers.parts.losses import inter_dispersion, intra_dispersion
from trainers.parts.prototypes import class_prototypes


@settings(deadline=None, max_examples=25)
@given(C=st.integers(2, 9), t=st.floats(0.1, 5), seed=st.integers(0, 99))
def test_inter_dispersion_is_the_mean_gaussian_similarity_of_pairs(C, t, seed):
    w = F.normalize(torch.randn(C, 6, generator=torch.Generator().manual_seed(seed)), dim=-1)
    pairs = [math.exp(-t * float(((w[i] - w[j]) ** 2).sum())) for i in range(C) for j in range(i + 1, C)]
    assert inter_dispersion(w, t).item() == pytest.approx(sum(pairs) / len(pairs), rel=1e-4)


@given(C=st.integers(2, 8), scale=st.floats(1.1, 10))
@settings(deadline=None, max_examples=25)
def test_inter_dispersion_is_smaller_when_classes_move_apart(C, scale):
    w = torch.randn(C, 5, generator=torch.Generator().manual_seed(C)) * 0.3
    assert inter_dispersion(w * scale, 1.0) < inter_dispersion(w, 1.0)


def test_one_class_cannot_be_spread_apart():
    with pytest.raises(InputError, match="at least 2, got 1"):
        inter_dispersion(torch.ones(1, 4))


def test_intra_dispersion_averages_over_images_and_coordinates():
    z, s = torch.randn(3, 8), torch.randn(3, 8)
    by_hand = sum(float(z[b, d] - s[b, d]) ** 2 for b in range(3) for d in range(8)) / 24
    assert intra_dispersion(z, s).item() == pytest.approx(by_hand, rel=1e-5)


def test_prototypes_are_plain_means_that_are_not_normalised_again(tiny_clip):
    images, labels = torch.randn(6, 3, 32, 32), torch.tensor([1, 0, 1, 1, 0, 1])
    features = tiny_clip.encode_image(images)
    ours = class_prototypes(tiny_clip, [(images[:4], labels[:4]), (images[4:], labels[4:])], 2)
    theirs = torch.stack([features[labels == c].mean(0) for c in (0, 1)])
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert (ours.norm(dim=-1) < 1).all()


def test_a_class_without_an_image_has_no_prototype(tiny_clip):
    with pytest.raises(InputError, match=r"classes \[2\] have none \(1 of 3\)"):
        class_prototypes(tiny_clip, [(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))], 3)
