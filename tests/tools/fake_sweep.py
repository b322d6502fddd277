"""tools/sweep.py with stand-ins for the warm server, for tools/train.py and for GPUs (FAKE_GPUS, their names)."""
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from tools import sweep  # noqa: E402
from tools.sweeping import cells, launch, slots  # noqa: E402

cells.train_command = lambda arguments: [sys.executable, str(HERE / "fake_train.py"), *arguments]
slots.gpus = lambda environ: os.environ["FAKE_GPUS"].split() if "FAKE_GPUS" in os.environ else []
launch.server_command = lambda: [sys.executable, str(HERE / "fake_warm.py")]

if __name__ == "__main__":
    sys.exit(sweep.main())
