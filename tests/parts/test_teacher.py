"""The frozen teacher's features are the authors', and a student must be comparable with it."""
import pytest
import torch
import torch.nn.functional as F

from clip import InputError, encode_texts
from clip.templates import IMAGENET_60
from trainers.parts.classes import Classes
from trainers.parts.teacher import cosine_distance, mean_text_features


def test_the_mean_over_60_templates_is_promptsrcs(tiny_clip, golden):
    theirs = golden("promptsrc")
    ours = mean_text_features(tiny_clip, Classes(theirs.classnames), IMAGENET_60, normalise_each=False)
    torch.testing.assert_close(ours, F.normalize(theirs.tensor("fixed_embeddings"), dim=-1), rtol=0, atol=1e-6)


def test_without_templates_the_datasets_own_sentence_counts_alone(tiny_clip):
    classes = Classes(["red_dot", "cat"], "a {}, painted.")
    theirs = encode_texts(tiny_clip, ["a red dot, painted.", "a cat, painted."])
    for normalise_each in (True, False):
        ours = mean_text_features(tiny_clip, classes, normalise_each=normalise_each)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_the_cosine_distance_is_one_minus_the_mean_cosine():
    a, b = (F.normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    assert cosine_distance(a, b).item() == pytest.approx(1 - sum(float(x @ y) for x, y in zip(a, b)) / 5, abs=1e-6)
    assert cosine_distance(a, a).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", [(4, 8), (5, 16)])
def test_a_teacher_of_other_classes_or_width_is_refused(shape):
    with pytest.raises(InputError, match=rf"\(5, 8\), the teacher's \({shape[0]}, {shape[1]}\)"):
        cosine_distance(torch.zeros(5, 8), torch.zeros(shape))
