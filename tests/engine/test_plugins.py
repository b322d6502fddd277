"""Modules that register trainers and datasets, and the config keys that they add."""
import re
import shutil
import sys
import types
from pathlib import Path

import pytest

from dassl.config import get_cfg_default
from dassl.engine.plugins import discover, extend_all, load_entry_points, load_plugin
from dassl.utils import UserError
from tools import train

ROOT = Path(__file__).resolve().parents[2]
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


def test_a_module_of_a_folder_that_takes_keys_away_gives_them_back_in_every_config(package):
    takes = "from yacs.config import CfgNode\ndef extend_cfg(cfg):\n    cfg.OPTIM = CfgNode()\n"
    modules = discover(package(a=takes, b="def extend_cfg(cfg):\n    cfg.TRAINER.NEW = 1\n"))
    first, second = get_cfg_default(), get_cfg_default()
    extend_all(first, modules)
    extend_all(second, modules)
    assert first == second == {**get_cfg_default(), "TRAINER": {**get_cfg_default().TRAINER, "NEW": 1}}


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

    monkeypatch.setattr("dassl.engine.plugins._installed",
                        lambda group, path: [Entry("bad", None), Entry("good", good)])
    assert load_entry_points(["dassl.trainers"]) == [good]
    assert "Skipped the installed plugin bad of dassl.trainers: RuntimeError: built for another version" in caplog.text


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """repository(**{"trainers/mine.py": source}) -> a folder like a public repository, with the engine's names."""
    def make(**files):
        for name, source in files.items():
            (tmp_path / "theirs" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "theirs" / name).write_text(source)
        return tmp_path / "theirs"

    before = list(sys.path)
    yield make
    assert sys.path == before
    for name in [n for n in sys.modules if n.startswith("dassl_plugin_")]:
        del sys.modules[name]


TRAINER = "from dassl.engine import TRAINER_REGISTRY\n@TRAINER_REGISTRY.register()\nclass {}:\n    pass\n"


@pytest.fixture
def taken():
    """The registry of trainers, with TakenOfThisTest until the test has ended."""
    from dassl.engine import TRAINER_REGISTRY

    TRAINER_REGISTRY.register(type("TakenOfThisTest", (), {"__module__": "dassl.ours"}))
    yield TRAINER_REGISTRY
    for name in [n for n in TRAINER_REGISTRY.registered_names() if n.endswith("OfThisTest")]:
        del TRAINER_REGISTRY._obj_map[name]


def test_a_file_of_a_repository_finds_its_neighbours_and_ours_come_first(repository, taken):
    theirs = repository(**{
        "trainers/mine.py": "from .words import A\nfrom . import words\nimport words_beside\n"
                            "from helpers.deep import C\nfrom trainers.only_theirs import D\n"
                            "import dassl.engine as engine\n",
        "trainers/__init__.py": "raise SystemExit('their package is not run')",
        "trainers/words.py": "A = 1", "trainers/words_beside.py": "B = 2", "helpers/deep.py": "C = 3",
        "trainers/only_theirs.py": "D = 4", "dassl/engine.py": "raise SystemExit('theirs')"})
    import trainers

    before = list(trainers.__path__)
    module = load_plugin(str(theirs / "trainers" / "mine.py"))
    assert (module.A, module.words.A, module.words_beside.B, module.C, module.D) == (1, 1, 2, 3, 4)
    assert trainers.__path__ == before
    assert discover("trainers")[0] is trainers and "only_theirs" not in {m.__name__ for m in discover("trainers")}


def test_a_taken_name_is_an_error_that_names_both_places_and_a_neighbours_is_left_to_its_owner(repository, taken):
    theirs = repository(**{
        "trainers/taken.py": TRAINER.format("TakenOfThisTest"),
        "trainers/new.py": "from .taken import TakenOfThisTest as Parent\n" + TRAINER.format("NewOfThisTest(Parent)")})
    owner = taken.get("TakenOfThisTest")
    with pytest.raises(UserError, match="TRAINER TakenOfThisTest of .*taken.py is already .* by dassl.ours.*--replace"):
        load_plugin(str(theirs / "trainers" / "taken.py"))
    load_plugin(str(theirs / "trainers" / "new.py"))
    assert taken.get("TakenOfThisTest") is owner and taken.get("NewOfThisTest").__mro__[1] is not owner


def test_a_plugin_may_take_a_name_over_when_asked_to(repository, taken, caplog):
    theirs = repository(**{"taken.py": TRAINER.format("TakenOfThisTest")})
    module = load_plugin(str(theirs / "taken.py"), replace=True)
    assert taken.get("TakenOfThisTest") is module.TakenOfThisTest
    assert "taken.py in this run, not that of dassl.ours" in caplog.text


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """installed(group, **{name: source}) -> a package on the path as `pip install --target` leaves it."""
    monkeypatch.syspath_prepend(tmp_path / "site")

    def make(group, **modules):
        package, facts = tmp_path / "site" / "tiny_plugin_of_this_test", tmp_path / "site" / "tiny_plugin-1.0.dist-info"
        package.mkdir(parents=True)
        facts.mkdir()
        (package / "__init__.py").write_text("")
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-plugin\nVersion: 1.0\n")
        points = "\n".join(f"{name} = tiny_plugin_of_this_test.{name}" for name in modules)
        (facts / "entry_points.txt").write_text(f"[{group}]\n{points}\n")
        for name, source in modules.items():
            (package / f"{name}.py").write_text(source)

    yield make
    for name in [n for n in sys.modules if n.startswith("tiny_plugin_of_this_test")]:
        del sys.modules[name]


@pytest.mark.parametrize("group", ["dassl.trainers", "dassl.datasets"])
def test_an_installed_package_offers_its_modules_and_a_broken_one_is_skipped_until_it_is_asked_for(
        group, installed, taken, caplog):
    installed(group, good="extend_cfg = print\n" + TRAINER.format("InstalledOfThisTest"),
              clash=TRAINER.format("TakenOfThisTest"),
              broken=TRAINER.format("HalfOfThisTest") + "1 / 0", leaves="raise SystemExit(3)")
    modules = [m.__name__ for m in load_entry_points() if "of_this_test" in m.__name__]
    assert modules == ["tiny_plugin_of_this_test.good"] and "InstalledOfThisTest" in taken
    assert "HalfOfThisTest" not in taken
    for said in ("broken of " + group + ": ZeroDivisionError", "leaves of " + group + ": SystemExit", "--plugin broken",
                 "TakenOfThisTest of tiny_plugin_of_this_test.clash is already registered by dassl.ours"):
        assert said in caplog.text
    with pytest.raises(ZeroDivisionError):
        load_plugin("broken")
    assert load_plugin("good").__name__ == "tiny_plugin_of_this_test.good"
    with pytest.raises(UserError, match="TakenOfThisTest of .* is already registered by dassl.ours.*--replace"):
        load_plugin("clash")
    assert load_plugin("clash", replace=True).TakenOfThisTest is taken.get("TakenOfThisTest")


def test_a_command_reports_what_it_skipped(installed, capsys, caplog):
    installed("dassl.trainers", broken="raise RuntimeError('built for another version')")
    assert train.cli(["--list"]) == 0 and "CoOp" in capsys.readouterr().out
    assert "Skipped the installed plugin broken of dassl.trainers: RuntimeError: built for" in caplog.text


def test_a_file_that_is_loaded_already_is_not_loaded_again():
    import trainers.coop

    assert load_plugin(trainers.coop.__file__) is trainers.coop


CLONE = {
    "train.py": "", "clip/__init__.py": "from .clip import *", "clip/model.py": "def build_model(): return 'theirs'",
    "clip/clip.py": "from .model import build_model\nfrom clip.words import NAME\n__all__ = ['NAME']",
    "clip/words.py": "NAME = 'theirs'", "datasets/__init__.py": "from .words import *",
    "datasets/words.py": "import utils\nNAME = 'their ' + utils.NAME", "utils.py": "NAME = 'dataset'",
    "trainers/coop.py": "class CoOp:\n    pass", "trainers/words_beside.py": "from clip import NAME",
    "pictures_of_theirs/readme.txt": "", "forks/dassl/engine.py": "raise SystemExit('their copy of the engine')",
    "my_dassl/engine.py": "raise SystemExit('another one')"}
USER = """
import datasets
import clip.words, utils as helpers
import words_beside
from clip import clip as c, NAME
from trainers import coop
from trainers import maple as only_ours
from trainers.coop import CoOp
from .coop import CoOp as Again
from trainers.tpt import TPT
from forks.dassl.engine import TrainerX
from my_dassl.engine import TrainerX as Renamed
def later():
    from importlib import import_module
    assert import_module("clip.model").build_model() == "theirs" and import_module("json").loads("1") == 1
    import pictures_of_theirs  # noqa: F401
"""


@pytest.fixture
def clone(repository):
    return lambda **files: repository(**CLONE, **files)


def test_a_plugin_has_the_packages_of_its_repository_and_everybody_else_has_ours(clone):
    import clip
    import datasets
    import trainers.coop
    import trainers.maple
    import trainers.tpt
    from dassl.engine import TrainerX

    theirs = clone(**{"trainers/mine.py": USER})
    module = load_plugin(str(theirs / "trainers" / "mine.py"))
    assert (module.NAME, module.datasets.NAME, module.clip.words.NAME) == ("theirs", "their dataset", "theirs")
    assert module.c.build_model() == "theirs" and module.words_beside.NAME == "theirs"
    assert module.CoOp is module.Again is module.coop.CoOp is not trainers.coop.CoOp
    assert (module.only_ours, module.TPT, module.TrainerX) == (trainers.maple, trainers.tpt.TPT, TrainerX)
    assert module.Renamed is TrainerX
    assert sys.modules["clip"] is clip and sys.modules["datasets"] is datasets and "utils" not in sys.modules
    assert module.clip is not clip and module.datasets is not datasets
    with pytest.raises(ModuleNotFoundError, match="'pictures_of_theirs'"):   # a folder of images
        module.later()


def test_names_that_newer_versions_took_away_are_imported_by_plugins_alone(repository, monkeypatch):
    monkeypatch.delattr(re, "template", raising=False)                      # as Python 3.13 has it
    monkeypatch.setitem(sys.modules, "pkg_resources", None)                 # as without setuptools, or with 82
    monkeypatch.setitem(sys.modules, "turtle", None)                        # as without Tk
    monkeypatch.setitem(sys.modules, "audioop", None)                       # as Python 3.13 has it
    monkeypatch.setitem(sys.modules, "imp", None)                           # as Python 3.12 has it
    monkeypatch.setitem(sys.modules, "pickle5", None)
    theirs = repository(**{"mine.py": "import re, imp, pickle5 as pickle\nfrom pkg_resources import packaging\n"
                                      "from re import template, escape\nfrom turtle import forward\n"
                                      "from audioop import tomono\n"
                                      "NEW = packaging.version.parse('2.10.1') > packaging.version.parse('2.9')"})
    module = load_plugin(str(theirs / "mine.py"))
    assert module.imp.__name__ == "imp" and module.pickle.loads is __import__("pickle").loads
    assert module.NEW and module.template("a").match("a") and module.escape is re.escape and module.re is re
    assert not hasattr(re, "template")
    with pytest.raises(ImportError):
        import pkg_resources  # noqa: F401


def test_two_repositories_do_not_mix(clone, tmp_path):
    one = clone(**{"trainers/mine.py": "from clip import NAME\nimport utils"})
    other = tmp_path / "other"
    shutil.copytree(one, other)
    (other / "clip" / "words.py").write_text("NAME = 'of the other'")
    modules = [load_plugin(str(root / "trainers" / "mine.py")) for root in (one, other)]
    assert [m.NAME for m in modules] == ["theirs", "of the other"] and modules[0].utils is not modules[1].utils


def test_a_plugin_within_this_checkout_has_our_packages(tmp_path, monkeypatch):
    import clip

    path = ROOT / "tests" / "engine" / f"plugin_{tmp_path.name}.py"
    try:
        path.write_text("import clip\nfrom trainers.coop import CoOp\n")
        assert load_plugin(str(path)).clip is clip
    finally:
        path.unlink()


def test_what_a_neighbour_registers_later_stays_with_its_owner_too(clone, taken):
    theirs = clone(**{"trainers/mine.py": "def later():\n    from datasets.toy import TakenOfThisTest as found\n"
                                          "    return found",
                      "datasets/toy.py": TRAINER.format("TakenOfThisTest")})
    owner, module = taken.get("TakenOfThisTest"), load_plugin(str(theirs / "trainers" / "mine.py"))
    assert module.later() is not owner and taken.get("TakenOfThisTest") is owner
