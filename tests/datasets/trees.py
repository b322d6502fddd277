"""A small tree for every card, in its own layout, with empty files for images."""
import json
from pathlib import Path

import numpy as np

from datasets.cards import CARDS, DatasetCard

COUNTS = (40, 22, 31, 12, 26)             # images per class: one class has fewer than 16 training images
WORDNET = ("n01440764", "n01443537", "n01484850", "n01491361", "n01494475")
NAMES = ("tench", "goldfish", "great white shark", "tiger shark", "hammerhead shark")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_tree(name: str, root: Path) -> DatasetCard:
    """Five classes with COUNTS images below `root`, laid out as the card's reader expects them."""
    card = CARDS[name]
    _MAKERS[card.read](card, root / card.folder)
    return card


def by_folder(card, folder):
    kinds = [*list(card.rename)[:2], "bee", "cup", "ant", "dog", "owl"][:5]
    for kind, count in zip(kinds, COUNTS, strict=True):
        touch(folder / card.images / kind, *(f"{i}.jpg" for i in range(count)))
    for ignored in card.ignore:
        touch(folder / card.images / ignored, "0.jpg")


def caltech256(card, folder):
    kinds = ("001.ak47", "002.american-flag", "056.dog", "159.people", "253.faces-easy-101")
    for kind, count in zip(kinds, COUNTS, strict=True):
        touch(folder / card.images / kind, *(f"{i}.jpg" for i in range(count)), "RENAME2", "greg/vision309")
    touch(folder / card.images / card.ignore[0], "0.jpg")


def pets(card, folder):
    breeds = ("Abyssinian", "pug", "Maine_Coon", "beagle", "Sphynx")
    lines = {"trainval": [], "test": []}
    for c, (breed, count) in enumerate(zip(breeds, COUNTS, strict=True)):
        for i in range(count):
            lines["test" if i % 4 == 3 else "trainval"].append(f"{breed}_{i} {c + 1} 1 1")
            touch(folder / "images", f"{breed}_{i}.jpg")
    for split, rows in lines.items():
        write(folder / "annotations" / f"{split}.txt", *rows)


def cars(card, folder):
    from scipy.io import savemat

    (folder / "devkit").mkdir(parents=True)
    kind = [("class", object), ("fname", object)]
    rows = [(np.array([[c + 1]], np.uint8), np.array([f"{c}{i:04d}.jpg"]))
            for c, count in enumerate(COUNTS) for i in range(count)]
    parts = {"cars_train": rows[::2], "cars_test": rows[1::2]}
    for images, part in parts.items():
        touch(folder / images, *(str(row[1][0]) for row in part))
    names = np.array([[f"Maker{c} Model SUV 200{c}" for c in range(5)]], dtype=object)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    for path, part in (("devkit/cars_train_annos.mat", "cars_train"), ("cars_test_annos_withlabels.mat", "cars_test")):
        savemat(folder / path, {"annotations": np.array([parts[part]], dtype=kind)})


def flowers(card, folder):
    from scipy.io import savemat

    labels = [c + 1 for c, count in enumerate(COUNTS) for _ in range(count)]
    labels = labels[::2] + labels[1::2]                     # classes interleave, as in the real file
    touch(folder / "jpg", *(f"image_{i:05d}.jpg" for i in range(1, len(labels) + 1)))
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels])})
    write(folder / "cat_to_name.json", json.dumps({str(c + 1): f"flower {c}" for c in range(5)}))


def aircraft(card, folder):
    names = ("707-320", "727-200", "A300B4", "Boeing 717", "Yak-42")
    write(folder / "variants.txt", *names)
    for s, split in enumerate(("train", "val", "test")):
        rows = [(f"{s}{c}{i:03d}", name) for c, name in enumerate(names) for i in range(COUNTS[c])]
        write(folder / f"images_variant_{split}.txt", *(f"{image} {name}" for image, name in rows))
        touch(folder / "images", *(f"{image}.jpg" for image, _ in rows))


def sun(card, folder):
    scenes = ("/a/abbey", "/a/apse/indoor", "/b/bar", "/c/church/outdoor", "/z/zoo")
    images = [f"{scene}/sun_{i}.jpg" for scene, count in zip(scenes, COUNTS, strict=True) for i in range(count)]
    write(folder / "ClassName.txt", *scenes)
    write(folder / "Training_01.txt", *images[::2])
    write(folder / "Testing_01.txt", *images[1::2])
    touch(folder / "SUN397", *(image[1:] for image in images))


def actions(card, folder):
    kinds = ("ApplyEyeMakeup", "BabyCrawling", "Biking", "TaiChi", "YoYo")
    words = ("Apply_Eye_Makeup", "Baby_Crawling", "Biking", "Tai_Chi", "Yo_Yo")
    rows = [(c, i) for c, count in enumerate(COUNTS) for i in range(count)]
    lists = folder / "ucfTrainTestlist"
    write(lists / "classInd.txt", *(f"{c + 1} {kind}" for c, kind in enumerate(kinds)))
    write(lists / "trainlist01.txt", *(f"{kinds[c]}/v_{i}.avi {c + 1}" for c, i in rows[::2]))
    write(lists / "testlist01.txt", *(f"{kinds[c]}/v_{i}.avi" for c, i in rows[1::2]))
    touch(folder / "UCF-101-midframes", *(f"{words[c]}/v_{i}.jpg" for c, i in rows))


def _classnames(folder):
    write(folder / "classnames.txt", *(f"{wordnet} {name}" for wordnet, name in zip(WORDNET, NAMES, strict=True)))


def imagenet(card, folder):
    _classnames(folder)
    for split in ("train", "val"):
        imagenet_folders(card, folder, f"{card.images}/{split}")


def imagenet_folders(card, folder, images=""):
    _classnames(folder)
    for wordnet, count in zip(WORDNET, COUNTS, strict=True):
        touch(folder / (images or card.images) / wordnet, *(f"{wordnet}_{i}.JPEG" for i in range(count)))


def imagenet_numbered(card, folder):
    _classnames(folder)
    for label, count in enumerate(COUNTS):
        touch(folder / card.images / str(label), *(f"{i}.jpeg" for i in range(count)))


_MAKERS = {maker.__name__: maker for maker in (by_folder, caltech256, pets, cars, flowers, aircraft, sun, actions,
                                               imagenet, imagenet_folders, imagenet_numbered)}
