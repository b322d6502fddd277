"""One row of facts per card, as CoOp's datasets/*.py and trainers/zsclip.py and its paper's table have them."""
import pytest
from trees import make_tree

from datasets.cards import CARDS
from datasets.inspection import inspect_card

PHOTO = "a photo of a {}."
# name: folder, images, split file, classes, train, val, test, sentence
FACTS = {
    "Caltech101": ("caltech-101", "101_ObjectCategories", "Caltech101", 100, 4128, 1649, 2465, PHOTO),
    "OxfordPets": ("oxford_pets", "images", "OxfordPets", 37, 2944, 736, 3669, "a photo of a {}, a type of pet."),
    "StanfordCars": ("stanford_cars", "", "StanfordCars", 196, 6509, 1635, 8041, PHOTO),
    "OxfordFlowers": ("oxford_flowers", "jpg", "OxfordFlowers", 102, 4093, 1633, 2463,
                      "a photo of a {}, a type of flower."),
    "Food101": ("food-101", "images", "Food101", 101, 50500, 20200, 30300, "a photo of {}, a type of food."),
    "FGVCAircraft": ("fgvc_aircraft", "images", "", 100, 3334, 3333, 3333, "a photo of a {}, a type of aircraft."),
    "SUN397": ("sun397", "SUN397", "SUN397", 397, 15880, 3970, 19850, PHOTO),
    "DescribableTextures": ("dtd", "images", "DescribableTextures", 47, 2820, 1128, 1692, "{} texture."),
    "EuroSAT": ("eurosat", "2750", "EuroSAT", 10, 13500, 5400, 8100, "a centered satellite photo of {}."),
    "UCF101": ("ucf101", "UCF-101-midframes", "UCF101", 101, 7639, 1898, 3783, "a photo of a person doing {}."),
    "ImageNet": ("imagenet", "images", "", 1000, 1281167, 0, 50000, PHOTO),
    "ImageNetV2": ("imagenetv2", "imagenetv2-matched-frequency-format-val", "", 1000, 0, 0, 10000, PHOTO),
    "ImageNetSketch": ("imagenet-sketch", "images", "", 1000, 0, 0, 50889, PHOTO),
    "ImageNetA": ("imagenet-adversarial", "imagenet-a", "", 200, 0, 0, 7500, PHOTO),
    "ImageNetR": ("imagenet-rendition", "imagenet-r", "", 200, 0, 0, 30000, PHOTO),
    # Griffin, Holub and Perona (2007): 30,607 images, of which 827 are clutter.
    "Caltech256": ("caltech-256", "256_ObjectCategories", "", 256, 0, 0, 30607 - 827, PHOTO),
    # BlackVIP (e6cfc2f) datasets/resisc45.py: 45 classes of 700 images, split as CoOp splits folders.
    "Resisc45": ("resisc45", "NWPU-RESISC45", "split_mlai_Resisc45.json", 45, 15750, 6300, 9450,
                 "This is a photo of a {}"),
}
RENAMED = {"Caltech101": {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"},
           "EuroSAT": {"AnnualCrop": "Annual Crop Land", "HerbaceousVegetation": "Herbaceous Vegetation Land",
                       "Highway": "Highway or Road", "Industrial": "Industrial Buildings", "Pasture": "Pasture Land",
                       "PermanentCrop": "Permanent Crop Land", "Residential": "Residential Buildings",
                       "SeaLake": "Sea or Lake"}}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_every_card_has_a_row_of_facts():
    assert set(FACTS) == set(CARDS) and len(FACTS) == 17


@pytest.mark.parametrize("name", FACTS)
def test_a_card_says_what_its_source_says(name):
    card, (folder, images, split, *numbers, template) = CARDS[name], FACTS[name]
    split = f"split_zhou_{split}.json" if split and not split.endswith(".json") else split
    assert (card.folder, card.images, card.split) == (folder, images, split)
    assert [card.classes, card.train, card.val, card.test] == numbers and card.template == template
    assert card.rename == RENAMED.get(name, {})
    left_out = {"Caltech101": ("BACKGROUND_Google", "Faces_easy"), "Caltech256": ("257.clutter",)}
    assert card.ignore == left_out.get(name, ())
    assert card.test_only == (name in ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR", "Caltech256"))


@pytest.mark.parametrize("name", FACTS)
def test_every_dataset_can_be_fetched_or_says_what_to_do_by_hand(name):
    card = CARDS[name]
    given = {entry for archive in card.archives for entry in archive.gives}
    wanted = {entry.split("/")[0] for entry in card.needs}
    assert wanted <= given or card.by_hand.endswith("."), wanted - given
    for archive in card.archives:
        assert all(url.startswith("https://") or (archive.md5 and url.startswith("http://"))
                   for url in (archive.url, *archive.mirrors))
        assert len(archive.md5) in (0, 32)
    for archive in card.published:
        assert archive.url.startswith("https://") and archive.gives == (card.split,) and archive.plain
        assert len(archive.sha256) == 64 or name == "Resisc45"


@pytest.mark.parametrize("name", FACTS)
def test_a_small_tree_of_every_card_is_seen_whole_and_told_from_the_real_size(name, tmp_path):
    card = make_tree(name, tmp_path)
    report = inspect_card(card, tmp_path / card.folder)
    facts = dict(report.facts)
    assert facts["classes"].startswith("5; the card has") and facts["files of the split"].startswith("all ")
    assert "not unpacked whole, or it is another version" in report.problems[0]
