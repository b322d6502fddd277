"""What a train.py registers by importing it: its module is loaded where a run asks for a name that is unknown here."""
from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from dassl.utils.registry import Registry

from . import repository

logger = logging.getLogger(__name__)


def register_unknown(script: str | Path, wanted: Iterable[tuple[Registry, str]]) -> None:
    """Load the modules of the script's repository that it imports and that define a class of an unknown wanted name.

    Args:
        wanted: the registry and the name in it. An empty name, one that is known and one that no such module defines
            change nothing.
    """
    root = Path(script).expanduser().resolve().parent
    for registry, name in wanted:
        if name and name not in registry:
            for file in _imported(root, Path(script).expanduser()):
                if re.search(rf"^class {re.escape(name)}\b", file.read_text(errors="replace"), re.MULTILINE):
                    logger.info("%s is registered by %s, which %s imports", name, file, script)
                    with Registry.clashes(repository.stays):
                        repository.load(file)
                    break


def _imported(root: Path, script: Path) -> Iterator[Path]:
    """The files of a repository that the top level of a script imports, in its order."""
    for node in ast.parse(script.read_bytes()).body:
        names = [alias.name for alias in getattr(node, "names", ())]
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{name}" for name in names)]
        elif not isinstance(node, ast.Import):
            continue
        yield from (file for name in names if (file := root.joinpath(*name.split(".")).with_suffix(".py")).is_file())
