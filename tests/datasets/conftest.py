"""Image trees in CoOp's layout, with empty files for images: a dataset lists images, it does not open them."""
import re
import shutil
import sys
from pathlib import Path

import pytest

import datasets.benchmarks  # noqa: F401 - registers
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import set_random_seed
from datasets import extend_cfg

sys.path.insert(0, str(Path(__file__).parent))
from local_server import serving  # noqa: E402
from trees import touch, write  # noqa: E402

BREEDS = re.findall(r"\w+", """
Abyssinian american_bulldog american_pit_bull_terrier basset_hound beagle Bengal Birman Bombay boxer
British_Shorthair chihuahua Egyptian_Mau english_cocker_spaniel english_setter german_shorthaired great_pyrenees
havanese japanese_chin keeshond leonberger Maine_Coon miniature_pinscher newfoundland Persian pomeranian pug Ragdoll
Russian_Blue saint_bernard samoyed scottish_terrier shiba_inu Siamese Sphynx staffordshire_bull_terrier wheaten_terrier
yorkshire_terrier""")


def make_pets(root: Path) -> Path:
    """The tree of tests/golden/fewshot_pets_seed1.json: of class c 10 test and 22 + c % 7 other images (of 35: 18)."""
    folder = root / "oxford_pets"
    lines = {"trainval": [], "test": []}
    for c, breed in enumerate(BREEDS):
        names = [f"{breed}_{n}" for n in range(1, (18 if c == 35 else 22 + c % 7) + 11)]
        test = names[::3][:10]
        touch(folder / "images", *(f"{name}.jpg" for name in names))
        for split, part in (("test", test), ("trainval", [n for n in names if n not in test])):
            lines[split] += [f"{name} {c + 1} {1 if breed[0].isupper() else 2} 1" for name in sorted(part)]
    for split, rows in lines.items():
        write(folder / "annotations" / f"{split}.txt", *rows)
    return folder


@pytest.fixture(scope="session")
def pets_tree(tmp_path_factory) -> Path:
    return make_pets(tmp_path_factory.mktemp("pets"))


@pytest.fixture
def pets(pets_tree, tmp_path, monkeypatch) -> Path:
    """Root of a fake OxfordPets, with a cache folder of its own; its images are a link to what all tests share."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "oxford_pets"
    shutil.copytree(pets_tree / "annotations", folder / "annotations")
    (folder / "images").symlink_to(pets_tree / "images")
    return tmp_path / "data"


@pytest.fixture
def build():
    """build(root, name, shots, seed, half): a dataset, built as the engine builds it."""

    def build(root, name="OxfordPets", shots=-1, seed=1, half="all"):
        cfg = get_cfg_default()
        extend_cfg(cfg)
        cfg.merge_from_list(["DATASET.ROOT", str(root), "DATASET.NAME", name, "DATASET.NUM_SHOTS", shots, "SEED", seed,
                             "DATASET.SUBSAMPLE_CLASSES", half])
        cfg.freeze()
        set_random_seed(seed)
        return DATASET_REGISTRY.get(name)(cfg)

    return build


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine, and the permission to ask it."""
    monkeypatch.delenv("DASSL_OFFLINE", raising=False)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with serving() as server:
        yield server
