"""Kill trainings with SIGKILL at random moments, start the same command again, and compare with one never killed.

    python tests/reliability/kill_anywhere.py --times 50             all trainers, a few minutes
    python tests/reliability/kill_anywhere.py --times 6 --trainers DAPT CoOp --seed 3

A process imports everything once and forks a child per run, so that no kill falls on imports. Of the kills, some come
after a random time; some milliseconds after a random step begins (mostly a training batch; or a test batch, the
building of the model, a checkpoint, the record); some before, between or after the calls by which a random file is
written. A run is killed up to three times before it may end. Compared to the bit: final parameters, optimisers,
schedules, metrics and predictions; and every file of the folder must be readable to its end. Exits with 1 if anything
differs.
"""
from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import yaml  # noqa: E402

from dassl.engine import TRAINER_REGISTRY, trainer, trainer_base  # noqa: E402
from dassl.engine.hooks.autosave import Autosave  # noqa: E402
from dassl.engine.hooks.record import Record  # noqa: E402
from dassl.evaluation.evaluator import Classification  # noqa: E402
from dassl.utils import load_checkpoint  # noqa: E402
from tools import train  # noqa: E402
from tools.sweeping import warm  # noqa: E402
from trainers._base import PromptTrainer  # noqa: E402

train.register()
TRAINERS = sorted(name for name in TRAINER_REGISTRY.registered_names()     # one that adapts tests for minutes
                  if (method := TRAINER_REGISTRY.get(name)).__module__.startswith("trainers.") and not method.adapts)
PHASES = ("building", "epoch", "checkpoint", "evaluation", "results", "done")
KINDS = ("writing a file", *PHASES)                 # of calls that are counted
_KILLS_PER_RUN = 3


def command(trainer: str, folder: Path, *opts: str) -> list[str]:
    """A short training on the embedded digits that saves its state as often as it may."""
    return ["--trainer", trainer, "--seed", "1", "--output-dir", str(folder),
            "--config-file", f"configs/trainers/{trainer}/tiny.yaml",
            "--dataset-config-file", "configs/datasets/digits.yaml", "DATASET.NUM_SHOTS", "2", "OPTIM.MAX_EPOCH", "3",
            "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "TRAIN.CHECKPOINT_FREQ", "1", "TRAIN.CHECKPOINT_SECONDS", "0.001",
            *opts]


class Child:
    """A fork that runs tools/train.py; it tells its phase through shared memory.

    Args:
        arguments: of tools/train.py.
        kind: of KINDS, to kill itself `delay` seconds after call `number` of it, counted from 1, begins; "" to live.
    """

    def __init__(self, arguments: list[str], kind: str = "", number: int = 0, delay: float = 0.0):
        self._shared = memoryview(mmap.mmap(-1, 4 * (1 + len(KINDS)))).cast("i")       # phase, calls of each kind
        self._kill = kind, number, delay
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = self._run(arguments)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    def _run(self, arguments: list[str]) -> int:
        for name in ("fsync", "replace", "chmod"):               # between them is all that a file goes through
            self._watch(os, name, "writing a file")
        base, own = trainer_base.TrainerBase, trainer.SimpleTrainer
        for owner, name, phase in ((base, "save_model", "checkpoint"), (Autosave, "save", "checkpoint"),
                                   (trainer.TrainerX, "training_batches", "epoch"),
                                   (PromptTrainer, "forward_backward", "epoch"),
                                   (own, "test", "evaluation"), (Classification, "process", "evaluation"),
                                   (PromptTrainer, "build_model", "building"), (Record, "_write_results", "results"),
                                   (Autosave, "finished", "done")):
            self._watch(owner, name, phase)
        nothing = os.open(os.devnull, os.O_RDWR)
        for target in (0, 1, 2):
            os.dup2(nothing, target)
        return train.cli(arguments)

    def _watch(self, owner, name: str, kind: str) -> None:
        """Count the calls of a function, note its phase, and die at the chosen call."""
        function, place = getattr(owner, name), 1 + KINDS.index(kind)

        def told(*args, **kwargs):
            self._shared[place] += 1
            if kind in PHASES:
                self._shared[0] = PHASES.index(kind)
            if (kind, self._shared[place]) == self._kill[:2]:
                if kind not in PHASES:
                    os.kill(os.getpid(), signal.SIGKILL)
                threading.Timer(self._kill[2], os.kill, (os.getpid(), signal.SIGKILL)).start()
            return function(*args, **kwargs)
        setattr(owner, name, told)

    @property
    def phase(self) -> str:
        """What it was doing last."""
        return PHASES[self._shared[0]]

    @property
    def calls(self) -> dict[str, int]:
        """How often each kind was called, if it was."""
        return {kind: count for kind, count in zip(KINDS, self._shared[1:]) if count}

    def kill_after(self, seconds: float) -> None:
        time.sleep(seconds)
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Exit code; -9 for a killed child."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def outcome(folder: Path) -> dict:
    """What a run must agree on with another one, to the bit; reads every file of the folder to its end.

    Raises:
        AssertionError: a file that is cut, or left behind.
    """
    found: dict = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        assert not path.name.startswith("run.lock"), name
        assert not path.name.endswith(".part") and path.name != "resume.pth.tar", name
        if ".pth.tar" in name:
            state = load_checkpoint(str(path))
            found[name] = {key: state[key] for key in ("state_dict", "optimizer", "scheduler", "epoch")}
        elif path.suffix == ".json":
            content = json.loads(path.read_text())
            found[name] = {key: content[key] for key in ("finished", "metrics", "num_test", "config_hash")} \
                if name == "results.json" else content
        elif path.suffix == ".yaml":
            assert yaml.safe_load(path.read_text())
        elif path.name == "predictions.csv":
            found[name] = path.read_bytes().replace(str(folder).encode(), b"")
    for name in ("flags", "program"):                    # other folders; and code that is edited during the kills
        found.get("inputs.json", {}).pop(name, None)
    assert "results.json" in found, f"{folder} has no results.json"
    return found


def differences(a, b, where: str = "") -> list[str]:
    """Places where two outcomes are not equal to the bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        lone = [f"{where}{key}" for key in set(a) ^ set(b)]
        return lone + [d for key in a if key in b for d in differences(a[key], b[key], f"{where}{key} ")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i, pair in enumerate(zip(a, b)) for d in differences(*pair, f"{where}{i} ")]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
    return [] if same else [where.strip() or "everything"]


class Bench:
    """Runs of one trainer against one that was never killed."""

    def __init__(self, trainer: str, work: Path, draw: random.Random):
        self.trainer, self.work, self.draw = trainer, work, draw
        whole = work / trainer / "never killed"
        start = time.monotonic()
        child = Child(command(trainer, whole))
        assert child.wait() == 0, f"{trainer} failed without being killed: see {whole}"
        self.calls = child.calls
        self.seconds, self.expected = time.monotonic() - start, outcome(whole)
        self.number, self.phases = 0, Counter()

    def kill_and_compare(self, kills: int) -> list[str]:
        """Start and kill up to `kills` times, let it end, and compare; phases of the kills go to `phases`."""
        self.number += 1
        folder = self.work / self.trainer / str(self.number)
        for _ in range(kills):
            phases = [kind for kind in PHASES if kind in self.calls]
            kind = self.draw.choice(("", KINDS[0], self.draw.choice(phases), *phases[1:2]))
            if kind:
                number, delay = self.draw.randint(1, self.calls[kind]), self.draw.uniform(0, 0.01)
                child = Child(command(self.trainer, folder), kind, number, delay)
            else:
                child = Child(command(self.trainer, folder))
                child.kill_after(self.draw.uniform(0, self.seconds))
            code = child.wait()
            if code == -signal.SIGKILL:
                self.phases[kind if kind == KINDS[0] else child.phase] += 1
            elif code:
                return [f"ended with {code} when started again: see {folder}"]
        if code := Child(command(self.trainer, folder)).wait():
            return [f"ended with {code} when started again: see {folder}"]
        found = differences(self.expected, outcome(folder))
        if not found:
            shutil.rmtree(folder)
        return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="\n".join(__doc__.splitlines()[1:]),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50, help="kills in all (default 50)")
    parser.add_argument("--trainers", nargs="+", default=TRAINERS, metavar="NAME", help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    args = parser.parse_args(argv)
    os.chdir(ROOT)
    warm.import_everything()
    draw, phases, wrong, runs = random.Random(args.seed), Counter(), [], 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="kill-anywhere-") as work:
        benches = {name: Bench(name, Path(work), draw) for name in args.trainers}
        while phases.total() < args.times:
            bench = benches[args.trainers[runs % len(args.trainers)]]
            before = bench.phases.total()
            wrong += [f"{bench.trainer}: {what}" for what in bench.kill_and_compare(
                min(draw.randint(1, _KILLS_PER_RUN), args.times - phases.total()))]
            runs += 1
            phases = sum((b.phases for b in benches.values()), Counter())
            print(f"{bench.trainer}: killed {bench.phases.total() - before} times; {phases.total()} of {args.times}",
                  file=sys.stderr, flush=True)
    print(f"{phases.total()} kills in {runs} runs of {len(args.trainers)} trainers: "
          f"{', '.join(f'{count} in {phase}' for phase, count in phases.most_common())}")
    print("\n".join(wrong) or "Every run ended as the one that was never killed, to the bit; no file was cut.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
