"""Trials of a study as runs of a sweep: forked, side by side, pruned by their validation accuracy, resumed."""
from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

from tools.running.run import VALIDATE
from tools.runs.cell import RecipeError
from tools.runs.record import Record
from tools.sweeping.cells import Planned
from tools.sweeping.conductor import Active, Conductor
from tools.sweeping.schedule import Schedule
from tools.tuning import elevater, study
from tools.tuning.space import FILE, Range

SPLIT = "TEST.SPLIT"


def value_of(record: Record) -> float:
    """What a trial is worth: accuracy on the validation images, or the dataset's own metric; of domains their mean."""
    return 100.0 - record["mean_error"] if "mean_error" in record else next(iter(record.metrics.values()), None)


class Trials(Schedule):
    """Takes the place of a sweep's schedule in a conductor: asks the study for a run, and reports how good it was.

    Attributes:
        trials: run folder -> trial, of those that run. pruned: folders of runs that were ended early.
        refused: the first run with a user error ends the search.
    """

    def __init__(self, of, ranges: list[Range], base: Planned, count: int | None):
        super().__init__((), ())
        self.study, self.ranges, self.base, self.count = of, ranges, base, count
        self.trials: dict[Path, object] = {}
        self.pruned: set[Path] = set()
        self.refused = False

    def next(self) -> Planned | None:
        """The next run; None where the study has enough trials, or must wait for some to end."""
        for _ in range(10):
            if self.refused or (trial := self._ask()) is None:
                return None
            options = {each.key: each.text(trial.params[each.key]) for each in self.ranges}
            cell = self.base.cell
            planned = Planned(replace(cell, opts={**cell.opts, **options},
                                      user_opts={**cell.user_opts, **options}), self.base.root, self.base.output)
            if planned.folder not in self.trials:
                self.trials[planned.folder] = trial
                self.order[planned.cell.folder] = trial.number + 1
                if planned.state == "other":
                    planned.state = "new"
                return planned
            study.take_back(self.study, trial.number, again=False)          # the same settings run already
        return None

    def _ask(self):
        if self.count is None:
            return self._of_elevater()
        return None if len(study.counted(self.study)) >= self.count else study.ask(self.study, self.ranges)

    def _of_elevater(self):
        points = {(number, step): {elevater.RATE: elevater.rate(number), elevater.DECAY: elevater.decay(step)}
                  for number in range(elevater.RATES) for step in range(elevater.STEPS)}
        by_values = {tuple(values.values()): point for point, values in points.items()}
        ended = [trial for trial in study.counted(self.study) if trial.state.is_finished()]
        scores = {by_values[trial.params[elevater.RATE], trial.params[elevater.DECAY]]:
                  trial.value if trial.value is not None else float("-inf") for trial in ended}
        running = {by_values[t.params[elevater.RATE], t.params[elevater.DECAY]] for t in self.trials.values()}
        left = [point for point in elevater.wanted(scores) if point not in running]
        if not left:
            return None
        self.study.enqueue_trial(points[left[0]])
        return study.ask(self.study, self.ranges)

    def succeeded(self, p: Planned) -> None:
        self.finished += 1
        value = value_of(p.record)
        if self.count is None:              # ELEVATER's trials count by their best epoch
            value = max([value, *(accuracy for _, accuracy in read_validation(p.folder))])
        self.study.tell(self.trials.pop(p.folder), value)

    def ended_early(self, p: Planned) -> None:
        from optuna.trial import TrialState

        self.finished += 1
        self.study.tell(self.trials.pop(p.folder), state=TrialState.PRUNED)

    def failed(self, p: Planned, by_user: bool) -> list:
        from optuna.trial import TrialState

        self.refused = self.refused or by_user
        trial = self.trials.pop(p.folder)
        if by_user:
            study.take_back(self.study, trial.number)
        else:
            self.study.tell(trial, state=TrialState.FAIL)
        return []

    def again(self, p: Planned) -> None:
        study.take_back(self.study, self.trials.pop(p.folder).number)

    def held(self, p: Planned) -> None:
        study.take_back(self.study, self.trials.pop(p.folder).number, again=False)

    def interrupted(self) -> None:
        """Those that still run are tried again by the next search."""
        for trial in self.trials.values():
            study.take_back(self.study, trial.number)
        self.trials.clear()


class Search(Conductor):
    """Runs the trials of a study; see Conductor."""

    def __init__(self, trials: Trials, *args, **options):
        total = trials.count or elevater.RATES * 15
        super().__init__([trials.base] * total, [], *args, **options)
        self.schedule = trials
        self._read: dict[Path, int] = {}

    def run(self):
        try:
            return super().run()
        finally:
            self.schedule.interrupted()

    def _process(self, p, arguments, environment):
        return super()._process(p, arguments, {**environment, VALIDATE: "1"})

    def _show(self) -> None:
        for active in list(self.active):
            self._prune(active)
        super()._show()

    def _prune(self, active: Active) -> None:
        p = active.planned
        trial, rows = self.schedule.trials.get(p.folder), read_validation(p.folder)
        if trial is None or len(rows) <= self._read.get(p.folder, 0):
            return
        for epoch, accuracy in rows[self._read.get(p.folder, 0):]:
            trial.report(accuracy, epoch)
        self._read[p.folder] = len(rows)
        if self.schedule.count is not None and p.folder not in self.schedule.pruned and trial.should_prune():
            self.schedule.pruned.add(p.folder)
            active.run.send(signal.SIGTERM)

    def _ended(self, active: Active, code: int) -> None:
        p = active.planned
        if p.folder in self.schedule.pruned and code and not self.outcome.stopped_by:
            self.active.remove(active)
            self.free.append(active.place)
            self.schedule.ended_early(p)
            epoch, accuracy = read_validation(p.folder)[-1]
            self.overview.say(f"{active.status.label}: ended after epoch {epoch}, {accuracy:.1f} %")
            return
        super()._ended(active, code)

    def _label(self, p: Planned) -> str:
        options = [f"{each.key.split('.')[-1]} {p.cell.opts[each.key]}" for each in self.schedule.ranges]
        return f"[trial {self._number(p)}] {', '.join(options)}"

    def _seconds_left(self) -> None:
        return None


def read_validation(folder: Path) -> list[tuple[int, float]]:
    """(epoch, accuracy) of a run's validations so far, each epoch once."""
    try:
        lines = (folder / FILE).read_text(encoding="utf-8").split("\n")[:-1]        # the last may be half-written
    except OSError:
        return []
    return list({int(epoch): float(value) for epoch, value in (line.split(",") for line in lines)}.items())


def base_cell(cell, trains: bool):
    """The cell of a trial without its settings: scored on validation images.

    Raises:
        RecipeError: nothing is trained.
    """
    if not trains:
        raise RecipeError(f"{cell.trainer} learns nothing from training images, so there are no settings to search.")
    if SPLIT in cell.user_opts:
        raise RecipeError(f"{SPLIT} is val in a search: settings are never chosen on test images. Leave it out.")
    return replace(cell, opts={**cell.opts, SPLIT: "val"}, published=None, published_from="")


