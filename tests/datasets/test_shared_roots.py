"""Several runs on one data root, and a root that nobody may write to."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from trees import make_tree

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import hashlib, json, sys
sys.path.insert(0, {root!r})
import datasets.benchmarks
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import set_random_seed
cfg = get_cfg_default()
datasets.extend_cfg(cfg)
cfg.DATASET.ROOT, cfg.DATASET.NAME, cfg.DATASET.NUM_SHOTS, cfg.SEED = {data!r}, "OxfordPets", 4, {seed}
set_random_seed(cfg.SEED)
dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
print(json.dumps([[(d.impath, d.label) for d in split] for split in (dataset.train_x, dataset.val, dataset.test)]))
"""


def start(data, seed, cache):
    program = PROGRAM.format(root=str(ROOT), data=str(data), seed=seed)
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            cwd=ROOT, env={**os.environ, "XDG_CACHE_HOME": str(cache), "DASSL_OFFLINE": "1"})


def test_runs_that_start_together_see_one_split_and_every_seed_its_own_list(tmp_path):
    data = tmp_path / "data"
    make_tree("OxfordPets", data)
    runs = [(seed, start(data, seed, tmp_path / "cache")) for seed in (1, 1, 2, 2)]
    found: dict[int, list] = {}
    for seed, process in runs:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        found.setdefault(seed, []).append(json.loads(out))
    tests = [splits[2] for lists in found.values() for splits in lists]
    assert all(test == tests[0] for test in tests)
    assert found[1][0][0] != found[2][0][0]
    train = {tuple(row) for lists in found.values() for splits in lists for row in splits[0]}
    assert not train & {tuple(row) for row in tests[0]}
    assert not [path for path in data.rglob("*") if path.name.startswith((".", "tmp"))]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no permissions of this kind")
def test_a_root_that_nobody_may_write_to_serves_from_the_users_cache(tmp_path, build, monkeypatch):
    """For root, who may write everywhere, a file stands where the folder of lists would be made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    card = make_tree("EuroSAT", tmp_path / "data")
    folder = tmp_path / "data" / card.folder
    (folder / "split_fewshot").write_text("in the way")
    before = sorted(path.name for path in folder.iterdir())
    if os.geteuid():
        folder.chmod(0o555)
    try:
        first, again = build(tmp_path / "data", "EuroSAT", 4, 1), build(tmp_path / "data", "EuroSAT", 4, 1)
    finally:
        folder.chmod(0o755)
    assert [d.impath for d in first.train_x] == [d.impath for d in again.train_x]
    assert {path.name for path in folder.iterdir()} - set(before) <= {card.split}
    assert list((tmp_path / "cache").rglob("shot_4-seed_1.json"))
