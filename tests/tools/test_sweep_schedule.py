"""Which run may start when, and which need not start."""
import pytest

from tools import sweep
from tools.sweeping.cells import Planned
from tools.sweeping.schedule import Schedule


@pytest.fixture
def planned(tmp_path):
    """planned(*words of a sweep) -> its runs, none of them finished."""

    def of(*words):
        flags, options = sweep.split_options(["--recipe", "dapt", "--shots", "16", "--seeds", "1", "2", *words])
        found = sweep.plan(sweep.parser().parse_args(flags), options)
        return [Planned(cell, "data", str(tmp_path)) for cell in found]

    return of


def startable(schedule):
    """Every run that may start now."""
    return list(iter(schedule.next, None))


def names(runs):
    return [p.name for p in runs]


def test_the_first_run_on_a_dataset_goes_alone_until_it_shows_progress(planned):
    zero, *rest = runs = planned("--datasets", "digits")
    schedule = Schedule(runs, [])
    assert startable(schedule) == [zero]
    schedule.moved(zero)
    assert startable(schedule) == rest
    assert startable(Schedule(rest, [zero])) == rest                     # it had finished before


def test_the_first_run_with_a_backbone_goes_alone_and_then_one_on_each_dataset(planned):
    runs = planned("--datasets", "digits", "shapes")
    schedule = Schedule(runs, [])
    assert names(startable(schedule)) == ["ZeroshotCLIP digits"]
    schedule.moved(runs[0])
    assert names(startable(schedule)) == ["ZeroshotCLIP shapes", "DAPT digits 16 shots seed 1",
                                          "DAPT digits 16 shots seed 2"]


def test_a_test_of_learned_prompts_waits_for_their_training_alone(planned):
    runs = planned("--datasets", "digits", "--protocol", "base2new")
    base = [p for p in runs if p.cell.tag == "@base" and p.cell.shots]
    new = [p for p in runs if p.cell.tag == "@new" and p.cell.shots]
    schedule = Schedule(runs, [])
    schedule.moved(schedule.next())
    assert not {id(p) for p in startable(schedule)} & {id(p) for p in new}
    schedule.succeeded(base[1])
    assert startable(schedule) == [new[1]]


def test_a_training_that_failed_takes_its_tests_along_and_no_other(planned):
    runs = planned("--datasets", "digits", "--protocol", "base2new")
    schedule = Schedule(runs, [])
    schedule.moved(schedule.next())
    startable(schedule)
    base = next(p for p in runs if p.cell.tag == "@base" and p.cell.seed == 1 and p.cell.shots)
    assert [(p.name, why) for p, why in schedule.failed(base, by_user=False)] == [
        ("DAPT digits new 16 shots seed 1", "its training failed")]


def test_what_the_user_must_mend_is_not_tried_again_on_data_that_never_worked(planned):
    runs = planned("--datasets", "digits", "shapes")
    schedule = Schedule(runs, [])
    left = schedule.failed(schedule.next(), by_user=True)
    assert {p.cell.dataset for p, _ in left} == {"digits"} and len(left) == 2
    assert names(startable(schedule)) == ["ZeroshotCLIP shapes"]


def test_an_error_of_settings_spares_other_methods_and_a_crash_spares_all(planned):
    runs = planned("--datasets", "digits", "--recipe", "dapt", "coop")
    schedule = Schedule(runs, [])
    schedule.succeeded(schedule.next())
    dapt = schedule.next()
    assert names(p for p, _ in schedule.failed(dapt, by_user=True)) == ["DAPT digits 16 shots seed 2"]
    coop = schedule.next()
    assert coop.cell.trainer == "CoOp" and schedule.failed(coop, by_user=False) == []
    assert names(startable(schedule)) == ["CoOp digits 16 shots seed 2"]


def test_a_crash_of_the_first_run_lets_the_next_one_try(planned):
    schedule = Schedule(planned("--datasets", "digits"), [])
    assert schedule.failed(schedule.next(), by_user=False) == []
    assert names(startable(schedule)) == ["DAPT digits 16 shots seed 1"]


def test_a_run_held_elsewhere_is_looked_at_once_more_and_its_tests_wait_for_that(planned):
    runs = [p for p in planned("--datasets", "digits", "--protocol", "base2new", "--seeds", "1") if p.cell.shots]
    base, new = runs
    schedule = Schedule(runs, [])
    schedule.held(schedule.next())
    assert schedule.next() is None
    assert schedule.look_again() and schedule.next() is base
    schedule.held(base)
    assert not schedule.look_again() and schedule.elsewhere == [base] and schedule.waiting == [new]


def test_a_run_that_was_lost_is_the_next_to_start(planned):
    schedule = Schedule(planned("--datasets", "digits"), [])
    zero = schedule.next()
    schedule.again(zero)
    assert schedule.next() is zero and schedule.finished == 0
