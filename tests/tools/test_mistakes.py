"""What a user mistypes is answered with the rule, the value and the way out."""
import os
import shutil
import subprocess
import sys

import pytest

from dassl.errors import MissingFile, UserError
from tools import command, plot, sweep, train
from tools.runs.recipe import ROOT


@pytest.mark.parametrize(("parser", "words", "said"), [
    (plot.parser, ["curves", "output", "--top", "OPTIM.LR=0.01"], "OPTIM.LR 0.01"),
    (sweep.parser, ["--recipe", "coop", "--datasets", "digits", "--seed", "1"], "Did you mean --seeds?"),
    (sweep.parser, ["--recipe", "coop", "--protocol", "base2nwe"], "Did you mean base2new?"),
    (plot.parser, ["curve", "output"], "Did you mean curves?"),
    (lambda: command.parser("sweep", ""), ["--zzz"], "Known"),
])
def test_a_mistyped_flag_choice_or_option_is_answered_with_what_was_meant(parser, words, said, capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(words)
    err = capsys.readouterr().err
    assert end.value.code == 2 and (said in err or said == "Known" and "--zzz" in err)


@pytest.mark.parametrize(("words", "said"), [
    (["--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/tiny.yaml"], "--dataset-config-file"),
    (["--dataset-config-file", "configs/datasets/digits.yaml"], "--trainer NAME"),
])
def test_a_run_without_a_dataset_or_trainer_says_which_flag_names_one(words, said, tmp_path, capsys):
    assert train.cli([*words, "--output-dir", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert said in err and "''" not in err and not (tmp_path / "run").exists()


def test_train_py_takes_pairs_with_a_space(tmp_path, capsys):
    words = ["--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/tiny.yaml", "--dataset-config-file",
             "configs/datasets/digits.yaml", "--output-dir", str(tmp_path / "run"), "OPTIM.LR=0.01"]
    assert train.cli(words) == 2 and "OPTIM.LR 0.01" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_value_that_fills_pages_is_shown_by_its_ends():
    message = str(UserError(f"The rule, got {'x' * 100_000}.\nThe way out."))
    assert message.startswith("The rule, got x") and message.endswith("x.\nThe way out.") and "98,5" in message
    assert len(message) < 1600 and str(UserError("The rule. " * 100)) == "The rule. " * 100
    assert str(MissingFile("x")) == "x"


@pytest.mark.parametrize(("flag", "key"), [("--output-dir", "OUTPUT_DIR"), ("--dataset-dir", "DATASET.DIR")])
def test_a_name_that_no_file_can_hold_is_refused_with_the_way_out(flag, key, tmp_path, capsys):
    place = tmp_path / os.fsdecode(b"caf\xe9")
    place.mkdir()
    assert train.cli(["--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/tiny.yaml", "--dataset-config-file",
                      "configs/datasets/digits.yaml", "--output-dir", str(tmp_path / "run"), flag, str(place)]) == 2
    err = capsys.readouterr().err
    assert f"{key} is '" in err and r"caf\udce9" in err and "PYTHONUTF8=1" in err
    assert list(tmp_path.iterdir()) == [place] and not list(place.iterdir())


@pytest.mark.parametrize(("options", "said"), [
    (["OPTIM.LR", "fast"], "OPTIM.LR"), (["OPTIM.LR=0.01"], "OPTIM.LR 0.01"), (["OPTIM.LR="], "OPTIM.LR VALUE"),
    (["OPTIM.LRR", "1"], "Did you mean OPTIM.LR?"),
    (["DATALOADER.TRAIN_X.BATCH_SIZE", "0"], "must be at least 1, got 0"),
    (["TRAINER.COOP.N_CTXX", "4"], "TRAINER.COOP.N_CTX"),
])
def test_a_sweep_checks_its_options_before_the_first_run(options, said, tmp_path, capsys):
    code = sweep.main(["--recipe", "coop", "--datasets", "digits", "--shots", "1", "--seeds", "1", "--data",
                       str(tmp_path / "data"), "--output", str(tmp_path / "output"), *options])
    printed = capsys.readouterr()
    assert code == 2 and said in printed.err and "to do" not in printed.out and not (tmp_path / "output").exists()


def test_a_python_without_the_packages_gets_a_sentence(tmp_path):
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "dassl", folder / "dassl", ignore=shutil.ignore_patterns("__pycache__"))
    reply = subprocess.run([sys.executable, "-I", "-S", str(folder / "tools" / "train.py"), "--list"], text=True,
                           capture_output=True, env={"PATH": os.environ["PATH"]})
    assert reply.returncode == 2 and "lacks torch" in reply.stderr and "pip install -e" in reply.stderr
    assert "Traceback" not in reply.stderr and len(reply.stderr.splitlines()) == 3
