"""Kill a sweep with SIGKILL at random moments, start it again, and compare all of its runs with one never killed.

    python tests/reliability/kill_a_sweep.py --times 10

The runs of a killed sweep end by themselves. Compared to the bit, for each run: parameters, optimisers, schedules,
metrics and predictions. Exits with 1 if anything differs.
"""
from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from kill_anywhere import ROOT, differences, outcome  # noqa: E402

_PATIENCE = 120                     # seconds for the runs of a killed sweep to end


def start(output: Path, which: list[str]) -> subprocess.Popen:
    """The sweep, in a group of its own, with what it prints in a pipe."""
    words = ["tools/sweep.py", *which, "--datasets", "digits", "--shots", "1", "--output", str(output),
             "OPTIM.MAX_EPOCH", "4", "TRAIN.CHECKPOINT_SECONDS", "0.001"]
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            text=True, start_new_session=True)


def finish(output: Path, which: list[str]) -> None:
    """Run the sweep to its end; raises AssertionError if it does not end well."""
    with start(output, which) as sweep:
        text = sweep.communicate()[0]
    assert sweep.returncode == 0, text


def kill_after(output: Path, which: list[str], seconds: float) -> bool:
    """Kill the sweep alone, not its runs, and wait until they have ended; whether it was still at work."""
    with start(output, which) as sweep:
        time.sleep(seconds)
        working = sweep.poll() is None
        sweep.send_signal(signal.SIGKILL)
        sweep.wait()
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and alive(sweep.pid):
        time.sleep(0.05)
    assert not alive(sweep.pid), f"runs of the killed sweep were still there after {_PATIENCE} seconds"
    return working


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def runs(output: Path) -> dict[str, dict]:
    return {str(path.parent.relative_to(output)): outcome(path.parent) for path in output.rglob("inputs.json")}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="\n".join(__doc__.splitlines()[1:]),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="kills in all (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--recipes", nargs="+", default=["coop", "dvp_cls"], help="of the sweep (default: %(default)s)")
    parser.add_argument("--seeds", nargs="+", default=["1", "2"], help="of the sweep (default: %(default)s)")
    args = parser.parse_args(argv)
    which = ["--recipe", *args.recipes, "--seeds", *args.seeds]
    draw, kills, sweeps, wrong = random.Random(args.seed), 0, 0, []
    with tempfile.TemporaryDirectory(prefix="kill-a-sweep-") as work:
        began = time.monotonic()
        finish(Path(work, "whole"), which)
        seconds = time.monotonic() - began
        expected = runs(Path(work, "whole"))
        while kills < args.times:
            sweeps += 1
            output = Path(work, str(sweeps))
            for _ in range(min(3, args.times - kills)):
                kills += kill_after(output, which, draw.uniform(0, seconds))
            finish(output, which)
            wrong += differences(expected, runs(output))
            print(f"{kills} of {args.times}", file=sys.stderr, flush=True)
    print(f"{kills} kills of {sweeps} sweeps of {len(expected)} runs.")
    print("\n".join(wrong) or "Every run ended as in the sweep that was never killed, to the bit; no file was cut.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
