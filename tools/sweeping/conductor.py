"""Runs the cells of a sweep side by side: starts them, listens to them, shows them, ends them on request."""
from __future__ import annotations

import contextlib
import queue
import re
import signal
import threading
import time
from dataclasses import dataclass, field

from tools import train
from tools.runs.record import Record
from tools.sweeping import cells, launch
from tools.sweeping.cells import TAIL, Planned
from tools.sweeping.estimate import Times, side_by_side
from tools.sweeping.outcome import Outcome, exit_words
from tools.sweeping.overview import Overview, Status, duration
from tools.sweeping.schedule import Schedule
from tools.sweeping.slots import KEPT, THREADS, Slots, backbone_of
from tools.tables.rows import by

RESULT_LINE = re.compile(r"=> |\* |Elapsed: |\s*$|.* Log: |.* this run takes it over$")
_SAVE_SECONDS = 30                          # for a run that is asked to end: it saves after its current step
_READERS_SECONDS = 5                        # for a run's last lines to arrive after its end


@dataclass
class Active:
    """A running run: its process, its place, what it shows and the last lines of its stderr."""

    planned: Planned
    run: launch.PlainRun | launch.WarmRun
    place: int
    status: Status
    errors: list[str] = field(default_factory=list)


class Conductor:
    """One sweep.

    Args:
        todo: runs to make, in the order of the plan. done: those that had finished before.
        times: what is known about how long runs take; grows.
        force: rerun them, whatever is in their folders.
        fresh: a fresh process for every run.
    """

    def __init__(self, todo: list[Planned], done: list[Planned], slots: Slots, times: Times, force: bool = False,
                 fresh: bool = False):
        self.todo, self.slots, self.times, self.force = todo, slots, times, force
        self.schedule, self.outcome, self.overview = Schedule(todo, done), Outcome(), Overview()
        self.free = sorted(range(len(slots.devices)), reverse=True)
        self.active: list[Active] = []
        self.events: queue.Queue = queue.Queue()
        self._said: set[str] = set()
        self.server, self._threads = None, None
        if len(todo) > 1 and launch.can_fork() and not fresh:
            self._threads = slots.environment(todo[0].cell, 0).get(THREADS)
            names = "\n".join(dict.fromkeys(filter(None, (backbone_of(p.cell) for p in todo))))
            self.server = launch.WarmServer({KEPT: names, **({THREADS: self._threads} if self._threads else {})},
                                            lambda server: self.events.put((self._lost_server, server)))

    def run(self) -> Outcome:
        """Until every run has ended, or the sweep is interrupted; the runs have stopped then too."""
        try:
            while self._start() or self.active or self.schedule.look_again():
                self._show()
                with contextlib.suppress(queue.Empty):
                    act, *arguments = self.events.get(timeout=0.2)
                    act(*arguments)
        except (KeyboardInterrupt, SystemExit) as stop:
            self.outcome.stopped_by = 130 if isinstance(stop, KeyboardInterrupt) else int(stop.code or 143)
            self._stop()
        finally:
            self.overview.close()
            if self.server is not None:
                self.server.close()
        self.outcome.elsewhere = [*self.schedule.elsewhere, *self.schedule.waiting]
        return self.outcome

    def _start(self) -> bool:
        """Fill the free places; whether anything started or was settled."""
        acted = False
        while self.free and (p := self.schedule.next()):
            acted = True
            if self.force or p.state == "finished":     # as it tests a training that is rerun
                p.state = "new"
            else:
                p.look()
            if p.state == "finished":                   # another sweep has made it meanwhile
                self.schedule.succeeded(p)
                self.overview.say(f"{self._label(p)}: {p.record.score}, made elsewhere")
                continue
            place = self.free.pop()
            arguments, environment = p.launch()
            environment |= self.slots.environment(p.cell, place)
            active = Active(p, self._process(p, arguments, environment), place, Status(self._label(p)))
            self.active.append(active)
            self._listen(active)
        return acted

    def _process(self, p: Planned, arguments: list[str],
                 environment: dict[str, str]) -> launch.PlainRun | launch.WarmRun:
        """The run `p`: forked where its number of threads is the server's, which is read once; else plain."""
        environment = {"PYTHONUNBUFFERED": "1", train.PROGRESS: "0.5", **environment}
        if self.server is not None and self.server.alive and environment.get(THREADS) == self._threads and \
                (run := self.server.start(arguments, environment)):
            return run
        return launch.PlainRun(cells.train_command(arguments), environment)

    def _listen(self, active: Active) -> None:
        def read(stream, act) -> None:
            for line in stream:
                self.events.put((act, active, line.rstrip()))
            stream.close()

        readers = [threading.Thread(target=read, args=args, daemon=True)
                   for args in ((active.run.stdout, self._said_by), (active.run.stderr, self._told_by))]

        def wait() -> None:
            code = active.run.wait()
            for reader in readers:
                reader.join(_READERS_SECONDS)
            self.events.put((self._ended, active, code))

        for thread in (*readers, threading.Thread(target=wait, daemon=True)):
            thread.start()

    def _said_by(self, active: Active, line: str) -> None:
        """Stdout: what a run says besides its results is shown once, not once per seed."""
        if not RESULT_LINE.match(line) and line not in self._said:
            self._said.add(line)
            self.overview.say(f"  {line}")

    def _told_by(self, active: Active, line: str) -> None:
        """Stderr: its progress, and its last words."""
        if active.status.read(line):
            if active.status.moved:
                self.schedule.moved(active.planned)
        else:
            active.errors[:] = [*active.errors, line][-TAIL:]

    def _ended(self, active: Active, code: int) -> None:
        p, label, seconds = active.planned, active.status.label, time.monotonic() - active.status.started
        self.active.remove(active)
        self.free.append(active.place)
        if self.outcome.stopped_by:
            return
        if code == 0 and (record := p.record):
            self.schedule.succeeded(p)
            self.times.add(p.cell, Record(record | {"seconds": {**record["seconds"], "total": seconds}}))
            self.overview.say(f"{label}: {record.score} in {record['seconds']['total']:.0f} s")
        elif code == launch.SERVER_GONE:
            self.schedule.again(p)
        elif code == train.IN_USE:
            self.schedule.held(p)
            from dassl.utils.run_lock import read_owner

            self.overview.say(f"{label}: left for now; {read_owner(p.folder).partition(' (`')[0]}, works on it")
        else:
            self._failed(active, code)

    def _failed(self, active: Active, code: int) -> None:
        p, by_user = active.planned, code == train.USER_ERROR
        lines = active.errors if by_user else p.run.log_tail(TAIL) or active.errors
        self.outcome.failed.append((p, code, lines))
        self.overview.say(f"{active.status.label}: {'cannot run' if by_user else f'FAILED ({exit_words(code)})'}")
        left = self.schedule.failed(p, by_user)
        self.outcome.left_out += [other for other, _ in left]
        for reason, group in by(left, lambda pair: pair[1]).items():
            names = [other.name for other, _ in group]
            self.overview.say(f"  skipped, because {reason}: {names[0]}" +
                              (f" and {len(names) - 1} more" if len(names) > 1 else ""))

    def _lost_server(self, server: launch.WarmServer) -> None:
        self.overview.say(f"  The process that runs are forked from has ended ({server.last_words or 'killed'}); "
                          "from here on each run starts a process of its own.")

    def _show(self) -> None:
        if not self.active:
            return
        total = f"{self.schedule.finished} of {len(self.todo)} runs done"
        if self.outcome.failed:
            total += f", {len(self.outcome.failed)} failed"
        left = self._seconds_left()
        total += f"; {duration(time.monotonic() - self.overview.start)} so far, " \
                 f"{'about ' + duration(left) + ' left' if left is not None else 'time left not known yet'}"
        self.overview.show([a.status for a in sorted(self.active, key=lambda a: self._number(a.planned))], total)

    def _seconds_left(self) -> float | None:
        """None until every run's time is known, at least from others of this sweep."""
        running = []
        for active in self.active:
            whole, gone = self.times.guess(active.planned.cell), time.monotonic() - active.status.started
            left = max(whole - gone, 0) if whole is not None else None
            running.append(active.status.eta if active.status.eta is not None else left)
        waiting = [self.times.guess(p.cell) for p in self.schedule.waiting]
        if None in running or None in waiting:
            return None
        return side_by_side([*running, *waiting], len(self.slots.devices))

    def _label(self, p: Planned) -> str:
        return f"[{self._number(p)}/{len(self.todo)}] {p.name}"

    def _number(self, p: Planned) -> int:
        return self.schedule.order[p.cell.folder]

    def _stop(self) -> None:
        """Ask all runs to save where they are and end; end those that do not."""
        if not self.active:
            return
        self.overview.say("Stopping. The runs save where they are; Ctrl-C again ends them at once.")
        self._send(signal.SIGTERM)
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            if self._wait(_SAVE_SECONDS):
                return
        self._send(getattr(signal, "SIGKILL", signal.SIGTERM))
        self._wait(_READERS_SECONDS)

    def _send(self, number: int) -> None:
        for active in self.active:
            active.run.send(number)

    def _wait(self, seconds: float) -> bool:
        """Whether all runs have ended within this time."""
        until = time.monotonic() + seconds
        while self.active and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                act, *arguments = self.events.get(timeout=min(left, 0.2))
                act(*arguments)
        return not self.active
