"""Transforms: torchvision's numbers, Dassl's names and order, torch's stream."""
import random

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.data import DatasetWrapper
from dassl.data.datasets import build_dataset
from dassl.data.transforms import AVAI_CHOICES, build_transform
from dassl.data.transforms.randaugment import RANDAUGMENT
from dassl.utils import UserError

SIZE = 8            # pixels, of engine_cfg


def picture(width=40, height=24):
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("word, filter", [("bicubic", Image.Resampling.BICUBIC),
                                          ("bilinear", Image.Resampling.BILINEAR)])
@pytest.mark.parametrize("size", [(40, 24), (24, 40), (17, 17)])
def test_the_test_transform_resizes_the_short_side_and_crops_the_centre(engine_cfg, word, filter, size):
    cfg = engine_cfg(INPUT__INTERPOLATION=word)
    image, (width, height) = picture(*size), size
    short = min(size)
    new = tuple(SIZE if side == short else int(SIZE * side / short) for side in (width, height))
    left, top = round((new[0] - SIZE) / 2), round((new[1] - SIZE) / 2)
    crop = image.resize(new, filter).crop((left, top, left + SIZE, top + SIZE))
    pixels = torch.tensor(np.asarray(crop)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD))
    torch.testing.assert_close(build_transform(cfg, is_train=False)(image), (pixels - mean) / std, atol=1e-6, rtol=1e-6)


def test_pixels_are_normalised_only_when_asked(engine_cfg):
    plain = build_transform(engine_cfg(INPUT__TRANSFORMS=()), is_train=False)(picture())
    assert 0 <= plain.min() and plain.max() <= 1


def test_the_training_transform_without_a_crop_squeezes_and_the_test_one_crops(engine_cfg):
    cfg = engine_cfg()
    image = Image.new("RGB", (32, 8))
    image.paste((255, 255, 255), (0, 0, 8, 8))  # white in the left quarter
    assert build_transform(cfg, True, ["center_crop"])(image)[:, :, 0].mean() > 0.9
    assert build_transform(cfg, False, [])(image).max() == 0


def test_no_transform_gives_the_image_itself(engine_cfg):
    cfg = engine_cfg(INPUT__NO_TRANSFORM=True)
    assert build_transform(cfg) is None
    assert isinstance(DatasetWrapper(cfg, build_dataset(cfg).test)[0]["img"], Image.Image)


def names_of(transform):
    return [type(t).__name__ for t in transform.transforms]


def test_training_steps_stand_in_dassls_order_whatever_the_order_of_the_names(engine_cfg):
    words = ["normalize", "cutout", "random_flip", "gaussian_noise", "random_resized_crop", "colorjitter",
             "instance_norm"]
    expected = ["RandomResizedCrop", "RandomHorizontalFlip", "ColorJitter", "ToTensor", "Cutout", "Normalize",
                "GaussianNoise", "InstanceNormalization"]
    assert names_of(build_transform(engine_cfg(), choices=words)) == expected
    assert names_of(build_transform(engine_cfg(), choices=words[::-1])) == expected


def test_there_is_no_resize_before_a_random_resized_crop_and_one_without_it(engine_cfg):
    assert names_of(build_transform(engine_cfg()))[0] == "RandomResizedCrop"
    assert names_of(build_transform(engine_cfg(), choices=["random_flip"]))[0] == "Resize"


def test_the_short_side_is_resized_before_the_crop_where_asked(engine_cfg):
    transform = build_transform(engine_cfg(), choices=["random_resized_crop", "resize_short_side"])
    assert names_of(transform)[:2] == ["Resize", "RandomResizedCrop"]
    assert transform.transforms[0](Image.new("RGB", (60, 30))).size == (2 * SIZE, SIZE)


@pytest.mark.parametrize("name", AVAI_CHOICES)
def test_every_transform_of_upstreams_names_gives_a_tensor_of_the_size(engine_cfg, name):
    cfg = engine_cfg(INPUT__SIZE=(16, 24), INPUT__GB_K=5)
    for seed in range(5):
        torch.manual_seed(seed)
        for is_train in (True, False):
            out = build_transform(cfg, is_train, [name])(picture())
            assert out.shape == (3, 16, 24) and out.dtype == torch.float32 and out.isfinite().all()


def test_all_transforms_together_depend_on_torchs_stream_alone(engine_cfg):
    cfg = engine_cfg(INPUT__GB_K=5)
    tfm, image = build_transform(cfg, True, AVAI_CHOICES), picture()
    outs = []
    for other in (1, 2):
        random.seed(other)
        torch.manual_seed(0)
        outs.append(tfm(image))
    assert torch.equal(*outs) and not torch.equal(outs[0], tfm(image))


def test_an_unknown_transform_is_told_with_the_nearest(engine_cfg):
    with pytest.raises(UserError, match="Unknown transform 'random_flop'.*Did you mean random_flip"):
        build_transform(engine_cfg(), choices=["random_flop"])
    with pytest.raises(UserError, match="INPUT.INTERPOLATION is one of bilinear, bicubic, nearest; got 'cubic'"):
        build_transform(engine_cfg(INPUT__INTERPOLATION="cubic"))
    with pytest.raises(UserError, match="0..30"):
        build_transform(engine_cfg(INPUT__TRANSFORMS=("randaugment",), INPUT__RANDAUGMENT_M=31))


def test_randaugment_without_strength_keeps_the_geometry():
    image = Image.effect_noise((20, 20), 80).convert("RGB")
    for operation, low, high in RANDAUGMENT:
        for strength in (low, (low + high) / 2, high):
            assert operation(image, strength).size == image.size
    shifts = [op for op, low, high in RANDAUGMENT if (low, high) in ((0, 100), (0, 30), (0, 0.3))]
    assert len(shifts) == 5 and all(op(image, 0.0).tobytes() == image.tobytes() for op in shifts)
