"""Checkpoints as safetensors and JSON: nothing is lost, nothing is half-written, damage is told."""
import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dassl.utils import UserError, load_checkpoint
from dassl.utils.portable import write_portable
from dassl.utils.safe_files import read_safe, write_safe

numbers = st.integers(-2**60, 2**60) | st.floats(allow_nan=False) | st.booleans() | st.none() | st.text(max_size=5)
plain = st.recursive(numbers, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(
    st.text(max_size=4) | st.integers(0, 9), inner, max_size=3), max_leaves=8)


@given(plain)
@settings(max_examples=60, deadline=None)
def test_plain_data_of_any_shape_comes_back_as_it_was(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("safe") / "x.safetensors"
    write_safe({"state_dict": {"w": torch.ones(2)}, "what": value}, path)
    back = read_safe(path)["what"]
    assert back == value and repr(back) == repr(value)


def test_a_whole_checkpoint_comes_back_with_optimiser_and_order(tmp_path):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    weights = OrderedDict(z=torch.randn(2, 3).half(), a=torch.arange(3), m=torch.tensor(1.5), t=torch.randn(4, 2).t())
    state = {"state_dict": weights, "epoch": 4, "optimizer": optimizer.state_dict(), "scheduler": None,
             "val_result": np.float64(91.5), "training": {"best": float("-inf"), "draws": np.arange(3)}}
    path = tmp_path / "deep" / "x.safetensors"
    assert write_safe(state, path) == [str(path), str(path.with_suffix(".json"))]
    back = load_checkpoint(str(path))
    assert list(back["state_dict"]) == ["z", "a", "m", "t"]
    assert all(torch.equal(back["state_dict"][k], v) and back["state_dict"][k].dtype == v.dtype
               for k, v in weights.items())
    other = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=1.0, momentum=0.1)
    other.load_state_dict(back["optimizer"])
    momentum = [list(o.state_dict()["state"].values())[0]["momentum_buffer"] for o in (optimizer, other)]
    assert torch.equal(*momentum) and back["training"]["best"] == float("-inf")
    assert back["training"]["draws"].tolist() == [0, 1, 2] and back["val_result"] == 91.5


def test_weights_lie_under_their_own_names_for_other_programs(tmp_path):
    from safetensors.torch import load_file

    shared = torch.randn(3)
    write_safe({"state_dict": {"ctx": shared, "meta.weight": shared[:2]}, "epoch": 2}, tmp_path / "x.safetensors")
    assert set(load_file(tmp_path / "x.safetensors")) == {"ctx", "meta.weight"}
    assert json.loads((tmp_path / "x.json").read_text())["checkpoint"]["epoch"] == 2
    (tmp_path / "x.json").unlink()
    assert set(read_safe(tmp_path / "x.safetensors")["state_dict"]) == {"ctx", "meta.weight"}


@pytest.mark.parametrize("wrong", [object(), {"a": print}, [nn.Linear(1, 1)], {1, 2}])
def test_what_is_not_plain_is_refused_and_leaves_no_file(tmp_path, wrong):
    with pytest.raises(UserError, match="scheduler.*neither a tensor nor plain data"):
        write_safe({"state_dict": {"w": torch.ones(1)}, "scheduler": wrong}, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_damage_and_absence_are_told_with_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safe({"state_dict": {"w": torch.ones(9)}, "epoch": 1}, path)
    whole, notes = path.read_bytes(), (tmp_path / "x.json").read_text()
    for content in (b"", whole[:20], whole[:-3]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="x.safetensors"):
            load_checkpoint(str(path))
    path.write_bytes(whole)
    for text in ("", "[1]", '{"checkpoint": [1]}', notes.replace('"$tensor": "w"', '"$tensor": "v"'),
                 notes.replace("$tensor", "$code")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError, match="x.(safetensors|json)"):
            read_safe(path)
    with pytest.raises(UserError, match="ends in .safetensors; got .*x.pt"):
        write_safe({}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="nothing.safetensors"):
        read_safe(tmp_path / "nothing.safetensors")


def test_tensors_with_facts_of_another_kind_are_a_checkpoint_with_these_facts(tmp_path):
    write_portable(tmp_path / "x", {"ctx": torch.ones(2)}, {"epoch": 7, "model": "prompt_learner"})
    state = load_checkpoint(str(tmp_path / "x.safetensors"))
    assert state.keys() == {"epoch", "model", "state_dict"} and state["epoch"] == 7
