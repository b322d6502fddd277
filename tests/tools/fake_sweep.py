"""tools/sweep.py with stand-ins for the warm server and for tools/train.py."""
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from tools import cells, launch, sweep  # noqa: E402

cells.train_command = lambda arguments: [sys.executable, str(HERE / "fake_train.py"), *arguments]
launch.server_command = lambda: [sys.executable, str(HERE / "fake_warm.py")]

if __name__ == "__main__":
    sys.exit(sweep.main())
