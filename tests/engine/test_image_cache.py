"""Images kept in memory, and made a batch at a time, give the numbers of images read and made one by one."""
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms as T

from dassl.data import DataManager, DatasetWrapper, data_manager, image_cache
from dassl.data.image_cache import ImageCache, build_cache
from dassl.data.samplers import SeededIndex
from dassl.data.transforms import arithmetic_apart, build_transform
from dassl.utils import UserError, set_random_seed


def picture(size, seed=0):
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def batches(cfg, epochs=3):
    set_random_seed(5)
    manager, rows = DataManager(cfg), []
    loaders = (manager.train_loader_x, manager.train_loader_u, manager.val_loader, manager.test_loader)
    for _ in range(epochs):
        rows += [batch for loader in loaders if loader for batch in loader]
    return [*rows, {"stream": torch.rand(3), "python": np.random.rand(3)}], manager


def assert_equal(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert set(one) == set(other)
        one, other = [one[k] for k in sorted(one)], [other[k] for k in sorted(other)]
    if isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    else:
        assert np.array_equal(one, other)


CASES = {
    "crop and flip": {},
    "several views and the plain one": {"DATALOADER__K_TRANSFORMS": 2, "DATALOADER__RETURN_IMG0": True},
    "unlabelled images": {"DATASET__ALL_AS_UNLABELED": True},
    "a step of somebody else's": {"INPUT__TRANSFORMS": ("random_resized_crop", "randaugment", "cutout", "normalize")},
    "resize and translation": {"INPUT__TRANSFORMS": ("random_translation", "random_flip")},
}


@pytest.mark.parametrize(("case", "workers"), [*((case, 0) for case in CASES), ("several views and the plain one", 2),
                                               ("a step of somebody else's", 2)])
def test_cached_batches_are_those_without_a_cache_bit_for_bit(engine_cfg, monkeypatch, case, workers):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    cached, _ = batches(engine_cfg(DATALOADER__NUM_WORKERS=workers, **CASES[case]))
    uncached, _ = batches(engine_cfg(DATALOADER__NUM_WORKERS=workers, DATALOADER__CACHE_MB=0, **CASES[case]))
    monkeypatch.delattr(DatasetWrapper, "__getitems__")
    one_by_one, _ = batches(engine_cfg(DATALOADER__CACHE_MB=0, **CASES[case]))
    assert len(one_by_one) > 3 * 6
    assert_equal(cached, one_by_one)
    assert_equal(uncached, one_by_one)


@pytest.mark.parametrize("mode, sizes", [("RGB", [(7, 5)] * 3), ("RGB", [(7, 5), (5, 7)]), ("L", [(7, 5)] * 2)])
def test_the_arithmetic_for_many_images_is_that_for_each_bit_for_bit(mode, sizes):
    mean, std = ((0.48, 0.45, 0.4), (0.26, 0.26, 0.27)) if mode == "RGB" else ((0.5,), (0.2,))
    transform = T.Compose([T.RandomHorizontalFlip(1.0), T.ToTensor(), T.Normalize(mean, std)])
    images = [picture(size, seed).convert(mode) for seed, size in enumerate(sizes)]
    geometry, finish = arithmetic_apart(transform)
    for image, finished in zip(images, finish([geometry(image) for image in images]), strict=True):
        assert torch.equal(finished, transform(image))


def test_a_transform_that_does_not_end_in_normalisation_is_left_whole():
    normalize = T.Normalize((0.5,) * 3, (0.2,) * 3)
    for transform in (T.Compose([T.ToTensor()]), T.Compose([T.ToTensor(), normalize, T.RandomErasing()]),
                      T.ToTensor(), None, lambda image: image):
        assert arithmetic_apart(transform) is None


@pytest.mark.parametrize("workers", [0, 2])
def test_training_and_validation_images_are_decoded_once_and_test_images_each_time(engine_cfg, monkeypatch, workers):
    """With workers, what this process does not decode itself they find decoded: they start when all is there."""
    read = []
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for module in (image_cache, data_manager):
        monkeypatch.setattr(module, "read_image", lambda path, original=module.read_image: (read.append(path),
                                                                                            original(path))[1])
    _, manager = batches(engine_cfg(DATALOADER__CACHE_MB=1, DATALOADER__NUM_WORKERS=workers))
    counts = {split: sum(d.impath in read for d in getattr(manager.dataset, split)) for split in ("train_x", "val")}
    assert counts == {"train_x": 18, "val": 9} and len(manager.image_cache) == 27
    tests = 0 if workers else 3 * 12                            # the workers' own reading is not seen here
    assert sum("/test/" in path for path in read) == tests and len(read) == 27 + tests


def test_workers_read_no_image_that_was_decoded_before_they_started(engine_cfg, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    manager = DataManager(engine_cfg(DATALOADER__NUM_WORKERS=2))
    first = torch.cat([batch["label"] for batch in manager.train_loader_x])
    paths = [item.impath for item in manager.dataset.train_x]
    for path in paths:
        os.rename(path, f"{path}.gone")
    try:
        assert len(torch.cat([batch["label"] for batch in manager.train_loader_x])) == len(first) == 16
    finally:                                                                    # other tests read the same folder
        for path in paths:
            os.rename(f"{path}.gone", path)


def test_pairs_of_labelled_and_unlabelled_batches_do_not_depend_on_workers(engine_cfg, monkeypatch):
    from dassl.engine.trainer import _endless

    monkeypatch.setattr("os.cpu_count", lambda: 2)

    def pairs(workers):
        set_random_seed(3)
        manager = DataManager(engine_cfg(DATALOADER__NUM_WORKERS=workers, DATASET__ALL_AS_UNLABELED=True))
        return [pair for _ in range(2) for pair in zip(  # the unlabelled loader is the shorter one and begins again
            range(4), _endless(manager.train_loader_x), _endless(manager.train_loader_u), [torch.rand(2)] * 4)]

    for one, other in zip(pairs(0), pairs(2), strict=True):
        assert_equal(list(one), list(other))


def test_an_image_that_is_gone_is_named_in_the_loop(engine_cfg, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    manager = DataManager(engine_cfg(DATALOADER__NUM_WORKERS=2))
    for item in manager.dataset.train_x:         # all, as an epoch leaves some out
        item._impath = "nowhere.png"
    with pytest.raises(UserError, match="No image at nowhere.png"):
        list(manager.train_loader_x)


def paths_of(folder, count, size=(20, 10)):
    found = []
    for i in range(count):
        picture(size, i).save(folder / f"{i}.png")
        found.append(str(folder / f"{i}.png"))
    return found


def test_the_limit_counts_decoded_bytes_and_images_beyond_it_are_read_again(tmp_path):
    paths = paths_of(tmp_path, 5)
    cache = ImageCache(3 * 20 * 10 * 4 + 1)
    first = [cache.read(p) for p in paths]
    assert len(cache) == 3 and cache.used == 3 * 800
    assert cache.read(paths[0]) is first[0] and cache.read(paths[4]) is not first[4]
    assert cache.read(paths[4]).tobytes() == first[4].tobytes()
    assert ImageCache(5 * 800).has_room_for(paths) and not ImageCache(5 * 800 - 1).has_room_for(paths)
    assert cache.has_room_for(paths[:3]) and not cache.has_room_for(paths)      # full of the first three
    assert len(pickle.loads(pickle.dumps(cache))) == 0                          # a spawned worker fills its own


def test_a_split_that_does_not_fit_is_not_cached(engine_cfg, monkeypatch):
    monkeypatch.setattr(image_cache, "_memory", lambda: 8 * 12 * 480)           # an eighth holds 12 of 18 images
    manager = DataManager(engine_cfg())
    assert manager.train_loader_x.dataset.cache is None and manager.val_loader.dataset.cache is not None
    assert build_cache(0) is None and build_cache(1).limit == 12 * 480


def test_a_transform_that_paints_on_its_image_does_not_change_the_cached_one(engine_cfg):
    dataset = DataManager(engine_cfg()).train_loader_x.dataset
    before = dataset.cache.read(dataset.data_source[0].impath).tobytes()
    dataset.transform = lambda image: image.paste((0, 0, 0), (0, 0, *image.size))
    dataset[SeededIndex(0, 3)]
    assert dataset.cache.read(dataset.data_source[0].impath).tobytes() == before


def test_a_wrapper_with_an_item_of_its_own_is_asked_for_it(engine_cfg):
    class Marked(DatasetWrapper):
        def __getitem__(self, idx):
            return {**super().__getitem__(idx), "mark": 7}

    class Doubled(DatasetWrapper):
        def _transform_image(self, tfm, img0):
            return 2 * super()._transform_image(tfm, img0)

    plain, marked, doubled = (
        next(iter(DataManager(engine_cfg(), dataset_wrapper=w).test_loader)) for w in (None, Marked, Doubled))
    assert marked["mark"].tolist() == [7] * len(marked["label"])
    assert torch.equal(marked["img"], plain["img"]) and torch.equal(doubled["img"], 2 * plain["img"])


def test_plain_indices_give_items_for_a_loader_of_somebody_elses(engine_cfg):
    cfg = engine_cfg()
    source = DataManager(cfg).dataset.test
    loader = DataLoader(DatasetWrapper(cfg, source, build_transform(cfg, is_train=False)), batch_size=5)
    assert next(iter(loader))["img"].shape[0] == 5
