"""tools/parse_test_res.py prints what CoOp's tool of that name prints for the same logs."""
import pytest

from tools import parse_test_res

# The lines that matter of a log of CoOp with Dassl 0.6.3, and of a test with --eval-only.
TRAIN = """epoch [50/50] batch [5/5] time 0.2 (0.3) loss 0.4 (0.5) acc 87.5 (89.1) lr 2.0e-06 eta 0:00:00
* accuracy: 11.1%
{signal}
Deploy the last-epoch model
Evaluate on the *test* set
=> result
* total: 2,465
* correct: {correct}
* accuracy: {accuracy}%
* error: {error}%
* macro_f1: {f1}%
Elapsed: 0:01:38
"""
TEST = """Loading weights to prompt_learner from "output/x/prompt_learner/model.pth.tar-50" (epoch = 50)
Evaluate on the *test* set
=> result
* total: 1,000
* correct: 642
* accuracy: {accuracy}%
* error: 35.8%
* macro_f1: 60.0%
"""


def train_log(accuracy, signal="Finish training", f1="90.0"):
    return TRAIN.format(accuracy=accuracy, error=f"{100 - accuracy:.2f}", correct="2,263", signal=signal, f1=f1)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = parse_test_res.main(list(words))
        return code, *capsys.readouterr()

    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    run.write = write
    return run


def caltech(call, folder="output/caltech101/CoOp/rn50_16shots/nctx16_cscFalse_ctpend", **kwargs):
    """The three seeds that CoOp's COOP.md shows."""
    for seed, accuracy in enumerate((91.81, 92.01, 92.17), 1):
        call.write(f"{folder}/seed{seed}/log.txt", train_log(accuracy, **kwargs))
    return folder


def test_the_example_of_coops_documentation_comes_out_word_for_word(call):
    folder = caltech(call)
    code, out, err = call(folder)
    assert code == 0 and err == "" and out == f"""Parsing files in {folder}
file: {folder}/seed1/log.txt. accuracy: 91.81%.\x20
file: {folder}/seed2/log.txt. accuracy: 92.01%.\x20
file: {folder}/seed3/log.txt. accuracy: 92.17%.\x20
===
Summary of directory: {folder}
* accuracy: 92.00% +- 0.15%
===
"""


def test_logs_of_older_dassl_say_finished(call):
    assert "92.00% +- 0.15%" in call(caltech(call, signal="Finished training"))[1]


def test_the_confidence_interval_is_that_of_the_original(call):
    folder = caltech(call)
    mean = (91.81 + 92.01 + 92.17) / 3
    std = (sum((x - mean) ** 2 for x in (91.81, 92.01, 92.17)) / 3) ** 0.5          # divided by n, as numpy.std
    assert f"* accuracy: 92.00% +- {1.96 * std / 3 ** 0.5:.2f}%" in call(folder, "--ci95")[1]
    assert "+- 0.17%" in call(folder, "--ci95")[1]


def test_a_keyword_picks_another_result(call):
    folder = caltech(call, f1="88.5")
    assert "* macro_f1: 88.50% +- 0.00%" in call(folder, "--keyword", "macro_f1")[1]
    assert "* error: 8.00% +- 0.15%" in call(folder, "--keyword", "error")[1]


def test_logs_of_tests_are_read_on_request_and_suggested_otherwise(call):
    for seed, accuracy in ((1, 64.2), (2, 64.6)):
        call.write(f"out/seed{seed}/log.txt", TEST.format(accuracy=accuracy))
    assert "* accuracy: 64.40% +- 0.20%" in call("out", "--test-log")[1]
    code, _, err = call("out")
    assert code == 2 and "--test-log" in err


def test_several_experiments_have_an_average_of_their_means(call):
    for experiment, values in (("dtd", (60.0, 64.0)), ("pets", (90.0, 91.0))):
        for seed, accuracy in enumerate(values, 1):
            call.write(f"out/{experiment}/seed{seed}/log.txt", train_log(accuracy))
    code, out, _ = call("out", "--multi-exp")
    assert code == 0 and "Parsing files in out/dtd\n" in out and "Summary of directory: out/pets\n" in out
    assert out.endswith("===\nAverage performance\n* accuracy: 76.25%\n")
    call.write("out/sun/seed1/log.txt", "Initializing summary writer\n")
    code, out, err = call("out", "--multi-exp")                # no quiet average over what is there
    assert code == 2 and "Average" not in out and "did not come to its end" in err


def test_an_accuracy_before_the_end_of_training_is_no_result(call):
    call.write("out/seed1/log.txt", "=> result\n* accuracy: 50.0%\nepoch [2/2]\n")
    assert call("out")[0] == 2
    call.write("out/seed1/log.txt", train_log(80.0) + "=> result\n* accuracy: 81.5%\n")        # the last one counts
    assert "accuracy: 81.50%. " in call("out")[1]


def test_a_seed_without_a_result_is_told_and_left_out(call):
    call.write("out/seed1/log.txt", train_log(80.0))
    call.write("out/seed2/log.txt", "Traceback\n")
    call.write("out/seed3/config.yaml", "")
    call.write("out/notes.txt", "")
    code, out, err = call("out")
    assert code == 0 and "* accuracy: 80.00% +- 0.00%" in out
    assert "out/seed2/log.txt" in err and "out/seed3" in err and "notes" not in err


def test_a_run_that_went_on_in_a_second_log_has_its_result_there(call):
    call.write("out/seed1/log.txt", "epoch [1/50]\n")
    call.write("out/seed1/log.txt-2026-01-01-00-00-00", train_log(77.0))
    assert "file: out/seed1/log.txt-2026-01-01-00-00-00. accuracy: 77.00%. " in call("out")[1]


def test_of_a_run_repeated_in_its_folder_the_newest_result_counts_and_that_is_told(call):
    call.write("out/seed1/log.txt", train_log(70.0))
    call.write("out/seed1/log.txt-2026-01-01-00-00-00", train_log(77.0))
    _, out, err = call("out")
    assert "accuracy: 77.00%. " in out and "70" not in out
    assert err == "out/seed1 has 2 logs; log.txt-2026-01-01-00-00-00 is the newest with a result.\n"
    call.write("out/seed1/log.txt-2026-01-02-00-00-00", "epoch [1/50]\nFinish training\n")        # killed in its test
    _, out, err = call("out")
    assert "accuracy: 77.00%. " in out and "has 3 logs; log.txt-2026-01-01" in err


def test_a_run_folder_itself_is_one_seed(call):
    assert "92.01% +- 0.00%" in call(caltech(call) + "/seed2")[1]


@pytest.mark.parametrize(("words", "said"), [
    (["nowhere"], "no folder nowhere"), (["output"], "nctx16_cscFalse_ctpend have: name that one"),
    (["output/caltech101/CoOp", "--multi-exp"], "nctx16_cscFalse_ctpend have: name that one"),
    (["output/caltech101/CoOp/rn50_16shots", "--multi-exp", "--keyword", "("], "accuracy, error, macro_f1")])
def test_what_was_not_found_is_told_with_the_way_out(call, words, said):
    caltech(call)
    code, _, err = call(*words)
    assert code == 2 and said in err
