"""The parsers of files under hypothesis: any bytes and any JSON are read, or refused with one paragraph."""
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip import InputError
from clip.weights import read_state_dict
from dassl.config import get_cfg_default, merge_file
from dassl.utils import UserError, load_checkpoint
from datasets.download import extract
from datasets.kept_lists import read_coop_pickle
from datasets.own_lists import read_classnames, read_own
from tools.runs.record import Record
from trainers.parts.description_files import read_descriptions

PATIENT = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
                    max_leaves=12)
READERS = {
    "config.yaml": lambda path: merge_file(get_cfg_default(), path),
    "model.pth.tar-1": lambda path: load_checkpoint(str(path)),
    "weights.pt": read_state_dict,
    "weights.safetensors": read_state_dict,
    "list.csv": read_own,
    "list.json": read_own,
    "names.txt": lambda path: read_classnames(path, [0, 1], ["cat", "dog"]),
    "names.json": lambda path: read_classnames(path, [0, 1], ["cat", "dog"]),
    "pets_des.json": read_descriptions,
    "shot_1-seed_1.pkl": read_coop_pickle,
    "archive.zip": lambda path: extract(path, path.parent),
}


def refused_or_read(reader, path):
    try:
        reader(path)
    except (UserError, InputError) as error:
        assert str(error).strip() and len(str(error)) < 3000 and "\n\n" not in str(error)


@pytest.mark.parametrize("name", READERS)
@PATIENT
@given(content=st.binary(max_size=300) | st.sampled_from([b"PK\x03\x04", b"\x80\x02", b"\x80\x04.", b"{", b"[1,"]))
def test_any_bytes_are_read_or_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    refused_or_read(READERS[name], tmp_path / name)


@pytest.mark.parametrize("name", [name for name in READERS if name.endswith((".json", ".yaml"))])
@PATIENT
@given(content=JSON)
def test_any_json_is_read_or_refused(name, content, tmp_path):
    (tmp_path / name).write_text(json.dumps(content))
    refused_or_read(READERS[name], tmp_path / name)


@PATIENT
@given(rows=st.lists(st.lists(st.text(max_size=6), min_size=1, max_size=4), max_size=5),
       head=st.sampled_from([["path", "label"], ["path", "classname", "split"], ["image", "class"], ["x"], []]))
def test_any_table_is_read_or_refused(rows, head, tmp_path):
    quoted = ([f'"{cell.replace(chr(34), 2 * chr(34))}"' for cell in row] for row in [head, *rows])
    (tmp_path / "list.csv").write_text("".join(",".join(row) + "\r\n" for row in quoted), encoding="utf-8")
    refused_or_read(read_own, tmp_path / "list.csv")


@PATIENT
@given(content=JSON)
def test_any_record_of_a_run_is_read_or_left_out(content, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(content))
    record = Record.read(tmp_path)
    assert record is None or isinstance(record, dict)
