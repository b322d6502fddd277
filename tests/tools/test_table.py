"""The table says what was measured: the mean, the population spread, how many seeds, and the distance to the paper."""
import statistics
from dataclasses import replace

import pytest
from figures import write_run
from hypothesis import given
from hypothesis import strategies as st

from tools import table
from tools.runs.cell import Cell
from tools.runs.recipe import load_recipe, zeroshot_cell
from tools.runs.record import Record
from tools.tables.found import scan
from tools.tables.rows import row_of
from tools.tables.select import render

accuracies = st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=6)


def record(accuracy, learned=20480, **more):
    return Record({"finished": True, "metrics": {"accuracy": accuracy}, "seconds": {"total": 12.0}, "shots": 16,
                   "learned_parameters": learned, **more})


def row(*values, published=None, **more):
    made = row_of(Cell("DAPT", "dtd", 16, 1, "vit_b16", published=published, published_from="Table 9"))
    for seed, value in enumerate(values, 1):
        made.add(seed, None if value is None else record(value, **more))
    return made


@given(accuracies)
def test_mean_and_spread_follow_the_formula(values):
    mean = sum(values) / len(values)
    assert abs(row(*values).mean - mean) < 1e-9
    if len(values) > 1:
        literal = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5      # divided by n, not n - 1
        assert abs(row(*values).spread - literal) < 1e-6
        assert abs(row(*values).spread - statistics.pstdev(values)) < 1e-9
    else:
        assert row(*values).spread is None


def test_the_example_of_coops_readme_gives_its_printed_mean_and_std():
    made = row(91.81, 92.01, 92.17)                        # CoOp (ff61507) COOP.md: 92.00 +- 0.15
    assert f"{made.mean:.2f} {made.spread:.2f}" == "92.00 0.15"


def test_a_missing_seed_is_visible_and_not_part_of_the_mean():
    line = render([row(90.0, None, 92.0)]).splitlines()[2]
    assert line.split() == ["dtd", "16", "DAPT", "vit_b16", "90.0", "-", "92.0", "91.0", "1.0", "2/3", "12.0", "20,480"]


def test_without_any_run_the_row_shows_dashes():
    line = render([row(None, None)]).splitlines()[2]
    assert line.split() == ["dtd", "16", "DAPT", "vit_b16", "-", "-", "-", "-", "0/2", "-", "-"]


def test_published_values_stand_beside_with_difference_and_source():
    text = render([row(70.0, 72.0, published=69.7), row(50.0, 50.0)])
    lines = [line.split() for line in text.splitlines()]
    assert lines[2][-2:] == ["69.7", "+1.3"] and lines[3][-2:] == ["-", "-"]
    assert "published (DAPT, dtd): Table 9" in text
    assert "published" not in render([row(50.0)])


def test_the_best_test_epoch_has_a_column_that_says_how_it_was_selected():
    made = row()
    for seed, best in ((1, 81.0), (2, 84.0)):
        made.add(seed, record(80.0, best_test_epoch={"epoch": 3, "accuracy": best}))
    text = render([made, row(50.0)])
    lines = text.splitlines()
    assert "best test epoch (selected on test)" in lines[0] and "the other columns are the last epoch's" in text
    assert lines[2].split()[-1] == "82.5" and lines[3].split()[-1] == "-" and made.mean == 80.0
    assert "best test epoch" not in render([row(50.0)])


def test_scan_puts_the_seeds_of_a_cell_together(tmp_path):
    plain = load_recipe("dapt").cell("digits", 16, 1)
    for seed, accuracy in {1: 90.0, 2: 92.0, 3: None}.items():
        cell = replace(plain, seed=seed)
        write_run(tmp_path / cell.folder, accuracy, cell=cell, given={"flags": {"seed": seed}}, seed=seed)
    zero = zeroshot_cell(plain)
    write_run(tmp_path / zero.folder, 77.0, cell=zero)
    assert [r.trainer for r in scan(tmp_path)] == ["ZeroshotCLIP", "DAPT"]
    found = {r.trainer: r for r in scan(tmp_path)}
    assert found["DAPT"].seeds == {1: 90.0, 2: 92.0, 3: None} and found["ZeroshotCLIP"].mean == 77.0
    assert found["ZeroshotCLIP"].shots is None


def test_options_of_the_user_stand_in_the_row(tmp_path):
    cell = load_recipe("dapt").cell("digits", 16, 1, {"OPTIM.LR": 0.1})
    made = row_of(cell, tmp_path)
    assert made.config == "tiny-OPTIM.LR=0.1" and made.options == {"OPTIM.LR": "0.1"} and made.cell.config == "tiny"


def test_an_empty_folder_and_none_at_all_are_told(tmp_path, capsys):
    assert table.main([str(tmp_path)]) == 2 and f"below {tmp_path}" in capsys.readouterr().err
    assert table.main([str(tmp_path / "no")]) == 2 and "There is no folder" in capsys.readouterr().err


def reasons(*values, num_classes=None):
    return row(*values, num_test=1000, **({"num_classes": num_classes} if num_classes else {})).collapsed


def test_a_collapsed_seed_is_flagged_and_stays_in_the_mean():
    # DTD, 47 classes: the three seeds of KaiyangZhou/CoOp issue 24, and those of zhengli97/PromptKD issue 22
    assert sorted(reasons(12.0, 15.2, 63.4, num_classes=47)) == [1, 2]
    assert "63.4" in reasons(12.0, 15.2, 63.4)[1]
    assert reasons(0.0, num_classes=21) == {1: "below chance, which is 4.8 for 21 classes"}      # and not below itself
    made = row(12.0, 63.4)
    lines = render([made]).splitlines()
    assert lines[2].split()[4:7] == ["12.0!", "63.4", "37.7"] and made.mean == 37.7
    assert any(line.startswith("! DAPT vit_b16 dtd 16 shots, seed 1: 12.0 is far below") for line in lines)
    assert "!" not in render([row(90.0, 92.0)])


@pytest.mark.parametrize(("values", "num_classes", "flagged"), [
    ((10.1, 10.0, 9.0), 10, {1, 2, 3}),          # all at chance: no seed is better, each is flagged
    ((53.6, 53.8), 2, {1}),                      # of 1,000 images guessing gets 537 right in 1 of 100 tests
    ((71.9, 92.0, 90.0), 100, {1}), ((72.1, 92.0, 90.0), 100, set()),          # twenty points below the best
    ((19.0, 38.0), 100, {1}), ((20.0, 38.0), 100, set()),                      # half as far above chance as the best
    ((94.1, 90.0), 10, set()), ((1.5,), 100, {1}), ((6.1,), 100, set()), ((5.0,), None, set())])
def test_at_chance_and_far_below_are_what_the_rule_says(values, num_classes, flagged):
    assert set(reasons(*values, num_classes=num_classes)) == flagged
