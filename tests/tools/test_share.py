"""A shared run predicts as it did, says nothing of the machine it was made on, and cannot do anything where it goes."""
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from dassl.engine import build_trainer
from tools import share, train
from tools.labs.hub.hub import is_repository
from tools.predict import load
from tools.runs import inputs


@pytest.fixture
def trained(toy_run):
    """trained("CoOp") -> folder of that trainer's finished run, whose command named a plugin."""
    def get(trainer):
        folder = toy_run(trainer)
        inputs.write(folder, train.parser().parse_args(["--trainer", trainer, "--plugin", "mine.py"]))
        return folder

    return get


@pytest.fixture
def shared(trained, tmp_path):
    """A run of CoOp, pushed to a folder."""
    assert share.cli(["push", str(trained("CoOp")), str(tmp_path / "shared")]) == 0
    return tmp_path / "shared"


@pytest.mark.parametrize("trainer", ["CoOp", "DVPcse", "LinearProbe", "ZeroshotCLIP"])
def test_what_is_pulled_predicts_as_what_was_pushed(trainer, trained, make_cfg, tmp_path, tiny_clip_file):
    run = trained(trainer)
    assert share.cli(["push", str(run), str(tmp_path / "shared")]) == 0
    assert share.cli(["pull", str(tmp_path / "shared"), str(tmp_path / "there" / "run")]) == 0
    paths = [str(path) for path in Path(make_cfg(trainer).DATASET.ROOT, "toy").glob("test_*.png")]
    folders = (run, tmp_path / "there" / "run")
    first, second = (load(folder, backbone=str(tiny_clip_file)).predict(paths) for folder in folders)
    assert first == second and len(first) == 24


def test_a_pulled_run_is_a_run_folder_with_the_same_tensors(trained, make_cfg, shared, tmp_path):
    share.cli(["pull", str(shared), str(tmp_path / "run")])
    run, read = trained("CoOp"), "prompt_learner/model.pth.tar-2"
    ours, theirs = (torch.load(folder / read, weights_only=True)["state_dict"] for folder in (run, tmp_path / "run"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    other = build_trainer(make_cfg("CoOp", output=tmp_path / "other"))
    other.load_model(str(tmp_path / "run"))                            # as tools/train.py --eval-only does


def test_nothing_tells_of_the_machine_or_names_code(shared, tiny_clip_file):
    texts = {path.name: path.read_text() for path in shared.iterdir() if path.suffix != ".safetensors"}
    assert set(texts) == {"README.md", "classes.json", "config.yaml", "results.json", "prompt_learner.json"}
    for name, text in texts.items():
        assert "toy_runs" not in text and str(tiny_clip_file.parent) not in text and "mine.py" not in text, name
        assert os.sep + "tmp" not in text and "command" not in json.loads(texts["results.json"])


def test_the_card_holds_the_runs_own_numbers_and_no_markup_of_others(shared, trained, tmp_path):
    run = tmp_path / "named"
    head, body = (shared / "README.md").read_text().removeprefix("---\n").split("---\n", 1)
    facts, record = yaml.safe_load(head), json.loads((shared / "results.json").read_text())
    found = {metric["type"]: metric["value"] for metric in facts["model-index"][0]["results"][0]["metrics"]}
    assert found["accuracy"] == pytest.approx(record["metrics"]["accuracy"], abs=0.005)
    assert record["backbone"]["sha256"] in body and "share.py pull ./shared" in body
    shutil.copytree(trained("CoOp"), run)
    classes = json.loads((run / "classes.json").read_text())
    (run / "classes.json").write_text(json.dumps({**classes, "classnames": ["<script>", "a|b`", "[x](y)", "ok"]}))
    share.cli(["push", str(run), str(tmp_path / "again")])
    assert "<script>" not in (text := (tmp_path / "again" / "README.md").read_text()) and "[x](" not in text


def spoiled_text(name, text):
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(("spoil", "told"), [
    (lambda folder: (folder / "config.yaml").unlink(), "no shared run"),
    (spoiled_text("config.yaml", "a: &x [1]\nb: [*x, *x]"), "aliases"),
    (spoiled_text("config.yaml", "a: !!python/object/apply:os.system ['touch ran']"), "tags"),
    (spoiled_text("config.yaml", "- 1"), "no config"), (spoiled_text("config.yaml", "{"), "no config"),
    (spoiled_text("classes.json", "[]"), "not an object"), (spoiled_text("classes.json", '{"classnames": 3}'), "texts"),
    (spoiled_text("results.json", "{"), "not readable JSON"), (spoiled_text("README.md", "x" * 2 ** 21), "bytes"),
    (lambda folder: (folder / "prompt_learner.safetensors").write_bytes(b"cut"), "cannot be read"),
    (lambda folder: (folder / "prompt_learner.safetensors").rename(folder / "..bad.safetensors"), "no name"),
    (spoiled_text("prompt_learner.json", '{"sha256": "0"}'), "sha256")])
def test_what_is_no_whole_shared_run_is_refused_and_leaves_nothing(spoil, told, shared, tmp_path, capsys):
    spoil(shared)
    before = sorted(tmp_path.iterdir())
    assert share.cli(["pull", str(shared), str(tmp_path / "run")]) == 2
    assert told in capsys.readouterr().err and sorted(tmp_path.iterdir()) == before


def test_other_files_of_a_shared_folder_stay_where_they_are(shared, tmp_path):
    for name in ("setup.py", "inputs.json", "mine.py", "prompt_learner.pkl"):
        (shared / name).write_text("{}")
    settings = yaml.safe_load((shared / "config.yaml").read_text())
    settings["OUTPUT_DIR"], settings["DATASET"]["ROOT"] = "/etc", "~/private"
    (shared / "config.yaml").write_text(yaml.safe_dump(settings))
    assert share.cli(["pull", str(shared), str(tmp_path / "run")]) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"README.md", "classes.json", "config.yaml",
                                                                    "results.json", "prompt_learner"}
    pulled = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (pulled["OUTPUT_DIR"], pulled["DATASET"]["ROOT"]) == ("", "")


def test_a_folder_that_is_there_is_not_replaced(shared, tmp_path, capsys):
    assert share.cli(["pull", str(shared), str(shared)]) == 2 and "not empty" in capsys.readouterr().err


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The hub's client, with a folder in place of the hub."""
    calls, place = [], tmp_path / "hub"

    class HfApi:
        def create_repo(self, repo_id, private, exist_ok):
            calls.append((repo_id, private))
            return f"https://hub/{repo_id}"

        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, place / repo_id)

    def snapshot_download(repo_id, revision, allow_patterns):
        if repo_id == "me/gone":
            raise OSError("401 for https://hub Authorization: Bearer hf_SECRETsecret, token hf_SECRETsecret")
        return str(place / repo_id)

    client = SimpleNamespace(HfApi=HfApi, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    monkeypatch.delenv("DASSL_OFFLINE")
    return calls


def test_the_hub_gets_a_private_repository_unless_public_is_asked_for(hub, trained, tmp_path, capsys):
    run = str(trained("CoOp"))
    assert share.cli(["push", run, "me/private"]) == 0 and share.cli(["push", run, "me/open", "--public"]) == 0
    assert hub == [("me/private", True), ("me/open", False)]
    assert "https://hub/me/open (public)" in capsys.readouterr().out
    assert share.cli(["pull", "me/open", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "prompt_learner" / "checkpoint").is_file()


def test_a_name_below_a_folder_that_is_here_is_a_folder(hub, shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert [is_repository(word) for word in ("me/run", "runs/new", "./me/run", "/me/run", "run", "a/b/c")] == [
        True, False, False, False, False, False]
    assert share.cli(["pull", "shared", "runs/new"]) == 0 and (tmp_path / "runs" / "new" / "config.yaml").is_file()
    assert not hub


def test_what_the_hub_refuses_is_told_without_secrets(hub, tmp_path, capsys):
    assert share.cli(["pull", "me/gone", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "SECRET" not in err and "401" in err and "Traceback" not in err and not (tmp_path / "run").exists()


def test_offline_names_the_folder_as_a_way(capsys, tmp_path):
    assert share.cli(["pull", "me/gone", str(tmp_path / "run")]) == 2 and "./name" in capsys.readouterr().err
