"""Every configs/datasets/*.yaml merges into a config and names a registered dataset."""
from pathlib import Path

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from datasets import extend_cfg
from datasets.cards import CARDS
from tools import train

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "datasets"


def merged(path):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.merge_from_file(str(path))
    return cfg


def test_each_file_names_a_dataset_of_its_own():
    train.register()
    files = sorted(FOLDER.glob("*.yaml"))
    names = {path.stem: merged(path).DATASET.NAME for path in files}
    assert len(set(names.values())) == len(files) >= 53
    assert set(names.values()) >= set(CARDS) and all(name in DATASET_REGISTRY for name in names.values())
    assert {s for s, name in names.items() if name in CARDS} == {
        "caltech101", "caltech256", "dtd", "eurosat", "fgvc_aircraft", "food101", "imagenet", "imagenet_a",
        "imagenet_r", "imagenet_sketch", "imagenetv2", "oxford_flowers", "oxford_pets", "resisc45", "stanford_cars",
        "sun397", "ucf101"}


def test_coops_files_set_the_name_and_coops_transforms_and_digits_are_never_mirrored():
    before = get_cfg_default()
    extend_cfg(before)
    before.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
    for path in sorted(FOLDER.glob("*.yaml")):
        cfg = merged(path)
        if cfg.DATASET.NAME in CARDS:
            cfg.DATASET.NAME = before.DATASET.NAME
            assert cfg == before, path
        else:
            assert ("random_flip" in cfg.INPUT.TRANSFORMS) == path.stem.startswith(
                ("shapes", "image_dir", "pacs", "vlcs", "office_home", "terra", "cifar", "stl10", "imagenet_r",
                 "ucf101_videos", "kinetics400")), path


def test_extend_cfg_adds_the_class_half_and_keeps_one_that_is_there():
    cfg = get_cfg_default()
    extend_cfg(cfg)
    assert cfg.DATASET.SUBSAMPLE_CLASSES == "all"
    cfg.DATASET.SUBSAMPLE_CLASSES = "new"
    extend_cfg(cfg)
    assert cfg.DATASET.SUBSAMPLE_CLASSES == "new"
