"""The procedural shapes: named attributes, held-out combinations, and shifts that change what they say and no more."""
import itertools

import numpy as np
import pytest
from PIL import Image
from yacs.config import CfgNode

from datasets import shapes as module
from datasets.embedded import held_out_combinations, shape_combinations, shape_images
from datasets.rendering import COLOURS, SHAPES, SHIFTS, TEXTURES, render_shapes, resize
from datasets.shapes import Shapes, ShapesRecoloured


def make_cfg(root, shots=-1):
    dataset = {"ROOT": str(root), "NUM_SHOTS": shots, "SUBSAMPLE_CLASSES": "all"}
    return CfgNode({"SEED": 1, "DATASET": dataset})


@pytest.fixture(autouse=True, scope="module")
def _one_class_is_drawn():
    """Drawing all of them takes as long as the rest of this file ten times."""
    with pytest.MonkeyPatch.context() as patch:
        draw = Shapes._draw
        patch.setattr(Shapes, "_draw", lambda dataset: itertools.islice(draw(dataset), 80))
        yield draw


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Shapes(make_cfg(tmp_path_factory.mktemp("shapes_root")))


def test_classes_are_48_combinations_with_every_attribute_in_use(dataset):
    assert dataset.num_classes == len(set(dataset.classnames)) == 48
    for name in dataset.classnames:
        kind = dataset.attributes[name]
        assert name == f"{kind['colour']} {kind['texture']} {kind['shape']}"
    for attribute, words in (("shape", SHAPES), ("colour", tuple(COLOURS)), ("texture", TEXTURES)):
        counts = [sum(kind[attribute] == word for kind in dataset.attributes.values()) for word in words]
        assert set(counts) == {48 // len(words)}


def test_a_third_of_the_classes_is_held_out_of_pretraining_and_all_their_words_occur_elsewhere(dataset):
    assert len(dataset.held_out) == 16 and set(dataset.held_out) < set(dataset.classnames)
    others = set(shape_combinations()) - set(held_out_combinations())
    for s, c, t in held_out_combinations():
        assert any(o[0] == s for o in others) and any(o[1] == c for o in others) and any(o[2] == t for o in others)


def test_there_are_20_train_10_val_and_50_test_images_per_class(dataset):
    assert [len(part) // 48 for part in (dataset.train_x, dataset.val, dataset.test)] == [20, 10, 50]
    paths = {item.impath for part in (dataset.train_x, dataset.val, dataset.test) for item in part}
    assert len(paths) == 48 * 80
    assert np.array(Image.open(dataset.test[0].impath)).shape == (64, 64, 3)


def test_every_image_that_is_listed_is_drawn(dataset, _one_class_is_drawn, monkeypatch):
    monkeypatch.setattr(module, "shape_images", lambda combination, shift: np.zeros((80, 1, 1, 3), np.uint8))
    listed = {"/".join(item.impath.split("/")[-2:]) for part in (dataset.train_x, dataset.val, dataset.test)
              for item in part}
    assert {name for name, _ in _one_class_is_drawn(dataset)} == listed


@pytest.mark.parametrize("shift", SHIFTS)
def test_images_are_the_same_at_every_call_and_differ_between_shifts(shift):
    combination = shape_combinations()[5]
    images = shape_images(combination, shift)
    np.testing.assert_array_equal(images, shape_images(combination, shift))
    assert images.shape == (80, 64, 64, 3) and images.dtype == np.uint8
    if shift != "none":
        assert abs(images.astype(int) - shape_images(combination)).mean() > 5


def test_recoloured_changes_the_background_and_not_the_shape():
    n = np.zeros(20, int)
    drawn = [render_shapes(np.random.RandomState(3), n, n, n, background=n + b, noise=0.0) for b in (0, 2, 7)]
    same = (drawn[0] == drawn[1]).all(-1) & (drawn[0] == drawn[2]).all(-1)  # (20, 64, 64): the inside
    assert 0.05 < same.mean() < 0.6
    inside = drawn[0][same].mean(0)
    np.testing.assert_allclose(inside, COLOURS["red"], atol=0.05)


def test_a_recoloured_background_never_has_the_colour_that_the_label_names():
    for combination in shape_combinations()[::7]:
        corners = shape_images(combination, "recoloured")[:, 0, 0] / 255
        own = np.array(list(COLOURS.values()))[combination[1]]
        distance = abs(corners[:, None] - np.array(list(COLOURS.values()))).sum(-1)
        assert (distance.argmin(1) != combination[1]).mean() > 0.9 and own.shape == (3,)


def test_variants_have_the_classes_and_the_split_of_shapes(dataset, tmp_path):
    variant = ShapesRecoloured(make_cfg(tmp_path, shots=2))
    assert variant.classnames == dataset.classnames and len(variant.train_x) == 96
    assert [i.impath.split("/")[-2:] for i in variant.test] == [i.impath.split("/")[-2:] for i in dataset.test]
    shifts = [getattr(module, name).shift for name in dir(module) if name.startswith("Shapes")]
    assert sorted(shifts) == sorted(SHIFTS)


def test_resize_is_pillows_bicubic():
    image = np.random.RandomState(0).uniform(size=(8, 8)).astype(np.float32)
    expected = np.array(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(resize(image[None], 32)[0], expected, atol=1e-5)
