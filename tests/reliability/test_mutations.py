"""The list of central lines is up to date, and one of the changes is tried each time; all: see mutations.py."""
import pytest

from .mutations import MUTATIONS, ROOT, main


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_the_line_still_stands_where_the_list_says(mutation):
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1
    assert all((ROOT / test).exists() for test in mutation.tests)


@pytest.mark.slow
def test_a_change_is_noticed(capsys):
    assert main(["label shift"]) == 0
    assert "label shift: FAILED tests/engine/test_data.py" in capsys.readouterr().out
