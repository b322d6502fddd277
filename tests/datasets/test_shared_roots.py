"""Several runs on one data root, and a root that nobody may write to."""
import os

import pytest
from trees import make_tree


def test_runs_that_start_together_see_one_split_and_every_seed_its_own_list(tmp_path, build, own_cache, forked):
    data = tmp_path / "data"
    make_tree("OxfordPets", data)

    def run(seed):
        dataset = build(data, "OxfordPets", 4, seed)
        return [[(d.impath, d.label) for d in split] for split in (dataset.train_x, dataset.val, dataset.test)]

    runs = [(seed, forked(run, seed)) for seed in (1, 1, 2, 2)]
    found: dict[int, list] = {}
    for seed, result in runs:
        found.setdefault(seed, []).append(result())
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
