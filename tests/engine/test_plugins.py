"""Modules that register trainers and datasets, and the config keys that they add."""
import sys
import types

import pytest

from dassl.config import get_cfg_default
from dassl.engine.plugins import discover, extend_all, load_entry_points, load_plugin
from dassl.utils import UserError

PLUGIN = "calls = []\n\ndef extend_cfg(cfg):\n    calls.append(1)\n    cfg.TRAINER.NAME = 'seen'\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """package(**{module: source}) writes an importable folder of modules and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def make(**modules):
        name = f"package_{tmp_path.name}"
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "below" / "__init__.py").write_text("raise SystemExit('a sub-package is not imported')")
        for module, source in {"__init__": "", "_private": "raise SystemExit('not imported')", **modules}.items():
            (tmp_path / name / f"{module}.py").write_text(source)
        return name

    yield make
    for name in set(sys.modules) - before:
        if name.startswith("package_") or name.startswith("dassl_plugin_"):
            del sys.modules[name]


def test_every_public_module_of_a_folder_is_found(package):
    name = package(b="x = 2", a="x = 1")
    assert [m.__name__ for m in discover(name)] == [name, f"{name}.a", f"{name}.b"]


def test_a_broken_module_stops_with_its_own_error(package):
    with pytest.raises(ZeroDivisionError):
        discover(package(a="1 / 0"))


def test_extend_cfg_is_called_once_per_config_and_only_where_it_is_defined(package):
    name = package(a=PLUGIN, b="")
    first = load_plugin(f"{name}.a")
    importer = types.ModuleType("importer")
    importer.extend_cfg = first.extend_cfg                      # `from a import extend_cfg` is not a second definition
    cfg = get_cfg_default()
    extend_all(cfg, [importer, first, first, *discover(name)])
    assert first.calls == [1] and cfg.TRAINER.NAME == "seen"


def test_a_plugin_is_a_file_or_a_dotted_module(package, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    module = load_plugin(str(tmp_path / "mine.py"))
    assert module.calls == [] and load_plugin(str(tmp_path / "mine.py")) is module
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.py").write_text("x = 1")
    assert load_plugin(str(tmp_path / "other" / "mine.py")) is not module       # same name, another folder
    name = package(a="x = 3")
    assert load_plugin(f"{name}.a").x == 3


def test_a_plugin_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="No plugin file at .*nothing.py"):
        load_plugin(str(tmp_path / "nothing.py"))
    with pytest.raises(UserError, match="got 'no_such_module_anywhere'"):
        load_plugin("no_such_module_anywhere")


def test_a_plugin_that_fails_gives_its_own_error_and_can_be_mended(tmp_path, package):
    path = tmp_path / "mine.py"
    path.write_text("import no_such_module_anywhere")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        load_plugin(str(path))
    path.write_text("fine = True  # another length than before")
    assert load_plugin(str(path)).fine


def test_an_installed_plugin_that_is_broken_is_named_and_skipped(monkeypatch, caplog):
    good = types.ModuleType("good")

    class Entry:
        def __init__(self, name, module):
            self.name, self.module = name, module

        def load(self):
            if self.module is None:
                raise RuntimeError("built for another version")
            return self.module

    monkeypatch.setattr("dassl.engine.plugins.entry_points",
                        lambda group: [Entry("bad", None), Entry("good", good)])
    assert load_entry_points(["dassl.trainers"]) == [good]
    assert "Skipped the installed plugin bad of dassl.trainers: RuntimeError: built for another version" in caplog.text
