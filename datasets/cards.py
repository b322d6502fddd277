"""One card per dataset: facts only.

Source: CoOp (ff61507) datasets/*.py for folders, splits, renames and ignored classes, trainers/zsclip.py for templates,
DATASETS.md for addresses; sizes as CoOp's splits have them (its paper's table of datasets); MD5 sums as torchvision
0.20 has them (it has none for FGVCAircraft), those of ImageNet-A and -R as public loaders have them.
Resisc45: BlackVIP (changdaeoh/BlackVIP e6cfc2f) datasets/resisc45.py and README, trainers/zsclip.py; its sizes are
those that its rule gives (its split file was not seen), address and MD5 of the images as torchgeo has them.
Caltech256: Griffin, Holub and Perona, 2007, for its 29,780 images of 256 classes; address and MD5 as torchvision has
them. Names of description files: DVP (caichengyi/DecoupledVP 4976ad4). SHA-256 of CoOp's splits: of the files
themselves, and of the same rows in compact JSON, as linzhiqiu/cross_modal_adaptation c7e7e68 has them.
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
        plain: no archive, but the one file of `gives`. mirrors: other addresses of the same file, tried in order.
        whole: folder in the archive that becomes the one entry of `gives`, under that name.
        sha256: hex digest, or "". member: the file in a zip that alone is fetched; then `sha256` is that file's.
    """

    url: str
    gives: tuple[str, ...]
    md5: str = ""
    inside: str = ""
    then: str = ""
    plain: bool = False
    mirrors: tuple[str, ...] = ()
    whole: str = ""
    sha256: str = ""
    member: str = ""

    @property
    def digest(self) -> str:
        """What the file is held against; "" where nothing is known."""
        return self.sha256 or self.md5

    @property
    def file(self) -> str:
        """Name while it is fetched; an address with a query has none of its own."""
        own = self.url.rsplit("/", 1)[1]
        return self.gives[0] if self.plain else f"{self.gives[0]}.archive" if "?" in own else own


@dataclass(frozen=True)
class DatasetCard:
    """Facts of one dataset.

    Attributes:
        name: registered name, spelled as CoOp spells it.
        folder: under DATASET.ROOT. images: under `folder`; paths in split files are relative to it ("" is `folder`).
        read: name of the function in datasets/readers.py for the raw dataset.
        classes, test, train, val: counts; val 0 where there is none. template: CLIP's sentence for it.
        split: CoOp's split file in `folder`, or "". descriptions: stem of the files of descriptions of its classes.
        published: addresses of `split`, each with the SHA-256 of what it serves. needs: what must exist in `folder`.
        lists: what must exist too where `split` does not; CoOp's split follows from them.
        archives: what can be fetched without a login. home: where a person gets it.
        by_hand: what a person has to do where no archive can be fetched; ends with a full stop.
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
    descriptions: str = ""
    published: tuple[Archive, ...] = ()
    needs: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    home: str = COOP_PAGE
    by_hand: str = ""
    train: int = 0
    val: int = 0
    rename: dict[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    test_only: bool = False


def _drive(number: str) -> str:
    """Google Drive's address of a file of CoOp's authors."""
    return f"https://drive.google.com/uc?export=download&id={number}"


def _large_drive(number: str) -> str:
    """The address without the page that asks before a large file."""
    return f"https://drive.usercontent.google.com/download?id={number}&export=download&confirm=t"


_CROSS_MODAL = "https://raw.githubusercontent.com/linzhiqiu/cross_modal_adaptation/c7e7e68ae4eeadfab98e7886b2d6c9cf48a7ceb5"
_MIRROR = "https://huggingface.co/zhengli97/prompt_learning_dataset"
_MIRRORED = f"{_MIRROR}/resolve/ceb3112337fb6e1bf71534e355ca5569b63f19a6"


def _published(split: str, drive: str, sha256: str, mirrored: str = "", compact: str = "") -> tuple[Archive, ...]:
    """Addresses of a split file of CoOp's.

    Args:
        drive: its number on Google Drive. sha256: of the file.
        mirrored: the mirror's zip of the dataset, which holds the file.
        compact: SHA-256 of the same rows as cross_modal_adaptation has them.
    """
    addresses = [Archive(_drive(drive), (split,), plain=True, sha256=sha256)]
    if compact:
        addresses.append(Archive(f"{_CROSS_MODAL}/splits/{split}", (split,), plain=True, sha256=compact))
    if mirrored:
        addresses.append(Archive(f"{_MIRRORED}/{mirrored}", (split,), plain=True, sha256=sha256, member=split))
    return tuple(addresses)


_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_THOR = "https://thor.robots.ox.ac.uk"
_BERKELEY = "https://people.eecs.berkeley.edu/~hendrycks"
_HUB = "https://huggingface.co/datasets"
_CLASSNAMES = Archive(_drive("1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF"), ("classnames.txt",), plain=True)
_EUROSAT = "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip"
_AIRCRAFT = ("images", "variants.txt", "images_variant_train.txt", "images_variant_val.txt", "images_variant_test.txt")

CARDS = {card.name: card for card in (
    DatasetCard("Caltech101", "caltech-101", "101_ObjectCategories", "by_folder", 100, 2465,
                train=4128, val=1649, split="split_zhou_Caltech101.json", descriptions="caltech101",
                published=_published("split_zhou_Caltech101.json", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
                                     "52ce83205ff8ff8a1a18119aad6376120ae35c36e783a984bc560cbf10e73fa5",
                                     "caltech-101.zip",
                                     "cb0e193bd69a6f898a6e0263e84960d3e6e4f33fd394803eab6f98cb1474c9e8"),
                needs=("101_ObjectCategories",), archives=(
                    Archive("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                            ("101_ObjectCategories",), "3138e1922a9193bfa496528edbbc45d0", "caltech-101",
                            then="101_ObjectCategories.tar.gz"),),
                ignore=("BACKGROUND_Google", "Faces_easy"),
                rename={"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}),
    DatasetCard("OxfordPets", "oxford_pets", "images", "pets", 37, 3669, "a photo of a {}, a type of pet.",
                train=2944, val=736, split="split_zhou_OxfordPets.json", descriptions="oxford_pets",
                published=_published("split_zhou_OxfordPets.json", "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
                                     "d7f3ffe65b3919f95132e51422894ae18686b83c331fd8c0adcdc3dc2de6301e",
                                     "oxford_pets.zip",
                                     "b1f67d4b99e64eae950bdad05b97623ba46e04e981ccc7d72691715916640dda"),
                needs=("images",),
                lists=("annotations/trainval.txt", "annotations/test.txt"), home=f"{_VGG}/pets/", archives=(
                    Archive(f"{_VGG}/pets/data/annotations.tar.gz", ("annotations",),
                            "95a8c909bbe2e81eed6a22bccdf3f68f",
                            mirrors=(f"{_THOR}/~vgg/data/pets/annotations.tar.gz",)),
                    Archive(f"{_VGG}/pets/data/images.tar.gz", ("images",), "5c4f3ee8e5d25df40f4fd59a7f44e54c",
                            mirrors=(f"{_THOR}/~vgg/data/pets/images.tar.gz",)))),
    DatasetCard("StanfordCars", "stanford_cars", "", "cars", 196, 8041,
                train=6509, val=1635, split="split_zhou_StanfordCars.json", descriptions="stanford_cars",
                published=_published("split_zhou_StanfordCars.json", "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
                                     "40acee7aa65c8e4727a32d90e884b7c3f8960b523422317e163f7af65432959d",
                                     "stanford_cars.zip",
                                     "dfe736f7b93100d1a65a4001d65e52d386a6ec090eebaf124353eab77a737fca"),
                needs=("cars_train", "cars_test"),
                lists=("devkit/cars_train_annos.mat", "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat"),
                by_hand="The authors' server is gone (github.com/pytorch/vision/issues/7545, where copies are listed). "
                        f"Without a login: stanford_cars.zip at {_MIRROR}. With a Kaggle login: open "
                        "https://www.kaggle.com/datasets/jessicali9530/stanford-cars-dataset and click Download; "
                        "unpack, and move the innermost cars_train/ and cars_test/ (those that hold 00001.jpg ...) to "
                        "stanford_cars/."),
    DatasetCard("OxfordFlowers", "oxford_flowers", "jpg", "flowers", 102, 2463, "a photo of a {}, a type of flower.",
                train=4093, val=1633, split="split_zhou_OxfordFlowers.json", descriptions="oxford_flowers",
                published=_published("split_zhou_OxfordFlowers.json", "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
                                     "2f50c42fc1a17ca13c271cb4269b1347bdb43d2be672e34f74a4e4cbfbcca794",
                                     "oxford_flowers.zip",
                                     "3e0c54f6848d8f4413150006815dce589aefaed5fb7efaa6a3b6f66918146bcc"),
                needs=("jpg",), lists=("imagelabels.mat", "cat_to_name.json"), archives=(
                    Archive(f"{_VGG}/flowers/102/102flowers.tgz", ("jpg",), "52808999861908f626f3c1f4e79d11fa",
                            mirrors=(f"{_THOR}/flowers/102/102flowers.tgz",)),
                    Archive(f"{_VGG}/flowers/102/imagelabels.mat", ("imagelabels.mat",),
                            "e0620be6f572b9609742df49c70aed4d", plain=True,
                            mirrors=(f"{_THOR}/flowers/102/imagelabels.mat",)),
                    Archive(_drive("1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0"), ("cat_to_name.json",), plain=True,
                            mirrors=(f"{_CROSS_MODAL}/splits/cat_to_name.json",)))),
    DatasetCard("Food101", "food-101", "images", "by_folder", 101, 30300, "a photo of {}, a type of food.",
                train=50500, val=20200, split="split_zhou_Food101.json", descriptions="food101",
                published=_published("split_zhou_Food101.json", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl",
                                     "7c3d456c4f348255e1a363e0ea5118318936488f3ec20d83758e0ee67cb9037c",
                                     "food101.zip"),
                needs=("images",), archives=(
                    Archive("https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", ("images",),
                            "85eeb15f3717b99a5da872d97d918f87", "food-101",
                            mirrors=("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",)),)),
    DatasetCard("FGVCAircraft", "fgvc_aircraft", "images", "aircraft", 100, 3333,
                "a photo of a {}, a type of aircraft.", train=3334, val=3333, descriptions="fgvc", needs=_AIRCRAFT,
                archives=(
                    Archive(f"{_VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz", _AIRCRAFT,
                            inside="fgvc-aircraft-2013b/data"),)),
    DatasetCard("SUN397", "sun397", "SUN397", "sun", 397, 19850,
                train=15880, val=3970, split="split_zhou_SUN397.json", descriptions="sun397",
                published=_published("split_zhou_SUN397.json", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq",
                                     "9847f9ef611008073ac42adee6614bbb83f877cfbcfbd3115fc8284e0c8c1c47",
                                     "sun397.zip"),
                needs=("SUN397",),
                lists=("ClassName.txt", "Training_01.txt", "Testing_01.txt"),
                by_hand="The authors' images (SUN397.tar.gz) and lists (Partitions.zip) are gone: both copies, at "
                        "Princeton and at MIT, answer 404 (github.com/pytorch/vision/issues/9348). What exists: "
                        f"sun397.zip at {_MIRROR}, with the images and the split; other copies of SUN397.tar.gz "
                        "(37 GB) are right if their MD5 is 8ca2778205c41d23104230ba66911c7a. Unpack it so that "
                        "sun397/SUN397/a/abbey/ is there; the split is fetched."),
    DatasetCard("DescribableTextures", "dtd", "images", "by_folder", 47, 1692, "{} texture.",
                train=2820, val=1128, split="split_zhou_DescribableTextures.json", descriptions="dtd",
                published=_published("split_zhou_DescribableTextures.json", "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
                                     "f26ebeccd2b58e68d70f07a0dc39fe49bf7b69024bac34396b954dfd87969c38",
                                     "dtd.zip",
                                     "038c759d32099a1f1df63bf97f664fe86d3af2a1e3d2f59a84c884257314bd18"),
                needs=("images",), archives=(
                    Archive(f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz", ("images",), "fff73e5086ae6bdbea199a49dfb8a4c1",
                            "dtd", mirrors=(f"{_THOR}/dtd/dtd-r1.0.1.tar.gz",)),)),
    DatasetCard("EuroSAT", "eurosat", "2750", "by_folder", 10, 8100, "a centered satellite photo of {}.",
                train=13500, val=5400, split="split_zhou_EuroSAT.json", descriptions="eurosat",
                published=_published("split_zhou_EuroSAT.json", "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",
                                     "541503a77d0b26b735d85ec7a3e672804fe0aa466c2e5f07da772cc6c0af8ad2",
                                     "eurosat.zip",
                                     "7f5d4f79bba4f67d1ed4bc0b5fbafab565564c6ff8205b82d893897db0d8015b"),
                needs=("2750",),
                archives=(Archive(_EUROSAT, ("2750",), "c8fa014336c82ac7804f0398fcb19387",
                                  mirrors=("https://madm.dfki.de/files/sentinel/EuroSAT.zip",)),), rename={
                    "AnnualCrop": "Annual Crop Land", "HerbaceousVegetation": "Herbaceous Vegetation Land",
                    "Highway": "Highway or Road", "Industrial": "Industrial Buildings", "Pasture": "Pasture Land",
                    "PermanentCrop": "Permanent Crop Land", "Residential": "Residential Buildings",
                    "SeaLake": "Sea or Lake"}),
    DatasetCard("UCF101", "ucf101", "UCF-101-midframes", "actions", 101, 3783, "a photo of a person doing {}.",
                train=7639, val=1898, split="split_zhou_UCF101.json", descriptions="ucf101",
                published=_published("split_zhou_UCF101.json", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
                                     "d78cb834f7c5792ceaff2c5ee2d7c76a9e4086e48a3a6b01232989d29cbefdd8",
                                     "ucf101.zip",
                                     "875b6350cc32a4912942a97b5ef3b45c2de6c52324cfc77c6f741a1edac421da"),
                needs=("UCF-101-midframes",),
                lists=("ucfTrainTestlist/classInd.txt", "ucfTrainTestlist/trainlist01.txt",
                       "ucfTrainTestlist/testlist01.txt"), archives=(
                    Archive(_large_drive("10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O"), ("UCF-101-midframes",)),)),
    DatasetCard("Resisc45", "resisc45", "NWPU-RESISC45", "by_folder", 45, 9450, "This is a photo of a {}",
                train=15750, val=6300, split="split_mlai_Resisc45.json", descriptions="resisc45",
                published=_published("split_mlai_Resisc45.json", "1QTThkyN-p58hAxN7wpBntO4CncTf9qtF", ""),
                needs=("NWPU-RESISC45",), archives=(
                    Archive(f"{_HUB}/torchgeo/resisc45/resolve/a826b44d938a883185f11ebe3d512d38b464312f/"
                            "NWPU-RESISC45.zip", ("NWPU-RESISC45",), "75206b2e16446591afa88e2628744886"),),
                home="https://github.com/changdaeoh/BlackVIP"),
    DatasetCard("Caltech256", "caltech-256", "256_ObjectCategories", "caltech256", 256, 29780,
                needs=("256_ObjectCategories",), ignore=("257.clutter",), archives=(
                    Archive("https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",
                            ("256_ObjectCategories",), "67b4f42ca05d46448c6bb8ecd2220f6d"),),
                home="https://data.caltech.edu/records/20087", test_only=True),
    DatasetCard("ImageNet", "imagenet", "images", "imagenet", 1000, 50000,
                train=1281167, descriptions="imagenet", needs=("images/train", "images/val", "classnames.txt"),
                home="https://image-net.org/download-images", archives=(_CLASSNAMES,),
                by_hand="It needs an account: sign up at https://image-net.org/signup, log in, open Download, choose "
                        "ILSVRC2012 and take \"Training images (Task 1 & 2)\" (138 GB) and \"Validation images (all "
                        "tasks)\" (6.3 GB). Unpack both so that each class has its folder: "
                        "imagenet/images/train/n01440764/ and imagenet/images/val/n01440764/ hold JPEG files."),
    DatasetCard("ImageNetV2", "imagenetv2", "imagenetv2-matched-frequency-format-val", "imagenet_numbered", 1000, 10000,
                descriptions="imagenet", needs=("imagenetv2-matched-frequency-format-val", "classnames.txt"), archives=(
                    Archive("https://s3-us-west-2.amazonaws.com/imagenetv2public/imagenetv2-matched-frequency.tar.gz",
                            ("imagenetv2-matched-frequency-format-val",),
                            mirrors=(f"{_HUB}/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz",)),
                    _CLASSNAMES), test_only=True),
    DatasetCard("ImageNetSketch", "imagenet-sketch", "images", "imagenet_folders", 1000, 50889,
                descriptions="imagenet", needs=("images", "classnames.txt"), archives=(
                    Archive(f"{_HUB}/songweig/imagenet_sketch/resolve/main/data/ImageNet-Sketch.zip", ("images",),
                            whole="sketch"), _CLASSNAMES), test_only=True),
    DatasetCard("ImageNetA", "imagenet-adversarial", "imagenet-a", "imagenet_folders", 200, 7500,
                descriptions="imagenet", needs=("imagenet-a", "classnames.txt"), archives=(
                    Archive(f"{_BERKELEY}/imagenet-a.tar", ("imagenet-a",), "c3e55429088dc681f30d81f4726b6595"),
                    _CLASSNAMES), test_only=True),
    DatasetCard("ImageNetR", "imagenet-rendition", "imagenet-r", "imagenet_folders", 200, 30000,
                descriptions="imagenet", needs=("imagenet-r", "classnames.txt"), archives=(
                    Archive(f"{_BERKELEY}/imagenet-r.tar", ("imagenet-r",), "a61312130a589d0ca1a8fca1f2bd3337"),
                    _CLASSNAMES), test_only=True),
)}
