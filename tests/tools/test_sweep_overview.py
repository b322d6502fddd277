"""What a sweep shows: the plan with its estimate, a block on a terminal, few lines in a log."""
import io
import re
from types import SimpleNamespace

import pytest

from tools import sweep, train
from tools.runs.record import Record
from tools.sweeping import conductor, estimate, outcome, overview
from tools.sweeping.cells import Planned
from tools.sweeping.estimate import Times, side_by_side
from tools.sweeping.overview import Overview, Status, duration

TRAINING = "DAPT Digits seed 1: epoch 34/100 loss 0.213 acc 96.875 eta 1:02:05"


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


class Terminal(io.StringIO):
    """Applies the control sequences that are used, and refuses others."""

    def isatty(self):
        return True

    def screen(self) -> list[str]:
        lines, row = [""], 0
        for part in re.split(r"(\033\[\d*[A-Z]|\n|\r)", self.getvalue()):
            if part == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif found := re.fullmatch(r"\033\[(\d*)([A-Z])", part):
                assert found[2] in "AKJ"
                if found[2] == "A":
                    row -= int(found[1])
                elif found[2] == "J":
                    lines[row:] = [""]
                else:
                    continue
            elif part and part != "\r":
                lines[row] = part
        return [line for line in lines if line]


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(overview, "time", clock)
    return clock


def statuses(count):
    return [Status(f"[{n}/9] run {n}", started=0.0) for n in range(count)]


def test_a_terminal_shows_what_stays_above_what_runs(clock):
    terminal = Terminal()
    shown = Overview(terminal)
    shown.say("before")
    shown.show(statuses(2), "0 of 2 done")
    shown.say("[1/9] run 1: 90 %")
    clock.now = 1
    shown.show(statuses(1), "1 of 2 done")
    lines = terminal.screen()
    assert lines[:2] == ["before", "[1/9] run 1: 90 %"] and "run 0" in lines[2] and lines[3:] == ["1 of 2 done"]
    shown.close()
    assert terminal.screen() == lines[:2]


def test_the_block_never_exceeds_the_terminal(clock, monkeypatch):
    monkeypatch.setattr(overview.shutil, "get_terminal_size", lambda: (40, 8))
    terminal = Terminal()
    Overview(terminal).show(statuses(20), "total " + "x" * 100)
    lines = terminal.screen()
    assert len(lines) == 6 and all(len(line) < 40 for line in lines) and "15 more; total" in lines[-1]


def test_a_log_has_no_control_sequences_and_few_lines(clock):
    log = io.StringIO()
    shown = Overview(log)
    for second in range(24 * 3600):
        clock.now = second
        shown.show(statuses(1), "total")
    text = log.getvalue()
    assert "\033" not in text and "\r" not in text
    assert 100 < text.count("total") < 600                              # a day
    clock.now, log = 0, io.StringIO()
    shown = Overview(log)
    clock.now = 29
    shown.show(statuses(1), "total")
    assert log.getvalue() == ""


def test_a_runs_lines_become_its_status():
    status = Status("label")
    assert not status.read("UserWarning: the cat") and not status.moved and status.doing == "starting"
    assert status.read(TRAINING) and status.moved
    assert (status.doing, status.values, status.eta) == ("epoch 34/100", "loss 0.213 acc 96.875", 3725)
    assert status.read("test split: batch 3/12") and status.doing == "test batch 3/12" and status.eta is None
    fetched = Status("label")
    assert fetched.read("ViT-B-16:  34%|███▍      | 120M/351M") and fetched.doing == "ViT-B-16 34 %"
    assert not fetched.moved


def test_the_engines_lines_are_those_that_the_overview_reads(monkeypatch, capsys):
    from dassl.engine.hooks import progress
    from tools import train

    monkeypatch.setenv(train.PROGRESS, "0")
    bar = progress.Line(4, 0, "DAPT Digits seed 1")
    for epoch in (1, 1, 2, 2):
        bar.step(epoch, 2, "loss 0.500 acc 75.000")
    assert list(progress.over([1, 2, 3], "test split")) == [1, 2, 3]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 7 and all(Status("x").read(line) for line in lines)
    monkeypatch.delenv(train.PROGRESS)
    assert list(progress.over([1, 2], "test split")) == [1, 2] and capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [
    (5, "0:05"), (760, "12:40"), (11100, "3:05:00"), (183900, "2 d 03:05:00")])
def test_durations_read_like_a_clock(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def planned(tmp_path):
    def of(*words):
        flags, options = sweep.split_options(["--recipe", "dapt", "--datasets", "digits", *words])
        return [Planned(cell, "data", str(tmp_path)) for cell in sweep.plan(sweep.parser().parse_args(flags), options)]

    return of


def record(total, train, shots, epochs):
    return Record({"finished": True, "seconds": {"total": total, "train": train}, "shots": shots, "epochs": epochs})


def test_the_estimate_goes_by_seeds_then_by_images_then_is_honest(planned):
    zero, *runs = planned("--shots", "4", "16", "--seeds", "1", "2", "OPTIM.MAX_EPOCH", "10")
    four, sixteen = runs[0].cell, runs[-1].cell
    times = Times()
    assert times.of(four) is None and times.of(zero.cell) is None
    times.add(four, record(7, 5, 4, 10))
    assert times.of(four) == 7 and times.of(sixteen) == 5 * 4 + 2 and times.of(zero.cell) is None
    times.add(sixteen, record(30, 20, 16, 10))
    assert times.of(sixteen) == 30
    assert times.guess(planned("--datasets", "shapes", "--shots", "4", "--seeds", "1")[-1].cell) == 18.5


def test_runs_side_by_side_end_when_the_last_place_does():
    assert side_by_side([3, 3, 3], 2) == 6 and side_by_side([5, 1, 1, 1], 2) == 5 and side_by_side([], 3) == 0


def test_the_plan_counts_what_is_finished_cut_off_and_to_do(planned):
    runs = planned("--shots", "1", "16", "--seeds", "1", "2", "3")
    runs[1].state = "resume"
    lines = estimate.plan_table(runs, runs[:-2]).splitlines()
    assert lines[2].split() == ["ZeroshotCLIP", "tiny", "digits", "-", "-", "-", "-", "1"]
    assert lines[3].split() == ["DAPT", "tiny", "digits", "1", "16", "1", "2", "3", "2", "1", "3"]


def test_results_by_domain_and_by_task_stay_in_the_log_of_their_run():
    shown = [line for line in ("=> error by domain", "* fog:5: 35.5%", "* mean: 30.7%", "* task 1:  99.3  48.6",
                               "=> accuracy on each task after tasks 1 to 5", "* accuracy: 80.0%",
                               "* average accuracy 48.5%, forgetting 58.4, forward transfer -1.2",
                               "CoOp is bound to its classes.") if not conductor.RESULT_LINE.match(line)]
    assert shown == ["CoOp is bound to its classes."]


def test_lines_that_several_refusals_share_are_printed_once(tmp_path):
    failed = [(SimpleNamespace(name=name, folder=tmp_path / name), train.USER_ERROR,
               [f"{name} was not found.", f"  get: {name}.zip", "  weights: ViT-B/16 is missing too"]) for name in "ab"]
    words = outcome.report(outcome.Outcome(failed)).splitlines()
    assert all(words.count(f"    {line}") == 1
               for line in ("get: a.zip", "get: b.zip", "weights: ViT-B/16 is missing too"))
