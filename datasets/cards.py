"""One card per dataset: facts only.

Source: CoOp (ff61507) datasets/*.py for folders, splits, renames and ignored classes, trainers/zsclip.py for templates,
DATASETS.md for addresses; sizes as CoOp's splits have them; MD5 sums as torchvision 0.20 has them (it has none for
FGVCAircraft).
"""
from __future__ import annotations

from dataclasses import dataclass, field

COOP_PAGE = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"


@dataclass(frozen=True)
class Archive:
    """A file that anyone can fetch.

    Attributes:
        url: its address. gives: the entries of the dataset's folder that come out of it. md5: hex digest, or "".
        inside: folder in the archive that holds those entries. then: an archive in `inside` that holds them in turn.
        plain: no archive, but the one file of `gives`.
    """

    url: str
    gives: tuple[str, ...]
    md5: str = ""
    inside: str = ""
    then: str = ""
    plain: bool = False


@dataclass(frozen=True)
class DatasetCard:
    """Facts of one dataset.

    Attributes:
        name: registered name, spelled as CoOp spells it.
        folder: under DATASET.ROOT. images: under `folder`; paths in split files are relative to it ("" is `folder`).
        read: name of the function in datasets/readers.py for the raw dataset.
        classes, test: counts. template: CLIP's sentence for it. split: CoOp's split file in `folder`, or "".
        split_url: its address. needs: what must exist in `folder`. lists: what must exist too where `split` does not.
        archives: what can be fetched without a login. home: where a person gets it.
        rename, ignore: of classes. test_only: no training split.
    """

    name: str
    folder: str
    images: str
    read: str
    classes: int
    test: int
    template: str = "a photo of a {}."
    split: str = ""
    split_url: str = ""
    needs: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    home: str = COOP_PAGE
    rename: dict[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    test_only: bool = False


def _drive(number: str) -> str:
    """Google Drive's address of a file of CoOp's authors."""
    return f"https://drive.google.com/uc?export=download&id={number}"


_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_EUROSAT = "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip"
_AIRCRAFT = ("images", "variants.txt", "images_variant_train.txt", "images_variant_val.txt", "images_variant_test.txt")

CARDS = {card.name: card for card in (
    DatasetCard("Caltech101", "caltech-101", "101_ObjectCategories", "by_folder", 100, 2465,
                split="split_zhou_Caltech101.json",
                split_url=_drive("1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"),
                needs=("101_ObjectCategories",), archives=(
                    Archive("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                            ("101_ObjectCategories",), "3138e1922a9193bfa496528edbbc45d0", "caltech-101",
                            then="101_ObjectCategories.tar.gz"),),
                ignore=("BACKGROUND_Google", "Faces_easy"),
                rename={"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}),
    DatasetCard("OxfordPets", "oxford_pets", "images", "pets", 37, 3669, "a photo of a {}, a type of pet.",
                split="split_zhou_OxfordPets.json",
                split_url=_drive("1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"),
                needs=("images",),
                lists=("annotations/trainval.txt", "annotations/test.txt"), home=f"{_VGG}/pets/", archives=(
                    Archive(f"{_VGG}/pets/data/annotations.tar.gz", ("annotations",),
                            "95a8c909bbe2e81eed6a22bccdf3f68f"),
                    Archive(f"{_VGG}/pets/data/images.tar.gz", ("images",), "5c4f3ee8e5d25df40f4fd59a7f44e54c"))),
    DatasetCard("StanfordCars", "stanford_cars", "", "cars", 196, 8041,
                split="split_zhou_StanfordCars.json",
                split_url=_drive("1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"),
                needs=("cars_train", "cars_test"),
                lists=("devkit/cars_train_annos.mat", "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat")),
    DatasetCard("OxfordFlowers", "oxford_flowers", "jpg", "flowers", 102, 2463, "a photo of a {}, a type of flower.",
                split="split_zhou_OxfordFlowers.json",
                split_url=_drive("1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"),
                needs=("jpg",), lists=("imagelabels.mat", "cat_to_name.json"), archives=(
                    Archive(f"{_VGG}/flowers/102/102flowers.tgz", ("jpg",), "52808999861908f626f3c1f4e79d11fa"),
                    Archive(f"{_VGG}/flowers/102/imagelabels.mat", ("imagelabels.mat",),
                            "e0620be6f572b9609742df49c70aed4d", plain=True),
                    Archive(_drive("1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0"), ("cat_to_name.json",), plain=True))),
    DatasetCard("Food101", "food-101", "images", "by_folder", 101, 30300, "a photo of {}, a type of food.",
                split="split_zhou_Food101.json",
                split_url=_drive("1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"),
                needs=("images",), archives=(
                    Archive("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", ("images",),
                            "85eeb15f3717b99a5da872d97d918f87", "food-101"),)),
    DatasetCard("FGVCAircraft", "fgvc_aircraft", "images", "aircraft", 100, 3333,
                "a photo of a {}, a type of aircraft.", needs=_AIRCRAFT, archives=(
                    Archive(f"{_VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz", _AIRCRAFT,
                            inside="fgvc-aircraft-2013b/data"),)),
    DatasetCard("SUN397", "sun397", "SUN397", "sun", 397, 19850,
                split="split_zhou_SUN397.json",
                split_url=_drive("1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"),
                needs=("SUN397",),
                lists=("ClassName.txt", "Training_01.txt", "Testing_01.txt")),
    DatasetCard("DescribableTextures", "dtd", "images", "by_folder", 47, 1692, "{} texture.",
                split="split_zhou_DescribableTextures.json",
                split_url=_drive("1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"),
                needs=("images",), archives=(
                    Archive(f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz", ("images",), "fff73e5086ae6bdbea199a49dfb8a4c1",
                            "dtd"),)),
    DatasetCard("EuroSAT", "eurosat", "2750", "by_folder", 10, 8100, "a centered satellite photo of {}.",
                split="split_zhou_EuroSAT.json",
                split_url=_drive("1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"),
                needs=("2750",),
                archives=(Archive(_EUROSAT, ("2750",), "c8fa014336c82ac7804f0398fcb19387"),), rename={
                    "AnnualCrop": "Annual Crop Land", "HerbaceousVegetation": "Herbaceous Vegetation Land",
                    "Highway": "Highway or Road", "Industrial": "Industrial Buildings", "Pasture": "Pasture Land",
                    "PermanentCrop": "Permanent Crop Land", "Residential": "Residential Buildings",
                    "SeaLake": "Sea or Lake"}),
    DatasetCard("UCF101", "ucf101", "UCF-101-midframes", "actions", 101, 3783, "a photo of a person doing {}.",
                split="split_zhou_UCF101.json",
                split_url=_drive("1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"),
                needs=("UCF-101-midframes",),
                lists=("ucfTrainTestlist/classInd.txt", "ucfTrainTestlist/trainlist01.txt",
                       "ucfTrainTestlist/testlist01.txt")),
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
