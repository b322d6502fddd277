"""The data manager: batches, their sizes and keys, views, workers, transforms and wrappers of other people's."""
import pytest
import torch
from torchvision.transforms import functional as F

from dassl.data import DataManager, DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset
from dassl.data.samplers import SeededIndex
from dassl.data.transforms import build_transform
from dassl.utils import UserError, read_image, set_random_seed

SIZE = 8            # pixels, of engine_cfg


def test_the_manager_tells_classes_and_sizes_in_the_log(engine_cfg, caplog):
    caplog.set_level("INFO")
    manager = DataManager(engine_cfg(VERBOSE=True, DATASET__ALL_AS_UNLABELED=True, DATASET__NUM_SHOTS=5))
    assert (manager.num_classes, manager.num_source_domains, manager.lab2cname[2]) == (3, 0, "cat")
    lines = [line.split() for message in caplog.messages for line in message.splitlines()]
    rows = {" ".join(words[:-1]): words[-1] for words in lines}
    expected = {"Dataset": "EngineToy", "# classes": "3", "# train_x": "15", "# train_u": "12", "# val": "9",
                "# test": "12"}
    assert {name: rows.get(name) for name in expected} == expected


@pytest.mark.parametrize("batch, count, sizes", [(6, 18, [6] * 3), (7, 18, [7] * 2), (18, 18, [18]), (25, 18, [18])])
def test_the_last_short_batch_is_dropped_unless_it_is_the_only_one(engine_cfg, batch, count, sizes):
    cfg = engine_cfg()
    source = build_dataset(cfg).train_x
    assert len(source) == count
    tfm = build_transform(cfg)
    train = build_data_loader(cfg, "RandomSampler", source, batch, tfm=tfm, is_train=True)
    assert [len(b["label"]) for b in train] == sizes
    test = build_data_loader(cfg, "SequentialSampler", source, batch, tfm=tfm, is_train=False)
    assert sum(len(b["label"]) for b in test) == count


def test_a_batch_has_dassls_keys_and_the_loaders_dassls_sizes(engine_cfg):
    manager = DataManager(engine_cfg())
    batch = next(iter(manager.train_loader_x))
    assert set(batch) == {"img", "label", "domain", "impath", "index"}
    assert batch["img"].shape == (4, 3, SIZE, SIZE) and batch["label"].dtype == torch.int64
    assert batch["img"].dtype == torch.float32
    drawn = [manager.dataset.train_x[i] for i in batch["index"].tolist()]
    assert [(item.impath, item.label) for item in drawn] == list(zip(batch["impath"], batch["label"].tolist()))
    assert (len(manager.train_loader_x), len(manager.test_loader), len(manager.val_loader)) == (4, 1, 1)  # 18, 12, 9
    assert manager.train_loader_u is None and manager.num_classes == 3
    assert manager.lab2cname == {0: "ant", 1: "bee", 2: "cat"}


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


def test_two_epochs_see_different_crops_of_an_image(engine_cfg):
    loader = DataManager(engine_cfg(DATALOADER__TRAIN_X__BATCH_SIZE=6)).train_loader_x
    first, second = ({int(i): x for batch in loader for i, x in zip(batch["index"], batch["img"])} for _ in range(2))
    assert set(first) == set(second) == set(range(18))
    assert not any(torch.equal(first[i], second[i]) for i in first)


def test_loading_images_leaves_the_global_streams_alone(engine_cfg):
    dataset = DataManager(engine_cfg()).train_loader_x.dataset
    before = torch.get_rng_state()
    once, twice = dataset[SeededIndex(3, 7)]["img"], dataset[SeededIndex(3, 7)]["img"]
    assert torch.equal(once, twice) and torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(once, dataset[SeededIndex(3, 8)]["img"])


def test_k_transforms_and_img0_give_their_views_in_training(engine_cfg):
    cfg = engine_cfg(DATALOADER__K_TRANSFORMS=2, DATALOADER__RETURN_IMG0=True)
    manager = DataManager(cfg)
    item = next(iter(manager.train_loader_x))
    one, other = item["img"]
    assert one.shape == other.shape == item["img0"].shape == (4, 3, SIZE, SIZE) and not torch.equal(one, other)
    assert isinstance(next(iter(manager.test_loader))["img"], torch.Tensor)
    views = DatasetWrapper(engine_cfg(), manager.dataset.test, transform=[lambda _: "weak", lambda _: "strong"])[0]
    assert (views["img"], views["img2"]) == ("weak", "strong")


def test_img0_is_the_whole_image_normalised(engine_cfg):
    cfg = engine_cfg(DATALOADER__RETURN_IMG0=True)
    source = build_dataset(cfg).train_x
    item = DatasetWrapper(cfg, source, transform=build_transform(cfg), is_train=True)[0]
    whole = F.to_tensor(F.resize(read_image(source[0].impath), [SIZE, SIZE]))
    torch.testing.assert_close(item["img0"], F.normalize(whole, cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD))


def test_transforms_and_wrappers_of_ones_own_are_taken(engine_cfg):
    class Wrapper(DatasetWrapper):
        def __getitem__(self, idx):
            return {**super().__getitem__(idx), "extra": 7}

    dm = DataManager(
        engine_cfg(),
        custom_tfm_train=lambda image: torch.zeros(1),
        custom_tfm_test=lambda image: torch.ones(1),
        dataset_wrapper=Wrapper,
    )
    assert next(iter(dm.train_loader_x))["img"].sum() == 0
    batch = next(iter(dm.test_loader))
    assert batch["img"].min() == 1 and batch["extra"].unique().tolist() == [7]


def test_paths_that_are_no_files_are_the_wrappers_business(engine_cfg, monkeypatch):
    class FromArchive(DatasetWrapper):
        def __getitem__(self, idx):
            return {"img": torch.zeros(3, 2, 2), "label": self.data_source[idx].label,
                    "name": self.data_source[idx].impath}

    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "EngineToy",
                        relabelled(lambda split, d: Datum(f"all.zip@{split}/{d.label}", d.label, 0, d.classname)))
    batch = next(iter(DataManager(engine_cfg(), dataset_wrapper=FromArchive).train_loader_x))
    assert batch["img"].shape[1:] == (3, 2, 2) and all(name.startswith("all.zip@train_x/") for name in batch["name"])
    with pytest.raises(UserError, match="all.zip@train_x"):
        DataManager(engine_cfg())


def relabelled(change):
    class Odd(DATASET_REGISTRY.get("EngineToy")):
        def __init__(self, cfg):
            super().__init__(cfg)
            splits = {s: [change(s, d) for d in getattr(self, s)] for s in ("train_x", "val", "test")}
            DatasetBase.__init__(self, **splits)

    return Odd


def test_validation_images_can_be_trained_on_once_settings_are_chosen(engine_cfg):
    apart, joined = DataManager(engine_cfg()), DataManager(engine_cfg(DATASET__TRAIN_ON_VAL=True))
    paths = [[item.impath for item in split] for split in (apart.dataset.train_x, apart.dataset.val)]
    assert [item.impath for item in joined.dataset.train_x] == paths[0] + paths[1]
    assert joined.val_loader is None and len(joined.dataset.test) == len(apart.dataset.test)


@pytest.mark.parametrize("val_is_test", [False, True])
def test_training_on_validation_images_that_are_none_is_refused(val_is_test):
    items = [Datum("a.png", 0, 0, "ant"), Datum("b.png", 1, 0, "bee")]
    dataset = DatasetBase(train_x=items, val=items if val_is_test else None, test=items)
    with pytest.raises(UserError, match="TRAIN_ON_VAL"):
        dataset.train_on_val()
    assert dataset.train_x == items
