"""Runs of tools/train.py one after the other in this process: `python runs.py FILE`, a JSON list of argument lists.

Started by torchrun, every run has its processes; one start serves them all.
"""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools import train  # noqa: E402

if __name__ == "__main__":
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        train.main(train.parser().parse_args(arguments))
