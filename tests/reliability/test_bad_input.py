"""A sample of the bad input of bad_input.py in every area; all of it: python -m tests.reliability.bad_input."""
import sys

import pytest

from .bad_input import AREAS, report
from .cases import Case, end_of, judge


@pytest.mark.parametrize("area", AREAS)
def test_bad_input_ends_in_success_or_one_paragraph(area, tmp_path):
    endings = [end_of(case) for case in AREAS[area](tmp_path, scale=0.02, seed=1)]
    assert endings and not [f"{e.case.name}: {e.fault}" for e in endings if e.fault], report(endings)


def test_the_judge_knows_wrong_endings():
    case = Case("", "", lambda: 0)
    assert judge(case, 0, "") == judge(case, 2, "One paragraph.") == ""
    assert "exit code 1" in judge(case, 1, "") and "without a word" in judge(case, 2, "")
    assert "traceback" in judge(case, 2, "Traceback (most recent call last)")
    assert "characters" in judge(case, 2, "x" * 9999)
    assert judge(Case("", "", lambda: 0, accepts=False), 0, "") == "accepted"


def test_an_exception_and_a_refusal_that_leaves_files_are_faults(tmp_path):
    def half_written():
        (tmp_path / "half").write_text("")
        print("No.", file=sys.stderr)
        return 2

    assert "ZeroDivisionError" in end_of(Case("", "", lambda: 1 // 0)).fault
    assert end_of(Case("", "", lambda: 0)).fault == ""
    assert "half" in end_of(Case("", "", half_written, untouched=tmp_path)).fault
