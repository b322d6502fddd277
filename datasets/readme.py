"""datasets/README.md, written from the cards: `python tools/data.py readme`."""
from __future__ import annotations

from . import domain_cards, elevater_cards
from .cards import CARDS, Archive, DatasetCard

_HEAD = """# Datasets

Written from `datasets/cards.py` by `python tools/data.py readme`; a test checks that it is up to date.

```bash
python tools/data.py list                  # every dataset, and whether it is here
python tools/data.py get dtd eurosat       # download and unpack, in CoOp's layout; resumes if interrupted
python tools/data.py check oxford_pets     # tree, counts, every file of the split, some images, names and labels
```

All datasets are in one folder, `DATA` (default `data/`). Split files, folders, class names and sentences are those of
CoOp's [instructions](https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md).

A missing split file is drawn by CoOp's rules with seed 1 and saved where it belongs, or in the user's cache if the
folder is not writable. From the original lists of OxfordPets, StanfordCars, OxfordFlowers, SUN397 and UCF101 this gives
the published file, byte for byte. The splits of Caltech101, DescribableTextures, EuroSAT and Food101 depend on the
order in which a file system lists files, so the published ones are downloaded; one is drawn only if no address serves
it, with a warning on every run. `lists` in `results.json` says whether the split and the few-shot list are the
published ones (SHA-256).

k-shot lists are drawn as CoOp draws them: k training and min(k, 4) validation images of each class (ImageNet validates
on its test images), one list per number of shots and seed; the base or new half of the classes is taken afterwards.
Lists from other projects in `split_fewshot/` take precedence over a draw: CoOp's `shot_16-seed_1.pkl`, those of 2SFS
(`shot_16-seed_1_train.jsonl` and `_val.jsonl`) and of cross_modal_adaptation (`shot_16-seed_1.json` of its `indices/`).
"""

OTHERS = ("CIFAR10", "CIFAR100", "STL10", "ImageNetRTasks", "FiveDatasets")     # without a section of their own
VIDEOS = ("UCF101Videos", "Kinetics400", "SSv2")
_CLIPS = """## Clips of frames

`ucf101_videos`, `kinetics400` and `ssv2` are placed by hand; an error names what is missing and its address. Their
videos, and those of your own (`DATASET.NAME VideoDir DATASET.DIR folder`, with a folder of clips for each class, or
such folders in `train/`, `val/` and `test/`), are read as clips of `VIDEO.FRAMES` frames. See `datasets/videos.py` and
`datasets/clips.py`.
"""
_STREAMS = """## Small images, and streams of tasks

`cifar10`, `cifar100` and `stl10` come as arrays, are fetched on first use and written as images once; all of their test
images are tested. With `caltech256` they are in the fifteen datasets of `--protocol robust`. See `datasets/arrays.py`.

For classes that arrive in tasks (`--protocol incremental`) there are, besides `cifar100`, `imagenet_r_tasks`,
ImageNet-R with 80 % of each class for training, and `five_datasets`, SVHN, MNIST, CIFAR-10, NotMNIST and FashionMNIST
as five tasks; NotMNIST has to be placed by hand. For CODA-Prompt's division of ImageNet-R put its lists,
`imagenet-r_train.yaml` and `imagenet-r_test.yaml` of `dataloaders/splits` in <https://github.com/GT-RIPL/CODA-Prompt>,
into `imagenet-rendition/`. See `datasets/task_streams.py`.

"""
_CORRUPTIONS = """## Corrupted test images

The fifteen corruptions of ImageNet-C and CIFAR-10-C at severities 1 to 5 change the validation and test images of any
dataset, never its training images: `DATASET.CORRUPTIONS "('fog:3', 'snow:5')"`, or `digits:fog:3` where a sweep names
a dataset. Each is a separate domain with all of the images, the same in every run. Images are corrupted at the size
that the tower takes: from 128 pixels they are cropped and corrupted as for ImageNet-C, smaller ones as for CIFAR-10-C.

They are implemented here, in `datasets/corruptions.py`, because imagecorruptions 1.1.2 cannot be imported with current
setuptools (84) and fails for fog on NumPy 2 and for glass blur on scikit-image 0.26. The table compares the two (with
all of that fixed) at severity 5, with the same random stream, on six synthetic images of 224 pixels: mean absolute
change of a pixel, 0 to 255.

| Corruption | imagecorruptions | here | between both |
|---|--:|--:|--:|
| `gaussian_noise` | 62.0 | 62.0 | 0.0 |
| `shot_noise` | 66.6 | 66.6 | 0.0 |
| `impulse_noise` | 34.5 | 34.5 | 59.8 |
| `defocus_blur` | 7.6 | 7.6 | 0.0 |
| `glass_blur` | 9.5 | 9.5 | 0.0 |
| `motion_blur` | 22.2 | 22.2 | 0.0 |
| `zoom_blur` | 21.4 | 21.4 | 0.0 |
| `snow` | 98.7 | 98.6 | 0.3 |
| `frost` | 72.2 | 75.9 | 34.5 |
| `fog` | 46.3 | 46.3 | 0.0 |
| `brightness` | 55.3 | 55.3 | 0.0 |
| `contrast` | 46.0 | 46.0 | 0.0 |
| `elastic_transform` | 9.8 | 11.7 | 12.8 |
| `pixelate` | 6.0 | 6.0 | 0.0 |
| `jpeg_compression` | 11.1 | 11.1 | 0.0 |

Impulse noise draws its pixels in a different order. Elastic transform has different strengths in imagecorruptions; here
they are the authors'. Frost blends in photographs there, which are not shipped; here it blends in drawn crystals with
the same mean and deviation.
"""

_TAIL = """## Your own images

```bash
python tools/train.py --dataset-dir my_images --trainer CoOp --config-file configs/trainers/CoOp/tiny.yaml
bash scripts/coop.sh --dataset-dir my_images 16
```

`my_images` is a folder with one folder of images per class, or with `train/`, `val/` and `test/` that hold these; or a
CSV or JSON file with columns `path`, `label`, `classname` and, optionally, `split`. Missing splits are drawn,
stratified by class, always the same for the same files, and reported. `--template "a photo of a {}."` and `--classnames
FILE` say what your classes are called. See `datasets/folder.py`.

## Pairs of an image and its caption

```bash
python tools/train.py --trainer FLYP --config-file configs/trainers/FLYP/tiny.yaml --seed 1 --output-dir output/pairs \\
    --dataset-config-file configs/datasets/image_captions.yaml DATASET.DIR my_pairs
```

`my_pairs` is a CSV, TSV or JSON-lines file with `path`, `caption` and, optionally, `split`, whose paths count from its
folder, or a folder with such a file (`captions.csv`, `metadata.jsonl`, ...). An image may have several captions. The
test asks which caption is an image's own, among the first captions of all validation and test images. Methods that
learn from classes refuse such a dataset; `--eval-only --model-dir output/pairs` tests the tuned towers on one of
classes. In `digits_captions` and `shapes_captions` the images of `digits` and `shapes` have captions made from their
attributes; classes and splits are the same. See `datasets/captions.py`.

## Add a dataset

Add one row to `CARDS` and one yaml to `configs/datasets`; `tests/datasets/test_cards.py` then asks for one row of facts
to compare it with. If no reader knows the raw layout of a dataset, add a function to `datasets/readers.py`.
"""


def render(yamls: dict[str, str]) -> str:
    """The whole text.

    Args:
        yamls: {file name in configs/datasets: registered name}.
    """
    stems = {name: stem for stem, name in yamls.items()}
    embedded = ", ".join(f"`{stem}`" for stem, name in yamls.items()
                         if name not in {*CARDS, *domain_cards.CARDS, *elevater_cards.CARDS,
                                         *OTHERS, *VIDEOS})
    drawn = f"These come with the project: {embedded}. They are drawn at first use; there is nothing to download.\n"
    parts = [_HEAD, _overview(stems), drawn]
    parts += [_section(card, stems.get(card.name, "")) for card in CARDS.values()]
    return "\n".join([*parts, _domains(stems), _elevater(stems), _CLIPS, _STREAMS + _CORRUPTIONS, _TAIL])


def _domains(stems: dict[str, str]) -> str:
    lines = ["## Datasets of several domains", "",
             "For `--protocol lodo`, in DomainBed's splits; DomainBed's and Dassl's layouts are both read.", "",
             "| Dataset | Yaml | Classes | Images | Domains | Folder |", "|---|---|--:|--:|---|---|"]
    for card in domain_cards.CARDS.values():
        lines.append(f"| {card.name} | `{stems.get(card.name, '-')}` | {card.classes} | {card.images:,} | "
                     f"{', '.join(card.domains)} | {', '.join(f'`{place}`' for place in card.places)} |")
    lines += [""] + [f"- {card.name}: " + (card.by_hand or f"`python tools/data.py get {stems.get(card.name, '-')}` "
                                           f"fetches <{card.archives[0].url}>.")
                     for card in domain_cards.CARDS.values()]
    return "\n".join(lines) + "\n"


def _elevater(stems: dict[str, str]) -> str:
    lines = ["## ELEVATER's datasets", "",
             f"In `DATA/classification/<folder>`, as ELEVATER's own tool (<{elevater_cards.HOME}>) puts them; what is "
             "missing is fetched from its server where that allows it. As there, N shots are N training images of each "
             "class, drawn as its toolkit draws them for the same seed, and a fifth of each class's validates "
             "(`DATASET.TRAIN_ON_VAL` trains on all); the lists of validation images are not used. The metric is the "
             "first of `metrics` in `results.json`; tables of sweeps show the accuracy. Images of VOC2007 have several "
             "labels: the metric and training take all (`of_several_labels` in `trainers/parts/losses.py`). The server "
             "wants a signature today, which that page has: fetch by hand the files that an error names.", "",
             "| Dataset | Yaml | Classes | Train | Val | Test | Metric | Folder |", "|---|---|--:|--:|--:|--:|---|---|"]
    for card in elevater_cards.CARDS.values():
        sizes = " | ".join(f"{size:,}" if size else "-" for size in (card.classes, card.train, card.val, card.test))
        lines.append(f"| {card.name} | `{stems.get(card.name, '-')}` | {sizes} | {card.metric} | `{card.folder}` |")
    return "\n".join(lines) + "\n"


def _overview(stems: dict[str, str]) -> str:
    rows = ["| Dataset | Yaml | Classes | Train | Val | Test | Sentence |", "|---|---|--:|--:|--:|--:|---|"]
    for card in CARDS.values():
        sizes = " | ".join(f"{size:,}" if size else "-" for size in (card.classes, card.train, card.val, card.test))
        rows.append(f"| {card.name} | `{stems.get(card.name, '-')}` | {sizes} | {card.template} |")
    return "\n".join(rows) + "\n"


def _section(card: DatasetCard, stem: str) -> str:
    lines = [f"## {card.name}", "", "```", f"{card.folder}/"]
    lines += [f"    {entry}" for entry in card.needs]
    lines += [f"    {card.split}"] * bool(card.split)
    lines += [f"    {entry}    (only without {card.split})" for entry in card.lists]
    lines += ["```", ""]
    if card.archives:
        lines += [f"`python tools/data.py get {stem or card.name}` fetches:", ""]
        lines += [_source(archive) for archive in card.archives] + [""]
    if card.by_hand:
        lines += [card.by_hand, ""]
    lines += [f"- Home: <{card.home}>"]
    lines += [_split(card)] if card.split else []
    if card.ignore:
        lines += [f"- Left out: {', '.join(card.ignore)}"]
    if card.rename:
        lines += [f"- Renamed: {', '.join(f'{old} to {new}' for old, new in card.rename.items())}"]
    if card.test_only:
        lines += ["- For testing only, on the classes that it contains"]
    return "\n".join(lines) + "\n"


def _split(card: DatasetCard) -> str:
    """Where the published split is, and how it is recognised."""
    places = ", else ".join(f"<{archive.url}>{' (in the zip)' * bool(archive.member)}" for archive in card.published)
    known = card.published[0].sha256
    return f"- Published split: {places}" + f" (SHA-256 {known})" * bool(known)


def _source(archive: Archive) -> str:
    mirrors = "".join(f", else <{url}>" for url in archive.mirrors)
    return f"- {', '.join(archive.gives)}: <{archive.url}>{mirrors}" + f" (MD5 {archive.md5})" * bool(archive.md5)
