"""Trainers of other people in a sweep: their runs get the flags that name their code, in every way that runs start."""
import json
import shlex
from pathlib import Path

import pytest

from tools import sweep, train
from tools.runs.recipe import RecipeError, load_recipe, zeroshot_cell
from tools.sweeping import cells, cluster, slots

NEAR = """
from dassl.engine import TRAINER_REGISTRY
from trainers.coop import CoOp


def extend_cfg(cfg):
    cfg.TRAINER.NEAR = type(cfg)({"BETA": 1.0})


@TRAINER_REGISTRY.register()
class NearZeroShot(CoOp):
    pass
"""
THEIRS = "def extend_cfg(cfg):\n    cfg.TRAINER.NEAR.GAMMA = 2.0\n"
RECIPE = "{trainer: NearZeroShot, config: %s, seeds: [1], shots: [1], datasets: {}, opts: {TRAINER.NEAR.GAMMA: 3.0}}"
CODE = ["--plugin", "near.py", "--extend-cfg", "theirs.py"]


@pytest.fixture
def near(tmp_path, monkeypatch):
    """A plugin, a config function and a recipe, in a folder of their own that is the current one."""
    monkeypatch.chdir(tmp_path)
    Path("near.py").write_text(NEAR)
    Path("theirs.py").write_text(THEIRS)
    Path("near.yaml").write_text(RECIPE % "configs/trainers/CoOp/tiny.yaml")
    return tmp_path


def planned(*words):
    flags, options = sweep.split_options(["--datasets", "digits", *words])
    return sweep.plan(sweep.parser().parse_args(flags), options)


def code_in(words):
    return words[words.index("--plugin"):][:4] if "--plugin" in words else []


def test_the_runs_of_the_plugins_trainer_get_its_flags_and_those_of_ours_stay_as_they_are(near, capsys):
    assert sweep.main(["--recipe", "coop", "near.yaml", "--datasets", "digits", "--shots", "1", "--seeds", "1", *CODE,
                       "--allow-cpu-shim", "--dry-run"]) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [c[c.index("--trainer") + 1] for c in commands] == ["ZeroshotCLIP", "CoOp", "NearZeroShot"]
    assert [code_in(c) for c in commands] == [[], [], CODE]
    assert ["--allow-cpu-shim" in c for c in commands] == [False, False, True]


def test_new_keys_go_with_them(near):
    cell, = [c for c in planned("--recipe", "near.yaml", *CODE, "--new-key", "TRAINER.A", "1") if c.code]
    assert cell.code == (*CODE, "--new-key", "TRAINER.A", "1")


def test_with_replace_every_run_gets_them(near):
    cells_ = planned("--recipe", "coop", "--shots", "1", "--seeds", "1", *CODE, "--replace")
    assert [cell.code for cell in cells_] == [(*CODE, "--replace")] * 2


def test_every_protocol_and_every_job_of_a_cluster_carries_them(near, tmp_path):
    base, new = [c for c in planned("--recipe", "near.yaml", *CODE, "--protocol", "base2new") if c.code]
    assert new.train_on.folder == base.folder
    for cell in (base, new):
        p = cells.Planned(cell, "data", str(tmp_path / "out"))
        assert code_in(p.arguments) == code_in(cluster.command(p.launch()[0], "NearZeroShot", 4)) == CODE
    _, target = [c for c in planned("--recipe", "near.yaml", *CODE, "--protocol", "cross") if c.code]
    assert target.dataset == "shapes" and code_in(target.arguments("data", "out")) == CODE


def test_a_sweep_of_a_plugins_trainer_ends_with_its_table_and_its_plain_command_has_the_same_result(
        near, capsys):
    words = ["--recipe", "near.yaml", "--datasets", "digits", *CODE, "--fresh-processes", "OPTIM.MAX_EPOCH", "1",
             "USE_CUDA", "False"]
    assert sweep.main([*words, "--output", "forked"]) == 0, capsys.readouterr()
    said = capsys.readouterr().out
    assert "NearZeroShot  CoOp-tiny-OPTIM.MAX_EPOCH=1" in said and "1/1" in said
    assert sweep.main([*words, "--output", "plain", "--dry-run"]) == 0
    command, = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if "NearZeroShot" in line]
    assert train.cli(command[2:]) == 0
    results = []
    for output in ("forked", "plain"):
        path, = Path(output).glob("digits/NearZeroShot/*/seed1/results.json")
        results.append(json.loads(path.read_text())["metrics"])
        given = json.loads(path.with_name("inputs.json").read_text())
        assert given["flags"]["plugin"] == ["near.py"] and "theirs.py" in " ".join(given["files"])
    assert results[0] == results[1]
    capsys.readouterr()
    assert sweep.main([*words, "--output", "forked", "--dry-run"]) == 0
    assert "results exist already" in capsys.readouterr().err


def test_a_recipe_is_asked_for_where_the_plugins_trainer_has_none(near, capsys):
    assert sweep.main(["--recipe", "coop", "--datasets", "digits", *CODE]) == 2
    said = capsys.readouterr().err
    assert "--recipe mine.yaml" in said and "--replace" in said and "trainer: NAME" in said
    assert sweep.main(["--recipe", "NearZeroShot", "--datasets", "digits", *CODE]) == 2
    assert "A trainer of your own takes a recipe of your own" in capsys.readouterr().err


def test_a_recipe_of_ones_own_names_its_yaml_by_a_path_from_here_the_checkout_or_beside_it(near):
    for text in ("configs/trainers/CoOp/tiny.yaml", "beside.yaml"):
        (near / "sub").mkdir(exist_ok=True)
        (near / "sub" / "near.yaml").write_text(RECIPE % text)
        (near / "sub" / "beside.yaml").write_text("")
        cell = load_recipe("sub/near.yaml").cell("digits", 1, 1)
        assert cell.config_file.name == Path(text).name and cell.config_file.is_file()
    assert cell.config == "sub-beside" and zeroshot_cell(cell).config_file == cell.config_file
    (near / "near.yaml").write_text(RECIPE % "nowhere.yaml")
    with pytest.raises(RecipeError, match="no trainer yaml nowhere.yaml"):
        load_recipe("near.yaml").cell("digits", 1, 1)
    (near / "near.yaml").write_text(RECIPE % "tiny")
    with pytest.raises(RecipeError, match="names its yaml by a path"):
        load_recipe("near.yaml").cell("digits", 1, 1)


def test_a_yaml_from_elsewhere_is_never_given_the_published_value_or_the_folder_of_ours(near):
    (near / "vit_b16.yaml").write_text('MODEL: {BACKBONE: {NAME: "RN50"}}\n')
    ours, theirs = (load_recipe("coop").cell("dtd", 16, 1, config=c) for c in ("vit_b16", "vit_b16.yaml"))
    assert ours.published and theirs.published is None and ours.folder != theirs.folder
    assert zeroshot_cell(theirs).published is None and zeroshot_cell(theirs).folder != zeroshot_cell(ours).folder


@pytest.mark.parametrize("text", ["", "- 1", "MODEL:", "MODEL: {BACKBONE: RN50}"])
def test_a_yaml_of_ones_own_that_names_no_backbone_is_the_runs_to_judge(text, near):
    (near / "own.yaml").write_text(text)
    assert slots.backbone_of(load_recipe("coop").cell("digits", 1, 1, config="own.yaml")) == ""


def test_a_yaml_of_ones_own_that_is_none_is_told_with_its_line(near, capsys):
    (near / "own.yaml").write_text("MODEL:\n  - {\n")
    assert sweep.main(["--recipe", "coop", "--datasets", "digits", "--config", "own.yaml"]) == 2
    assert "own.yaml, line 3, is not yaml" in capsys.readouterr().err


def test_all_datasets_of_a_recipe_without_any_is_refused(near, capsys):
    assert sweep.main(["--recipe", "near.yaml", "--datasets", "all", *CODE]) == 2
    assert "lists no datasets" in capsys.readouterr().err
