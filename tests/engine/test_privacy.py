"""Parts of the engine and of trainers use each other through public names: nobody reads another's underscore."""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
THEIR_NAMES = {"openai._download", "openai._MODELS",        # what CoOp's public code calls in OpenAI's package
               "p._version"}                                # PyTorch's own count of a tensor's changes


def foreign(path: Path) -> list[str]:
    """`other._name` in a file, but for self, cls, super() and the file's own classes and functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {"self", "cls", *(node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            owner, name = node.value, ast.unparse(node)
            is_own = isinstance(owner, ast.Name) and owner.id in own or ast.unparse(owner) in ("super()", "type(self)")
            if not is_own and name not in THEIR_NAMES:
                found.append(f"line {node.lineno}: {name}")
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "dassl"):
            found += [f"line {node.lineno}: imports {alias.name}" for alias in node.names if alias.name.startswith("_")]
    return found


@pytest.mark.parametrize(("room", "at_least"), [("dassl/engine", 20), ("trainers", 20)])
def test_no_part_reads_another_ones_underscore_names(room, at_least):
    files = sorted((ROOT / room).rglob("*.py"))
    assert len(files) >= at_least
    wrong = [f"{path.relative_to(ROOT)} {what}" for path in files for what in foreign(path)]
    assert not wrong, "\n".join(wrong)


def test_the_walk_sees_a_foreign_name(tmp_path):
    file = tmp_path / "file.py"
    file.write_text("from .other import _secret\nclass A:\n    def f(self, trainer):\n        A._own, self._own, "
                    "super()._own, trainer.__dict__\n        return trainer._models, self.hook._state\n")
    assert foreign(file) == ["line 1: imports _secret", "line 5: trainer._models", "line 5: self.hook._state"]
