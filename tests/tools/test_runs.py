"""tools/runs: cells are stored as they were meant, records have one schema, and all runs are one table."""
import json
import re

import pytest
from figures import write_run

from dassl.utils import run_record
from dassl.utils.errors import UserError
from tools import sweep, train
from tools.runs import Cell, Record, RunFolder, below, cell, index, inputs, protocols, published, record
from tools.runs.by_hand import by_contents, meant
from tools.runs.recipe import ROOT, load_recipe, zeroshot_cell
from tools.sweeping.plan import plan

GIVEN = {"flags": {"trainer": "CoOp", "seed": 2}, "opts": {"DATASET.NUM_SHOTS": "16", "OPTIM.LR": "0.5"},
         "files": {"trainers/CoOp/tiny.yaml": "0", "configs/datasets/digits.yaml": "0"}}


def write(folder, accuracy=None, given=GIVEN, **fields):
    return RunFolder(write_run(folder, accuracy, given=given, **fields))


@pytest.mark.parametrize(("recipe", "protocol"), [("coop", "cross"), ("coop", "base2new"), ("dapt", "ablation")])
def test_a_stored_cell_is_the_cell_that_was_meant(recipe, protocol):
    recipe = load_recipe(recipe)
    for one in protocols.expand(recipe, recipe.cell("imagenet", 16, 1, {"OPTIM.LR": "0.1"}), protocol, None):
        stored = Cell.from_dict(json.loads(json.dumps(one.as_dict())))
        assert stored.as_dict() == one.as_dict() and stored.kind == one.kind and stored.folder == one.folder
        assert (stored.recipe, stored.protocol) == (recipe.name, protocol)


@pytest.mark.parametrize("broken", [None, 7, [], {}, {"trainer": 1}, "half", "epochs"])
def test_what_is_no_cell_is_none(broken):
    whole = load_recipe("coop").cell("digits", 16, 1).as_dict()
    given = {"half": {**whole, "seed": "1"}, "epochs": {**whole, "opts": {"OPTIM.MAX_EPOCH": "x"}}}
    assert Cell.from_dict(given.get(broken, broken) if isinstance(broken, str) else broken) is None


def test_a_run_by_hand_is_what_it_was_given_and_a_sweeps_what_the_sweep_meant(monkeypatch):
    by_hand = meant(GIVEN, {"classes": "new"})
    assert (by_hand.dataset, by_hand.trainer, by_hand.shots, by_hand.seed, by_hand.config, by_hand.classes) == (
        "digits", "CoOp", 16, 2, "tiny", "new")
    assert by_hand.user_opts == {"OPTIM.LR": "0.5"} and not by_hand.recipe
    planned = load_recipe("coop").cell("digits", 16, 2, {"OPTIM.LR": "0.5"})
    monkeypatch.setenv(cell.MEANT, json.dumps(planned.as_dict()))
    assert meant(GIVEN, {}).as_dict() == planned.as_dict()
    with pytest.raises(UserError, match="not the cell of this run"):
        meant(GIVEN, {"seed": 3})


@pytest.mark.parametrize("protocol", ["fewshot", "base2new"])
def test_a_seed_that_was_made_by_the_commands_of_a_sweep_is_of_the_same_row(tmp_path, protocol):
    recipe = load_recipe("coop")
    plain = recipe.cell("dtd", 16, 1, {"OPTIM.LR": "0.1"})
    for number, one in enumerate(protocols.expand(recipe, plain, protocol, None)):
        given = inputs.describe(train.parser().parse_args(one.arguments("data", "out")))
        by_hand = published.settled(write(tmp_path / str(number), 80.0, given), published.shipped())
        assert by_hand.kind == one.kind and not by_hand.recipe


def test_the_schema_is_documented_and_its_version_is_the_engines():
    text = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.M) == list(record.FIELDS)
    assert all(f"| `{name}` | {meaning} |" in text for name, (_, meaning) in record.FIELDS.items())
    assert record.VERSION == run_record.VERSION


def test_a_newer_record_is_read_with_a_warning(tmp_path, caplog):
    run = write(tmp_path / "a", 80.0, version=record.VERSION + 1, novel=[1])
    assert run.accuracy == 80.0 and f"version {record.VERSION + 1}" in caplog.text


def test_older_records_have_a_cell_too_and_the_one_rule_of_chance(tmp_path):
    run = write(tmp_path / "output" / "any" / "name", 12.0, num_test=100, num_classes=10, trainer="CoOp", seed=2,
                shots=16)
    assert "version" not in run.record and run.cell.config == "tiny" and run.cell.user_opts == {"OPTIM.LR": "0.5"}
    assert run.record.at_chance
    assert not Record(run.record | {"metrics": {"accuracy": 30.0}}).at_chance


def test_index_has_a_row_for_every_run_finished_or_not(tmp_path):
    lines = load_recipe("coop").cell("digits", 16, 1)
    write(tmp_path / "b" / "x", 80.0, version=2, cell=lines, seed=1, num_test=719)
    write(tmp_path / "a", given=GIVEN)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "results.json").write_text('{"of": "another program"}')
    df = index(tmp_path)
    assert [run.folder.name for run in below(tmp_path)] == ["a", "x"] == [folder.name for folder in df.folder]
    assert list(df.accuracy.isna()) == [True, False] and list(df.finished) == [False, True]
    assert list(df.recipe) == ["", "coop"] and list(df.options.str.contains("OPTIM.LR=0.5")) == [True, False]
    assert df.groupby(["dataset", "trainer", "shots"]).accuracy.mean().to_dict() == {("digits", "CoOp", 16): 80.0}
    with pytest.raises(FileNotFoundError, match="no folder nowhere"):
        index("nowhere")
    assert df["OPTIM.LR"].iloc[0] == "0.5" and df["OPTIM.LR"].isna().iloc[1]
    assert index(tmp_path / "c").empty and set(index(tmp_path / "c").columns) <= set(df.columns)


@pytest.mark.parametrize("key", ["TRAIN.PRINT_FREQ", "TEST.PER_CLASS_RESULT", "TEST.COMPUTE_CMAT", "TEST.SAVE_LOGITS",
                                 "TRAIN.TRACKERS"])
def test_an_option_that_changes_no_result_makes_no_other_run(key, tmp_path):
    recipe = load_recipe("coop")
    plain, asked = (recipe.cell("dtd", 16, 1, opts) for opts in ({}, {key: "True"}))
    assert asked.folder == plain.folder and asked.kind == plain.kind and asked.published == plain.published == 69.7
    assert asked.opts[key] == "True"                                          # it is done all the same
    assert zeroshot_cell(asked).folder == zeroshot_cell(plain).folder
    given = [inputs.describe(train.parser().parse_args(one.arguments("data", "out"))) for one in (plain, asked)]
    assert inputs.differences(*given) == inputs.differences(*given[::-1]) == []
    assert published.settled(write(tmp_path / "run", 80.0, given[1]), published.shipped()).options == {}


def test_an_option_of_the_test_tests_what_the_same_run_has_learned_in_a_folder_of_its_own():
    recipe = load_recipe("coop")
    plain = recipe.cell("dtd", 16, 1)
    trained, tested = protocols.expand(recipe, recipe.cell("dtd", 16, 1, {"TEST.SPLIT": "val"}), "fewshot", None)
    assert trained.folder == plain.folder and tested.train_on == trained and tested.folder != plain.folder
    words = tested.arguments("data", "out")
    assert "--eval-only" in words and words[words.index("--model-dir") + 1] == f"out/{plain.folder}"
    best = recipe.cell("dtd", 16, 1, {"TEST.FINAL_MODEL": "best_val"})          # which a training has to know
    assert protocols.expand(recipe, best, "fewshot", None) == [best] and best.folder != plain.folder
    assert zeroshot_cell(best).folder == zeroshot_cell(plain).folder            # which chooses nothing


def test_cells_know_the_seeds_of_their_sweep():
    args = sweep.parser().parse_args(["--recipe", "coop", "--datasets", "digits", "--shots", "1", "--seeds", "3", "1"])
    planned = plan(args, {})
    assert [(cell.trainer, cell.seeds) for cell in planned] == [
        ("ZeroshotCLIP", (1,)), ("CoOp", (1, 3)), ("CoOp", (1, 3))]
    assert cell.Cell.from_dict(json.loads(json.dumps(planned[1].as_dict()))).seeds == (1, 3)
    older = {key: value for key, value in planned[1].as_dict().items() if key not in ("seeds", "words")}
    assert cell.Cell.from_dict(older).seeds == ()


def test_images_of_ones_own_have_a_name_that_no_other_ones_have(tmp_path):
    out = tmp_path / "out"
    first, other, listed = tmp_path / "a" / "fruit", tmp_path / "b" / "fruit", tmp_path / "a" / "fruit.csv"
    first.mkdir(parents=True)
    assert inputs.own_name(out, first) == "fruit"
    for number, place in enumerate((first, first, listed, other)):
        name = inputs.own_name(out, place)
        folder = out / name / "CoOp" / "tiny" / f"seed{number}"
        folder.mkdir(parents=True)
        inputs.write(folder, train.parser().parse_args(["--trainer", "CoOp", "--dataset-dir", str(place)]))
    names = sorted(path.name for path in out.iterdir())
    assert names[:1] == ["fruit"] and names[2:] == ["fruit.csv"] and names[1].startswith("fruit-") and len(names) == 3
    assert inputs.own_name(out, f"{first}/../fruit/") == "fruit" and inputs.own_name(out, other) == names[1]
    write(out / "digits" / "CoOp", 80.0)
    assert inputs.own_name(out, tmp_path / "digits") != "digits"                 # which are runs of a benchmark


def test_other_words_for_the_same_images_are_another_folder(tmp_path):
    recipe, names = load_recipe("coop"), tmp_path / "names.txt"

    def folder_with(*flags):
        own = ("--dataset-dir", str(tmp_path), *flags)
        one = recipe.cell("fruit", 4, 1, config="tiny", own=own)
        given = inputs.describe(train.parser().parse_args(one.arguments("data", "out")))
        by_hand = by_contents(given, {"shots": 4, "seed": 1})
        assert by_hand.words == one.words
        assert zeroshot_cell(one).folder.parts[2] == one.folder.parts[2].replace("_4shots", "")
        return one.folder.parts[2]

    names.write_text("apple\npear\n")
    one = folder_with("--classnames", str(names))
    names.write_text("Apfel\nBirne\n")
    found = [folder_with(), one, folder_with("--classnames", str(names)), folder_with("--template", "a photo of a {}."),
             folder_with("--template", "a photo of a {}!")]
    assert len(set(found)) == 5 and found[0] == "tiny_4shots" and found[1].startswith("tiny_4shots-names-")
    assert found[3].startswith("tiny_4shots-a_photo_of_a-")


def test_train_stores_the_cell_where_a_run_begins(tmp_path):
    args = train.parser().parse_args(["--trainer", "CoOp", "--seed", "1"])
    meant = load_recipe("coop").cell("digits", 16, 1)
    inputs.write(tmp_path, args, cell=meant.as_dict())
    assert RunFolder(tmp_path).cell.as_dict() == meant.as_dict()
    assert inputs.differences(inputs.read(tmp_path), inputs.describe(args)) == []
