"""Files and weights of somebody's repository: found for its code, and for nobody else."""
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clip import clip as ours
from dassl.engine.plugins import load_plugin
from tools.running.foreign import code_of_others

READER = """
import json, os.path as osp
import numpy as np, torch
from dassl.utils import load_checkpoint
def texts():
    with open("gpt/a.json") as file:
        return json.load(file), torch.load("gpt/t.pt"), np.load("./gpt/n.npy")
def checkpoint():
    return load_checkpoint("teacher/model.pth.tar")["state_dict"]
def archive():
    return torch.jit.load("gpt/script.pt")
def there(path):
    return osp.exists(path), osp.isfile(path)
def read(path):
    with open(path, "rb") as file:
        return file.read()
def write(path):
    open(path, "w")
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """theirs(**{name: text}) -> the module theirs/trainers/mine.py, loaded; the current folder is another one."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    root = tmp_path / "theirs"

    def make(**files):
        for name, text in {"trainers/mine.py": READER, "train.py": "", **files}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        with code_of_others(False):
            return load_plugin(str(root / "trainers" / "mine.py"))

    yield make
    for name in [n for n in sys.modules if n.startswith("dassl_plugin_")]:
        del sys.modules[name]


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit.load:FutureWarning")
def test_relative_files_of_a_plugin_are_found_in_its_repository_after_the_current_folder(theirs, tmp_path):
    module = theirs(**{"gpt/a.json": "1", "teacher/readme": ""})
    torch.save(torch.ones(2), tmp_path / "theirs/gpt/t.pt")
    np.save(tmp_path / "theirs/gpt/n.npy", np.ones(3))
    torch.save({"state_dict": {"w": torch.ones(1)}}, tmp_path / "theirs/teacher/model.pth.tar")
    with code_of_others(False):
        text, tensor, array = module.texts()
        assert text == 1 and tensor.shape == (2,) and array.shape == (3,)
        assert torch.equal(module.checkpoint()["w"], torch.ones(1))
        assert module.there("gpt/a.json") == (True, True) and module.there("gpt/no.json") == (False, False)
        with pytest.raises(RuntimeError):                       # it is read, and is not an archive
            (tmp_path / "theirs/gpt/script.pt").write_bytes(b"no archive")
            module.archive()
        os.mkdir("gpt")
        (tmp_path / "elsewhere/gpt/a.json").write_text("2")
        assert module.texts()[0] == 2


def test_nothing_is_written_there_and_our_own_code_sees_no_file_of_theirs(theirs, tmp_path):
    module = theirs(**{"gpt/a.json": "1"})
    with code_of_others(False):
        for missing in (lambda: module.write("gpt/a.json"), lambda: Path("gpt/a.json").read_text(),
                        lambda: module.read(str(tmp_path / "gpt" / "a.json"))):
            with pytest.raises(FileNotFoundError):
                missing()
        assert not os.path.exists("gpt/a.json")
    assert (tmp_path / "theirs/gpt/a.json").read_text() == "1"


def test_our_few_shot_list_is_served_to_a_plugin_as_coops_pickle(theirs, tmp_path):
    folder = tmp_path / "data" / "toy" / "split_fewshot"
    folder.mkdir(parents=True)
    rows = {"train": [["images/a.png", 0, "ant"]], "val": [["images/b.png", 1, "bee"]]}
    (folder / "shot_2-seed_1.json").write_text(json.dumps({"drawn_from": "x", **rows}))
    module, path = theirs(), str(folder / "shot_2-seed_1.pkl")
    with code_of_others(False):
        content = pickle.loads(module.read(path))
        assert module.there(path) == (True, True) and not os.path.exists(path)
        assert module.there(str(folder / "shot_4-seed_1.pkl")) == (False, False)
    found = {split: [(d.impath, d.label, d.classname) for d in items] for split, items in content.items()}
    assert found == {split: [(str(tmp_path / "data" / "toy" / impath), label, name) for impath, label, name in items]
                     for split, items in rows.items()}
    with pytest.raises(FileNotFoundError):
        Path(path).read_bytes()


def test_their_copy_of_openais_clip_finds_weights_as_ours_does(theirs, monkeypatch):
    url = "https://elsewhere/clip/models/" + ours._MODELS["RN50"].rpartition("/clip/models/")[2]
    module = theirs(**{
        "clip/__init__.py": "from .clip import *",
        "clip/clip.py": f"_MODELS = {{'RN50': {url!r}, 'Own': 'https://their/own.pt'}}\n"
                        "def _download(url, root='~'):\n    return 'fetched ' + url\n"
                        "def load(name):\n    return _download(_MODELS[name])",
        "trainers/mine.py": "from clip import clip"})
    monkeypatch.setattr(ours, "_download", lambda url, root=None: f"ours {url}")
    clip = module.clip
    assert clip is not ours and clip.load("tiny") == f"ours {ours._MODELS['tiny']}"
    assert clip.load("RN50") == f"ours {ours._MODELS['RN50']}" and clip.load(__file__) == f"ours {__file__}"
    assert clip.load("Own") == "fetched https://their/own.pt"
