"""Shared by all tests: a tiny random CLIP, no network, no GPU, a cache folder of their own."""
import json
import multiprocessing
import os
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
sys.path[:0] = [str(ROOT), str(GOLDEN)]
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])    # as machines may be
settings.load_profile("busy")


def pytest_collection_modifyitems(items):
    """The longest file first, so that it does not keep one process busy when all others are done."""
    items.sort(key=lambda item: item.path.name != "test_every_trainer.py")
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread_and_own_caches(tmp_path_factory):
    from clip.weights import keep_in_memory

    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("DASSL_OFFLINE", "1")
    patch.setenv("CLIP_CACHE", str(tmp_path_factory.mktemp("clip")))
    patch.setattr(os, "fsync", lambda number: None)         # no test cuts the power, and each run waits for it often
    keep_in_memory("tiny")
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _one_thread_again():
    """Commands choose their number of threads for the whole process; more than one would wait for each other here."""
    yield
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _plugins_are_forgotten():
    """What a test registers beside the project's own trainers and datasets is not there for the next test."""
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY

    registries = [TRAINER_REGISTRY, DATASET_REGISTRY]
    before = [set(registry.registered_names()) for registry in registries]
    yield
    for registry, names in zip(registries, before, strict=True):
        for name in set(registry.registered_names()) - names:
            module = registry.get(name).__module__
            if not module.startswith(("trainers.", "datasets.", "dassl.", "conftest", "tests.")):
                del registry._obj_map[name]
                sys.modules.pop(module, None)           # so that its file can be a plugin again


@pytest.fixture(scope="session")
def tiny_clip_weights():
    """Random weights in OpenAI's key layout; origin: tests/golden/README.md."""
    from tiny_clip import tiny_clip_state_dict

    return tiny_clip_state_dict()


@pytest.fixture(scope="session")
def tiny_clip(tiny_clip_weights):
    """Frozen, so one serves all tests: image 32, patch 8, widths 64, 3 + 3 blocks, joint width 32."""
    from clip import FrozenCLIP

    clip = FrozenCLIP.from_state_dict(tiny_clip_weights)
    clip.name, clip.sha256 = "random tiny", "0" * 64
    return clip


class Golden:
    """One file of reference numbers from the authors' code (tests/golden/README.md)."""

    def __init__(self, name: str):
        self.data = np.load(GOLDEN / f"{name}.npz")

    def tensor(self, key: str) -> torch.Tensor:
        return torch.tensor(self.data[key])

    def json(self, key: str):
        return json.loads(str(self.data[key]))

    def value(self, kind: str, names: str | list[str]) -> torch.Tensor:
        """E.g. ("grad", "prompt_learner.ctx"); several names are rows of one tensor."""
        if isinstance(names, str):
            return self.tensor(f"{kind}/{names}")
        return torch.stack([self.tensor(f"{kind}/{name}") for name in names])

    def options(self, section: str):
        """The node of the method's config with which the authors' code ran."""
        from dassl.config import CfgNode

        return CfgNode(yaml.safe_load(str(self.data["cfg"])))["TRAINER"][section]

    @property
    def classnames(self) -> list[str]:
        return self.json("classnames")


@pytest.fixture(scope="session")
def golden():
    return Golden


TOY_CLASSES = ["red_square", "green_square", "blue_square", "grey_square"]
OTHER_CLASSES = ["big dog", "cat", "small_bird"]
KINDS = ("des", "dist", "cse_1", "cse_2", "cse_3")          # of descriptions


def _register_toy():
    """Two small datasets of coloured noise, written as real files: `Toy` and, with other class names, `ToyOther`."""
    from PIL import Image

    from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum

    class _Toy(DatasetBase):
        names = TOY_CLASSES

        def __init__(self, cfg):
            folder, splits = Path(cfg.DATASET.ROOT) / type(self).__name__.lower(), {}
            folder.mkdir(parents=True, exist_ok=True)
            for s, (split, count) in enumerate(dict(train_x=20, val=4, test=6).items()):
                splits[split] = []
                for label, name in enumerate(self.names):
                    for i in range(count):
                        path = folder / f"{split}_{label}_{i}.png"
                        if not path.exists():
                            noise = np.random.RandomState(10_000 * s + 100 * label + i)
                            pixels = noise.randint(0, 90, (40, 48, 3))
                            pixels[..., label % 3] += 150 if label < 3 else 0
                            Image.fromarray(pixels.astype(np.uint8)).save(path)
                        splits[split].append(Datum(impath=str(path), label=label, classname=name))
            self.descriptions = {kind: {name: [f"the {kind} of a {name}, told in sentence {i}" for i in range(25)]
                                        for name in self.names} for kind in KINDS}
            k = cfg.DATASET.NUM_SHOTS
            if k >= 1:
                splits["train_x"] = self.generate_fewshot_dataset(splits["train_x"], num_shots=k)
                splits["val"] = self.generate_fewshot_dataset(splits["val"], num_shots=min(k, 4))
            super().__init__(**splits)

    class ToyOther(_Toy):
        names = OTHER_CLASSES

    class ToyOne(_Toy):
        names = ["red square"]

    for cls in (type("Toy", (_Toy,), {}), ToyOther, ToyOne):
        if cls.__name__ not in DATASET_REGISTRY.registered_names():
            DATASET_REGISTRY.register()(cls)


@pytest.fixture(scope="session")
def tiny_clip_file(tmp_path_factory, tiny_clip_weights):
    """Path of the random CLIP as a state-dict file, a local path for MODEL.BACKBONE.NAME."""
    from clip.weights import keep_in_memory

    path = tmp_path_factory.mktemp("weights") / "tiny_clip.pt"
    # As in OpenAI's archives; without it every process imports open_clip to compare the shapes with those it knows.
    torch.save({**tiny_clip_weights, "input_resolution": torch.tensor(32)}, path)
    keep_in_memory(str(path))
    return path


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def make_cfg(toy_root, tiny_clip_file, tmp_path):
    """make_cfg("CoOp", "OPTIM.LR", 0.1, ...) -> a frozen config of that trainer on the toy dataset and random CLIP.

    The random streams are seeded as well, as tools/train.py does before it builds a trainer.
    """
    from dassl.engine import TRAINER_REGISTRY
    from dassl.utils import set_random_seed
    from tools import train

    train.register()

    def make(trainer, *opts, seed=1, output=None, dataset="Toy"):
        normalise = ["normalize"] if TRAINER_REGISTRY.get(trainer).normalised else []
        args = train.parser().parse_args([
            "--root", str(toy_root), "--trainer", trainer, "--seed", str(seed),
            "--output-dir", str(output or tmp_path / "run"),
            "--config-file", str(ROOT / "configs" / "trainers" / trainer / "tiny.yaml"),
            "MODEL.BACKBONE.NAME", str(tiny_clip_file), "DATASET.NAME", dataset, "DATASET.NUM_SHOTS", "4",
            "INPUT.TRANSFORMS", str(["random_resized_crop", *normalise]), "OPTIM.MAX_EPOCH", "2",
            "DATALOADER.TRAIN_X.BATCH_SIZE", "8", *map(str, opts)])
        _register_toy()
        cfg = train.setup_cfg(args)
        set_random_seed(seed)
        return cfg

    return make


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dassl"


@pytest.fixture(scope="session")
def forked():
    """forked(function, *args) starts it in a process of its own, which has imported all that this one has.

    Returns a function that waits for the result, and raises AssertionError with the traceback of what failed.
    """
    context = multiprocessing.get_context("fork")

    def start(function, *args):
        reader, writer = context.Pipe(duplex=False)

        def run():
            try:
                writer.send((function(*args), ""))
            except BaseException:
                writer.send((None, traceback.format_exc()))

        process = context.Process(target=run, daemon=True)      # what nobody waits for ends with the tests
        process.start()
        writer.close()

        def result():
            value, failure = reader.recv()
            process.join()
            assert not failure, failure
            return value

        return result

    return start


@pytest.fixture
def towers(monkeypatch):
    """How many images each call of an image tower took."""
    from clip import FrozenCLIP

    calls, encode = [], FrozenCLIP.encode_image
    monkeypatch.setattr(FrozenCLIP, "encode_image", lambda clip, images, *a, **k: calls.append(len(images)) or
                        encode(clip, images, *a, **k))
    return calls
