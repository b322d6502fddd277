"""predictions.csv and classes.json: what every run folder says of its test, to people and spreadsheets."""
import csv
import json

import pytest
import torch

from dassl.evaluation.predictions import Predictions, table


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def filled(scores, labels, paths, index=None):
    predictions = Predictions()
    batch = {"impath": paths} | ({} if index is None else {"index": torch.tensor(index)})
    predictions.add(batch, torch.tensor(scores), torch.tensor(labels))
    return predictions


def test_rows_say_class_names_confidence_and_whether_it_is_right(tmp_path):
    filled([[0.0, 2.0], [3.0, 0.0]], [1, 1], ["a.png", "b.png"]).write(str(tmp_path / "p.csv"), {0: "cat", 1: "dog"})
    right, wrong = read(tmp_path / "p.csv")
    assert list(right) == ["path", "true", "predicted", "confidence", "correct"]
    assert (right["true"], right["predicted"], right["correct"]) == ("dog", "dog", "1")
    assert (wrong["true"], wrong["predicted"], wrong["correct"]) == ("dog", "cat", "0")
    literal = [torch.tensor(2.0).exp() / (1 + torch.tensor(2.0).exp()), torch.tensor(3.0).sigmoid()]
    assert [float(row["confidence"]) for row in (right, wrong)] == pytest.approx([float(c) for c in literal], abs=1e-6)


def test_rows_stand_in_the_order_of_the_split_whatever_the_batches(tmp_path):
    predictions = filled([[1.0, 0.0]] * 2, [0, 0], ["c", "a"], index=[2, 0])
    predictions.add({"impath": ["b"], "index": torch.tensor([1])}, torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    predictions.write(str(tmp_path / "p.csv"), {0: "x", 1: "y"})
    assert [row["path"] for row in read(tmp_path / "p.csv")] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@x", "\tx", "'quoted"])
def test_no_cell_is_a_formula_to_a_spreadsheet_and_an_apostrophe_undoes_it(name):
    cell = next(csv.reader(table(["x"], [[name]]).splitlines()[1:]))[0]
    assert cell == "'" + name


def test_names_with_commas_quotes_lines_and_other_scripts_come_back(tmp_path):
    names = {0: 'a, "b"', 1: "zwei\nZeilen", 2: "猫 é"}
    paths = ["ä.png", "x,y.png", "bad\udce9.png"]
    filled(torch.eye(3).tolist(), [0, 1, 2], paths).write(str(tmp_path / "p.csv"), names)
    rows = read(tmp_path / "p.csv")
    assert [row["predicted"] for row in rows] == list(names.values())
    assert [row["path"] for row in rows] == ["ä.png", "x,y.png", "bad\\udce9.png"]


@pytest.mark.parametrize(("output", "batch"), [
    (torch.zeros(2), {"impath": ["a", "b"]}), (torch.zeros(2, 3), {}), ("scores", {"impath": ["a", "b"]}),
    (torch.zeros(4, 3), {"impath": ["a", "b"]})])
def test_outputs_that_are_no_scores_leave_no_file(output, batch, tmp_path):
    predictions = Predictions()
    predictions.add(batch, output, torch.zeros(2, dtype=torch.long))
    assert not predictions.write(str(tmp_path / "p.csv"), {}) and not list(tmp_path.iterdir())


def test_a_tuple_of_outputs_counts_by_its_first(tmp_path):
    predictions = Predictions()
    predictions.add({"impath": ["a"]}, (torch.tensor([[0.0, 1.0]]), "features"), torch.tensor([1]))
    assert predictions.rows[0][2:4] == (1, 1)


def test_every_run_leaves_its_answers_and_its_classes(make_cfg, tmp_path):
    from dassl.engine import build_trainer

    trainer = build_trainer(make_cfg("CoOp"))
    trainer.train()
    rows = read(tmp_path / "run" / "predictions.csv")
    assert [row["path"] for row in rows] == [item.impath for item in trainer.dm.dataset.test]
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    right = sum(row["correct"] == "1" for row in rows)
    assert 100 * right / len(rows) == pytest.approx(record["metrics"]["accuracy"])
    classes = json.loads((tmp_path / "run" / "classes.json").read_text())
    assert classes["classnames"] == trainer.dm.dataset.classnames
    assert classes["backbone"] == record["backbone"] and classes["image"]["size"] == [32, 32]


def test_a_test_during_training_writes_no_file(make_cfg, tmp_path):
    from dassl.engine import build_trainer

    trainer = build_trainer(make_cfg("CoOp"))
    trainer.before_train()
    trainer.test()
    trainer.close_writer()
    assert not (tmp_path / "run" / "predictions.csv").exists()
