"""Published splits and few-shot lists: recognised by SHA-256, read in others' formats, drawn from original lists."""
import gzip
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from trees import make_tree

from dassl.config import get_cfg_default
from dassl.utils import UserError
from dassl.utils.run_record import describe_run
from datasets import benchmarks, extend_cfg, published
from datasets.cards import CARDS, Archive

REAL = os.environ.get("DASSL_REAL_LISTS", "")       # folder with the published splits, lists and original lists


def rows(items, root):
    return [[os.path.relpath(d.impath, root), d.label, d.classname] for d in items]


@pytest.fixture
def eurosat(tmp_path, monkeypatch):
    """Root of a small EuroSAT whose few-shot draws differ from list to list."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_tree("EuroSAT", tmp_path / "data")
    return tmp_path / "data"


def two_stage(folder, name, lists):
    """The files of 2SFS."""
    for split, items in lists.items():
        lines = [json.dumps({"_impath": path, "_domain": 0, "_classname": classname, "_label": label})
                 for path, label, classname in items]
        (folder / f"{name}_{split}.jsonl").write_text("\n".join(lines) + "\n")


def cross_modal(folder, name, lists):
    """The file of cross_modal_adaptation."""
    content = {split: {"data": [{"impath": f"./data/{path}", "label": label, "classname": classname}
                                for path, label, classname in items], "indices": list(range(len(items)))}
               for split, items in lists.items()}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=4))


@pytest.mark.parametrize("write", [two_stage, cross_modal])
def test_lists_of_others_win_over_a_draw_and_are_held_against_the_split(eurosat, build, write):
    theirs = build(eurosat, "EuroSAT", shots=4, seed=7)
    lists = {"train": rows(theirs.train_x, eurosat), "val": rows(theirs.val, eurosat)}
    kept = eurosat / "eurosat" / "split_fewshot"
    write(kept, "shot_4-seed_1", lists)
    found = build(eurosat, "EuroSAT", shots=4, seed=1)
    assert {"train": rows(found.train_x, eurosat), "val": rows(found.val, eurosat)} == lists
    assert found.lists["few_shot"] == "not the published one"
    write(kept, "shot_4-seed_1", {"train": rows(theirs.test[:5], eurosat), "val": lists["val"]})
    with pytest.raises(UserError, match="5 of its 5 train images are not in the train split"):
        build(eurosat, "EuroSAT", shots=4, seed=1)


def test_a_split_and_a_list_are_published_if_their_digests_are(eurosat, build, monkeypatch, caplog):
    monkeypatch.setattr(published, "_published_lists", dict)
    drawn = build(eurosat, "EuroSAT", shots=2, seed=1)
    assert drawn.lists == {"split": "not the published one", "few_shot": None}
    assert caplog.text.count("is not the published one: accuracies differ") == 1
    card, folder = drawn.card, eurosat / "eurosat"
    content = json.loads((folder / card.split).read_text())
    digest = published.split_verdict(card, content, None), published.list_sha256(
        {"train": drawn.train_x, "val": drawn.val}, folder)
    assert digest[0] == published.OTHER
    sha256 = published.hashlib.sha256((folder / card.split).read_bytes()).hexdigest()
    monkeypatch.setattr(type(drawn), "card", benchmarks.DatasetCard(**{
        **card.__dict__, "published": (Archive("https://x/y", (card.split,), plain=True, sha256=sha256),)}))
    monkeypatch.setattr(published, "_published_lists", lambda: {"EuroSAT": {"2": [digest[1], "0" * 64]}})
    caplog.clear()
    (folder / card.split).write_text(json.dumps(content))                    # the same rows, other spaces
    runs = [build(eurosat, "EuroSAT", shots=2, seed=seed) for seed in (1, 2, 3)]
    assert [run.lists["few_shot"] for run in runs] == ["published", "not the published one", None]
    assert {run.lists["split"] for run in runs} == {"published"} and "not the published" not in caplog.text
    cfg = get_cfg_default()
    extend_cfg(cfg)
    assert describe_run(cfg, runs[0], torch.device("cpu"))["lists"] == {"split": "published", "few_shot": "published"}


def test_ten_datasets_have_fifteen_published_lists_and_nine_a_published_split():
    lists = published._published_lists()
    assert len(lists) == 10 and set(lists) < set(CARDS)
    digests = [digest for by_shots in lists.values() for seeds in by_shots.values() for digest in seeds]
    assert len(digests) == len(set(digests)) == 150 and {len(digest) for digest in digests} == {64}
    assert sum(bool(card.published and card.published[0].sha256) for card in CARDS.values()) == 9


ORIGINAL = {"OxfordFlowers": {"imagelabels.mat": "raw/oxford_flowers/imagelabels.mat",
                              "cat_to_name.json": "splits/cat_to_name.json"},
            "SUN397": {name: f"raw/sun397/{name}" for name in ("ClassName.txt", "Training_01.txt", "Testing_01.txt")},
            "UCF101": {f"ucfTrainTestlist/{name}": f"raw/ucf101/{name}"
                       for name in ("classInd.txt", "trainlist01.txt", "testlist01.txt")}}
LISTS = {"Caltech101": "caltech101", "OxfordPets": "oxford_pets", "StanfordCars": "stanford_cars", "SUN397": "sun397",
         "OxfordFlowers": "oxford_flowers", "DescribableTextures": "dtd", "EuroSAT": "eurosat", "UCF101": "ucf101"}


@pytest.mark.skipif(not REAL, reason="DASSL_REAL_LISTS names no folder of published lists")
@pytest.mark.parametrize("name", LISTS)
def test_real_splits_and_lists_are_the_published_ones_in_whatever_order_the_runs_come(name, tmp_path, build,
                                                                                      monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(benchmarks, "check_files", lambda *_: None)          # there are no photographs
    card = CARDS[name]
    folder = tmp_path / card.folder
    for entry in card.needs:
        (folder / entry).mkdir(parents=True)
    for target, source in ORIGINAL.get(name, {card.split: f"splits/{card.split}"}).items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        _copy(Path(REAL, source), folder / target)
    theirs = json.loads(gzip.decompress(Path(REAL, "fewshot", f"{LISTS[name]}.json.gz").read_bytes()))
    with caplog.at_level(logging.WARNING):
        for seed in (2, 1, 3):
            for shots in (16, 1, 2, 4, 8):
                dataset = build(tmp_path, name, shots, seed)
                expected = theirs[f"shot_{shots}-seed_{seed}"]
                assert rows(dataset.train_x, tmp_path) == expected["train"], (shots, seed)
                assert rows(dataset.val, tmp_path) == expected["val"], (shots, seed)
                assert set(dataset.lists.values()) == {"published"}
    assert not [record for record in caplog.records if "fewer than" not in record.message]


def _copy(source: Path, target: Path) -> None:
    packed = source.with_name(f"{source.name}.gz")
    if packed.exists():
        target.write_bytes(gzip.decompress(packed.read_bytes()))
    else:
        shutil.copy(source, target)
