"""Datasets of several domains: DomainBed's splits, one domain left out, and what is wrong with a folder of them."""
import hashlib

import numpy as np
import pytest
import yaml
from PIL import Image

from dassl.config import get_cfg_default
from dassl.utils import UserError
from datasets import extend_cfg
from datasets.benchmarks import DatasetNotFound
from datasets.domain_cards import CARDS
from datasets.domains import DATASET_REGISTRY, ShapesDomains, split
from tools.runs.cell import CONFIGS, domains_of


@pytest.fixture
def cfg_of(tmp_path):
    def make(name, target=(), source=(), shots=-1, select="training"):
        cfg = get_cfg_default()
        extend_cfg(cfg)
        c = cfg.DATASET
        c.ROOT, c.NAME, c.TARGET_DOMAINS, c.SOURCE_DOMAINS = str(tmp_path), name, tuple(target), tuple(source)
        c.NUM_SHOTS, c.SELECT_ON, cfg.SEED = shots, select, 3
        return cfg
    return make


@pytest.fixture
def pacs(tmp_path):
    """Ten images of each of two classes in each domain, in DomainBed's layout."""
    for domain in CARDS["PACSDomains"].domains:
        for name in ("dog", "house"):
            folder = tmp_path / "PACS" / domain / name
            folder.mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(folder / f"pic_{i:03d}.png")
    return tmp_path


def test_a_domain_is_split_by_domainbeds_seeded_rule():
    keys = list(range(11))
    np.random.RandomState(int(hashlib.md5(b"(3, 1)").hexdigest(), 16) % (2 ** 31)).shuffle(keys)
    assert split([str(i) for i in range(11)], seed=3, number=1) == ([str(k) for k in keys[2:]],
                                                                    [str(k) for k in keys[:2]])


def test_one_domain_is_left_out_and_each_split_is_of_the_right_domains(cfg_of, pacs):
    made = DATASET_REGISTRY.get("PACSDomains")(cfg_of("PACSDomains", ["photo"]))
    of = {s: {item.impath.split("/")[-3] for item in getattr(made, s)} for s in ("train_x", "val", "test")}
    assert of == {"train_x": {"art_painting", "cartoon", "sketch"}, "val": {"art_painting", "cartoon", "sketch"},
                  "test": {"photo"}}
    assert [len(getattr(made, s)) for s in ("train_x", "val", "test")] == [48, 12, 16]
    assert not {i.impath for i in made.train_x} & {i.impath for i in made.val}
    assert {i.domain for i in made.train_x} == {0, 1, 2} and made.classnames == ["dog", "house"]
    files = sorted(p for p in (pacs / "PACS" / "photo").rglob("*.png"))
    assert [i.impath for i in made.test] == [str(p) for p in split(files, 3, 2)[0]]


def test_the_oracle_chooses_on_the_tested_domain_and_says_so(cfg_of, pacs):
    made = DATASET_REGISTRY.get("PACSDomains")(cfg_of("PACSDomains", ["photo"], select="target"))
    assert {item.impath.split("/")[-3] for item in made.val} == {"photo"} and "tested" in made.val_is
    assert not {i.impath for i in made.test} & {i.impath for i in made.val}


def test_dassls_layouts_give_the_same_splits(cfg_of, pacs):
    ours = DATASET_REGISTRY.get("PACSDomains")(cfg_of("PACSDomains", ["photo"])).test
    (pacs / "pacs").mkdir()
    (pacs / "PACS").rename(pacs / "pacs" / "images")
    theirs = DATASET_REGISTRY.get("PACSDomains")(cfg_of("PACSDomains", ["photo"])).test
    assert [i.impath.split("/")[-3:] for i in ours] == [i.impath.split("/")[-3:] for i in theirs]


def test_parts_of_a_domain_are_put_together(cfg_of, tmp_path):
    for domain in CARDS["DigitsDGDomains"].domains:
        for part, numbers in (("train", range(8)), ("val", range(8, 10))):
            for digit in ("0", "1"):
                folder = tmp_path / "digits_dg" / domain / part / digit
                folder.mkdir(parents=True)
                for i in numbers:
                    Image.new("RGB", (4, 4)).save(folder / f"{i}.png")
    made = DATASET_REGISTRY.get("DigitsDGDomains")(cfg_of("DigitsDGDomains", ["svhn"], shots=1))
    assert len(made.test) == 16 and len(made.train_x) == 2 * 3 and made.classnames == ["0", "1"]


@pytest.mark.parametrize("target, source, select, got", [
    ((), (), "training", "TARGET_DOMAINS"), (["foto"], (), "training", "'foto'"), (["photo"], ["photo"], "training",
                                                                                   "left to train on"),
    (["photo"], (), "test", "'test'"), (["photo"], ["sketch", "cartoon", "sketch"], "training", "'sketch' twice"),
    (["photo", "photo"], (), "training", "'photo' twice")])
def test_impossible_domains_are_refused(cfg_of, pacs, target, source, select, got):
    with pytest.raises(UserError, match=got):
        DATASET_REGISTRY.get("PACSDomains")(cfg_of("PACSDomains", target, source, select=select))


def test_a_missing_domain_is_named(cfg_of, pacs):
    (pacs / "PACS" / "sketch").rename(pacs / "elsewhere")
    with pytest.raises(DatasetNotFound, match="sketch"):
        DATASET_REGISTRY.get("PACSDomains")(cfg_of("PACSDomains", ["photo"]))


def test_a_domain_without_images_is_named(cfg_of, pacs):
    for file in (pacs / "PACS" / "photo").rglob("*.png"):
        file.unlink()
    with pytest.raises(UserError, match="photo"):
        DATASET_REGISTRY.get("PACSDomains")(cfg_of("PACSDomains", ["photo"]))


@pytest.mark.parametrize("name", CARDS)
def test_an_absent_dataset_says_how_to_get_it(cfg_of, name):
    with pytest.raises(DatasetNotFound, match="https://"):
        DATASET_REGISTRY.get(name)(cfg_of(name, list(CARDS[name].domains)[:1]))


def test_the_yamls_list_the_cards_domains_in_their_order():
    found = {yaml.safe_load(path.read_text())["DATASET"]["NAME"]: domains_of(path.stem)
             for path in (CONFIGS / "datasets").glob("*.yaml") if domains_of(path.stem)}
    assert found == {**{card.name: tuple(card.domains) for card in CARDS.values()},
                     "ShapesDomains": tuple(ShapesDomains.domains)}


def test_shapes_domains_share_no_drawing_and_have_all_classes(cfg_of, monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.shapes.write_once", lambda root, name, draw: tmp_path / name)   # draws nothing
    made = ShapesDomains(cfg_of("ShapesDomains", ["sketch"]))
    assert made.num_classes == 48 and len(made.test) == 500 and made.test_domains == ["sketch"]
    numbers = {}
    for item in (*made.train_x, *made.val, *made.test):
        kind, shape, file = item.impath.split("/")[-3:]
        numbers.setdefault((shape, file), set()).add(kind)
    assert all(len(kinds) == 1 for kinds in numbers.values())
