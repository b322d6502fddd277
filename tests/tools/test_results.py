"""Cut, damaged and other people's files in run folders: tables and comparisons tell them, or leave them out."""
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import compare, table
from tools.runs.record import Record
from tools.tables.found import scan

RECORD = {"finished": True, "trainer": "CoOp", "dataset": "Digits", "shots": 16, "seed": 1, "num_classes": 10,
          "metrics": {"accuracy": 90.0}, "seconds": {"total": 1.0}, "learned_parameters": 5, "classes": "all"}
INPUTS = {"flags": {"trainer": "CoOp", "seed": 1}, "opts": {"DATASET.NUM_SHOTS": "16"},
          "files": {"trainers/CoOp/tiny.yaml": "0", "configs/datasets/digits.yaml": "0"}}
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2), max_leaves=4)


def write(folder, record=RECORD, inputs=INPUTS):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("results.json", record), ("inputs.json", inputs)):
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@settings(max_examples=25)
@given(st.sampled_from(sorted(RECORD)), st.sampled_from(sorted(INPUTS)), anything, anything, st.booleans())
def test_any_value_in_any_field_leaves_the_other_rows_as_they_are(field, part, value, other, by_hand):
    with tempfile.TemporaryDirectory() as root:
        write(Path(root, "digits/CoOp/tiny_16shots/seed2"), {**RECORD, "seed": 2})
        odd = write(Path(root, "x" if by_hand else "digits/CoOp/tiny_16shots/seed1"), {**RECORD, field: value},
                    {**INPUTS, part: other})
        assert any(row.seeds.get(2) == 90.0 for row in scan(Path(root)))
        for words in (["--table", "runs"], ["--format", "json"]):
            assert table.main([root, *words]) == 0
        assert compare.main([str(odd), str(odd)]) in (0, 1, 2)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "7", '{"finished": true}', "\x00", json.dumps({
    **RECORD, "metrics": {"accuracy": float("nan")}}), json.dumps({**RECORD, "metrics": {"accuracy": "90"}})])
def test_a_damaged_result_is_a_missing_seed(tmp_path, content):
    write(tmp_path / "digits/CoOp/tiny_16shots/seed1", content)
    write(tmp_path / "digits/CoOp/tiny_16shots/seed2", {**RECORD, "seed": 2})
    (row,) = scan(tmp_path)
    assert row.seeds == {1: None, 2: 90.0}
    assert Record.read(tmp_path / "digits/CoOp/tiny_16shots/seed1") is None or content == '{"finished": true}'


@pytest.mark.parametrize("name, content, said", [
    ("results.json", "{", "is damaged"), ("config.yaml", "[1, 2", "is not valid YAML"),
    ("config.yaml", "words", "is damaged"),
    ("config.yaml", "A: !!python/object/apply:os.system ['exit 1']", "is not valid YAML")])
def test_a_damaged_run_is_not_compared_and_nothing_in_it_is_executed(tmp_path, capsys, name, content, said):
    one, other = write(tmp_path / "a"), write(tmp_path / "b")
    (other / name).write_text(content)
    assert compare.main([str(one), str(other)]) == 2
    err = capsys.readouterr().err
    assert said in err and str(other / name) in err and "\n" not in err.strip()


def test_damaged_predictions_are_not_compared(tmp_path, capsys):
    one, other = write(tmp_path / "a"), write(tmp_path / "b")
    for folder, text in ((one, "path,true,predicted\nx.png,cat,cat\n"), (other, "path,true,predicted\nx.png,cat\n")):
        (folder / "predictions.csv").write_text(text)
    assert compare.main([str(one), str(other)]) == 0 and "by class" not in capsys.readouterr().out
