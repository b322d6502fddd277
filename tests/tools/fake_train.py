"""Stands in for tools/train.py in the tests of the sweep: takes its arguments, writes what a run writes, in no time.

FAKE_FAIL: run folders containing this text fail; FAKE_HOW says how: "crash", "missing" (exit code 2), "kill", "half" (a
checkpoint, then a crash). Every call adds a line to FAKE_LOG.
"""
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools import inputs, train  # noqa: E402

args = train.parser().parse_args(sys.argv[1:])
folder = Path(args.output_dir)
with open(os.environ["FAKE_LOG"], "a", encoding="utf-8") as log:
    log.write(f"{folder}{' resumed' if args.resume else ''}\n")
fail = os.environ.get("FAKE_FAIL")
how = os.environ.get("FAKE_HOW", "crash") if fail and fail in str(folder) else ""
if how == "missing":
    print("\nThe pets are not at home.", file=sys.stderr)
    sys.exit(2)
train._ready(str(folder))
inputs.write(folder, args)
(folder / "log.txt").write_text("epoch [1/2]\nthe cat ate the batch\n")
print("The same warning in every run")
if how == "half":
    (folder / "prompt_learner").mkdir(exist_ok=True)
    (folder / "prompt_learner" / "checkpoint").write_text("model.pth.tar-1\n")
if how == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if how:
    sys.exit("a traceback")
accuracy = 50.0 if args.trainer == "ZeroshotCLIP" else 90.0 + args.seed
(folder / "results.json").write_text(json.dumps({
    "finished": True, "metrics": {"accuracy": accuracy}, "seconds": {"total": 2.0}, "shots": 16,
    "learned_parameters": 0 if args.trainer == "ZeroshotCLIP" else 2048}))
