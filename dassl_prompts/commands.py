"""The command `dassl-prompts`: `dassl-prompts train ...` is `python tools/train.py ...`; so is each of `COMMANDS`."""
from __future__ import annotations

import runpy
import sys
from pathlib import Path

from dassl.names import nearest

_PACKAGE = Path(__file__).resolve().parent
_HOME = _PACKAGE / "home"                       # where pip puts tools, trainers, datasets and configs
ROOT = _HOME if _HOME.is_dir() else _PACKAGE.parent
COMMANDS = {
    "train": "train and test one method on one dataset",
    "sweep": "run a recipe's cells that are not finished, and show the table",
    "tune": "search a method's settings on validation images",
    "table": "the papers' tables of finished runs",
    "compare": "what differs between runs",
    "plot": "figures of what was learned, and one page of all results",
    "predict": "what images show, with a run or zero-shot CLIP",
    "data": "get, check and list datasets",
    "doctor": "whether this machine is ready",
    "new-trainer": "write a trainer, its configs and its test",
    "checkpoint": "look into a checkpoint, and convert it",
    "merge": "a run's towers as one plain CLIP file",
    "interpolate": "accuracy between the weights before and after fine-tuning",
    "calibrate": "fit a run's temperature on validation images",
    "evaluate": "attacks, corruptions and covered patches on a run",
    "export": "a run as an ONNX file",
    "share": "runs to and from the Hugging Face hub, or a folder",
    "describe": "sentences about classes from a language model",
    "bench": "time and memory of a step next to published code's",
    "pretrain-tiny": "train the embedded CLIP again",
    "parse-test-res": "CoOp's tool: mean and spread from log.txt files",
}


def main(argv: list[str] | None = None) -> int:
    """Run a tool as a script, which ends the process. Returns 2 for an unknown name."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print("usage: dassl-prompts COMMAND [...]\n\n" + "\n".join(
            f"  {name:<16}{what}" for name, what in COMMANDS.items()) + "\n\nEach takes --help.")
        return 0
    name = words[0].replace("_", "-")
    script = ROOT / "tools" / f"{name.replace('-', '_')}.py"
    if name not in COMMANDS:
        print(f"There is no command {words[0]!r}.{nearest(name, COMMANDS)} Known: {', '.join(COMMANDS)}.",
              file=sys.stderr)
        return 2
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from tools import command

    command.called = "dassl-prompts {}"
    sys.argv = [str(script), *words[1:]]
    runpy.run_path(str(script), run_name="__main__")
    return 0
