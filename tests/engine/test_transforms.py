"""Transforms: torchvision's own where it has them, Dassl's names, order, operations and draws."""
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from dassl.data import DatasetWrapper
from dassl.data.datasets import build_dataset
from dassl.data.transforms import AVAI_CHOICES, build_transform
from dassl.data.transforms.randaugment import (
    FIXMATCH,
    RANDAUGMENT,
    RANDAUGMENT2,
    RandAugment,
    RandAugment2,
    RandAugmentFixMatch,
)
from dassl.data.transforms.transforms import Cutout, GaussianNoise, Random2DTranslation
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


def test_timms_words_that_it_does_not_know_are_the_users(engine_cfg):
    for words in ("m9", "rand-mm", "rand-x9"):
        with pytest.raises(UserError, match=f"TIMM_RANDAUGMENT.*{words}"):
            build_transform(engine_cfg(INPUT__TIMM_RANDAUGMENT=words), True, ["timm_randaugment"])


def seed_all(seed):
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def test_all_transforms_together_depend_on_the_streams_alone(engine_cfg):
    tfm, image = build_transform(engine_cfg(INPUT__GB_K=5), True, AVAI_CHOICES), picture()
    outs = []
    for _ in range(2):
        seed_all(0)
        outs.append(tfm(image))
    assert torch.equal(*outs) and not torch.equal(outs[0], tfm(image))


def test_resizes_crops_flips_and_normalisation_are_torchvisions(engine_cfg):
    names = ["resize_short_side", "random_crop", "random_flip", "colorjitter", "randomgrayscale", "normalize"]
    for tfm in (build_transform(engine_cfg(), True, names), build_transform(engine_cfg(), False, names)):
        assert len(tfm.transforms) >= 4
        assert {type(step).__module__ for step in tfm.transforms} == {"torchvision.transforms.transforms"}


def test_an_image_smaller_than_the_crop_gets_a_frame(engine_cfg):
    cfg = engine_cfg(INPUT__SIZE=(16, 24), INPUT__CROP_PADDING=0)
    assert build_transform(cfg, True, ["random_crop"])(picture(9, 5)).shape == (3, 16, 24)


def test_an_unknown_transform_is_told_with_the_nearest(engine_cfg):
    with pytest.raises(UserError, match="Unknown transform 'random_flop'.*Did you mean random_flip"):
        build_transform(engine_cfg(), choices=["random_flop"])
    with pytest.raises(UserError, match="INPUT.INTERPOLATION must be one of bilinear, bicubic, nearest, got 'cubic'"):
        build_transform(engine_cfg(INPUT__INTERPOLATION="cubic"))
    with pytest.raises(UserError, match="0..30"):
        build_transform(engine_cfg(INPUT__TRANSFORMS=("randaugment",), INPUT__RANDAUGMENT_M=31))


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def hole(image, side):
    """A square around a centre drawn as w + (1 - w) * u, which is what numpy.random.uniform(w) means."""
    width, height = image.size
    x, y = width + (1 - width) * np.random.random_sample(), height + (1 - height) * np.random.random_sample()
    x, y = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    image = image.copy()
    ImageDraw.Draw(image).rectangle((x, y, min(width, x + side), min(height, y + side)), (125, 123, 114))
    return image


def solarize_add(image, addition):
    pixels = np.clip(np.array(image).astype(int) + addition, 0, 255).astype(np.uint8)
    return Image.fromarray(np.where(pixels >= 128, 255 - pixels, pixels))


def signed(operation):
    def literal(image, v):
        if random.random() > 0.5:
            v = -v
        return operation(image, v)

    return literal


LITERAL = {             # Dassl 0.6.3's operations: what Pillow does with the strength
    "autocontrast": lambda image, v: ImageOps.autocontrast(image),
    "equalize": lambda image, v: ImageOps.equalize(image),
    "invert": lambda image, v: ImageOps.invert(image), "identity": lambda image, v: image,
    "rotate": signed(lambda image, v: image.rotate(v)),
    "posterize": lambda image, v: ImageOps.posterize(image, int(v)),
    "solarize": lambda image, v: ImageOps.solarize(image, v), "solarize_add": solarize_add,
    "color": lambda image, v: ImageEnhance.Color(image).enhance(v),
    "contrast": lambda image, v: ImageEnhance.Contrast(image).enhance(v),
    "brightness": lambda image, v: ImageEnhance.Brightness(image).enhance(v),
    "sharpness": lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
    "shear_x": signed(lambda image, v: affine(image, 1, v, 0, 0, 1, 0)),
    "shear_y": signed(lambda image, v: affine(image, 1, 0, 0, v, 1, 0)),
    "hole": hole,
    "pixels_x": signed(lambda image, v: affine(image, 1, 0, v, 0, 1, 0)),
    "pixels_y": signed(lambda image, v: affine(image, 1, 0, 0, 0, 1, v)),
    "share_x": signed(lambda image, v: affine(image, 1, 0, v * image.size[0], 0, 1, 0)),
    "share_y": signed(lambda image, v: affine(image, 1, 0, 0, 0, 1, v * image.size[1])),
}
LISTS = {               # Dassl 0.6.3's lists in their order: operation, strength at 0, strength at 1
    "randaugment": """autocontrast 0 1, equalize 0 1, invert 0 1, rotate 0 30, posterize 4 8, solarize 0 256,
        solarize_add 0 110, color 0.1 1.9, contrast 0.1 1.9, brightness 0.1 1.9, sharpness 0.1 1.9, shear_x 0 0.3,
        shear_y 0 0.3, hole 0 40, pixels_x 0 100, pixels_y 0 100""",
    "randaugment2": """autocontrast 0 1, brightness 0.1 1.9, color 0.1 1.9, contrast 0.1 1.9, equalize 0 1,
        identity 0 1, invert 0 1, posterize 4 8, rotate -30 30, sharpness 0.1 1.9, shear_x -0.3 0.3, shear_y -0.3 0.3,
        solarize 0 256, share_x -0.3 0.3, share_y -0.3 0.3""",
    "fixmatch": """autocontrast 0 1, brightness 0.05 0.95, color 0.05 0.95, contrast 0.05 0.95, equalize 0 1,
        identity 0 1, posterize 4 8, rotate -30 30, sharpness 0.05 0.95, shear_x -0.3 0.3, shear_y -0.3 0.3,
        solarize 0 256, share_x -0.3 0.3, share_y -0.3 0.3""",
}
OURS = {"randaugment": RANDAUGMENT, "randaugment2": RANDAUGMENT2, "fixmatch": FIXMATCH}


def dassls(name):
    rows = [row.split() for row in LISTS[name].split(",")]
    return [(word, float(low), float(high)) for word, low, high in rows]


@pytest.mark.parametrize("name", LISTS)
def test_every_operation_of_randaugment_gives_dassls_pixels_and_draws(name):
    """At strengths over the whole range, the ends included; what is left of the streams is equal too."""
    image = picture(45, 31)
    assert [len(OURS[n]) for n in LISTS] == [16, 15, 14] == [len(dassls(n)) for n in LISTS]
    for (operation, *strengths), (word, *theirs) in zip(OURS[name], dassls(name), strict=True):
        assert strengths == theirs, word
        for step in range(11):
            value = theirs[0] + step / 10 * (theirs[1] - theirs[0])
            outs = []
            for apply in (operation, LITERAL[word]):
                seed_all(step)
                outs.append((np.asarray(apply(image, value)).tolist(), random.random(), np.random.random_sample()))
            assert outs[0] == outs[1], (word, value)


def literal_randaugment(image, name, n, m=None, p=None):
    for word, low, high in random.choices(dassls(name), k=n):
        if p is not None and random.random() > p:
            continue
        share = random.random() if m is None else m / 30
        image = LITERAL[word](image, share * (high - low) + low)
    return image


@pytest.mark.parametrize("ours, settings", [
    (RandAugment(2, 10), dict(name="randaugment", n=2, m=10)),
    (RandAugment(3, 23), dict(name="randaugment", n=3, m=23)),
    (RandAugment2(2), dict(name="randaugment2", n=2, p=0.6)), (RandAugmentFixMatch(2), dict(name="fixmatch", n=2)),
], ids=str)
def test_equal_streams_give_dassls_augmentation(ours, settings):
    image, changed = picture(45, 31), 0
    for seed in range(150):
        seed_all(seed)
        out = ours(image)
        seed_all(seed)
        assert out.tobytes() == literal_randaugment(image, **settings).tobytes(), seed
        changed += out.tobytes() != image.tobytes()
    assert changed > 75


def test_translation_holes_and_noise_draw_as_dassl_does():
    image, changed = picture(), 0
    for seed in range(40):
        seed_all(seed)
        moved = Random2DTranslation(16, 24)(image)
        seed_all(seed)
        if random.uniform(0, 1) > 0.5:
            expected = image.resize((24, 16), Image.Resampling.BILINEAR)
        else:
            x, y = int(round(random.uniform(0, 27 - 24))), int(round(random.uniform(0, 18 - 16)))
            expected = image.resize((27, 18), Image.Resampling.BILINEAR).crop((x, y, x + 24, y + 16))
            changed += 1
        assert moved.tobytes() == expected.tobytes()
        tensor = torch.rand(3, 9, 7)
        seed_all(seed)
        cut = Cutout(2, 4)(tensor)
        seed_all(seed)
        expected = tensor.clone()
        for _ in range(2):
            y, x = np.random.randint(9), np.random.randint(7)
            expected[:, max(y - 2, 0):y + 2, max(x - 2, 0):x + 2] = 0
        assert torch.equal(cut, expected)
        seed_all(seed)
        noisy = GaussianNoise(0.1, 0.2)(tensor)
        seed_all(seed)
        expected = tensor if random.uniform(0, 1) > 0.5 else tensor + (torch.randn(3, 9, 7) * 0.2 + 0.1)
        assert torch.equal(noisy, expected)
    assert 10 < changed < 30
