"""A state dict in safetensors and JSON: every kind of tensor comes back, and damage is reported."""
import json

import pytest
import torch

from dassl.utils import UserError, load_checkpoint
from dassl.utils.portable import read_portable, write_portable


@pytest.fixture
def written(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    tensors = {"ctx": base.T, "half": base.half(), "bank.text": torch.empty(0, dtype=torch.uint8),
               "bank.prompt_of": torch.tensor([[1, 2]]), "same": base, "scale": torch.tensor(2.5)}
    return write_portable(tmp_path / "prompt_learner", tensors, {"epoch": 7}), tensors


def test_names_types_and_values_come_back_with_the_facts(written):
    path, tensors = written
    found, facts = read_portable(path)
    assert found.keys() == tensors.keys() and facts["epoch"] == 7
    assert all(found[name].dtype == value.dtype and torch.equal(found[name], value) for name, value in tensors.items())
    assert facts["tensors"]["ctx"] == {"shape": [4, 3], "dtype": "float32"}
    assert sorted(p.name for p in path.parent.iterdir()) == ["prompt_learner.json", "prompt_learner.safetensors"]


def test_other_tensors_than_the_json_was_written_for_are_refused(written):
    path, tensors = written
    facts = path.with_suffix(".json").read_text()
    write_portable(path, {**tensors, "ctx": tensors["ctx"] + 1}, {})
    path.with_suffix(".json").write_text(facts)
    with pytest.raises(UserError, match="sha256"):
        read_portable(path)


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(p.read_bytes()[:-5]), lambda p: p.write_bytes(b""),
                                    lambda p: p.with_suffix(".json").write_text("{"),
                                    lambda p: p.with_suffix(".json").write_text("[1]"), lambda p: p.unlink()])
def test_damage_is_told_in_one_paragraph(written, damage):
    damage(written[0])
    with pytest.raises(UserError) as error:
        read_portable(written[0])
    assert len(str(error.value).splitlines()) == 1


def test_a_file_without_json_is_read_too(written):
    written[0].with_suffix(".json").unlink()
    found, facts = read_portable(written[0])
    assert facts == {} and json.dumps(sorted(found)) == json.dumps(sorted(written[1]))


def test_the_file_is_a_checkpoint_with_its_facts_and_the_order_of_its_weights(written):
    path, tensors = written
    state = load_checkpoint(str(path))
    assert state.keys() == {"epoch", "state_dict"} and state["epoch"] == 7
    assert list(state["state_dict"]) == list(tensors)
