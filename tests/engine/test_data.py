"""Transforms, loaders, and the check of a dataset before training."""
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.data import DataManager, DatasetWrapper
from dassl.data.transforms import AVAI_CHOICES, build_transform
from dassl.utils import UserError, set_random_seed

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


@pytest.mark.parametrize("name", AVAI_CHOICES)
def test_every_transform_gives_a_tensor_of_the_input_size(engine_cfg, name):
    set_random_seed(0)
    transform = build_transform(engine_cfg(INPUT__GB_K=3, INPUT__CUTOUT_LEN=4), choices=[name])
    for _ in range(3):
        out = transform(picture())
        assert out.shape == (3, SIZE, SIZE) and out.dtype == torch.float32 and torch.isfinite(out).all()


def test_the_short_side_is_resized_before_the_crop_where_asked(engine_cfg):
    transform = build_transform(engine_cfg(), choices=["random_resized_crop", "resize_short_side"])
    assert names_of(transform)[:2] == ["Resize", "RandomResizedCrop"]
    assert transform.transforms[0](Image.new("RGB", (60, 30))).size == (2 * SIZE, SIZE)


def test_an_unknown_transform_is_told_with_the_nearest(engine_cfg):
    with pytest.raises(UserError, match="Unknown transform 'random_flop'.*Did you mean random_flip"):
        build_transform(engine_cfg(), choices=["random_flop"])
    with pytest.raises(UserError, match="INPUT.INTERPOLATION is one of bilinear, bicubic, nearest; got 'cubic'"):
        build_transform(engine_cfg(INPUT__INTERPOLATION="cubic"))


def test_a_batch_has_dassls_keys_and_the_loaders_dassls_sizes(engine_cfg):
    manager = DataManager(engine_cfg())
    batch = next(iter(manager.train_loader_x))
    assert set(batch) == {"img", "label", "domain", "impath", "index"}
    assert batch["img"].shape == (4, 3, SIZE, SIZE) and batch["label"].dtype == torch.int64
    assert [manager.dataset.train_x[i].impath for i in batch["index"].tolist()] == batch["impath"]
    assert (len(manager.train_loader_x), len(manager.test_loader), len(manager.val_loader)) == (4, 1, 1)  # 18, 12, 9
    assert manager.train_loader_u is None and manager.num_classes == 3
    assert manager.lab2cname == {0: "ant", 1: "bee", 2: "cat"}


def test_the_only_batch_is_kept_even_when_it_is_short(engine_cfg):
    loader = DataManager(engine_cfg(DATALOADER__TRAIN_X__BATCH_SIZE=32)).train_loader_x
    assert [len(b["label"]) for b in loader] == [18]


def batches(cfg, epochs=2):
    set_random_seed(5)
    manager, rows = DataManager(cfg), []
    for _ in range(epochs):
        rows += [(b["index"], b["img"]) for b in manager.train_loader_x]
        rows += [(b["index"], b["img"]) for b in manager.test_loader]
    rows.append((torch.rand(3), torch.rand(3)))                 # the stream that training itself draws from
    return rows


def test_batches_do_not_depend_on_the_number_of_workers(engine_cfg, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    alone, helped = batches(engine_cfg()), batches(engine_cfg(DATALOADER__NUM_WORKERS=2))
    assert len(alone) == len(helped) == 11
    for (i, x), (j, y) in zip(alone, helped, strict=True):
        assert torch.equal(i, j) and torch.equal(x, y)


def test_more_workers_than_cores_are_not_started(engine_cfg, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert DataManager(engine_cfg(DATALOADER__NUM_WORKERS=64)).train_loader_x.num_workers == 1


def test_k_transforms_and_img0_give_their_views_in_training(engine_cfg):
    cfg = engine_cfg(DATALOADER__K_TRANSFORMS=2, DATALOADER__RETURN_IMG0=True)
    manager = DataManager(cfg)
    item = next(iter(manager.train_loader_x))
    one, other = item["img"]
    assert one.shape == other.shape == item["img0"].shape == (4, 3, SIZE, SIZE) and not torch.equal(one, other)
    assert isinstance(next(iter(manager.test_loader))["img"], torch.Tensor)
    views = DatasetWrapper(engine_cfg(), manager.dataset.test, transform=[lambda _: "weak", lambda _: "strong"])[0]
    assert (views["img"], views["img2"]) == ("weak", "strong")


@pytest.fixture
def broken_folder(tmp_path, write_splits):
    write_splits(tmp_path / "data")
    return tmp_path / "data"


def test_a_corrupt_image_is_named_before_training(engine_cfg, broken_folder):
    victim = broken_folder / "test" / "bee_2.png"
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(UserError) as error:
        DataManager(engine_cfg(DATASET__ROOT=str(broken_folder)))
    told = str(error.value)
    assert "1 of 39 images cannot be read" in told and str(victim) in told and "split test" in told


def test_a_missing_image_is_named_before_training(engine_cfg, broken_folder):
    victim = broken_folder / "train_x" / "ant_0.png"
    victim.unlink()
    victim.symlink_to(Path("nowhere.png"))
    with pytest.raises(UserError) as error:
        DataManager(engine_cfg(DATASET__ROOT=str(broken_folder)))
    assert f"1 of 39 images are missing, first {victim}" in str(error.value)


def test_a_name_that_disagrees_with_its_label_is_named(engine_cfg, monkeypatch):
    from dassl.data import data_manager
    from dassl.data.datasets import DatasetBase, Datum

    def build(change):
        items = [Datum("a.png", 0, 0, "ant"), Datum("b.png", 1, 0, "bee")]
        splits = {"train_x": items, "val": list(items), "test": list(items), **change}
        monkeypatch.setattr(data_manager, "build_dataset", lambda cfg: DatasetBase(**splits))
        with pytest.raises(UserError) as error:
            DataManager(engine_cfg())
        return str(error.value)

    told = build({"test": [Datum("c.png", 1, 0, "ant")]})
    assert "label 1 is 'bee' in training and 'ant' in the test split (c.png)" in told
    assert "c.png in the val split has label 7, which no training image has" in build({"val": [Datum("c.png", 7)]})
    told = build({"train_x": [Datum("a.png", 0, 0, "ant"), Datum("b.png", 2, 0, "bee")]})
    assert "the largest label is 2, so there are 3 classes, but only 2 have training images" in told
