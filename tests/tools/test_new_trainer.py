"""tools/new_trainer.py: what it writes works at once, and it touches nothing that exists."""
import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dassl.engine import TRAINER_REGISTRY
from tools import copied_trainer, new_trainer, train

ROOT = Path(__file__).resolve().parents[2]
LONG = "A" + 39 * "b"


@pytest.fixture
def checkout(tmp_path_factory):
    """A copy of what a run and the tests of a trainer need."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("clip", "dassl", "dassl_prompts", "datasets", "tools", "trainers", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    for name in ("conftest.py", "test_every_trainer.py", "test_layers.py", "golden"):
        copy = shutil.copytree if (ROOT / "tests" / name).is_dir() else shutil.copy
        copy(ROOT / "tests" / name, folder / "tests" / name)
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


def run(checkout, *words):
    return subprocess.run([sys.executable, *map(str, words)], cwd=checkout, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(checkout)})


def check(checkout, names, *, only):
    """Ruff and the tests on the files that were written for {name: like}; how many tests passed."""
    files = [str(path) for name, like in names.items() for path in new_trainer.files_of(name, like)
             if path.suffix == ".py"]
    linted = run(checkout, "-m", "ruff", "check", *files)
    assert linted.returncode == 0, linted.stdout
    tested = run(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_every_trainer.py",
                 "tests/test_layers.py", *(f"tests/test_{name.lower()}.py" for name in names), "-k", only)
    assert tested.returncode == 0, tested.stdout
    return int(tested.stdout.rsplit(" passed", 1)[0].split()[-1])


@pytest.mark.slow
def test_every_starting_point_passes_the_whole_matrix_and_the_layers_and_is_listed(checkout):
    names = {**{LONG[:-len(like)] + like: like for like in new_trainer.LIKE}, LONG[:32]: "promptsrc"}
    for name, like in names.items():
        made = run(checkout, "tools/new_trainer.py", name, "--like", like, "--source", f"{like} (Somebody, CVPR 2027)")
        assert made.returncode == 0, made.stderr
    assert check(checkout, names, only=f"{LONG[:30]} or layers") >= 10 * len(names)
    listed = run(checkout, "tools/train.py", "--list").stdout.splitlines()
    for name, like in names.items():
        line = next(line for line in listed if line.startswith(name))
        assert f"trainers.{name.lower()}" in line and f"{like} (Somebody, CVPR 2027)" in line
    again = run(checkout, "tools/new_trainer.py", LONG[:-4] + "coop")
    assert again.returncode == 2 and "is a trainer already" in again.stderr


@pytest.mark.parametrize("like", new_trainer.LIKE)
def test_no_line_is_too_long_and_no_placeholder_is_left(like):
    for path, text in new_trainer.files_of(LONG, like, "words " * 60).items():
        assert not re.search("@[A-Z]+@", text), path
        assert max(map(len, text.splitlines())) <= 120 and LONG in text
        assert text.endswith("\n") and not text.endswith("\n\n")


@pytest.mark.parametrize("like", new_trainer.LIKE)
def test_what_is_written_passes_ruff_and_its_own_test(like, empty, make_cfg, tiny_clip_file, toy_root, monkeypatch):
    """The trainer is loaded as a plugin here; in a checkout of its own, with the matrix, in the slow test above."""
    make_cfg("CoOp")                                                                # registers the toy images
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"New{like.title()}OfThisTest"
    assert new_trainer.cli([name, "--like", like]) == 0
    files = [str(empty / path) for path in new_trainer.files_of(name, like)]
    config = ["--config", str(ROOT / "pyproject.toml")]
    linted = run(ROOT, "-m", "ruff", "check", *config, *(file for file in files if file.endswith(".py")))
    assert linted.returncode == 0, linted.stdout

    def cfg_of(trainer, *opts):
        normalise = [] if like == "pixel" else ["normalize"]
        return train.setup_cfg(train.parser().parse_args([
            "--plugin", files[0], "--config-file", files[1], "--transforms", "center_crop", *normalise,
            "--trainer", trainer, "--root", str(toy_root), "MODEL.BACKBONE.NAME", str(tiny_clip_file),
            "DATASET.NAME", "Toy", "DATASET.NUM_SHOTS", "2", *map(str, opts)]))

    space: dict = {}
    exec(Path(files[-1]).read_text(), space)
    tests = [test for found, test in space.items() if found.startswith("test_")]
    try:
        for test in tests:
            test(cfg_of)
    finally:
        TRAINER_REGISTRY._obj_map.pop(name)
    assert len(tests) == 2


@pytest.mark.parametrize("like", sorted(set(copied_trainer.methods()) - set(new_trainer.LIKE)))
def test_a_copy_of_a_trainer_has_its_own_name_and_section_and_keeps_the_rest(like):
    base, files = copied_trainer.methods()[like], new_trainer.files_of("Mine", like, "Somebody")
    code, theirs = files[Path("trainers", "mine.py")], (ROOT / "trainers" / f"{like}.py").read_text()
    tree, section = ast.parse(code), re.search(r"cfg\.TRAINER\.(\w+) = CfgNode", theirs)[1]
    assert [node.name for node in tree.body if isinstance(node, ast.ClassDef)].count("Mine") == 1
    assert base not in code.split('"""', 2)[2] and f"TRAINER.{section} " not in code and '"MINE"' in code
    assert "Somebody" in ast.get_docstring(tree) and f"trainers/{like}.py" in " ".join(ast.get_docstring(tree).split())
    assert len(code.splitlines()) <= len(theirs.splitlines()) + 1
    for path, text in files.items():
        if path.suffix == ".yaml":
            assert f"  {section}:" not in text and f"TRAINER.{section}." not in text
    assert Path("configs", "trainers", "Mine", "tiny.yaml") in files and Path("tests", "test_mine.py") in files


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A checkout for writing only: names are compared with the real registry."""
    for name in ("trainers", "tests", "configs"):
        (tmp_path / name).mkdir()
    for base in new_trainer.LIKE.values():
        shutil.copytree(ROOT / "configs" / "trainers" / base, tmp_path / "configs" / "trainers" / base)
    monkeypatch.setattr(new_trainer, "ROOT", tmp_path)
    return tmp_path


def tree(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize(("name", "message"), [
    ("9lives", "letter first"), ("My-Method", "letter first"), ("", "letter first"), ("_Hidden", "letter first"),
    ("Größe", "letter first"), ("a" * 41, "2 to 40"), ("class", "Python class"), ("Lambda", "Python class"),
    ("Output", "meaning of its own"), ("F", "2 to 40"), ("print", "meaning of its own"),
    ("CoOp", "CoOp is a trainer already, of trainers.coop"), ("dvpCLS", "DVPcls is a trainer already"),
    ("Mcd", "section TRAINER.MCD")])
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(name, message, empty, capsys):
    before = tree(empty)
    assert new_trainer.cli([name]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1 and tree(empty) == before


@pytest.mark.parametrize("taken", ["trainers/mine.py", "trainers/mine", "tests/test_mine.py", "configs/trainers/Mine"])
def test_nothing_that_exists_is_touched(taken, empty, capsys):
    (empty / taken).mkdir() if "." not in taken and "configs" not in taken else (empty / taken).mkdir(parents=True)
    before = tree(empty)
    assert new_trainer.cli(["Mine"]) == 2
    assert f"{taken} exists" in capsys.readouterr().err and tree(empty) == before


def test_a_dry_run_prints_the_files_and_writes_none(empty, capsys):
    before = tree(empty)
    assert new_trainer.cli(["Mine", "--like", "vpt", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert all(f"--- {path}\n{text}" in printed for path, text in new_trainer.files_of("Mine", "vpt").items())
    assert tree(empty) == before


def test_a_write_that_fails_leaves_nothing_behind(empty, capsys):
    (empty / "tests").rmdir()
    (empty / "tests").write_text("a file where the folder should be")
    before = tree(empty)
    assert new_trainer.cli(["Mine"]) == 2
    assert "tests/test_mine.py cannot be read or written (Not a directory)" in capsys.readouterr().err
    assert tree(empty) == before


@pytest.mark.parametrize("source", ['ends """ here', "two\nlines", "back\\slash", " "])
def test_a_source_that_would_break_the_docstring_is_refused(source, empty, capsys):
    assert new_trainer.cli(["Mine", "--source", source]) == 2
    assert "one line of text" in capsys.readouterr().err
