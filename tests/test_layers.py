"""Who may import whom (README, "Layout"): every file's imports are walked and any other edge fails."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("dassl", "clip", "trainers", "datasets", "tools", "dassl_prompts")

ALLOWED = {                         # room -> first-party prefixes it may import; the longest matching room counts
    "dassl": ("dassl",),
    "clip": ("clip",),
    "trainers.parts": ("clip", "trainers.parts"),
    "trainers": ("dassl", "clip", "trainers"),
    "datasets": ("dassl", "datasets"),
    "tools.runs": ("dassl", "tools.runs", "tools.checkout"),
    "tools": OURS[:-1],
    "dassl_prompts": ("dassl", "tools", "dassl_prompts"),
}
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "open_clip": "open-clip-torch"}
FOREIGN = {"dassl": ("open_clip",), "trainers.parts": ("yacs",)}       # third parties a room must not know


def modules(room: str) -> list[Path]:
    return [path for path in sorted((ROOT / room.replace(".", "/")).rglob("*.py")) if room_of(path) == room]


def room_of(path: Path) -> str:
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return max((room for room in ALLOWED if dotted == room or dotted.startswith(f"{room}.")), key=len)


def imports(path: Path) -> list[str]:
    """Dotted names that the file imports anywhere, relative ones resolved."""
    package, found = path.relative_to(ROOT).parent.parts, []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[:len(package) - node.level + 1]] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{stem}.{alias.name}" for alias in node.names]
    return found


def belongs(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


@pytest.mark.parametrize(("room", "at_least"), [("dassl", 30), ("clip", 10), ("trainers.parts", 5), ("trainers", 5),
                                                ("datasets", 8), ("tools.runs", 10), ("tools", 6),
                                                ("dassl_prompts", 2)])
def test_a_room_imports_only_the_rooms_below_it(room, at_least):
    files = modules(room)
    assert len(files) >= at_least, f"walked only {len(files)} files of {room}"
    wrong = [f"{path.relative_to(ROOT)} imports {name}" for path in files for name in imports(path)
             if (belongs(name, OURS) and not belongs(name, ALLOWED[room])) or belongs(name, FOREIGN.get(room, ()))]
    assert not wrong, "\n".join(wrong)


def test_every_python_file_of_ours_is_in_a_room_that_is_walked():
    walked = {path for room in ALLOWED for path in modules(room)}
    there = {path for room in OURS for path in (ROOT / room).rglob("*.py")}
    assert walked == there and len(walked) >= 60


def test_the_base_of_all_trainers_stays_readable():
    lines = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "trainers").glob("_[a-z]*.py")}
    assert lines["_base.py"] <= 150 and sum(lines.values()) <= 400, lines


def test_labs_are_extras_that_only_their_own_commands_import():
    commands = {"bench", "describe", "export", "predict", "pretrain_tiny", "share"}
    files = [path for path in (ROOT / "tools").rglob("*.py") if "labs" not in path.relative_to(ROOT).parts]
    found = {path.relative_to(ROOT / "tools").with_suffix("").as_posix() for path in files for name in imports(path)
             if belongs(name, ("tools.labs",))}
    assert found == commands and len(files) > 60


def test_every_third_party_that_is_imported_stands_in_setup_py(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from setup import EXTRAS, REQUIRES

    declared = {line.split(">=")[0].lower().replace("_", "-") for line in (*REQUIRES, *sum(EXTRAS.values(), []))}
    known = {*sys.stdlib_module_names, *OURS, "_packages", "setup"} | {"gdown"}      # asked for by name
    files = [path for room in OURS for path in (ROOT / room).rglob("*.py")]
    used = {name.split(".")[0]: path for path in files for name in imports(path)}
    undeclared = {name: path for name, path in used.items()
                  if name not in known and DISTRIBUTIONS.get(name, name).replace("_", "-") not in declared}
    assert not undeclared and {"torch", "jinja2", "scipy"} <= used.keys()


def test_the_whole_repository_passes_ruff():
    reply = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert reply.returncode == 0, reply.stdout + reply.stderr


def test_the_walk_sees_a_forbidden_import(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    bad = tmp_path / "trainers" / "parts" / "brick.py"
    bad.parent.mkdir(parents=True)
    lines = ["def f():", "from dassl.engine import TrainerX", "from ..coop import CoOp", "from . import losses"]
    bad.write_text("\n    ".join(lines))
    assert room_of(bad) == "trainers.parts"
    assert imports(bad) == ["dassl.engine.TrainerX", "trainers.coop.CoOp", "trainers.parts.losses"]
    assert [belongs(name, ALLOWED["trainers.parts"]) for name in imports(bad)] == [False, False, True]


def test_nothing_with_an_everyday_name_is_installed_beside_other_packages():
    sys.path.insert(0, str(ROOT))
    from setup import packages

    found = packages()
    assert {name.split(".")[0] for name in found} == {"dassl", "clip", "dassl_prompts"}
    folders = {path.parent.relative_to(ROOT).as_posix() for room in OURS for path in (ROOT / room).rglob("*.py")}
    assert folders <= set(found.values()) and len(folders) >= 30
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)
