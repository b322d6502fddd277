"""--extend-cfg: the keys of somebody else's train.py, and nothing else of that file."""
import sys

import pytest

from dassl.compat.extend import extend
from dassl.config import CfgNode, get_cfg_default
from dassl.utils import UserError
from tools import train
from tools.running.foreign import load_extend_cfg

COOP = ["--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/tiny.yaml"]


@pytest.fixture
def theirs(tmp_path):
    """theirs(source) -> path of a train.py with that text."""
    def write(source):
        (tmp_path / "train.py").write_text(source)
        return str(tmp_path / "train.py")
    return write


def keys(path):
    cfg = get_cfg_default()
    load_extend_cfg(path)(cfg)
    return cfg.TRAINER.MINE


def test_what_stands_around_the_function_is_not_run(theirs, tmp_path, monkeypatch):
    """A script of CoOp's kind: imports of its own datasets, prints, a parser, a main block, all of them fatal here."""
    monkeypatch.setattr(sys, "argv", ["train.py", "--nonsense"])
    mark = f"open({str(tmp_path / 'ran')!r}, 'w')"
    path = theirs(f"""
import argparse, no_such_module_anywhere
import datasets.of_theirs
from trainers.of_theirs import *
{mark}
print({mark})
args = argparse.ArgumentParser().parse_args()
cfg = {mark}
raise SystemExit(3)
for name in "ab":
    {mark}
def decorated(function):
    {mark}
@decorated
def main(args={mark}):
    pass
class Never:
    {mark}
def extend_cfg(cfg, note="cfg here is the argument") -> "no_such_module_anywhere.Type":
    from yacs.config import CfgNode as CN
    args = [n for n in range(3)]
    cfg.TRAINER.MINE = CN()
    cfg.TRAINER.MINE.SIZES = args
if __name__ == "__main__":
    {mark}
    main(args)
""")
    assert keys(path).SIZES == [0, 1, 2]
    assert not (tmp_path / "ran").exists()


def test_what_the_function_needs_is_taken_from_the_file_in_its_order(theirs, tmp_path):
    (tmp_path / "their_words.py").write_text("WORDS = 'a photo of a'")
    path = theirs("""
from __future__ import annotations
import os.path as osp, no_such_module_anywhere
from yacs.config import CfgNode as CN, missing_name
from their_words import WORDS
try:
    from no_such_module_anywhere import DEPTH
except ImportError:
    DEPTH = 9
N, unused = 4, 5
N += 1
SIZES: dict = {"a": N}
SIZES["b"] = N * DEPTH
SIZES.update(c=len(SIZES))
if DEPTH > 3:
    DEEP = True
else:
    DEEP = False
class Names:
    FIRST = "MINE"
def section(cfg: no_such.Type, n=N):
    cfg.TRAINER[Names.FIRST] = CN({"N": n, "FILE": osp.basename(__file__), "WORDS": WORDS, "DEEP": DEEP})
def extend_cfg(cfg):
    section(cfg)
    from their_words import WORDS as again
    cfg.TRAINER.MINE.SIZES = [SIZES[name] for name in sorted(SIZES)] + [again]
N = missing_name if False else N
""".replace(", missing_name", "").replace("missing_name if False else N", "N"))
    mine, before = keys(path), list(sys.path)
    assert (mine.N, mine.FILE, mine.WORDS, mine.DEEP) == (5, "train.py", "a photo of a", True)
    assert mine.SIZES == [5, 45, 2, "a photo of a"] and sys.path == before
    sys.modules.pop("their_words")


@pytest.mark.parametrize(("source", "message"), [
    ("x = 1", r"train.py defines no extend_cfg\(cfg\)"),
    ("if x:\n    def extend_cfg(cfg):\n        a b", "train.py, line 3, is not Python"),
    ("\0", "train.py, line 1, is not Python"),
    ("extend_cfg = None", "defines no extend_cfg"),
    ("from configs.more import extend_cfg", "It imports one from configs.more: give that file"),
    ("def extend_cfg(cfg, args):\n    pass", r"extend_cfg\(cfg, args\) of .*train.py does not take the config alone"),
    ("\ndef extend_cfg(cfg):\n    cfg.A = N", "train.py, line 3, in extend_cfg: NameError: name 'N'"),
    ("from no_such_module_anywhere import N\ndef extend_cfg(cfg):\n    cfg.A = N", "line 1, which extend_cfg needs"),
    ("import sys\nN = sys.exit(2)\ndef extend_cfg(cfg):\n    cfg.A = N", "line 2, .*SystemExit"),
    ("def extend_cfg(cfg):\n    def f():\n        return cfg.NO.KEY\n    f()", "line 3, in extend_cfg: AttributeError"),
])
def test_a_file_that_gives_no_keys_is_told_with_its_line(theirs, source, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        keys(theirs(source))


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="there is none at .*nothing.py"):
        load_extend_cfg(tmp_path / "nothing.py")


def section(**values):
    def extend_cfg(cfg):
        cfg.TRAINER.COOP = CfgNode(values)
    return extend_cfg


def test_a_section_that_is_made_anew_keeps_what_it_leaves_out_and_takes_the_new_defaults(caplog):
    cfg = get_cfg_default()
    extend(cfg, section(N_CTX=16, CSC=False, PREC="fp16", RATE=2.0), "ours")
    extend(cfg, section(N_CTX=16, W=8.0, PREC="amp", RATE=3), "their train.py")
    assert dict(cfg.TRAINER.COOP) == {"N_CTX": 16, "CSC": False, "PREC": "amp", "W": 8.0, "RATE": 3.0}
    assert isinstance(cfg.TRAINER.COOP.RATE, float)
    assert "their train.py sets other defaults, which this run takes: TRAINER.COOP.PREC 'amp' (was 'fp16'), " \
           "TRAINER.COOP.RATE 3 (was 2.0)" in caplog.text
    caplog.clear()
    extend(cfg, section(N_CTX=16, PREC="amp"), "the same defaults")
    assert not caplog.text


@pytest.mark.parametrize(("values", "message"), [
    ({"N_CTX": "16"}, "TRAINER.COOP.N_CTX text .*'16'.*a number .16"), ({"CSC": 1}, "CSC a number .*True or False"),
    ({"N_CTX": CfgNode({"V": 1})}, "N_CTX a section")])
def test_a_key_of_another_kind_is_refused_with_both_values(values, message):
    cfg = get_cfg_default()
    extend(cfg, section(N_CTX=16, CSC=False), "ours")
    with pytest.raises(UserError, match=f"their train.py makes config key .*{message}"):
        extend(cfg, section(**values), "their train.py")


def test_their_yaml_merges_with_the_flag_and_without_it_the_error_names_the_flag(theirs, tmp_path, capsys):
    yaml = tmp_path / "maple.yaml"
    yaml.write_text("TRAINER:\n  MINE: {N_CTX: 4}\nLOSS: {GM: True}\nOPTIM: {LR: 2e-3}\n")
    words = ["--trainer", "CoOp", "--config-file", str(yaml), "--print-config"]
    assert train.cli(words) == 2
    error = capsys.readouterr().err
    assert "unknown config key TRAINER.MINE.N_CTX" in error and "--extend-cfg path/to/train.py" in error
    path = theirs("from yacs.config import CfgNode as CN\ndef extend_cfg(cfg):\n"
                  "    cfg.TRAINER.MINE = CN({'N_CTX': 2})\n    cfg.LOSS = CN({'GM': False})")
    assert train.cli(["--extend-cfg", path, *words]) == 0
    printed = capsys.readouterr().out
    assert "N_CTX: 4" in printed and "GM: true" in printed and "LR: 0.002" in printed
    assert train.cli(["--extend-cfg", path, *words, "LOSS.NO", "1"]) == 2
    assert f"given: {path}" in capsys.readouterr().err


def test_a_run_is_known_by_the_content_of_that_file(theirs):
    from tools.runs import inputs

    def described():
        return inputs.describe(train.parser().parse_args([*COOP, "--extend-cfg", path]))

    path = theirs("def extend_cfg(cfg):\n    pass")
    then = described()
    theirs("def extend_cfg(cfg):\n    cfg.SEED = 2")
    assert any("train.py has changed" in phrase for phrase in inputs.differences(then, described()))


def test_false_in_place_of_text_is_taken_with_its_type(caplog):
    cfg = CfgNode({"TRAINER": CfgNode({"COOP": CfgNode({"CTX_INIT": ""})})})
    extend(cfg, lambda cfg: setattr(cfg.TRAINER.COOP, "CTX_INIT", False), "their train.py")
    assert cfg.TRAINER.COOP.CTX_INIT is False and "CTX_INIT False (was '')" in caplog.text
