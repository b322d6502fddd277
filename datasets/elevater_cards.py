"""The 20 datasets of ELEVATER's image classification, one card each: facts only.

Source: Computer-Vision-in-the-Wild/Elevater_Toolkit_IC 0467557, vision_benchmark/resources/datasets: folders, files and
counts in vision_datasets.json, metrics in *.yaml; sentences and names of classes in ../../datasets/prompts.py (the last
two as eric-ai-lab/PEViT 8c9ab98 keeps them). Sentences are the first of each of its ensembles. The address is theirs;
since August 2023 it wants a signature, which the page of their tool has.
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
        name: registered name. tool_name: ELEVATER's own. folder: below DATASET.ROOT/classification, as its tool does.
        classes, train, val, test: counts; validation images have no part in ELEVATER, which takes training images.
        lists: files of the training and test images: lines "train.zip@cat/1.jpg 3,7", or COCO's JSON.
        archives: zips of the images. metric: of METRICS. template: sentence. labels: file of the class names.
        names: of the classes by label, in place of those in the file, as far as these are no words for a sentence.
    """

    name: str
    tool_name: str
    folder: str
    classes: int
    train: int
    val: int
    test: int
    lists: tuple[str, str]
    archives: tuple[str, ...]
    metric: str
    template: str
    labels: str = "labels.txt"
    names: tuple[str, ...] = ()
    home: str = HOME


_DISTANCES = ("a photo i took of a car on my left or right side.", "a photo i took with a car nearby.",
              "a photo i took with a car in the distance.", "a photo i took with no car.")
_LAND = ("annual crop land", "forest", "brushland or shrubland", "highway or road",
         "industrial buildings or commercial buildings", "pasture land", "permanent crop land",
         "residential buildings or homes or apartments", "river", "lake or sea")
_SIGNS = (*(f"red and white circle {speed} kph speed limit" for speed in (20, 30, 50, 60, 70, 80)),
          "end / de-restriction of 80 kph speed limit",
          *(f"red and white circle {speed} kph speed limit" for speed in (100, 120)),
          "red and white circle red car and black car no passing",
          "red and white circle red truck and black car no passing",
          "red and white triangle road intersection warning", "white and yellow diamond priority road",
          "red and white upside down triangle yield right-of-way", "stop", "empty red and white circle",
          "red and white circle no truck entry", "red circle with white horizonal stripe no entry",
          *(f"red and white triangle {what} warning" for what in (
              "with exclamation mark", "with black left curve approaching", "with black right curve approaching",
              "with black double curve approaching", "rough / bumpy road", "car skidding / slipping",
              "with merging / narrow lanes", "with person digging / construction / road work",
              "with traffic light approaching", "with person walking", "with child and person walking", "with bicyle",
              "with snowflake / ice", "with deer")),
          "white circle with gray strike bar no speed limit",
          *(f"blue circle with white {where} mandatory" for where in (
              "right turn arrow", "left turn arrow", "forward arrow", "forward or right turn arrow",
              "forward or left turn arrow", "keep right arrow", "keep left arrow")),
          "blue circle with white arrows indicating a traffic circle",
          "white circle with gray strike bar indicating no passing for cars has ended",
          "white circle with gray strike bar indicating no passing for trucks has ended")

CARDS = {card.name: card for card in (
    ElevaterCard("ElevaterCaltech101", "caltech-101", "caltech_101_20211007", 102, 3060, 0, 6084,
                 ("train.txt", "test.txt"),
                 ("train.zip", "test.zip"), "mean_per_class", "a photo of a {}."),
    ElevaterCard("ElevaterCIFAR10", "cifar-10", "cifar_10_20211007", 10, 50000, 0, 10000,
                 ("train.txt", "test.txt"),
                 ("train.zip", "val.zip"), "accuracy", "a photo of a {}."),
    ElevaterCard("ElevaterCIFAR100", "cifar-100", "cifar100_20200721", 100, 50000, 0, 10000,
                 ("train_images.txt", "test_images.txt"),
                 ("train_images.zip", "test_images.zip"), "accuracy", "a photo of a {}."),
    ElevaterCard("ElevaterCountry211", "country211", "country211_20210924", 211, 31650, 10550, 21100,
                 ("train.txt", "test.txt"),
                 ("train.zip", "test.zip"), "accuracy", "a photo i took in {}."),
    ElevaterCard("ElevaterDTD", "dtd", "dtd_20211007", 47, 1880, 1880, 1880,
                 ("train.txt", "test.txt"),
                 ("train.zip", "test.zip"), "accuracy", "a photo of a {} texture."),
    ElevaterCard("ElevaterEuroSAT", "eurosat_clip", "eurosat_clip_20210930", 10, 5000, 5000, 5000,
                 ("train.txt", "test.txt"),
                 ("2750.zip",), "accuracy", "a centered satellite photo of {}.", names=_LAND),
    ElevaterCard("ElevaterFER2013", "fer-2013", "fer_2013_20211008", 7, 28709, 3589, 3589,
                 ("train.txt", "test.txt"),
                 ("train.zip", "test.zip"), "accuracy", "a photo of a {} looking face."),
    ElevaterCard("ElevaterFGVCAircraft", "fgvc-aircraft-2013b-variants102",
                 "fgvc_aircraft_2013b_variants102_20211007", 100, 3334, 3333, 3333,
                 ("train.txt", "test.txt"),
                 ("train.zip", "test.zip"), "mean_per_class", "a photo of a {}, a type of aircraft."),
    ElevaterCard("ElevaterFood101", "food-101", "food_101_20211007", 101, 75750, 0, 25250,
                 ("train.txt", "test.txt"),
                 ("train.zip", "val.zip"), "accuracy", "a photo of {}, a type of food."),
    ElevaterCard("ElevaterGTSRB", "gtsrb", "gtsrb_20210923", 43, 26640, 12569, 12630,
                 ("train.txt", "test.txt"),
                 ("train.zip", "final_test.zip"), "accuracy", "a zoomed in photo of a \"{}\" traffic sign.",
                 labels="labelmap.txt", names=_SIGNS),
    ElevaterCard("ElevaterHatefulMemes", "hateful-memes", "hateful_memes_20211014", 2, 8500, 0, 500,
                 ("train_meta.json", "test_meta.json"),
                 ("img.zip",), "roc_auc", "a {}.", names=("meme", "hatespeech meme")),
    ElevaterCard("ElevaterKITTIDistance", "kitti-distance", "kitti_distance_20210923", 4, 6347, 423, 711,
                 ("train_meta.json", "test_meta.json"),
                 ("train_images.zip", "test_images.zip"), "accuracy", "{}", names=_DISTANCES),
    ElevaterCard("ElevaterMNIST", "mnist", "mnist_20211008", 10, 60000, 0, 10000,
                 ("train.txt", "test.txt"),
                 ("train.zip", "val.zip"), "accuracy", "a photo of the number: \"{}\"."),
    ElevaterCard("ElevaterFlowers102", "oxford-flower-102", "oxford_flower_102_20211007", 102, 1020, 1020, 6149,
                 ("train.txt", "test.txt"),
                 ("train.zip", "test.zip"), "mean_per_class", "a photo of a {}, a type of flower."),
    ElevaterCard("ElevaterPets", "oxford-iiit-pets", "oxford_iiit_pets_20211007", 37, 3680, 0, 3669,
                 ("train.txt", "test.txt"),
                 ("train.zip", "val.zip"), "mean_per_class", "a photo of a {}, a type of pet."),
    ElevaterCard("ElevaterPatchCamelyon", "patch-camelyon", "patch_camelyon_20211007", 2, 262144, 32768, 32768,
                 ("train.txt", "test.txt"),
                 ("train.zip", "test.zip"), "accuracy", "this is a photo of {}",
                 names=("lymph node", "lymph node containing metastatic tumor tissue")),
    ElevaterCard("ElevaterRenderedSST2", "rendered-sst2", "rendered_sst2_20210924", 2, 6920, 827, 1821,
                 ("train.txt", "test.txt"),
                 ("train.zip", "test.zip"), "accuracy", "a {} review of a movie.",
                 names=("negative", "positive")),
    ElevaterCard("ElevaterResisc45", "resisc45_clip", "resisc45_clip_20210924", 45, 3150, 3150, 25200,
                 ("train.json", "test.json"),
                 ("images.zip",), "accuracy", "satellite imagery of {}."),
    ElevaterCard("ElevaterStanfordCars", "stanford-cars", "stanford_cars_20211007", 196, 8144, 0, 8041,
                 ("train.txt", "test.txt"),
                 ("train.zip", "val.zip"), "accuracy", "a photo of a {}."),
    ElevaterCard("ElevaterVOC2007", "voc-2007-classification", "voc2007_20211007", 20, 2501, 2510, 4952,
                 ("train_ic.txt", "test_ic.txt"),
                 ("train.zip", "test.zip"), "map_11_points", "a photo of a {}."),
)}
