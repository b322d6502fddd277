"""Command-line programs of the checkout; they may import everything and nothing outside imports them."""
import importlib.util
import sys
from pathlib import Path

_script = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
_lacks = [name for name in ("torch", "torchvision", "yacs", "yaml") if not importlib.util.find_spec(name)]
if _lacks and _script.parent == Path(__file__).resolve().parent and _script.stem != "doctor" \
        and not {"-h", "--help"} & {*sys.argv}:                         # doctor reports them itself
    print(f"{sys.executable} lacks {', '.join(_lacks)}.\n"
          "  scripts/*.sh create .venv with all packages on first use; then: .venv/bin/python tools/...\n"
          f"  or install them here: {sys.executable} -m pip install -e {_script.parents[1]}", file=sys.stderr)
    sys.exit(2)
