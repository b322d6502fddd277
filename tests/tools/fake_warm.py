"""The warm server with the stand-in of fake_train.py as its runs; imports nothing heavy."""
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]
import fake_train  # noqa: E402

from tools.sweeping import warm  # noqa: E402

if __name__ == "__main__":
    sys.exit(warm.main(fake_train.main, prepare=lambda: None))
