"""Protocols: which runs they are, what is published beside them, and what the table makes of them."""
import functools
import json
from pathlib import Path

import pytest
from figures import write_run

from tools import table, train
from tools.runs import protocols
from tools.runs.cell import Cell
from tools.runs.protocols import expand, zeroshot
from tools.runs.recipe import RecipeError, load_recipe
from tools.runs.record import Record
from tools.tables import layouts
from tools.tables.found import scan
from tools.tables.rows import row_of
from tools.tables.select import render

EMBEDDED = {"coop", "vpt", "dapt", "cocoop", "clip_lora"}


def runs(recipe, dataset, protocol, targets=None, shots=16, tasks=None, **options):
    recipe = load_recipe(recipe)
    return expand(recipe, recipe.cell(dataset, shots, 1, **options), protocol, targets, tasks)


def cfg_of(cell):
    return train.setup_cfg(train.parser().parse_args(cell.arguments("data", "output")))


@pytest.mark.parametrize("recipe", sorted(EMBEDDED))
def test_base2new_trains_on_the_base_half_and_tests_the_same_prompts_on_the_new_one(recipe):
    base, new = runs(recipe, "digits", "base2new")
    assert base.train_on is None and new.train_on is base and new.load_epoch == cfg_of(base).OPTIM.MAX_EPOCH
    assert [cfg_of(cell).DATASET.SUBSAMPLE_CLASSES for cell in (base, new)] == ["base", "new"]
    assert [cell.folder.parts[2] for cell in (base, new)] == ["tiny_16shots@base", "tiny_16shots@new"]
    words = new.arguments("data", "out")
    assert "--eval-only" in words and words[words.index("--model-dir") + 1] == f"out/{base.folder}"
    zero = [zeroshot(cell) for cell in (base, new)]
    assert [cfg_of(cell).DATASET.SUBSAMPLE_CLASSES for cell in zero] == ["base", "new"]
    assert len({cell.folder for cell in (base, new, *zero)}) == 4


def test_the_coop_of_other_classes_shares_its_four_words():
    pairs = (("digits", "base2new"), ("imagenet", "dg"), ("imagenet", "cross"))
    for cell in (cell for dataset, protocol in pairs for cell in runs("coop", dataset, protocol)):
        c = cfg_of(cell).TRAINER.COOP
        assert (c.CSC, c.CTX_INIT, c.N_CTX) == (False, "a photo of a", 4)
    assert cfg_of(runs("coop", "imagenet", "dg")[0]).OPTIM.MAX_EPOCH == 50
    assert cfg_of(runs("coop", "digits", "fewshot")[0]).TRAINER.COOP.CSC is True


def test_cross_and_dg_train_once_on_the_source_and_test_on_every_target():
    for protocol, count in (("cross", 10), ("dg", 4)):
        source, *targets = runs("coop", "imagenet", protocol)
        assert len(targets) == count and all(cell.train_on is source and cell.load_epoch == 50 for cell in targets)
        assert [cell.dataset for cell in targets] == list(protocols.TARGETS[protocol]["imagenet"])
        assert source.folder.parts[2] == "vit_b16_16shots@transfer"
    source, target = runs("vpt", "shapes", "dg", ["shapes_sketch"])
    assert source.folder.parts[2] == "tiny_16shots" and target.folder.parts[2] == "tiny_16shots@from_shapes"
    assert cfg_of(target).DATASET.NAME == "ShapesSketch" and zeroshot(target).folder.parts[2] == "tiny"


def test_rows_that_test_imagenets_prompts_keep_their_folder_and_published_value():
    source, *targets = runs("cocoop", "imagenet", "dg")
    assert [cell.folder.parts[2] for cell in (source, *targets)] == ["vit_b16_16shots"] * 5
    assert [cell.published for cell in (source, *targets)] == [71.02, 64.07, 48.75, 50.63, 76.18]


@pytest.mark.parametrize("recipe, means", [("coop", (82.69, 63.22)), ("cocoop", (80.47, 71.69)),
                                           ("zeroshot", (69.34, 74.22))])
def test_published_base_and_new_values_average_to_the_published_average(recipe, means):
    """The average row of CoCoOp, Table 1."""
    published = load_recipe(recipe).protocol("base2new")["published"]
    assert len(published) == 11
    averages = [sum(column) / 11 for column in zip(*published.values(), strict=True)]
    assert averages == pytest.approx(means, abs=0.02)
    base, new = runs(recipe, "dtd", "base2new", shots=None if recipe == "zeroshot" else 16)
    assert [base.published, new.published] == published["dtd"]


@pytest.mark.parametrize("recipe, average", [("coop", 63.88), ("cocoop", 65.74)])
def test_published_cross_dataset_values_average_to_the_published_average(recipe, average):
    targets = runs(recipe, "imagenet", "cross")[1:]
    assert sum(cell.published for cell in targets) / 10 == pytest.approx(average, abs=0.02)


def test_what_is_published_stands_beside_nothing_else():
    assert [c.published for c in runs("coop", "dtd", "base2new", shots=4)] == [None, None]
    assert [c.published for c in runs("coop", "dtd", "base2new", config="rn50")] == [None, None]
    assert [c.published for c in runs("coop", "dtd", "base2new", user_opts={"OPTIM.LR": "1"})] == [None, None]
    assert [c.published for c in runs("dapt", "dtd", "base2new")] == [None, None]


@pytest.mark.parametrize("recipe", ["linear_probe", "tip_adapter", "tip_adapter_f", "dvp_cls", "dvp_cse"])
def test_what_learns_something_for_its_own_classes_is_refused(recipe):
    for protocol in ("base2new", "dg", "cross"):
        with pytest.raises(RecipeError, match="--protocol fewshot"):
            runs(recipe, "digits", protocol)


def test_targets_nobody_knows_are_asked_for_and_unknown_ones_told():
    with pytest.raises(RecipeError, match="--targets A B"):
        runs("coop", "dtd", "cross")
    with pytest.raises(RecipeError, match="Did you mean shapes"):
        runs("coop", "digits", "cross", ["shape"])


def row(classes, *values, published=None, dataset="dtd", source=""):
    trained = Cell("CoOp", source, 16, 1, "tiny") if source else None
    made = row_of(Cell("CoOp", dataset, 16, 1, "tiny", opts={"DATASET.SUBSAMPLE_CLASSES": classes}, train_on=trained,
                       published=published, published_from="Table 1"))
    for seed, value in enumerate(values, 1):
        record = {"finished": True, "metrics": {"accuracy": value}, "seconds": {"total": 1}, "learned_parameters": 5}
        made.add(seed, None if value is None else Record(record))
    return made


def test_the_harmonic_mean_is_that_of_the_means_and_of_the_published_values():
    text = render([row("base", 80.0, 84.0, published=79.44), row("new", 40.0, 44.0, published=41.18)])
    lines = [line.split() for line in text.splitlines()]
    assert [line[4] for line in lines[2:5]] == ["base", "new", "H"]
    h = 2 * 82 * 42 / 124
    assert lines[4][5:8] == ["53.3", "57.8", f"{h:.1f}"] and lines[4][-2:] == ["54.2", f"{h - 54.24:+.1f}"]
    assert "H: harmonic mean of the means" in text and "classes" not in render([row("", 50.0)])


def test_a_missing_half_gives_no_harmonic_mean():
    lines = [line.split() for line in render([row("base", 80.0), row("new", None)]).splitlines()]
    assert lines[4][4:7] == ["H", "-", "-"]
    assert "H" not in [line[4] for line in map(str.split, render([row("base", 80.0)]).splitlines()[2:3])]


def test_targets_of_one_source_have_an_average():
    rows = [row("", 60.0, 70.0, dataset=f"shapes_{n}", source="shapes") for n in ("noise", "sketch")]
    rows[1].seeds[2] = 90.0
    line = next(line for line in render(rows).splitlines() if line.startswith("average of 2 targets"))
    assert line.split()[-7:-3] == ["60.0!", "80.0", "70.0", "10.0"]                # of sketch, seed 1 has collapsed


@pytest.fixture
def fake(faked_sweep):
    return functools.partial(faked_sweep, "--seeds", "1")


B2N = ["--recipe", "vpt", "--datasets", "digits", "--shots", "16", "--protocol", "base2new"]


def test_a_sweep_of_halves_ends_with_h_and_the_table_tool_shows_the_same(fake, tmp_path, capsys):
    code, out, _, done = fake(*B2N)
    assert code == 0 and done == [f"digits/{run}/seed1" for run in (
        "ZeroshotCLIP/tiny@base", "ZeroshotCLIP/tiny@new", "VPT/tiny_16shots@base", "VPT/tiny_16shots@new")]
    marks = [line.split()[4] for line in out.splitlines() if line.startswith("digits ") and "VPT" in line]
    assert marks == ["base", "new", "H"]
    table.main([str(tmp_path / "out"), "--table", "runs"])
    scanned = capsys.readouterr().out
    assert [line.split()[4] for line in scanned.splitlines() if line.startswith("digits ") and "VPT" in line] == marks


def test_new_prompts_are_tested_anew_and_prompts_that_failed_are_not(fake, tmp_path, monkeypatch):
    fake(*B2N)
    (tmp_path / "out" / "digits" / "VPT" / "tiny_16shots@base" / "seed1" / "results.json").unlink()
    assert [run.split("/")[2] for run in fake(*B2N)[3]] == ["tiny_16shots@base", "tiny_16shots@new"]
    monkeypatch.setenv("FAKE_FAIL", "VPT/tiny_16shots@base")
    code, out, _, done = fake(*B2N, "--force")
    assert code == 1 and "skipped, because its training failed: VPT digits new 16 shots seed 1" in out
    assert len(done) == 3


def test_images_of_ones_own_are_swept_under_the_name_of_their_folder(fake, tmp_path):
    words = ["--recipe", "coop", "--dataset-dir", tmp_path / "my set", "--config", "tiny", "--shots", "4",
             "--template", "a {}."]
    (tmp_path / "my set").mkdir()
    code, _, err, done = fake(*words)
    assert code == 0 and done == ["my set/ZeroshotCLIP/tiny-a-16a7/seed1",
                                  "my set/CoOp/tiny_4shots-a-16a7/seed1"], err
    record = json.loads((tmp_path / "out" / done[1] / "inputs.json").read_text())
    assert record["flags"]["dataset_dir"] == str(tmp_path / "my set") and record["flags"]["template"] == "a {}."
    assert fake(*words)[3] == []
    assert fake(*words[:-2])[3] == ["my set/ZeroshotCLIP/tiny/seed1", "my set/CoOp/tiny_4shots/seed1"]
    (tmp_path / "B" / "my set").mkdir(parents=True)
    named = fake(*words[:2], "--dataset-dir", tmp_path / "B" / "my set", *words[4:])[3]
    assert len(named) == 2 and all(name.startswith("my set-") for name in named)
    (tmp_path / "my set" / "new.png").touch()
    code, _, err, _ = fake(*words)
    assert code == 2 and "my set has changed" in err


def test_a_sweep_wants_datasets_or_a_folder_and_not_both(fake):
    for words in ([], ["--datasets", "digits", "--dataset-dir", "x"]):
        code, _, err, _ = fake("--recipe", "coop", *words)
        assert code == 2 and "--dataset-dir PATH" in err


def test_a_misspelt_protocol_in_a_recipe_is_told(tmp_path):
    text = (Path(__file__).resolve().parents[2] / "configs" / "recipes" / "cocoop.yaml").read_text()
    for wrong, near in (("  base2new:", "  base2neew:"), ("    published_from:", "    published_form:")):
        (tmp_path / "mine.yaml").write_text(text.replace(wrong, near))
        with pytest.raises(RecipeError, match="unknown key .* Did you mean"):
            load_recipe(str(tmp_path / "mine.yaml"))


def test_ood_tests_a_source_on_its_own_images_under_corruptions():
    targets = ["digits:fog:5", "digits:snow:1"]
    source, *tested = runs("coop", "digits", "ood", targets)
    assert source.dataset == "digits" and [cell.train_on for cell in tested] == [source] * 2
    assert [tuple(cfg_of(cell).DATASET.CORRUPTIONS) for cell in (source, *tested)] == [(), ("fog:5",), ("snow:1",)]
    assert [cell.folder.parts[0] for cell in tested] == ["digits_fog_5", "digits_snow_1"]
    assert all("--eval-only" in cell.arguments("data", "out") for cell in tested)
    plain, *alone = runs("tda", "digits", "ood", targets, None)
    assert [tuple(cfg_of(cell).DATASET.CORRUPTIONS) for cell in (plain, *alone)] == [(), ("fog:5",), ("snow:1",)]
    assert all(cell.train_on is None for cell in alone) and len(runs("tda", "digits", "ood", None, None)) == 16
    assert tuple(cfg_of(zeroshot(alone[0])).DATASET.CORRUPTIONS) == ("fog:5",)


def test_continual_is_one_test_of_all_corruptions_with_and_without_reset():
    targets = ["digits:fog:5", "digits:snow:1"]
    cells = runs("tda", "digits", "continual", targets, None)
    assert [cfg_of(cell).TEST.RESET for cell in cells] == [False, True]
    assert {tuple(cfg_of(cell).DATASET.CORRUPTIONS) for cell in cells} == {("fog:5", "snow:1")}
    assert len({cell.folder for cell in (*cells, *map(zeroshot, cells))}) == 3      # zero-shot forgets nothing
    assert {cfg_of(zeroshot(cell)).DATASET.CORRUPTIONS for cell in cells} == {("fog:5", "snow:1")}
    usual = runs("tpt", "digits", "continual", None, None)
    assert len(usual) == 1 and len(cfg_of(usual[0]).DATASET.CORRUPTIONS) == 15
    source, tested = runs("coop", "digits", "continual", targets)
    assert tested.train_on == source and cfg_of(tested).DATASET.CORRUPTIONS == ("fog:5", "snow:1")
    for wrong in ("shapes:fog:5", "digits"):
        with pytest.raises(RecipeError, match="digits:NAME:SEVERITY"):
            runs("tda", "digits", "continual", [wrong], None)


def test_the_corruptions_of_the_protocols_are_those_that_there_are():
    from datasets.corruptions import NAMES

    assert NAMES == protocols.NAMES


@pytest.mark.parametrize("dataset", ["digits:fogg:5", "digits:fog:6", "digits:fog"])
def test_a_corruption_that_there_is_none_of_is_refused_before_anything_runs(dataset):
    with pytest.raises(RecipeError, match=dataset.partition(":")[2]):
        load_recipe("zeroshot").cell(dataset, None, 1)


def test_incremental_runs_the_method_in_tasks_beside_its_bounds():
    joint, naive, staged = runs("l2p", "digits", "incremental", tasks=3)
    assert [cell.trainer for cell in (joint, naive, staged)] == ["L2P", "CoOp", "L2P"]
    assert [cfg_of(cell).TRAIN.TASKS for cell in (joint, naive, staged)] == [1, 3, 3]
    assert joint == runs("l2p", "digits", "fewshot")[0] and zeroshot(joint).folder.parts[2] == "tiny"
    assert [cell.folder.parts[2] for cell in (naive, staged, zeroshot(staged))] == [
        "tiny_16shots@tasks3", "tiny_16shots@tasks3", "tiny@tasks3"]
    assert cfg_of(zeroshot(staged)).TRAIN.TASKS == 3 and staged.published is None
    assert Cell.from_dict(staged.as_dict()).tag == "@tasks3"
    assert [cell.trainer for cell in runs("coop", "digits", "incremental")] == ["CoOp", "CoOp"]
    assert cfg_of(runs("coop", "digits", "incremental")[1]).TRAIN.TASKS == 5
    assert [cfg_of(cell).TRAIN.TASKS for cell in runs("zeroshot", "digits", "incremental", shots=None, tasks=4)] == [4]
    own = {"TRAINER.L2P.TOP": "2", "DATALOADER.TEST.BATCH_SIZE": "9"}
    _, naive, _ = runs("l2p", "digits", "incremental", user_opts=own)
    assert naive.user_opts == {"DATALOADER.TEST.BATCH_SIZE": "9"}


def test_tasks_belong_to_the_incremental_protocol_alone():
    with pytest.raises(RecipeError, match="--tasks 3 .* --protocol fewshot"):
        runs("l2p", "digits", "fewshot", tasks=3)
    with pytest.raises(RecipeError, match="--tasks 4, not an option TRAIN.TASKS"):
        runs("l2p", "digits", "incremental", user_opts={"TRAIN.TASKS": "4"})


def test_robust_tests_every_dataset_clean_and_under_an_attack():
    found = runs("tecoa", "digits", "robust", ["shapes"])
    assert [(cell.dataset, "TEST.ATTACK" in cell.opts) for cell in found] == [
        ("digits", False), ("digits", True), ("shapes", False), ("shapes", True)]
    trained = found[0]
    assert all(cell.train_on is trained and cell.load_epoch == 10 for cell in found[1:]) and trained.train_on is None
    assert found[1].folder.parts[2] == "tiny_16shots@under_pgd-1-255-10" and len({c.folder for c in found}) == 4
    assert [cfg_of(cell).TEST.ATTACK for cell in found] == ["", "pgd:1/255:10"] * 2
    assert zeroshot(found[3]).opts["TEST.ATTACK"] == "pgd:1/255:10" and zeroshot(found[2]).tag == ""
    stronger = runs("coop", "digits", "robust", ["shapes"], user_opts={"TEST.ATTACK": "cw:4/255:20"})
    assert [cfg_of(cell).TEST.ATTACK for cell in stronger] == ["", "cw:4/255:20"] * 2
    alone = runs("zeroshot", "imagenet", "robust", None, None)
    assert len(alone) == 30 and all(cell.train_on is None for cell in alone)


def test_the_robust_table_has_a_line_for_clean_images_and_one_for_each_attack(tmp_path):
    for cell, accuracy in zip(runs("tecoa", "digits", "robust", ["shapes"]), (80.0, 40.0, 60.0, 30.0), strict=True):
        write_run(tmp_path / cell.folder, accuracy, cell=cell, trainer=cell.trainer, dataset=cell.dataset, seed=1)
    grids = {grid.name: grid for grid in layouts.build(scan(tmp_path))}
    lines = [(line.labels, [value.number for value in line.values]) for line in grids["robust"].lines]
    assert lines == [(["TeCoA", "clean"], [80.0, 60.0, 70.0]),
                     (["TeCoA", "under pgd:1/255:10"], [40.0, 30.0, 35.0])]
    assert [v.number for v in grids["cross"].lines[-1].values][:2] == [80.0, 60.0]


def test_lodo_leaves_out_each_domain_and_chooses_the_epoch_on_images_of_the_others():
    cells = runs("coop", "shapes_domains", "lodo", shots=None)
    assert [cell.tag for cell in cells] == [f"@without_{name}" for name in (
        "plain", "noise", "clutter", "sketch", "recoloured", "lowcontrast")]
    cfg = cfg_of(cells[3])
    assert tuple(cfg.DATASET.TARGET_DOMAINS) == ("sketch",) and "sketch" not in cfg.DATASET.SOURCE_DOMAINS
    assert len(cfg.DATASET.SOURCE_DOMAINS) == 5 and cfg.TEST.FINAL_MODEL == "best_val" and cfg.DATASET.NUM_SHOTS == -1
    zero = cfg_of(zeroshot(cells[3]))
    assert tuple(zero.DATASET.TARGET_DOMAINS) == ("sketch",) and zero.TRAINER.NAME == "ZeroshotCLIP"
    assert cfg.OPTIM.MAX_EPOCH == 15 and cfg.MODEL.BACKBONE.NAME == "tiny"
    oracle, = runs("dpl", "shapes_domains", "lodo", ["noise"], user_opts={"DATASET.SELECT_ON": "target"})
    assert cfg_of(oracle).TEST.FINAL_MODEL == "last_step" and cfg_of(oracle).DATALOADER.TRAIN_X.BATCH_SIZE == 96


@pytest.mark.parametrize("dataset, targets, got", [("digits", None, "digits"), ("pacs", ["foto"], "'foto'")])
def test_lodo_refuses_a_dataset_without_domains_and_an_unknown_domain(dataset, targets, got):
    with pytest.raises(RecipeError, match=got):
        runs("coop", dataset, "lodo", targets)


def test_the_domains_left_out_make_a_table_with_zero_shot_and_an_average():
    found = []
    for trainer, values in (("zeroshot", (50.0, 60.0)), ("coop", (70.0, 90.0))):
        for domain, value in zip(("noise", "sketch"), values, strict=True):
            cell, = runs("coop", "shapes_domains", "lodo", [domain], shots=None)
            row = row_of(zeroshot(cell) if trainer == "zeroshot" else cell, Path("x"))
            row.seeds[1] = value
            found.append(row)
    grid, = layouts.build(found, ("lodo",))
    assert grid.columns == ["noise", "sketch", "average"]
    assert [[value.number for value in line.values] for line in grid.lines] == [[50, 60, 55], [70, 90, 80]]
