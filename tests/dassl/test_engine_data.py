"""Datasets, few-shot draws, checks before training, loaders and transforms."""

import pickle
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dassl.data import DataManager, DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset
from dassl.data.transforms import AVAI_CHOICES, INTERPOLATION_MODES, build_transform
from dassl.utils import UserError, set_random_seed


def items(labels, domains=None):
    return [Datum(f"image_{i}.png", label, (domains or labels)[i], f"class {label}") for i, label in enumerate(labels)]


def dassls_few_shot(source, k, seed):
    """Literal: per class in order of first appearance, random.sample, or everything where there are fewer."""
    random.seed(seed)
    chosen = []
    for label in dict.fromkeys(item.label for item in source):
        of_label = [item for item in source if item.label == label]
        chosen += random.sample(of_label, k) if len(of_label) >= k else of_label
    return chosen


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=50), st.integers(1, 6), st.integers(0, 3))
def test_few_shot_draws_are_dassls(labels, k, seed):
    source = items(labels)
    dataset = DatasetBase(source)
    set_random_seed(seed)
    assert dataset.generate_fewshot_dataset(source, num_shots=k) == dassls_few_shot(source, k, seed)


def test_few_shot_draws_of_train_and_val_follow_one_another():
    train, val = items([0, 1, 2] * 9), items([2, 1, 0] * 5)
    dataset = DatasetBase(train)
    random.seed(7)
    both = dataset.generate_fewshot_dataset(train, val, num_shots=3)
    random.seed(7)
    assert both == [
        dataset.generate_fewshot_dataset(train, num_shots=3),
        dataset.generate_fewshot_dataset(val, num_shots=3),
    ]
    state = random.getstate()
    assert dataset.generate_fewshot_dataset(train, num_shots=-1) is train and random.getstate() == state
    repeated = dataset.generate_fewshot_dataset(items([0, 1, 1]), num_shots=2, repeat=True)
    assert [item.label for item in repeated] == [0, 0, 1, 1]


def test_classes_are_counted_and_named_by_label():
    dataset = DatasetBase(items([2, 0, 1, 1]), test=[])
    assert dataset.num_classes == 3 and dataset.classnames == ["class 0", "class 1", "class 2"]
    assert dataset.lab2cname == {0: "class 0", 1: "class 1", 2: "class 2"}
    groups = dataset.split_dataset_by_domain(items([0, 0, 1], domains=[5, 3, 5]))
    assert {d: len(g) for d, g in groups.items()} == {5: 2, 3: 1}
    assert list(dataset.split_dataset_by_label(items([4, 1, 4]))) == [4, 1]


def test_datum_pickles_under_the_names_that_few_shot_files_hold():
    datum = Datum("a.png", 3, 1, "cat")
    assert vars(datum) == {"_impath": "a.png", "_label": 3, "_domain": 1, "_classname": "cat"}
    assert b"dassl.data.datasets.base_dataset" in pickle.dumps(datum)
    again = pickle.loads(pickle.dumps(datum))
    assert (again.impath, again.label, again.domain, again.classname) == ("a.png", 3, 1, "cat")


@pytest.mark.parametrize(
    "source, target, message", [(["paint"], ["sketch"], "paint.*photo"), ([], ["sketch"], "SOURCE_DOMAINS")]
)
def test_domains_that_a_dataset_lacks_are_named(source, target, message):
    dataset = DatasetBase(items([0]))
    dataset.domains = ["photo", "sketch"]
    dataset.check_input_domains(["photo"], ["sketch"])
    dataset.is_input_domain_valid(["sketch"])
    with pytest.raises(UserError, match=message):
        dataset.check_input_domains(source, target)


def test_an_unknown_dataset_is_refused_with_the_nearest_name(engine_cfg):
    with pytest.raises(UserError, match="EngineColours"):
        build_dataset(engine_cfg("DATASET.NAME", "EngineColour"))


def test_the_manager_tells_classes_and_sizes_in_the_log(engine_cfg, caplog):
    with caplog.at_level("INFO"):
        dm = DataManager(engine_cfg("DATASET.NAME", "EngineColoursTwice", "DATASET.NUM_SHOTS", 5))
    assert (dm.num_classes, dm.num_source_domains, dm.lab2cname[2]) == (3, 0, "blue")
    for row in (
        "Dataset",
        "EngineColoursTwice",
        "# classes",
        "# train_x",
        "15",
        "# train_u",
        "# val",
        "6",
        "# test",
        "12",
    ):
        assert row in caplog.text


@pytest.mark.parametrize("batch, count, sizes", [(6, 24, [6] * 4), (7, 24, [7] * 3), (24, 24, [24]), (25, 24, [24])])
def test_the_last_short_batch_is_dropped_unless_it_is_the_only_one(engine_cfg, batch, count, sizes):
    cfg = engine_cfg()
    source = build_dataset(cfg).train_x
    assert len(source) == count
    tfm = build_transform(cfg)
    train = build_data_loader(cfg, "RandomSampler", source, batch, tfm=tfm, is_train=True)
    assert [len(b["label"]) for b in train] == sizes
    test = build_data_loader(cfg, "SequentialSampler", source, batch, tfm=tfm, is_train=False)
    assert sum(len(b["label"]) for b in test) == count


def test_a_batch_has_dassls_keys(engine_cfg):
    batch = next(iter(DataManager(engine_cfg()).test_loader))
    assert set(batch) == {"img", "label", "domain", "impath", "index"}
    assert batch["img"].shape[1:] == (3, 12, 12) and batch["img"].dtype == torch.float32
    assert batch["label"].dtype == torch.int64 and batch["index"].tolist() == list(range(len(batch["index"])))


def test_several_views_come_as_dassl_names_them(engine_cfg):
    cfg = engine_cfg("DATALOADER.K_TRANSFORMS", 3, "DATALOADER.RETURN_IMG0", True)
    source = build_dataset(cfg).train_x
    tfm = build_transform(cfg)
    item = DatasetWrapper(cfg, source, transform=tfm, is_train=True)[0]
    assert len(item["img"]) == 3 and not torch.equal(item["img"][0], item["img"][1])
    test = build_transform(cfg, is_train=False)
    two = DatasetWrapper(cfg, source, transform=[tfm, test], is_train=False)[0]
    assert torch.equal(two["img2"], test(Image.open(source[0].impath).convert("RGB")))
    mean, std = (torch.tensor(v)[:, None, None] for v in (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD))
    from torchvision.transforms import functional as F

    whole = F.to_tensor(F.resize(Image.open(source[0].impath).convert("RGB"), [12, 12]))
    torch.testing.assert_close(item["img0"], (whole - mean) / std)


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


@pytest.mark.parametrize("split", ["train_x", "val", "test"])
@pytest.mark.parametrize("harm", ["missing", "cut", "text", "empty"])
def test_a_missing_or_corrupt_image_is_named_before_training(engine_cfg, own_colours, split, harm):
    victim = own_colours / f"{split}_1_0.png"
    if harm == "missing":
        victim.unlink()
    else:
        victim.write_bytes({"cut": victim.read_bytes()[:200], "text": b"<html>404</html>", "empty": b""}[harm])
    with pytest.raises(UserError, match=victim.name):
        DataManager(engine_cfg(root=own_colours))


def test_a_jpeg_cut_in_its_last_bytes_is_found(engine_cfg, own_colours):
    victim = own_colours / "train_x_0_3.png"
    Image.open(victim).resize((300, 300)).save(victim, format="JPEG")
    DataManager(engine_cfg(root=own_colours))
    victim.write_bytes(victim.read_bytes()[:-300])
    with pytest.raises(UserError, match=victim.name):
        DataManager(engine_cfg(root=own_colours))


def test_files_that_only_a_wrapper_can_read_need_not_be_images(engine_cfg, own_colours):
    (own_colours / "train_x_0_0.png").write_bytes(b"any features")
    DataManager(engine_cfg(root=own_colours), dataset_wrapper=DatasetWrapper)
    (own_colours / "train_x_0_0.png").unlink()
    with pytest.raises(UserError, match="train_x_0_0"):
        DataManager(engine_cfg(root=own_colours), dataset_wrapper=DatasetWrapper)


def test_paths_that_are_no_files_are_the_wrappers_business(engine_cfg, monkeypatch):
    class FromArchive(DatasetWrapper):
        def __getitem__(self, idx):
            return {"img": torch.zeros(3, 2, 2), "label": self.data_source[idx].label,
                    "name": self.data_source[idx].impath}

    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "EngineColours",
                        relabelled(lambda split, d: Datum(f"all.zip@{split}/{d.label}", d.label, 0, d.classname)))
    batch = next(iter(DataManager(engine_cfg(), dataset_wrapper=FromArchive).train_loader_x))
    assert batch["img"].shape[1:] == (3, 2, 2) and all(name.startswith("all.zip@train_x/") for name in batch["name"])
    with pytest.raises(UserError, match="all.zip@train_x"):
        DataManager(engine_cfg())


def relabelled(change):
    class Odd(DATASET_REGISTRY.get("EngineColours")):
        def __init__(self, cfg):
            super().__init__(cfg)
            splits = {s: [change(s, d) for d in getattr(self, s)] for s in ("train_x", "val", "test")}
            DatasetBase.__init__(self, **splits)

    return Odd


def named(datum, label=None, name=None):
    return Datum(datum.impath, datum.label if label is None else label, 0, datum.classname if name is None else name)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s, d: named(d, label=d.label + (d.label == 2)), "largest label is 3.*only 3"),
        (lambda s, d: named(d, label=5) if s == "test" else d, "label 5"),
        (lambda s, d: named(d, name="green") if s == "val" and d.label == 0 else d, "'red'.*'green'"),
        (
            lambda s, d: named(d, name="x") if s == "train_x" and d.impath.endswith("1_3.png") else d,
            "two class names.*green.*x",
        ),
    ],
    ids=["gap", "no such label", "other name", "two names"],
)
def test_labels_and_class_names_that_disagree_are_named(engine_cfg, monkeypatch, change, message):
    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "EngineOdd", relabelled(change))
    with pytest.raises(UserError, match=f"(?s){message}"):
        DataManager(engine_cfg("DATASET.NAME", "EngineOdd"))


@pytest.mark.parametrize("name", AVAI_CHOICES)
def test_every_transform_of_upstreams_names_gives_a_tensor_of_the_size(engine_cfg, name):
    cfg = engine_cfg("INPUT.SIZE", (16, 24), "INPUT.GB_K", 5)
    image = Image.effect_noise((40, 30), 80).convert("RGB")
    for seed in range(5):
        torch.manual_seed(seed)
        for is_train in (True, False):
            out = build_transform(cfg, is_train, [name])(image)
            assert out.shape == (3, 16, 24) and out.dtype == torch.float32 and out.isfinite().all()


def test_all_transforms_together_depend_on_torchs_stream_alone(engine_cfg):
    cfg = engine_cfg("INPUT.GB_K", 5)
    tfm, image = build_transform(cfg, True, AVAI_CHOICES), Image.effect_noise((40, 30), 80).convert("RGB")
    outs = []
    for other in (1, 2):
        random.seed(other)
        torch.manual_seed(0)
        outs.append(tfm(image))
    assert torch.equal(*outs) and not torch.equal(outs[0], tfm(image))


def test_the_training_transform_without_a_crop_squeezes_and_the_test_one_crops(engine_cfg):
    cfg = engine_cfg("INPUT.SIZE", (8, 8))
    image = Image.new("RGB", (32, 8))
    image.paste((255, 255, 255), (0, 0, 8, 8))  # white in the left quarter
    assert build_transform(cfg, True, ["center_crop"])(image)[:, :, 0].mean() > 0.9
    assert build_transform(cfg, False, [])(image).max() == 0


def test_the_test_transform_is_resize_crop_and_normalise(engine_cfg):
    from torchvision.transforms import functional as F

    cfg = engine_cfg("INPUT.SIZE", (10, 10), "INPUT.INTERPOLATION", "bicubic")
    image = Image.effect_noise((40, 30), 80).convert("RGB")
    size = [10, round(40 * 10 / 30)]
    whole = F.to_tensor(F.center_crop(F.resize(image, size, INTERPOLATION_MODES["bicubic"]), [10, 10]))
    theirs = F.normalize(whole, cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)
    torch.testing.assert_close(build_transform(cfg, False)(image), theirs)
    assert 0 <= build_transform(cfg, False, [])(image).min() and build_transform(cfg, False, [])(image).max() <= 1


def test_no_transform_gives_the_image_itself(engine_cfg):
    cfg = engine_cfg("INPUT.NO_TRANSFORM", True)
    assert build_transform(cfg) is None
    assert isinstance(DatasetWrapper(cfg, build_dataset(cfg).test)[0]["img"], Image.Image)


@pytest.mark.parametrize(
    "opts, message",
    [
        (("INPUT.TRANSFORMS", ("random_flop",)), "random_flip"),
        (("INPUT.INTERPOLATION", "bicubik"), "bicubic"),
        (("INPUT.TRANSFORMS", ("randaugment",), "INPUT.RANDAUGMENT_M", 31), "0..30"),
    ],
)
def test_a_transform_that_does_not_exist_is_refused(engine_cfg, opts, message):
    with pytest.raises(UserError, match=message):
        build_transform(engine_cfg(*opts))


def test_randaugment_without_strength_keeps_the_geometry():
    from dassl.data.transforms.randaugment import RANDAUGMENT

    image = Image.effect_noise((20, 20), 80).convert("RGB")
    for operation, low, high in RANDAUGMENT:
        for strength in (low, (low + high) / 2, high):
            assert operation(image, strength).size == image.size
    shifts = [op for op, low, high in RANDAUGMENT if (low, high) in ((0, 100), (0, 30), (0, 0.3))]
    assert len(shifts) == 5 and all(op(image, 0.0).tobytes() == image.tobytes() for op in shifts)
