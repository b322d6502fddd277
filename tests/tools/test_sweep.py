"""The sweep runs what is not finished, once; a stand-in writes what tools/train.py would (fake_train.py)."""
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import fake_train
import pytest

from tools import sweep, table

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ["--recipe", "dapt", "--datasets", "digits", "--shots", "16"]


@pytest.fixture
def run(faked_sweep):
    """run(*words) -> (exit code, output, errors, run folders of digits in the order of their runs)."""
    def call(*words):
        *told, runs = faked_sweep(*DIGITS, *words)
        return *told, [run.removeprefix("digits/") for run in runs]

    return call


ZERO, SEEDS = "ZeroshotCLIP/tiny/seed1", [f"DAPT/tiny_16shots/seed{s}" for s in (1, 2, 3)]


def test_a_sweep_runs_zeroshot_first_then_every_seed_and_ends_with_the_table(run, tmp_path):
    code, out, _, runs = run()
    assert code == 0 and runs == [ZERO, *SEEDS] and out.count("The same warning in every run") == 1
    table = [line.split() for line in out.splitlines()]
    assert ["digits", "-", "ZeroshotCLIP", "tiny", "50.0", "-", "1/1", "2.0", "0"] in table
    assert ["digits", "16", "DAPT", "tiny", "91.0", "92.0", "93.0", "92.0", "0.8", "3/3", "2.0", "2,048"] in table
    assert f"{tmp_path}/out/digits/DAPT/tiny_16shots/seed{{1,2,3}}" in out


def test_a_finished_sweep_says_so_and_shows_the_table_without_running_anything(run):
    run()
    code, out, _, runs = run()
    assert code == 0 and runs == []
    assert "results exist already" in out and "--force" in out and "3/3" in out


def test_options_that_change_no_result_run_nothing_again_and_make_no_row(run, tmp_path):
    run("--seeds", "1", "TRAIN.PRINT_FREQ", "5")
    for options in (("TEST.PER_CLASS_RESULT", "True"), ("TRAIN.PRINT_FREQ", "1"), ()):
        code, out, _, runs = run("--seeds", "1", *options)
        assert code == 0 and runs == [] and "PRINT_FREQ" not in out and "PER_CLASS" not in out
    assert len(list((tmp_path / "out").rglob("results.json"))) == 2


def test_a_file_that_only_a_test_writes_costs_a_test_and_no_training(run, tmp_path, monkeypatch):
    run("--seeds", "1")
    folder = tmp_path / "out" / "digits" / SEEDS[0]
    (folder / "prompt_learner").mkdir()
    (folder / "prompt_learner" / "checkpoint").write_text("model.pth.tar-1\n")
    (folder / "prompt_learner" / "model.pth.tar-1").touch()
    monkeypatch.setenv("FAKE_FACTS", str(tmp_path / "facts"))
    code, _, err, runs = run("--seeds", "1", "TEST.SAVE_LOGITS", "True")
    assert code == 0 and runs == [ZERO, SEEDS[0]], err
    zero, tested = (json.loads(line)["argv"] for line in (tmp_path / "facts").read_text().splitlines())
    assert "--eval-only" not in zero and "--eval-only" in tested
    assert tested[tested.index("--model-dir") + 1] == str(folder)
    for path in (tmp_path / "out" / "digits").rglob("results.json"):
        path.with_name("logits.npz").touch()
    assert run("--seeds", "1", "TEST.SAVE_LOGITS", "True")[3] == []
    assert run("--seeds", "1")[3] == []                             # it is the same run as without


def test_every_row_says_how_many_of_its_own_seeds_are_there(run, tmp_path, monkeypatch, capsys):
    run("--seeds", "1", "2")
    run("--seeds", "1", "2", "3", "OPTIM.LR", "0.5")
    monkeypatch.setenv("FAKE_FAIL", "OPTIM.LR=0.1/seed2")
    run("--seeds", "1", "2", "OPTIM.LR", "0.1")
    capsys.readouterr()
    assert table.main([str(tmp_path / "out"), "--table", "runs"]) == 0
    counts = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("digits")]
    assert [next(word for word in words if "/" in word) for words in counts] == ["1/1", "2/2", "1/2", "3/3"]


def test_force_runs_everything_again(run):
    run("--seeds", "1")
    assert run("--seeds", "1", "--force")[3] == [ZERO, SEEDS[0]]


def test_seeds_come_from_the_flag_then_the_environment_then_the_recipe(run, monkeypatch):
    monkeypatch.setenv("SEEDS", "0 5")
    assert run()[3] == [ZERO, "DAPT/tiny_16shots/seed0", "DAPT/tiny_16shots/seed5"]
    assert run("--seeds", "2")[3] == [SEEDS[1]]
    monkeypatch.setenv("SEEDS", "one")
    code, _, err, _ = run()
    assert code == 2 and "SEEDS takes whole numbers" in err


def test_missing_data_is_told_once_and_stops_the_sweep_with_nothing_left_behind(run, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_FAIL", "digits")
    monkeypatch.setenv("FAKE_HOW", "missing")
    code, out, err, runs = run()
    assert code == 2 and runs == [ZERO] and err.count("not at home") == 1 and "accuracy" not in out
    assert not list((tmp_path).rglob("results.json")) and not (tmp_path / "out").exists()


def test_a_run_that_was_cut_off_resumes_from_its_checkpoint(run, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "DAPT/tiny_16shots/seed1")
    monkeypatch.setenv("FAKE_HOW", "half")
    run("--seeds", "1")
    monkeypatch.delenv("FAKE_FAIL")
    assert run("--seeds", "1")[3] == [f"{SEEDS[0]} resumed"]


def test_a_folder_without_result_and_checkpoint_starts_again_from_nothing(run, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "DAPT/tiny_16shots/seed1")
    run("--seeds", "1")
    monkeypatch.delenv("FAKE_FAIL")
    assert run("--seeds", "1")[3] == [SEEDS[0]]


def test_a_refused_run_of_force_is_told_and_keeps_its_former_result(run, monkeypatch):
    run("--seeds", "1")
    monkeypatch.setenv("FAKE_FAIL", "DAPT/tiny_16shots/seed1")
    monkeypatch.setenv("FAKE_HOW", "missing")
    code, out, err, _ = run("--seeds", "1", "--force")
    assert code != 0 and "The pets are not at home." in out + err
    code, out, _, done = run("--seeds", "1")
    assert code == 0 and "results exist already" in out and not done


def test_a_cut_results_file_is_no_result(run, tmp_path):
    run("--seeds", "1")
    (tmp_path / "out" / "digits" / SEEDS[0] / "results.json").write_text('{"finished": tr')
    assert run("--seeds", "1")[3] == [SEEDS[0]]


def test_options_of_the_user_are_another_result(run):
    run("--seeds", "1")
    code, out, _, runs = run("--seeds", "1", "OPTIM.LR", "0.5")
    assert code == 0 and runs == ["DAPT/tiny_16shots-OPTIM.LR=0.5/seed1"]
    assert run("--seeds", "1", "OPTIM.LR", "0.5")[3] == []
    assert run("--seeds", "1")[3] == []


def test_a_result_of_changed_settings_is_not_taken_for_the_current_one(run, tmp_path):
    run("--seeds", "1")
    path = tmp_path / "out" / "digits" / SEEDS[0] / "inputs.json"
    then = json.loads(path.read_text())
    then["opts"]["OPTIM.MAX_EPOCH"] = "7"
    then["files"] = dict.fromkeys(then["files"], "0" * 64)
    path.write_text(json.dumps(then))
    code, _, err, runs = run("--seeds", "1")
    assert code == 2 and runs == []
    assert "OPTIM.MAX_EPOCH 7, now" in err
    assert "DAPT/tiny.yaml has changed" in err and "--force" in err
    assert run("--seeds", "1", "--force")[0] == 0 and run("--seeds", "1")[0] == 0


def test_a_result_without_an_accuracy_does_not_end_the_sweep(run, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "DAPT/tiny_16shots/seed1")
    monkeypatch.setenv("FAKE_HOW", "own")
    code, out, _, runs = run()
    assert code == 0 and runs == [ZERO, *SEEDS] and "seed 1: mean_iou 0.5 in 2 s" in out and "2/3" in out


def test_a_dry_run_of_finished_results_promises_no_table(run):
    run("--seeds", "1")
    code, out, err, _ = run("--seeds", "1", "--dry-run")
    assert code == 0 and "results exist already" in err and "follow" not in err and "DAPT" in out


def test_a_dry_run_prints_commands_that_a_shell_reads_back_and_runs_nothing(run):
    code, out, _, runs = run("--dry-run", "INPUT.SIZE", "(32, 32)")
    commands = [shlex.split(line) for line in out.splitlines()]
    assert code == 0 and runs == [] and len(commands) == 4
    assert all(Path(c[1]).name == "train.py" and c[c.index("INPUT.SIZE") + 1] == "(32, 32)" for c in commands)


def test_a_plain_command_of_the_dry_run_counts_as_the_sweeps_own_run(run, tmp_path):
    commands = [shlex.split(line) for line in run("--seeds", "1", "--dry-run")[1].splitlines()]
    for command in commands:
        assert fake_train.main(command[2:]) == 0
    assert run("--seeds", "1")[3] == []


def test_several_recipes_share_one_zeroshot_run_and_one_table(run):
    _, out, _, runs = run("--recipe", "coop", "vpt", "--seeds", "1")
    assert runs == [ZERO, "CoOp/tiny_16shots/seed1", "VPT/tiny_16shots/seed1"]
    trainers = [line.split()[2] for line in out.splitlines() if line.startswith("digits")]
    assert trainers == ["ZeroshotCLIP", "CoOp", "VPT"]


def test_a_variant_of_imagenet_trains_imagenet_first(run, capsys):
    capsys.readouterr()
    words = ["--recipe", "dapt", "--datasets", "imagenet_a", "--shots", "16", "--seeds", "1", "--dry-run"]
    assert sweep.main(words) == 0
    commands = capsys.readouterr().out.splitlines()
    folders = [c.split("--output-dir ")[1].split()[0].split("/out/")[1] for c in commands]
    assert folders == ["imagenet/ZeroshotCLIP/vit_b16/seed1", "imagenet_a/ZeroshotCLIP/vit_b16/seed1",
                       "imagenet/DAPT/vit_b16_16shots/seed1", "imagenet_a/DAPT/vit_b16_16shots/seed1"]
    assert ["--eval-only" in c for c in commands] == [False, False, False, True]


def test_wrong_words_are_told_without_a_traceback(run):
    assert "Did you mean digits" in run("--datasets", "digit")[2]
    assert "OPTIM.LR has no value" in run("OPTIM.LR")[2]
    assert "OPTIM.LR has no value" in run("OPTIM.LR", "--dry-run")[2]
    code, _, err, runs = run("OPTIM.MAX_EPOCH", "abc", "--protocol", "base2new")
    assert code == 2 and runs == [] and "OPTIM.MAX_EPOCH must be a whole number of epochs, got 'abc'" in err


@pytest.mark.parametrize("words", [("--shots", "16", "0"), ("--shots", "-4"), ("--seeds", "1", "-1"), ("--shots", "x")])
def test_shots_under_one_and_seeds_under_zero_are_refused(words, run, capsys):
    with pytest.raises(SystemExit) as end:
        run(*words)
    assert end.value.code == 2 and f", got '{words[-1]}'" in capsys.readouterr().err


def test_what_only_training_reads_does_not_repeat_the_zeroshot_run(run):
    run("--seeds", "1")
    assert run("--seeds", "1", "DATALOADER.TRAIN_X.BATCH_SIZE", "8")[3] == \
        ["DAPT/tiny_16shots-DATALOADER.TRAIN_X.BATCH_SIZE=8/seed1"]


def test_the_table_of_finished_runs_imports_nothing_heavy(run, tmp_path):
    run()
    code = "import sys\nfrom tools import sweep\ncode = sweep.main(sys.argv[1:])\n" \
           "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)\nsys.exit(code)"
    reply = subprocess.run([sys.executable, "-c", code, *DIGITS], capture_output=True, text=True,
                           cwd=ROOT, env={**os.environ, "OUTPUT": str(tmp_path / "out")})
    assert reply.returncode == 0 and "3/3" in reply.stdout, reply.stderr
