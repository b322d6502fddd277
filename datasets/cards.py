"""One card per dataset: facts only.

Source: CoOp (ff61507) datasets/*.py for folders, splits, renames and ignored classes, trainers/zsclip.py for templates,
DATASETS.md for addresses; sizes as CoOp's splits have them.
"""
from __future__ import annotations

from dataclasses import dataclass, field

_COOP = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"


@dataclass(frozen=True)
class DatasetCard:
    """Facts of one dataset.

    Attributes:
        name: registered name, spelled as CoOp spells it.
        folder: under DATASET.ROOT. images: under `folder`; paths in split files are relative to it ("" is `folder`).
        read: name of the function in datasets/readers.py for the raw dataset.
        template: CLIP's sentence for it. split: CoOp's split file in `folder`, or "".
        needs: what must exist in `folder`. urls: {file: address} that can be fetched without a login.
        home: where a person gets it. classes, test: counts. rename, ignore: of classes. test_only: no training split.
    """

    name: str
    folder: str
    images: str
    read: str
    classes: int
    test: int
    template: str = "a photo of a {}."
    split: str = ""
    needs: tuple[str, ...] = ()
    urls: dict[str, str] = field(default_factory=dict)
    home: str = _COOP
    rename: dict[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    test_only: bool = False


_PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"

CARDS = {card.name: card for card in (
    DatasetCard("Caltech101", "caltech-101", "101_ObjectCategories", "by_folder", 100, 2465,
                split="split_zhou_Caltech101.json", needs=("101_ObjectCategories",),
                ignore=("BACKGROUND_Google", "Faces_easy"),
                rename={"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}),
    DatasetCard("OxfordPets", "oxford_pets", "images", "pets", 37, 3669, "a photo of a {}, a type of pet.",
                split="split_zhou_OxfordPets.json", needs=("images", "annotations"),
                urls={"images.tar.gz": f"{_PETS}/images.tar.gz", "annotations.tar.gz": f"{_PETS}/annotations.tar.gz"},
                home="https://www.robots.ox.ac.uk/~vgg/data/pets/"),
    DatasetCard("StanfordCars", "stanford_cars", "", "cars", 196, 8041, split="split_zhou_StanfordCars.json",
                needs=("cars_train", "cars_test")),
    DatasetCard("OxfordFlowers", "oxford_flowers", "jpg", "flowers", 102, 2463, "a photo of a {}, a type of flower.",
                split="split_zhou_OxfordFlowers.json", needs=("jpg",)),
    DatasetCard("Food101", "food-101", "images", "by_folder", 101, 30300, "a photo of {}, a type of food.",
                split="split_zhou_Food101.json", needs=("images",)),
    DatasetCard("FGVCAircraft", "fgvc_aircraft", "images", "aircraft", 100, 3333, "a photo of a {}, a type of aircraft.",
                needs=("images", "variants.txt", "images_variant_train.txt", "images_variant_val.txt",
                       "images_variant_test.txt")),
    DatasetCard("SUN397", "sun397", "SUN397", "sun", 397, 19850, split="split_zhou_SUN397.json", needs=("SUN397",)),
    DatasetCard("DescribableTextures", "dtd", "images", "by_folder", 47, 1692, "{} texture.",
                split="split_zhou_DescribableTextures.json", needs=("images",)),
    DatasetCard("EuroSAT", "eurosat", "2750", "by_folder", 10, 8100, "a centered satellite photo of {}.",
                split="split_zhou_EuroSAT.json", needs=("2750",), rename={
                    "AnnualCrop": "Annual Crop Land", "HerbaceousVegetation": "Herbaceous Vegetation Land",
                    "Highway": "Highway or Road", "Industrial": "Industrial Buildings", "Pasture": "Pasture Land",
                    "PermanentCrop": "Permanent Crop Land", "Residential": "Residential Buildings",
                    "SeaLake": "Sea or Lake"}),
    DatasetCard("UCF101", "ucf101", "UCF-101-midframes", "actions", 101, 3783, "a photo of a person doing {}.",
                split="split_zhou_UCF101.json", needs=("UCF-101-midframes",)),
    DatasetCard("ImageNet", "imagenet", "images", "imagenet", 1000, 50000,
                needs=("images/train", "images/val", "classnames.txt")),
    DatasetCard("ImageNetV2", "imagenetv2", "imagenetv2-matched-frequency-format-val", "imagenet_numbered", 1000, 10000,
                needs=("imagenetv2-matched-frequency-format-val", "classnames.txt"), test_only=True),
    DatasetCard("ImageNetSketch", "imagenet-sketch", "images", "imagenet_folders", 1000, 50889,
                needs=("images", "classnames.txt"), test_only=True),
    DatasetCard("ImageNetA", "imagenet-adversarial", "imagenet-a", "imagenet_folders", 200, 7500,
                needs=("imagenet-a", "classnames.txt"), test_only=True),
    DatasetCard("ImageNetR", "imagenet-rendition", "imagenet-r", "imagenet_folders", 200, 30000,
                needs=("imagenet-r", "classnames.txt"), test_only=True),
)}
