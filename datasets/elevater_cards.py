"""The 20 datasets of ELEVATER's image classification, one card each: facts only.

Source: Computer-Vision-in-the-Wild/Elevater_Toolkit_IC, vision_benchmark/resources/datasets/vision_datasets.json, for
folders, files and counts; metrics as the paper's table of datasets has them (Li et al., NeurIPS 2022). Sentences are
CLIP's first one for each (Radford et al., ICML 2021), not ELEVATER's ensembles.
"""
from __future__ import annotations

from dataclasses import dataclass

METRICS = ("accuracy", "mean_per_class", "map_11_points", "roc_auc")
HOME = "https://github.com/Computer-Vision-in-the-Wild/DataDownload"
ADDRESS = "https://cvinthewildeus.blob.core.windows.net/datasets/classification"


@dataclass(frozen=True)
class ElevaterCard:
    """Facts of one dataset.

    Attributes:
        name: registered name. folder: below DATASET.ROOT/classification, as the toolkit puts it.
        classes, train, val, test: counts; val 0 where a fifth of the training images is taken.
        lists: files of the three splits, "" for none: lines "train.zip@cat/1.jpg 3,7", or COCO's JSON.
        archives: zips of the images. metric: of METRICS. template: sentence. labels: file of the class names.
    """

    name: str
    folder: str
    classes: int
    train: int
    val: int
    test: int
    lists: tuple[str, str, str]
    archives: tuple[str, ...]
    metric: str
    template: str
    labels: str = "labels.txt"
    home: str = HOME


CARDS = {card.name: card for card in (
    ElevaterCard("ElevaterCaltech101", "caltech_101_20211007", 102, 3060, 0, 6084,
                 ("train.txt", "", "test.txt"),
                 ("train.zip", "test.zip"), "mean_per_class", "a photo of a {}."),
    ElevaterCard("ElevaterCIFAR10", "cifar_10_20211007", 10, 50000, 0, 10000,
                 ("train.txt", "", "test.txt"),
                 ("train.zip", "val.zip"), "accuracy", "a photo of a {}."),
    ElevaterCard("ElevaterCIFAR100", "cifar100_20200721", 100, 50000, 0, 10000,
                 ("train_images.txt", "", "test_images.txt"),
                 ("train_images.zip", "test_images.zip"), "accuracy", "a photo of a {}."),
    ElevaterCard("ElevaterCountry211", "country211_20210924", 211, 31650, 10550, 21100,
                 ("train.txt", "valid.txt", "test.txt"),
                 ("train.zip", "valid.zip", "test.zip"), "accuracy", "a photo taken in {}."),
    ElevaterCard("ElevaterDTD", "dtd_20211007", 47, 1880, 1880, 1880,
                 ("train.txt", "val.txt", "test.txt"),
                 ("train.zip", "val.zip", "test.zip"), "accuracy", "{} texture."),
    ElevaterCard("ElevaterEuroSAT", "eurosat_clip_20210930", 10, 5000, 5000, 5000,
                 ("train.txt", "val.txt", "test.txt"),
                 ("2750.zip",), "accuracy", "a centered satellite photo of {}."),
    ElevaterCard("ElevaterFER2013", "fer_2013_20211008", 7, 28709, 3589, 3589,
                 ("train.txt", "val.txt", "test.txt"),
                 ("train.zip", "val.zip", "test.zip"), "accuracy", "a photo of a {} looking face."),
    ElevaterCard("ElevaterFGVCAircraft", "fgvc_aircraft_2013b_variants102_20211007", 100, 3334, 3333, 3333,
                 ("train.txt", "val.txt", "test.txt"),
                 ("train.zip", "val.zip", "test.zip"), "mean_per_class", "a photo of a {}, a type of aircraft."),
    ElevaterCard("ElevaterFood101", "food_101_20211007", 101, 75750, 0, 25250,
                 ("train.txt", "", "test.txt"),
                 ("train.zip", "val.zip"), "accuracy", "a photo of {}, a type of food."),
    ElevaterCard("ElevaterGTSRB", "gtsrb_20210923", 43, 26640, 12569, 12630,
                 ("train.txt", "val.txt", "test.txt"),
                 ("train.zip", "val.zip", "final_test.zip"), "accuracy", "a photo of a {} traffic sign.",
                 labels="labelmap.txt"),
    ElevaterCard("ElevaterHatefulMemes", "hateful_memes_20211014", 2, 8500, 0, 500,
                 ("train_meta.json", "", "test_meta.json"),
                 ("img.zip",), "roc_auc", "a {}."),
    ElevaterCard("ElevaterKITTIDistance", "kitti_distance_20210923", 4, 6347, 423, 711,
                 ("train_meta.json", "validation_meta.json", "test_meta.json"),
                 ("train_images.zip", "validation_images.zip", "test_images.zip"), "accuracy", "{}."),
    ElevaterCard("ElevaterMNIST", "mnist_20211008", 10, 60000, 0, 10000,
                 ("train.txt", "", "test.txt"),
                 ("train.zip", "val.zip"), "accuracy", "a photo of the number {}."),
    ElevaterCard("ElevaterFlowers102", "oxford_flower_102_20211007", 102, 1020, 1020, 6149,
                 ("train.txt", "val.txt", "test.txt"),
                 ("train.zip", "val.zip", "test.zip"), "mean_per_class", "a photo of a {}, a type of flower."),
    ElevaterCard("ElevaterPets", "oxford_iiit_pets_20211007", 37, 3680, 0, 3669,
                 ("train.txt", "", "test.txt"),
                 ("train.zip", "val.zip"), "mean_per_class", "a photo of a {}, a type of pet."),
    ElevaterCard("ElevaterPatchCamelyon", "patch_camelyon_20211007", 2, 262144, 32768, 32768,
                 ("train.txt", "val.txt", "test.txt"),
                 ("train.zip", "validation.zip", "test.zip"), "accuracy", "this is a photo of {}."),
    ElevaterCard("ElevaterRenderedSST2", "rendered_sst2_20210924", 2, 6920, 827, 1821,
                 ("train.txt", "valid.txt", "test.txt"),
                 ("train.zip", "valid.zip", "test.zip"), "accuracy", "a {} review of a movie."),
    ElevaterCard("ElevaterResisc45", "resisc45_clip_20210924", 45, 3150, 3150, 25200,
                 ("train.json", "val.json", "test.json"),
                 ("images.zip",), "accuracy", "satellite imagery of {}."),
    ElevaterCard("ElevaterStanfordCars", "stanford_cars_20211007", 196, 8144, 0, 8041,
                 ("train.txt", "", "test.txt"),
                 ("train.zip", "val.zip"), "accuracy", "a photo of a {}."),
    ElevaterCard("ElevaterVOC2007", "voc2007_20211007", 20, 2501, 2510, 4952,
                 ("train_ic.txt", "val_ic.txt", "test_ic.txt"),
                 ("train.zip", "test.zip"), "map_11_points", "a photo of a {}."),
)}
