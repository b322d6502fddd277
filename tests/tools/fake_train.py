"""Stands in for tools/train.py in the tests of the sweep: takes its arguments, writes what a run writes, in no time.

FAKE_FAIL: run folders containing this text fail; FAKE_HOW says how: "crash", "missing" (exit code 2), "held" (exit code
75: by another process), "kill", "half" (a checkpoint, then a crash), "hang" (until it is ended), "save" (hangs, and
saves within half a second of SIGTERM), "server" (ends the process that it was forked from, once, and hangs), "own" (no
failure: the result of an evaluator without accuracy).
FAKE_MEET: so many runs wait for each other. Every call adds a line to FAKE_LOG, and what a run finds of its process to
FAKE_FACTS.
"""
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from dassl import stop  # noqa: E402
from tools import train  # noqa: E402
from tools.running import restart  # noqa: E402
from tools.runs import inputs  # noqa: E402
from tools.sweeping import leash  # noqa: E402


def main(argv: list[str]) -> int:
    leash.hold()
    args = train.parser().parse_args(argv)
    folder = Path(args.output_dir)
    log = Path(os.environ["FAKE_LOG"])
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{folder}{' resumed' if os.environ.get(train.SWEEP) == 'resume' else ''}\n")
    if facts := os.environ.get("FAKE_FACTS"):
        with open(facts, "a", encoding="utf-8") as file:
            file.write(json.dumps({"pid": os.getpid(), "parent": os.getppid(), "cwd": os.getcwd(), "argv": sys.argv[1:],
                                   "marker": os.environ.get("FAKE_MARKER"), "trainer": args.trainer,
                                   "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "sweep": os.environ.get(train.SWEEP),
                                   "interrupt": str(signal.getsignal(signal.SIGINT))}) + "\n")
    fail = os.environ.get("FAKE_FAIL")
    how = os.environ.get("FAKE_HOW", "crash") if fail and fail in str(folder) else ""
    if how == "missing":
        print("\nThe pets are not at home.", file=sys.stderr)
        return train.USER_ERROR
    if how == "held":
        return train.IN_USE
    for path in (path for pattern in (*restart.RESULTS, *restart.LEARNED) for path in folder.glob(pattern)):
        if os.environ.get(train.SWEEP) == train.ANEW:
            path.unlink()
    inputs.write(folder, args)
    (folder / "log.txt").write_text("epoch [1/2]\nthe cat ate the batch\n")
    print("The same warning in every run")
    print(f"{args.trainer} seed {args.seed}: epoch 1/2 loss 0.5 acc 50.0 eta 0:00:01", file=sys.stderr, flush=True)
    if meet := int(os.environ.get("FAKE_MEET", 0)):
        _wait(lambda: len({line.split()[0] for line in log.read_text().splitlines() if "Zero" not in line}) >= meet
              or args.trainer == "ZeroshotCLIP")
    if how == "half":
        (folder / "prompt_learner").mkdir(exist_ok=True)
        (folder / "prompt_learner" / "checkpoint").write_text("model.pth.tar-1\n")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "server" and not log.with_suffix(".done").exists():
        log.with_suffix(".done").touch()
        os.kill(os.getppid(), signal.SIGKILL)
        how = "hang"
    if how == "save":
        with stop.on_signals(), stop.at_safe_points():
            (folder / "ready").touch()
            _wait(stop.requested)
            time.sleep(0.5)
            (folder / "saved").touch()
            stop.check()
    if how == "hang":
        time.sleep(300)
    elif how not in ("", "server", "own"):
        raise SystemExit("a traceback")
    if how == "own":
        (folder / "results.json").write_text(json.dumps({
            "finished": True, "metrics": {"mean_iou": 0.5}, "seconds": {"total": 2.0}, "learned_parameters": 0}))
        return 0
    accuracy = 50.0 if args.trainer == "ZeroshotCLIP" else 90.0 + args.seed
    (folder / "results.json").write_text(json.dumps({
        "finished": True, "metrics": {"accuracy": accuracy}, "seconds": {"total": 2.0}, "shots": 16,
        "learned_parameters": 0 if args.trainer == "ZeroshotCLIP" else 2048}))
    return 0


def _wait(condition) -> None:
    until = time.monotonic() + 30
    while not condition():
        if time.monotonic() > until:
            raise SystemExit("nobody came")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
