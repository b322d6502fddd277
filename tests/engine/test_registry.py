"""Tables of names."""
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import Registry, UserError
from dassl.utils.registry import UnknownName


def make_class(name, module):
    return types.new_class(name, exec_body=lambda body: body.update(__module__=module))


@given(st.lists(st.from_regex(r"[A-Z][a-z]{1,8}", fullmatch=True), unique=True, min_size=1))
def test_what_is_registered_is_found_under_its_own_name(names):
    registry = Registry("THING")
    classes = [registry.register()(make_class(n, "here")) for n in names]
    assert [registry.get(n) for n in names] == classes
    assert registry.registered_names() == names and all(n in registry for n in names)


def test_register_works_with_and_without_brackets():
    registry, a, b = Registry("THING"), make_class("A", "m"), make_class("B", "m")
    assert registry.register()(a) is a and registry.register(b) is b
    assert (registry.get("A"), registry.get("B")) == (a, b)


@pytest.mark.parametrize("asked", ["coop", "COOP", "CoOpp", "Coop"])
def test_an_unknown_name_is_told_with_the_nearest_whatever_the_case(asked):
    registry = Registry("TRAINER")
    registry.register(make_class("CoOp", "m"))
    registry.register(make_class("VPT", "m"))
    with pytest.raises(UnknownName) as error:
        registry.get(asked)
    assert str(error.value) == f"Unknown trainer {asked!r}. Did you mean CoOp? Registered: CoOp, VPT."
    assert isinstance(error.value, (UserError, KeyError))


def test_an_alias_finds_the_class_and_is_listed_nowhere():
    registry = Registry("TRAINER")
    made = registry.register(aliases=("DVP-cls", "DVP-PRM"))(make_class("DVPcls", "m"))
    assert registry.get("DVP-cls") is registry.get("DVP-PRM") is registry.get("DVPcls") is made
    assert registry.registered_names() == ["DVPcls"] and "DVP-PRM" in registry
    assert registry.canonical("DVP-PRM") == "DVPcls" and registry.canonical("Other") == "Other"
    with pytest.raises(UserError, match=r"'DVP_cls'. Did you mean DVPcls\? Registered: DVPcls\."):
        registry.get("DVP_cls")
    with pytest.raises(UserError, match="DVP-cls of mine is already registered by m"):
        registry.register(make_class("DVP-cls", "mine"))
    with pytest.raises(UserError, match="DVP-PRM of mine is already registered by m"):
        registry.register(aliases=("DVP-PRM",))(make_class("Mine", "mine"))
    own = registry.register(make_class("DVP-cls", "mine"), force=True)
    assert registry.get("DVP-cls") is own and registry.get("DVPcls") is made


def test_a_name_like_no_other_gets_the_list_alone():
    registry = Registry("TRAINER")
    with pytest.raises(UserError) as error:
        registry.get("CoOp")
    assert str(error.value) == "Unknown trainer 'CoOp'. Registered: none."


def test_a_name_taken_twice_names_both_modules():
    registry = Registry("TRAINER")
    registry.register(make_class("CoOp", "trainers.coop"))
    with pytest.raises(UserError, match="CoOp of mine.coop is already registered by trainers.coop"):
        registry.register(make_class("CoOp", "mine.coop"))
    forced = make_class("CoOp", "mine.coop")
    assert registry.register(forced, force=True) is forced and registry.get("CoOp") is forced


def test_the_engines_own_tables_tell_what_they_are_of():
    for registry, word in ((TRAINER_REGISTRY, "trainer"), (DATASET_REGISTRY, "dataset")):
        with pytest.raises(UserError, match=f"Unknown {word} 'Nothing at all'"):
            registry.get("Nothing at all")
