"""The papers' tables: which runs are found, what stands in which line and column, and how each format writes it."""
import csv
import io
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from figures import cell_in, write_run

from tools import table, train
from tools.runs import inputs, protocols
from tools.runs.recipe import CONFIGS, ROOT, load_recipe
from tools.tables.found import scan
from tools.tables.rows import row_of
from tools.tables.select import render


@pytest.fixture
def runs(tmp_path, monkeypatch, capsys):
    """runs(folder, accuracy, ...) writes a run folder; runs.table(...) calls the tool in the folder above output/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tools.checkout.ROOT", tmp_path)
    monkeypatch.delenv("OUTPUT", raising=False)

    def make(folder, accuracy, trainer=None, dataset="", opts=None, files=(), model_dir=None, meant=True, seeds=(),
             **record):
        path = tmp_path / "output" / folder
        trainer = trainer or path.parts[-3]
        seed = int(path.name.removeprefix("seed")) if path.name.startswith("seed") else record.pop("seed", 1)
        flags = {"trainer": trainer, "seed": seed}
        if model_dir:
            flags |= {"eval_only": True, "model_dir": model_dir}
        known = meant and path.name.startswith("seed")
        cell = replace(cell_in(path, record.get("shots", 16), opts or {}), seeds=tuple(seeds)) if known else None
        given = {"flags": flags, "opts": opts or {}, "files": dict.fromkeys(files, "0")}
        return write_run(path, accuracy, cell=cell, given=given, **{
            "trainer": trainer, "dataset": dataset, "shots": -1 if trainer == "ZeroshotCLIP" else 16, "seed": seed,
            "seconds": {"total": 1.0}, "learned_parameters": 5, **record})

    def call(*words):
        code = table.main(list(map(str, words)))
        out, err = capsys.readouterr()
        return code, out, err

    make.table = call
    return make


def cells(text, start):
    """The fields, parted by two spaces or more, of the first line that begins with `start`."""
    line = next(line for line in text.splitlines() if line.startswith(start))
    return [part.strip() for part in line.split("  ") if part.strip()]


def few_shot(runs):
    for shots, values in {1: (60.0, 62.0, 64.0), 2: (70.0, 72.0, None)}.items():
        for seed, value in enumerate(values, 1):
            for dataset, more in (("digits", 0), ("shapes", 10)):
                runs(f"{dataset}/CoOp/tiny_{shots}shots/seed{seed}", value and value + more, shots=shots)
    runs("digits/ZeroshotCLIP/tiny/seed1", 50.0)


def test_datasets_by_shots_with_average_and_missing_seeds(runs):
    few_shot(runs)
    code, out, _ = runs.table("--table", "fewshot")
    assert code == 0 and cells(out, "dataset") == ["dataset", "zero-shot", "1 shot", "2 shots"]
    assert cells(out, "digits") == ["digits", "50.0", "62.0 ± 1.6", "71.0 ± 1.0 (2/3)"]
    assert cells(out, "shapes") == ["shapes", "-", "72.0 ± 1.6", "81.0 ± 1.0 (2/3)"]
    assert cells(out, "average") == ["average", "-", "67.0", "76.0"]           # no average over what is not there
    assert "missing: CoOp tiny digits 2 shots, seed 3" in out


def several(runs):
    """Two methods, two datasets, two numbers of shots; VPT has no result on shapes at 2 shots."""
    values = {("digits", "CoOp"): (70.0, 90.0), ("digits", "VPT"): (80.0, 85.0), ("shapes", "CoOp"): (60.0, 62.0),
              ("shapes", "VPT"): (66.0, None)}
    for (dataset, trainer), accuracies in values.items():
        for shots, value in zip((1, 2), accuracies):
            for seed in (1, 2) if value else ():
                runs(f"{dataset}/{trainer}/tiny_{shots}shots/seed{seed}", value + seed - 1.5, shots=shots)
    for dataset, value in (("digits", 78.0), ("shapes", 64.0)):
        runs(f"{dataset}/ZeroshotCLIP/tiny/seed1", value)


def lines_of(out):
    """The lines of the first table, as the fields of each."""
    return [[part.strip() for part in re.split(r"  +", line)] for line in out.split("\n\n")[1].splitlines()]


def test_methods_by_shots_have_a_block_per_dataset_their_ranks_and_differences_and_averages(runs):
    several(runs)
    code, out, _ = runs.table()                                 # unasked too: it has all that two kinds of tables have
    assert code == 0 and "Few-shot accuracy" not in out and "Accuracy at" not in out
    assert lines_of(out)[0] == ["dataset", "method", "1 shot", "2 shots"] and lines_of(out)[2:] == [
        ["digits", "ZeroshotCLIP", "_78.0_", "78.0"], ["digits", "CoOp", "70.0 ± 0.5 (-8.0)", "*90.0* ± 0.5 (+12.0)"],
        ["digits", "VPT", "*80.0* ± 0.5 (+2.0)", "_85.0_ ± 0.5 (+7.0)"],
        ["shapes", "ZeroshotCLIP", "_64.0_", "*64.0*"], ["shapes", "CoOp", "60.0 ± 0.5 (-4.0)", "_62.0_ ± 0.5 (-2.0)"],
        ["shapes", "VPT", "*66.0* ± 0.5 (+2.0)", "-"],
        ["average of 2", "ZeroshotCLIP", "_71.0_", "_71.0_"], ["average of 2", "CoOp", "65.0 (-6.0)", "*76.0* (+5.0)"],
        ["average of 2", "VPT", "*73.0* (+2.0)", "-"]]
    first = lines_of(runs.table("--table", "shots", "--trainers", "vpt", "coop")[1])[2:4]
    assert first == [["digits", "VPT", "*80.0* ± 0.5", "_85.0_ ± 0.5"],
                     ["digits", "CoOp", "_70.0_ ± 0.5 (-10.0)", "*90.0* ± 0.5 (+5.0)"]]


@pytest.mark.parametrize(("kind", "best", "second"), [
    ("markdown", "**80.0** ± 0.5 (+2.0)", "<u>85.0</u> ± 0.5 (+7.0)"),
    ("html", "<b>80.0</b> ± 0.5 (+2.0)", "<u>85.0</u> ± 0.5 (+7.0)"),
    ("latex", r"$\mathbf{80.0} \pm 0.5$ ($+2.0$)", r"$\underline{85.0} \pm 0.5$ ($+7.0$)")])
def test_the_best_is_bold_and_the_second_underlined_in_every_format(runs, kind, best, second):
    several(runs)
    out = runs.table("--table", "shots", "--format", kind)[1]
    assert best in out and second in out and out.count("average of 2") == (3 if kind == "markdown" else 1)


def test_a_table_is_csv_with_its_own_lines_and_columns(runs):
    several(runs)
    lines = list(csv.DictReader(io.StringIO(runs.table("--table", "shots", "--format", "csv")[1])))
    assert [(line["dataset"], line["method"]) for line in lines][-3:] == [
        ("average of 2", name) for name in ("ZeroshotCLIP", "CoOp", "VPT")]
    assert [float(lines[1][name]) for name in ("2 shots", "2 shots std", "2 shots n", "2 shots over first")] == [
        90.0, 0.5, 2, 12.0]
    assert lines[5]["2 shots"] == ""


def test_long_csv_has_a_line_per_run_and_a_column_per_fact(runs):
    several(runs)
    path = runs("digits/CoOp/tiny_1shots-OPTIM.LR=0.1/seed4", 50.0, shots=1, num_classes=10,
                seconds={"total": 3.0, "train": 2.0}, metrics={"accuracy": 50.0, "nll": 1.5})
    assert runs.table("--long", "csv", "--output", "all.csv")[0] == 0
    lines = list(csv.DictReader(io.StringIO(Path("all.csv").read_text(encoding="utf-8"))))
    assert len(lines) == 17
    (line,) = [line for line in lines if line["OPTIM.LR"]]
    assert (line["OPTIM.LR"], line["nll"], line["seconds_train"], line["seed"], line["folder"]) == (
        "0.1", "1.5", "2.0", "4", str(path))
    only = runs.table("--long", "csv", "--trainer", "VPT", "--dataset", "digits", "--shots", 2, "--seeds", 2)[1]
    assert [(one["trainer"], one["accuracy"]) for one in csv.DictReader(io.StringIO(only))] == [("VPT", "85.5")]


def test_what_a_recipe_sets_beyond_the_yaml_is_told_and_what_is_equal_is_not(runs):
    for shots in (1, 2):
        for dataset in ("digits", "shapes"):
            runs(f"{dataset}/CoOp/tiny_{shots}shots/seed1", 80.0, shots=shots, opts={
                "TRAINER.COOP.CSC": True, "OPTIM.LR": 0.1 * shots, "TRAIN.PRINT_FREQ": 1,
                "OPTIM.NAME": yaml.safe_load((CONFIGS / "trainers/CoOp/tiny.yaml").read_text())["OPTIM"]["NAME"]})
    assert ("CoOp (tiny), set by the recipe but not by the yaml: TRAINER.COOP.CSC True; "
            "OPTIM.LR 0.1 (1 shot), 0.2 (2 shots)") in runs.table()[1].splitlines()


def test_methods_whose_recipes_set_the_same_share_a_line(runs):
    for trainer in ("IVLP", "MMA"):
        runs(f"digits/{trainer}/tiny_1shots/seed1", 80.0, shots=1, trainer=trainer, opts={"OPTIM.MAX_EPOCH": 7})
    assert ("IVLP (tiny), MMA (tiny), set by the recipes but not by the yamls: OPTIM.MAX_EPOCH 7"
            in runs.table()[1].splitlines())


def test_runs_on_another_split_and_with_other_words_are_rows_of_their_own(runs):
    for where, more in (("", {}), ("-TEST.SPLIT=val", {"split": "val"})):
        runs(f"digits/CoOp/tiny_16shots{where}/seed1", 80.0, **more)
    plain = load_recipe("coop").cell("fruit", 16, 1, own=("--dataset-dir", "x/fruit"), config="tiny")
    for words in ("", "names-1f3a9c", "a_photo_of_a-90b2"):
        folder = runs(f"fruit/CoOp/tiny_16shots-{words}/seed1", 81.0, meant=False)
        content = json.loads((folder / "inputs.json").read_text())
        (folder / "inputs.json").write_text(json.dumps(
            {**content, "cell": {**plain.as_dict(), "words": words}}))
    assert {(row.config, row.where) for row in scan("output")} == {
        ("tiny", ""), ("tiny", "on val"), ("tiny-names-1f3a9c", ""), ("tiny-a_photo_of_a-90b2", "")}
    out = runs.table("--dataset", "fruit")[1]
    assert cells(out, "CoOp names-1f3a9c")[1].startswith("*81.0*") and "ImageDir" not in out


def test_trials_on_validation_images_are_not_shown_beside_tests(runs):
    runs("digits/CoOp/tiny_16shots/seed1", 80.0)
    runs("digits/CoOp/tiny_16shots-OPTIM.LR=0.1/seed1", 99.0, split="val", opts={"OPTIM.LR": 0.1})
    assert "99.0" not in runs.table()[1] and "99.0" in runs.table("--table", "runs")[1]
    assert "on val" in runs.table("--config", "0.1")[1]                     # where there is nothing else


def test_classes_that_arrive_in_tasks_have_a_table_next_to_training_on_all_at_once(runs):
    for seed, value in ((1, 70.0), (2, 74.0)):
        runs(f"digits/L2P/tiny_16shots@tasks5/seed{seed}", 60.0, opts={"TRAIN.TASKS": 5}, tasks={
            "average_accuracy": value, "forgetting": 10.0, "forward_transfer": -2.0})
    runs("digits/L2P/tiny_16shots/seed1", 90.0)
    runs("digits/ZeroshotCLIP/tiny@tasks5/seed1", 50.0, opts={"TRAIN.TASKS": 5}, tasks={
        "average_accuracy": 51.0, "forgetting": 1.0, "forward_transfer": 0.0})
    out = runs.table("--table", "incremental")[1]
    assert out.startswith("digits in 5 tasks, 16 shots (tiny)")
    assert cells(out, "L2P") == ["L2P", "90.0", "72.0 ± 2.0", "10.0 ± 0.0", "-2.0 ± 0.0"]
    assert cells(out, "ZeroshotCLIP") == ["ZeroshotCLIP", "-", "51.0", "1.0", "0.0"]


def test_a_row_lacks_the_seeds_that_its_sweep_was_asked_for_and_none_of_other_rows(runs):
    for seed in (1, 2, 3, 4, 5):
        runs(f"digits/CoOp/tiny_16shots/seed{seed}", 90.0)
    runs("digits/VPT/tiny_16shots/seed1", 91.0)
    for seed in (1, 2):
        runs(f"digits/DAPT/tiny_16shots/seed{seed}", 92.0, seeds=(1, 2, 3))
    runs("digits/ZeroshotCLIP/tiny/seed1", 50.0)
    out = runs.table()[1]
    assert cells(out, "VPT") == ["VPT", "_91.0_ (+41.0)"] and cells(out, "ZeroshotCLIP") == ["ZeroshotCLIP", "50.0"]
    assert cells(out, "DAPT") == ["DAPT", "*92.0* ± 0.0 (2/3) (+42.0)"] and out.count("missing:") == 1
    assert "missing: DAPT tiny digits 16 shots, seed 3" in out
    assert cells(runs.table("--seeds", 1, 6)[1], "CoOp") == ["CoOp", "90.0 (1/2) (+40.0)"]


def test_seconds_and_best_test_epochs_are_of_the_seeds_asked_for(runs):
    for seed, seconds, best in ((1, 10.0, 81.0), (2, 30.0, 91.0)):
        runs(f"digits/CoOp/tiny_16shots/seed{seed}", 80.0, seconds={"total": seconds},
             best_test_epoch={"epoch": 1, "accuracy": best})
    code, out, _ = runs.table("--table", "runs", "--seeds", 1)
    assert cells(out, "digits")[-3:] == ["10.0", "5", "81.0"] and "seed2" not in out
    (found,) = json.loads(runs.table("--seeds", 2, "--format", "json")[1])["rows"]
    assert found["seconds"] == 30.0


def test_what_ended_without_an_accuracy_is_neither_shown_nor_missing(runs):
    runs("digits/CoOp/tiny_16shots/seed1", 80.0)
    runs("digits/DAPT/tiny_16shots/seed1", 80.0, metrics={})                            # TEST.NO_TEST
    runs("shapes/CoOp/tiny_16shots/seed1", 80.0, metrics={"mean_iou": 0.5})
    runs("shapes/DAPT/tiny_16shots/seed1", None)
    assert [(row.dataset, row.trainer, row.missing) for row in scan("output")] == [
        ("digits", "CoOp", []), ("shapes", "DAPT", [1])]


def test_ctrl_c_ends_a_command_in_one_word(runs, tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.tables.select.scan", interrupt)
    monkeypatch.setattr("sys.argv", ["table.py", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "tools" / "table.py"), run_name="__main__")
    assert end.value.code == 130 and capsys.readouterr().err.strip() == "Interrupted."


def test_digits_below_zero_are_refused_in_words(runs, capsys):
    with pytest.raises(SystemExit) as end:
        runs.table("--digits", "-1")
    assert end.value.code == 2 and "a whole number of at least 0, got '-1'" in capsys.readouterr().err


def test_without_a_folder_the_checkouts_output_is_shown_from_anywhere(runs, tmp_path, monkeypatch):
    runs("digits/CoOp/tiny_16shots/seed1", 80.0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cells(runs.table("--table", "runs")[1], "digits")[-5] == "80.0"
    monkeypatch.setenv("OUTPUT", str(tmp_path / "empty"))
    assert runs.table()[0] == 2


def test_a_difference_of_nothing_is_never_minus_nothing(runs):
    published = load_recipe("coop").row("dtd")["published"][16]
    folder = runs("dtd/CoOp/vit_b16_16shots/seed1", published - 0.04)
    (folder / "inputs.json").unlink()                       # nobody knows how: it is compared all the same
    _, out, _ = runs.table("--table", "runs")
    assert cells(out, "dtd")[-1] == "+0.0"
    assert cells(runs.table("--table", "methods")[1], "difference") == ["difference", "+0.0"]


def test_the_seeds_of_one_protocol_are_not_missed_in_another(runs):
    for seed in (1, 2, 3):
        runs(f"digits/VPT/tiny_16shots/seed{seed}", 90.0)
    runs("shapes/VPT/tiny_16shots@from_digits/seed1", 60.0)
    runs("digits/VPT/tiny_16shots@base/seed1", 60.0)
    assert "/" not in runs.table()[1].replace("(2/3): seeds found", "")


def test_a_collapsed_seed_marks_every_place_that_it_is_in_and_is_named_below(runs):
    for seed, value in ((1, 10.0), (2, 90.0)):
        runs(f"digits/CoOp/tiny_16shots/seed{seed}", value, num_classes=10, num_test=100)
        runs(f"digits/CoOp/tiny_16shots@base/seed{seed}", value, num_classes=5, at_chance=seed == 1)
        runs(f"digits/CoOp/tiny_16shots@new/seed{seed}", 90.0, num_classes=5)
    out = runs.table()[1]
    assert cells(out, "CoOp") == ["CoOp", "50.0 ± 40.0 !"]
    base, new, h = cells(out, "digits")[2:]
    assert base == "50.0 ± 40.0 !" and new == "90.0 ± 0.0" and h.startswith("64.3 ± ") and h.endswith(" !")
    assert "! CoOp tiny digits 16 shots, seed 1: 10.0 is at chance, which is 10.0 for 10 classes; it is part" in out
    assert "! CoOp tiny digits base 16 shots, seed 1: 10.0 is at chance, which is 20.0 for 5 classes" in out


def test_methods_by_datasets_have_the_published_value_and_the_difference_below(runs):
    for seed in (1, 2, 3):
        runs(f"dtd/CoOp/vit_b16_16shots/seed{seed}", 70.0, opts={"OPTIM.MAX_EPOCH": "200"})
        (runs(f"dtd/CoOp/vit_b16_16shots-OPTIM.LR=1/seed{seed}", 40.0) / "inputs.json").unlink()
        runs(f"eurosat/CoOp/vit_b16_16shots/seed{seed}", 80.0, opts={"OPTIM.MAX_EPOCH": "3"})
    code, out, _ = runs.table("--table", "methods")
    assert cells(out, "method") == ["method", "dtd", "eurosat", "average"]
    assert cells(out, "CoOp  ") == ["CoOp", "*70.0* ± 0.0", "80.0 ± 0.0", "75.0"]
    assert cells(out, "published") == ["published", "69.7", "-", "-"]        # RVP, Table 8; eurosat ran otherwise
    assert cells(out, "difference") == ["difference", "+0.3", "-", "-"]
    assert cells(out, "CoOp LR=1") == ["CoOp LR=1", "_40.0_ ± 0.0 (-30.0)", "-", "-"] and out.count("published  ") == 1
    assert "published (CoOp): RVP, Table 8" in out
    assert "no published value for CoOp vit_b16 eurosat 16 shots: its recipe has not OPTIM.MAX_EPOCH 3" in out


def test_runs_that_say_little_get_no_published_value_and_their_folders_names_are_not_read(runs):
    for folder in ("imagenet/CoOp/vit_b16_16shots/seed1", "imagenet/CoOp/vit_b16_16shots@transfer/seed1"):
        (runs(folder, 70.0, dataset="DescribableTextures", meant=False) / "inputs.json").unlink()
    assert {(r.dataset, r.config, r.tag, r.published) for r in scan(table.Path("output"))} == {
        ("dtd", "vit_b16_16shots/seed", "", None), ("dtd", "vit_b16_16shots@transfer/seed", "", None)}


def test_a_cell_says_what_a_run_is_wherever_it_lies(runs):
    """71.51 is published for CoOp's four words on ImageNet, which tests other datasets; 69.7 for its sixteen on DTD."""
    for dataset, tag in (("imagenet", ""), ("imagenet", "@transfer"), ("dtd", "")):
        folder = runs(f"{dataset}/CoOp/vit_b16_16shots{tag}/seed1", 70.0)
        (folder / "inputs.json").unlink()
        folder.rename(folder.parents[3] / f"{dataset}{len(tag)}")
    assert {(r.dataset, r.config): r.published for r in scan(table.Path("output"))} == {
        ("imagenet", "vit_b16"): None, ("dtd", "vit_b16"): 69.7, ("imagenet", "vit_b16@transfer"): 71.51}


def test_base_new_and_h_are_averaged_as_cocoop_averages_them(runs):
    """The average row of CoCoOp, Table 1, from its rows: 80.47, 71.69 and H = 75.83, which is no mean of the H."""
    published = load_recipe("cocoop").protocol("base2new")["published"]
    opts = {"TRAIN.CHECKPOINT_FREQ": "1", "OPTIM.MAX_EPOCH": "10"}
    for dataset, pair in published.items():
        for half, value in zip(("base", "new"), pair):
            runs(f"{dataset}/CoCoOp/vit_b16_16shots@{half}/seed1", value, opts=opts)
    out = runs.table("--table", "base2new", "--digits", 2)[1]
    assert cells(out, "dataset") == ["dataset", "method", "base", "new", "H"]
    assert cells(out, "dtd") == ["dtd", "CoCoOp", "77.01", "56.00", "64.85"]
    average = cells(out, "average of 11")
    assert [round(float(x), 2) for x in average[2:]] == pytest.approx([80.47, 71.69, 75.83], abs=0.02)
    rows = [line.split() for line in out.splitlines()]
    assert rows[rows.index(next(r for r in rows if r[:1] == ["dtd"])) + 2] == ["difference", "+0.00", "+0.00", "+0.00"]


def test_cross_and_dg_have_the_source_first_and_average_the_targets_alone(runs):
    source = "imagenet/CoOp/vit_b16_16shots@transfer/seed1"
    runs(source, 71.0)
    for dataset, value in (("dtd", 40.0), ("caltech101", 94.0)):
        runs(f"{dataset}/CoOp/vit_b16_16shots@from_imagenet/seed1", value, model_dir=source)
        runs(f"{dataset}/ZeroshotCLIP/vit_b16/seed1", 44.0)
    for dataset, value in (("imagenet_r", 75.0), ("imagenetv2", 64.0)):
        runs(f"{dataset}/CoOp/vit_b16_16shots@from_imagenet/seed1", value, model_dir=source)
    out = runs.table("--table", "cross")[1]
    assert cells(out, "method") == ["method", "imagenet", "caltech101", "dtd", "average of targets"]
    assert cells(out, "ZeroshotCLIP") == ["ZeroshotCLIP", "-", "_44.0_", "*44.0*", "_44.0_"]
    assert cells(out, "CoOp") == ["CoOp", "71.0", "*94.0*", "_40.0_", "*67.0*"]
    for dataset in ("imagenet", "dtd"):                     # under attack they are no rows of this table
        for cell in ("CoOp/vit_b16_16shots", "ZeroshotCLIP/vit_b16"):
            runs(f"{dataset}/{cell}@under_pgd/seed1", 1.0)
    assert runs.table("--table", "cross")[1] == out
    out = runs.table("--table", "dg")[1]
    assert cells(out, "method")[1:] == ["imagenet", "imagenetv2", "imagenet_r", "average of targets"]
    assert cells(out, "CoOp") == ["CoOp", "71.0", "64.0", "75.0", "69.5"]


def test_the_variants_of_dapt_stand_in_the_recipes_order_with_their_gain(runs):
    names = {"-TRAINER.DAPT.TXT_BETA=0.0,TRAINER.DAPT.VIS_BETA=0.0": 80.0, "-TRAINER.DAPT.VIS_BETA=0.0": 81.0,
             "-TRAINER.DAPT.TXT_BETA=0": 82.5, "": 84.0}
    for suffix, value in names.items():
        for seed in (1, 2):
            runs(f"digits/DAPT/tiny_16shots{suffix}/seed{seed}", value)
    out = runs.table()[1]
    lines = [cells(out, name) for name in ("CE  ", "CE + inter  ", "CE + intra", "CE + inter + intra")]
    assert lines == [["CE", "80.0 ± 0.0", "-"], ["CE + inter", "81.0 ± 0.0", "+1.0"],
                     ["CE + intra", "_82.5_ ± 0.0", "+2.5"], ["CE + inter + intra", "*84.0* ± 0.0", "+4.0"]]
    assert cells(out, "DAPT") == ["DAPT", "84.0 ± 0.0"]            # among the methods only the full one
    assert out.count("84.0") == 2 and "BETA" not in out


def test_a_recipe_of_ones_own_names_variants_and_their_published_values(runs, tmp_path):
    mine = yaml.safe_load((CONFIGS / "recipes" / "coop.yaml").read_text())
    mine["protocols"] = {"ablation": {"variants": {"slow": {"OPTIM.LR": 0.1}, "as published": {}},
                                      "published": {"dtd": [60.0, 70.0]}, "published_from": "Table 0"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine, sort_keys=False))
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    cells_ = protocols.expand(recipe, recipe.cell("dtd", 16, 1), "ablation", None)
    for cell, value in zip(cells_, (62.0, 69.0)):
        words = cell.arguments("data", "out")
        path = runs(cell.folder, value)
        (path / "inputs.json").write_text(json.dumps(inputs.describe(train.parser().parse_args(words))))
    out = runs.table("--recipe", "mine.yaml")[1]
    assert cells(out, "slow") == ["slow", "_62.0_", "-"]
    assert cells(out, "as published") == ["as published", "*69.0*", "+7.0"]
    assert [cells(line, "") for line in out.splitlines() if line.startswith("difference")][-2:] == [
        ["difference", "+2.0", "-"], ["difference", "-1.0", "-"]]
    assert "slow" not in runs.table()[1]

    rows = [row_of(cell, cell.folder.parent) for cell in cells_]            # as the end of a sweep has them
    for row, value in zip(rows, (62.0, 69.0)):
        row.seeds = {1: value}
    assert cells(render(rows), "as published") == ["as published", "*69.0*", "+7.0"]


def test_other_options_make_an_ablation_of_any_trainer(runs):
    for suffix, value in {"-OPTIM.LR=0.1,OPTIM.MAX_EPOCH=2": 70.0, "-OPTIM.MAX_EPOCH=2": 75.0}.items():
        runs(f"digits/CoOp/tiny_16shots{suffix}/seed1", value)
        runs(f"digits/ZeroshotCLIP/tiny{suffix}/seed1", value)
    out = runs.table("--table", "ablation")[1]
    assert "Ablation of CoOp at 16 shots per class (tiny), OPTIM.MAX_EPOCH 2" in out
    assert cells(out, "default") == ["default", "*75.0*", "-"] and cells(out, "LR=0.1") == ["LR=0.1", "_70.0_", "-5.0"]
    assert "Ablation of ZeroshotCLIP" not in out
    assert "Ablation" not in runs.table()[1]                        # unasked they are methods


def test_runs_outside_of_a_sweeps_folders_are_known_by_their_contents(runs):
    files = ("trainers/CoOp/tiny.yaml", "configs/datasets/digits.yaml")
    opts = {"DATASET.NUM_SHOTS": "16", "OPTIM.LR": "0.5", "DATASET.SUBSAMPLE_CLASSES": "new"}
    opts["OPTIM.MAX_EPOCH"] = str(load_recipe("coop").cell("digits", 16, 1).opts["OPTIM.MAX_EPOCH"])
    for seed in (1, 2):
        runs(f"paper/mine{seed}", 80.0 + seed, "CoOp", "Digits", opts, files, seed=seed, classes="new")
    runs("paper/again", 70.0, "CoOp", "Digits", opts, files, classes="new")
    runs("strange", 60.0, "Mine", "Pets of mine")
    *found, strange = scan(table.Path("output"))
    assert {(r.dataset, r.trainer, r.cell.config, r.shots, r.classes) for r in found} == {
        ("digits", "CoOp", "tiny", 16, "new")}
    assert {tuple(r.options.items()) for r in found} == {(("OPTIM.LR", "0.5"),)}         # the epochs are the recipe's
    assert sorted((r.mean, len(r.found)) for r in found) == [(70.0, 1), (81.5, 2)]
    assert len({r.where for r in found}) == 2 and strange.dataset == "Pets of mine" and strange.trainer == "Mine"


@pytest.mark.parametrize(("recipe", "protocol"), [
    ("coop", "fewshot"), ("coop", "base2new"), ("coop", "cross"), ("coop", "dg"), ("cocoop", "dg"), ("vpt", "base2new"),
    ("zeroshot", "fewshot"), ("zeroshot", "base2new"), ("dapt", "ablation"), ("dvp_cls", "fewshot"),
    ("coop_rn50", "fewshot"), ("linear_probe", "fewshot")])
@pytest.mark.parametrize("how", ["stored", "old", "by hand"])
def test_a_run_made_by_a_recipe_is_found_again_with_its_published_value(tmp_path, recipe, protocol, how):
    """Every cell of a protocol: as a sweep leaves it, as one did before cells were stored, as its command by hand."""
    recipe, expected = load_recipe(recipe), {}
    shots = None if recipe.trainer == "ZeroshotCLIP" else 16
    datasets = ["imagenet"] if protocol in ("cross", "dg") else recipe.datasets
    if protocol == "ablation":
        datasets = ["imagenet", "dtd", "digits"]
    for dataset in datasets:
        made = protocols.expand(recipe, recipe.cell(dataset, shots, 1), protocol, None)
        for cell in [*(cell.train_on for cell in made if cell.train_on), *made]:
            name = "-".join(cell.folder.parts) if how == "by hand" else cell.folder
            trained = cell.train_on and cell.train_on.dataset != cell.dataset
            expected[str(name)] = (cell.dataset, cell.trainer, cell.config, cell.shots, cell.tag.strip("@") if
                                   cell.tag in ("@base", "@new") else "", cell.train_on.dataset if trained else "",
                                   cell.published, bool(cell.variant) and cell.variant)
            words = cell.arguments("data", "out")
            if how == "by hand" and cell.train_on:
                words[words.index("--model-dir") + 1] = str(tmp_path / "-".join(cell.train_on.folder.parts))
            stored = {"version": 2, "cell": cell} if how == "stored" else {}
            write_run(tmp_path / name, 50.0, given=inputs.describe(train.parser().parse_args(words)),
                      trainer=cell.trainer, dataset=cell.dataset, seed=1, shots=cell.shots or -1,
                      classes=cell.opts.get("DATASET.SUBSAMPLE_CLASSES", "all"), **stored)
    found = {str(run.folder.relative_to(tmp_path)): (
        row.dataset, row.trainer, row.cell.config, row.shots, row.classes, row.source, row.published,
        protocol == "ablation" and row.variant) for row in scan(tmp_path) for run in row.runs.values()}
    assert found == expected


def test_what_a_yaml_has_set_otherwise_than_the_recipe_is_part_of_the_name_and_what_is_equal_is_not(runs):
    """Recipe: 50 epochs and class-specific contexts on digits; the yaml leaves CSC False."""
    files = ("trainers/CoOp/tiny.yaml", "configs/datasets/digits.yaml")
    for name, csc in (("plain", False), ("recipes", True)):
        path = runs(name, 80.0, "CoOp", "Digits", {"DATASET.NUM_SHOTS": "16"}, files)
        path.joinpath("config.yaml").write_text(f"OPTIM: {{MAX_EPOCH: 50}}\nTRAINER: {{COOP: {{CSC: {csc}}}}}\n")
    found = {next(iter(row.runs.values())).folder: row.config for row in scan(table.Path("output"))}
    assert {path.name: config for path, config in found.items()} == {"plain": "tiny-TRAINER.COOP.CSC=False",
                                                                     "recipes": "tiny"}


def test_equal_rows_of_two_folders_say_where_they_lie(runs):
    for where, value in (("one", 80.0), ("two", 82.0)):
        for dataset in ("digits", "shapes"):
            runs(f"{where}/{dataset}/CoOp/tiny_16shots/seed1", value)
    out = runs.table("output/one", "output/two")[1]
    assert cells(out, "CoOp in one") == ["CoOp in one", "_80.0_", "_80.0_", "_80.0_"]
    assert cells(out, "CoOp in two") == ["CoOp in two", "*82.0* (+2.0)", "*82.0* (+2.0)", "*82.0* (+2.0)"]
    assert " in " not in runs.table("output/one")[1].split("\n\n")[1]


def test_filters_leave_what_is_asked_for_and_misspelt_names_are_told(runs):
    few_shot(runs)
    runs("digits/VPT/tiny_1shots/seed1", 66.0, shots=1)
    out = runs.table("--trainers", "vpt", "coop", "--datasets", "digits", "--shots", 1)[1]
    assert cells(out, "VPT") == ["VPT", "*66.0*"] and "shapes" not in out and "2 shots" not in out
    assert cells(out, "CoOp") == ["CoOp", "_62.0_ ± 1.6 (-4.0)"]                  # the first line is the first named
    for words, said in ((["--trainers", "CoOpp"], "Did you mean CoOp"), (["--shots", "7"], "No finished run is left"),
                        (["--table", "dg"], "no run for the table dg"), (["--output", "x.doc"], ".md, .html, .tex"),
                        (["--table", "runs", "--format", "latex"], "has no LaTeX")):
        code, out, err = runs.table("--datasets", "shapes", *words) if "--shots" in words else runs.table(*words)
        assert code == 2 and said in err and out == "", (words, err)


def test_csv_and_json_have_the_numbers_unrounded(runs):
    for seed, value in ((1, 80.123456), (2, None), (3, 81.5)):
        runs(f"dtd/CoOp/vit_b16_16shots/seed{seed}", value, num_classes=47)
    assert runs.table("--output", "a/b/out.csv")[0] == 0
    (line,) = csv.DictReader(io.StringIO((table.Path("a/b/out.csv")).read_text()))
    assert float(line["mean"]) == (80.123456 + 81.5) / 2 and line["seeds"] == "1=80.123456 2= 3=81.5"
    assert (line["protocol"], line["n"], line["n_wanted"], line["missing_seeds"]) == ("fewshot", "2", "3", "2")
    data = json.loads(runs.table("--format", "json")[1])
    (row,) = data["rows"]
    assert row["seeds"] == {"1": 80.123456, "2": None, "3": 81.5} and row["published"] is None
    (grid,) = data["tables"]
    assert grid["columns"] == ["method", "dtd"] and grid["lines"][0]["values"] == [row["mean"]]


def test_names_are_escaped_in_latex_and_markdown(runs):
    runs("my_set 100%|&#$/Mine_2/tiny_16shots-A.B={x}~^<1>/seed1", 80.0)
    out = runs.table("--format", "latex")[1]
    assert r"my\_set 100\%\textbar{}\&\#\$" in out and r"B=\{x\}\textasciitilde{}\textasciicircum{}\textless{}1" in out
    for line in out.splitlines():
        assert line.startswith("%") or "%" not in line.replace(r"\%", "").removesuffix("{!}{%")
    assert r"my\_set 100%\|&#$" in runs.table("--format", "markdown")[1]


def test_latex_tables_are_whole(runs):
    """Balanced environments and braces, as many fields in every line as columns, nothing that needs another package."""
    few_shot(runs)
    for name in "abcdefgh":
        runs(f"{name}/CoOp/tiny_1shots/seed1", 12.0, shots=1, num_classes=100)
    words = ("--table", "fewshot", "methods", "--format", "latex", "--standalone")
    text = runs.table(*words)[1]
    assert text.startswith("\\documentclass") and text.rstrip().endswith("\\end{document}")
    for name in ("document", "table", "tabular"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") > 0
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert body.count("{") == body.count("}") and body.count("$") % 2 == 0 and "±" not in body
    narrower = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%"      # and never enlarged
    assert body.count(narrower) == body.count("\\begin{tabular}") == len(set(re.findall(r"\\label{tab:(.*)}", body)))
    assert "(2/3)" in body and r"$81.0 \pm 1.0$ (2/3)" in body
    widths = None
    for line in body.splitlines():
        if "\\begin{tabular}" in line:
            widths = len(line.split("{")[2].split("}")[0])
        if line.endswith(r" \\"):
            assert line.count("&") == widths - 1


def test_lines_of_a_table_are_in_the_order_of_the_papers_and_ruled_by_dataset(runs):
    opts = {"TRAIN.CHECKPOINT_FREQ": "1", "OPTIM.MAX_EPOCH": "10"}
    for dataset in ("dtd", "my_own", "caltech101"):
        for trainer in ("CoCoOp", "Mine"):
            for half in ("base", "new"):
                runs(f"{dataset}/{trainer}/vit_b16_16shots@{half}/seed1", 70.0, opts=opts)
    lines = [line for line in runs.table("--format", "latex")[1].splitlines() if "&" in line or "midrule" in line]
    first = [line if line.startswith("\\") else line.split(" & ")[0] for line in lines[2:]]
    both = [["caltech101", "", "", ""], ["dtd", "", "", ""], ["my\\_own", ""], ["average of 3", ""]]
    assert first == [word for own in both for word in ["\\midrule", *own]][1:]
    assert sum(line.startswith(r" & \quad published &") for line in lines) == 2
