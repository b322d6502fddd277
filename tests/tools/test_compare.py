"""tools/compare.py names what differs between runs, and between folders of seeds."""
import copy
import json

import pytest
import yaml

from tools import compare
from tools.comparison.differ import p_of

CONFIG = {"SEED": 1, "OUTPUT_DIR": "a", "OPTIM": {"LR": 0.02, "MAX_EPOCH": 5},
          "DATASET": {"NAME": "Digits", "ROOT": "x"},
          "TRAINER": {"NAME": "CoOp", "COOP": {"CTX_INIT": ""}}, "TRAIN": {"PRINT_FREQ": 5}}
RECORD = {"finished": True, "mode": "train", "trainer": "CoOp", "dataset": "Digits", "seed": 1, "split_hash": "5" * 64,
          "class_hash": "c" * 64, "num_classes": 3, "split": "test", "num_test": 4, "transforms": ["normalize"],
          "backbone": {"name": "tiny", "sha256": "b" * 64}, "precision": "fp32", "learned_parameters": 7, "epochs": 5,
          "versions": {"python": "3.11.7", "torch": "2.15.0"}, "device": "cpu", "machine": "Linux, one",
          "commit": "f" * 40, "model_selection": "the last epoch", "seconds": {"train": 1.0, "test": 1.0},
          "peak_memory_mb": 100, "metrics": {"accuracy": 93.1, "macro_f1": 92.0}, "date": "2026-01-01",
          "command": "python a"}


@pytest.fixture
def runs(tmp_path, monkeypatch, capsys):
    """runs.make(folder, KEY=config or record value, ...); runs(...) calls the tool and gives code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def make(folder, config=None, record=None, predictions=None, finished=True):
        path = tmp_path / folder
        path.mkdir(parents=True)
        for name, base, changes in (("config.yaml", CONFIG, config), ("results.json", RECORD, record)):
            content = copy.deepcopy(base)
            for key, value in (changes or {}).items():
                *parents, last = key.split(".")
                node = content
                for parent in parents:
                    node = node.setdefault(parent, {})
                node[last] = value
                if value is None:
                    del node[last]
            if name == "config.yaml":
                (path / name).write_text(yaml.safe_dump(content))
            elif finished:
                (path / name).write_text(json.dumps(content))
        if predictions:
            lines = [f"{i}.png,{true},{said},0.5,{int(true == said)}" for i, (true, said) in enumerate(predictions)]
            (path / "predictions.csv").write_text("path,true,predicted,confidence,correct\n" + "\n".join(lines) + "\n")
        return path

    def call(*words):
        code = compare.main([str(word) for word in words])
        return code, *capsys.readouterr()

    call.make = make
    return call


def difference(out, what):
    """The values that stand in the line of `what`, or None where it has none."""
    for line in out.splitlines():
        parts = [part.strip() for part in line.split("  ") if part.strip()]
        if what in parts:
            return parts[len(parts) - parts[::-1].index(what):]
    return None


def test_equal_runs_are_equal_wherever_and_whenever_they_ran(runs):
    runs.make("a")
    runs.make("b", {"OUTPUT_DIR": "b", "DATASET.ROOT": "y"}, {"date": "2027", "command": "other", "seconds.train": 9.0})
    code, out, _ = runs("a", "b")
    assert code == 0 and "Nothing that is recorded differs, and the results are equal" in out
    assert "what differs" not in out and difference(out, "accuracy") == ["93.10", "93.10", "+0.00"]


@pytest.mark.parametrize(("config", "record", "what", "values"), [
    ({"OPTIM.LR": 0.2}, {}, "OPTIM.LR", ["0.02", "0.2"]), ({"SEED": 2}, {"seed": 2}, "SEED", ["1", "2"]),
    ({"TRAINER.COOP.CTX_INIT": "a photo"}, {}, "TRAINER.COOP.CTX_INIT", ["(empty)", "a photo"]),
    ({}, {"split_hash": "6" * 64}, "few-shot split", ["5" * 10, "6" * 10]),
    ({}, {"backbone.sha256": "d" * 64}, "weights, sha256", ["b" * 10, "d" * 10]),
    ({}, {"precision": "fp16"}, "precision", ["fp32", "fp16"]),
    ({}, {"commit": "e" * 40}, "commit", ["f" * 10, "e" * 10]),
    ({}, {"versions.torch": "2.5"}, "torch", ["2.15.0", "2.5"]), ({}, {"device": "H100"}, "device", ["cpu", "H100"]),
    ({}, {"machine": "Mac"}, "machine", ["Linux, one", "Mac"]), ({}, {"class_hash": "a" * 64}, "class names", None)])
def test_each_thing_that_differs_is_named_with_both_values(runs, config, record, what, values):
    runs.make("a")
    runs.make("b", config, record)
    code, out, _ = runs("a", "b")
    assert code == 1 and "1 thing differs, and yet the results are equal" in out
    assert difference(out, what) == values if values else what in out


def test_numbers_that_differ_for_no_recorded_reason_are_told_so(runs):
    runs.make("a")
    runs.make("b", {"TRAIN.PRINT_FREQ": 1}, {"metrics.accuracy": 93.25})
    code, out, _ = runs("a", "b")
    assert code == 1 and "Nothing that is recorded differs but the numbers: accuracy 93.10 and 93.25." in out
    assert "settings (no effect)" in out and difference(out, "TRAIN.PRINT_FREQ") == ["5", "1"]
    assert difference(out, "accuracy") == ["93.10", "93.25", "+0.15"]


def test_what_one_side_has_not_recorded_is_no_difference_but_told(runs):
    runs.make("a", record={"machine": None})
    runs.make("b", {"TRAINER.VPT": {"N": 4}})
    code, out, _ = runs("a", "b")
    assert code == 0 and "not compared: machine." in out and "1 settings of other trainers" in out
    runs.make("c", {"TRAINER.COOP.NEW": 4})                     # a setting of the trainer that ran counts
    assert difference(runs("a", "c")[1], "TRAINER.COOP.NEW") == ["not there", "4"]


def test_folders_of_seeds_are_compared_seed_by_seed(runs):
    for folder, lr, accuracies in (("a", 0.02, (90.0, 92.0, 94.0)), ("b", 0.2, (91.0, 95.0))):
        for seed, accuracy in enumerate(accuracies, 1):
            split = str(seed) * 64 if (folder, seed) != ("b", 2) else "9" * 64
            runs.make(f"{folder}/seed{seed}", {"SEED": seed, "OPTIM.LR": lr},
                      {"seed": seed, "split_hash": split, "metrics.accuracy": accuracy})
    code, out, _ = runs("a", "b")
    assert code == 1 and "A  a, seeds 1 2 3" in out and difference(out, "seeds") == ["1 2 3", "1 2"]
    assert difference(out, "OPTIM.LR") == ["0.02", "0.2"] and difference(out, "SEED") is None
    assert difference(out, "few-shot split") == ["2" * 10, "9" * 10]                  # of seed 2; seed 1 has the same
    spread = (8 / 3) ** 0.5
    assert difference(out, "accuracy") == [f"92.00 ± {spread:.2f}", "93.00 ± 2.00", "+1.00"]


@pytest.mark.parametrize(("values", "said"), [
    ((91.0, 95.0, 92.0), "B - A: accuracy +0.67 ± 2.52, paired over seeds 1 2 3, p = 0.69: within the spread"),
    ((92.0, 94.5, 95.9), "B - A: accuracy +2.13 ± 0.32, paired over seeds 1 2 3, p = 0.0075: more than the spread"),
    ((91.0, 93.0, 95.0), "B - A: accuracy +1.00 ± 0.00, paired over seeds 1 2 3, p = 0: more than the spread"),
    ((91.0,), "cannot be said: only one seed is on all sides")])
def test_a_difference_is_set_beside_the_spread_over_seeds(runs, values, said):
    for folder, accuracies in (("a", (90.0, 92.0, 94.0)), ("b", values)):
        for seed, accuracy in enumerate(accuracies, 1):
            runs.make(f"{folder}/seed{seed}", {"SEED": seed}, {"seed": seed, "metrics": {"accuracy": accuracy}})
    code, out, _ = runs("a", "b")
    assert code == 1 and said in out.splitlines()[-1]
    found = json.loads(runs("a", "b", "--json")[1])["paired"]
    assert [one["within_spread"] for one in found] == ["within the" in said] * (len(values) > 1)


def test_the_p_value_is_scipys_of_the_paired_t_test():
    from scipy.stats import ttest_rel

    one, other = [90.0, 92.0, 94.0, 91.0], [91.0, 92.5, 93.0, 95.0]
    assert p_of([b - a for a, b in zip(one, other)]) == pytest.approx(ttest_rel(other, one).pvalue)
    assert p_of([0.0, 0.0]) == 1.0


def test_folders_without_a_seed_in_common_are_not_told_apart_by_their_splits(runs):
    for folder, seeds in (("a", (1, 2)), ("b", (3, 4))):
        for seed in seeds:
            runs.make(f"{folder}/seed{seed}", {"SEED": seed}, {"seed": seed, "split_hash": str(seed) * 64})
    code, out, _ = runs("a", "b")
    assert code == 1 and "few-shot split" not in out and difference(out, "seeds") == ["1 2", "3 4"]
    for folder, seed in (("c", 5), ("d", 6)):
        runs.make(f"{folder}/seed{seed}", {"SEED": seed}, {"seed": seed})
    assert difference(runs("c", "d")[1], "seeds") == ["5", "6"] and "SEED" not in runs("c", "d")[1]


def test_classes_and_images_are_compared_by_predictions(runs):
    true = ["cat", "cat", "dog", "emu"]
    runs.make("a", predictions=zip(true, ["cat", "dog", "dog", "cat"]))
    runs.make("b", record={"metrics.accuracy": 50.0}, predictions=zip(true, ["cat", "cat", "cat", "dog"]))
    out = runs("a", "b")[1]
    assert difference(out, "dog") == ["100.0", "0.0", "-100.0"] and difference(out, "cat") == ["50.0", "100.0", "+50.0"]
    assert difference(out, "emu") is None                                             # wrong on both sides
    assert "Of 4 images 3 were answered otherwise by B: 1 now right, 1 now wrong, 1 wrong in another way." in out
    assert "... and 1 more: --classes 2" in runs("a", "b", "--classes", "1")[1]
    assert "by class" not in runs("a", "b", "--classes", "0")[1]


def test_recorded_accuracies_of_classes_are_compared_without_predictions(runs):
    for name, accuracy in (("a", 50.0), ("b", 75.0)):
        runs.make(name, record={"per_class": {"great (white) owl": accuracy}})
    assert difference(runs("a", "b")[1], "great (white) owl") == ["50.0", "75.0", "+25.0"]


def test_three_runs_and_json(runs):
    runs.make("a")
    runs.make("b")
    runs.make("c", {"OPTIM.LR": 1}, {"metrics.accuracy": 90.0})
    code, out, _ = runs("a", "b", "c", "--json")
    data = json.loads(out)
    assert code == 1 and data["same"] is False and data["equal_results"] is False
    assert data["differences"] == [{"group": "settings", "what": "OPTIM.LR", "values": ["0.02", "0.02", "1"],
                                    "effect": True}]
    assert data["metrics"][0]["differences"] == [0, 0, pytest.approx(-3.1)]
    assert [side["seeds"] for side in data["sides"]] == [[1], [1], [1]]


def test_a_run_without_a_result_is_compared_by_its_settings(runs):
    runs.make("a")
    runs.make("b", {"OPTIM.LR": 1}, finished=False)
    code, out, _ = runs("a", "b")
    assert code == 1 and "B has no result" in out and difference(out, "OPTIM.LR") == ["0.02", "1"]
    runs.make("c", {"OPTIM.LR": 1}, finished=False)
    code, both, _ = runs("b", "c")
    assert code == 1 and "A, B has no result" in both and "Nothing else that is recorded differs" in both
    assert "1 thing differs in addition" in out and "few-shot split" in out.split("not compared: ")[1]


@pytest.mark.parametrize(("words", "said"), [
    (["a"], "Two or more"), (["a", "nowhere"], "no folder nowhere"), (["a", "empty"], "holds none."),
    (["a", "deep"], "deep/x/CoOp does: name that one"), (["a", "mixed"], "CoOp on Digits, VPT on Digits"),
    (["a", "twice"], "two runs of seed 1")])
def test_what_cannot_be_compared_is_told_with_the_way_out(runs, tmp_path, words, said):
    runs.make("a")
    (tmp_path / "empty").mkdir()
    runs.make("deep/x/CoOp/seed1")
    runs.make("mixed/seed1")
    runs.make("mixed/seed2", record={"seed": 2, "trainer": "VPT"})
    runs.make("twice/one")
    runs.make("twice/two")
    code, out, err = runs(*words)
    assert code == 2 and said in err and out == ""
