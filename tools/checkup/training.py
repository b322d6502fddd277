"""A small training, from the command to the prediction: in a process of its own, so that a crash is a finding too."""
from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import status
from tools.checkout import ROOT
from tools.checkup import NOTE, OK, PROBLEM, Finding

EPOCHS, SHOTS, BATCH = 20, 16, 32
STEPS = EPOCHS * (10 * SHOTS // BATCH)
LEAST_ACCURACY = 60.0                   # percent of the digits' test images; guessing is 10, 85 is usual here
TIMEOUT_SECONDS = 300


def check(device: str = "auto") -> tuple[Finding, dict]:
    """Train DAPT with the embedded model on real digits, test it, and predict with the run that it leaves.

    Returns:
        The finding, and {"device", "ms_per_step", "accuracy", "seconds"} where it worked, else {}.
    """
    with tempfile.TemporaryDirectory(prefix="doctor_") as folder:
        run, opts = Path(folder, "run"), ["USE_CUDA", str(device != "cpu")]
        status.say(f"  ...   training DAPT for {STEPS} steps, which takes a CPU some seconds")
        reply = _called(folder, ["tools/train.py", "--trainer", "DAPT", "--seed", "1", "--output-dir", str(run),
                         "--root", folder, "--dataset-config-file", "configs/datasets/digits.yaml",
                         "--config-file", "configs/trainers/DAPT/tiny.yaml", "DATASET.NUM_SHOTS", str(SHOTS),
                         "OPTIM.MAX_EPOCH", str(EPOCHS), "DATALOADER.TRAIN_X.BATCH_SIZE", str(BATCH), *opts])
        if reply:
            return _failed("training", reply, device)
        record = json.loads((run / "results.json").read_text(encoding="utf-8"))
        with open(run / "predictions.csv", encoding="utf-8", newline="") as file:
            path = next(csv.DictReader(file))["path"]
        status.say("  ...   predicting with what was trained")
        if reply := _called(folder, ["tools/predict.py", "--run", str(run), "--device", device, path]):
            return _failed("prediction", reply, device)
    facts = {"device": record["device"], "ms_per_step": 1000 * record["seconds"]["train"] / STEPS,
             "accuracy": record["metrics"]["accuracy"], "seconds": record["seconds"]["total"]}
    text = (f"{STEPS} steps of DAPT on digits on {facts['device']}: {facts['ms_per_step']:.0f} ms a step, everything "
            f"included; {facts['accuracy']:.1f} % on its test; tested, saved, loaded and predicted")
    if facts["accuracy"] < LEAST_ACCURACY:
        return Finding("training", text, PROBLEM, f"that is less than {LEAST_ACCURACY:.0f} %, so something computes "
                       "wrong: compare with USE_CUDA False, and with other versions of torch"), {}
    return Finding("training", text, OK), facts


def _called(folder: str, words: list[str]) -> str:
    """Run a tool of the checkout, its caches in `folder`; "" if it succeeded, else its last lines in one."""
    environment = {**os.environ, "DASSL_OFFLINE": "1", "XDG_CACHE_HOME": folder}
    try:
        reply = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True,
                               timeout=TIMEOUT_SECONDS, errors="replace")
    except subprocess.TimeoutExpired:
        return f"it did not end within {TIMEOUT_SECONDS} seconds"
    if reply.returncode == 0:
        return ""
    lines = [line.strip() for line in (reply.stderr or reply.stdout).splitlines() if line.strip()]
    killed = f"signal {-reply.returncode}" if reply.returncode < 0 else f"code {reply.returncode}"
    return f"{killed}: {' '.join(lines[-3:])[-400:]}" if lines else killed


def _failed(what: str, reply: str, device: str) -> tuple[Finding, dict]:
    """On a GPU, whether the CPU does it at least."""
    import torch

    if device == "auto" and torch.cuda.is_available():
        on_cpu, facts = check("cpu")
        works = "the CPU does it: USE_CUDA False until the GPU does" if facts else "neither does the CPU"
        return Finding("training", f"{what} failed on the GPU ({reply}); {works}", NOTE if facts else PROBLEM,
                       "a PyTorch that fits this GPU and driver; other programs on it ended"), facts
    return Finding("training", f"{what} failed ({reply})", PROBLEM, "the last lines of the command say why; "
                   "bash scripts/dapt.sh digits 16 shows all of them"), {}
