"""--extend-cfg: the keys of somebody else's train.py, and nothing else of that file."""
import re
import sys

import pytest

from dassl.compat.extend import extend
from dassl.compat.extend_cfg import load_extend_cfg
from dassl.config import CfgNode, get_cfg_default
from dassl.utils import UserError
from tools import train

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
    assert mine.SIZES == [5, 45, 2, "a photo of a"] and sys.path == before and "their_words" not in sys.modules


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


@pytest.mark.parametrize(("old", "new", "message"), [
    (16, "16", "text .*'16'.*a number .16"), (False, 1, "a number .*True or False"),
    (16, CfgNode({"V": 1}), "a section")])
def test_a_key_of_the_engine_of_another_kind_is_refused_with_both_values(old, new, message):
    cfg = CfgNode({"OPTIM": {"KEY": old}})
    with pytest.raises(UserError, match=f"their train.py makes config key OPTIM.KEY .*{message}"):
        extend(cfg, lambda cfg: setattr(cfg.OPTIM, "KEY", new), "their train.py")


@pytest.mark.parametrize("new", [True, "a photo", 0.5, CfgNode({"WORDS": "a photo"})])
def test_a_key_of_a_method_is_taken_with_the_kind_that_its_authors_give_it(new, caplog):
    cfg = get_cfg_default()
    extend(cfg, section(CTX_INIT=("a photo of a", "one picture of a"), RATE=1.0), "ours")
    extend(cfg, section(CTX_INIT=new, RATE=True), "their train.py")
    assert cfg.TRAINER.COOP.CTX_INIT == new and cfg.TRAINER.COOP.RATE is True
    assert "TRAINER.COOP.CTX_INIT" in caplog.text and "TRAINER.COOP.RATE True (was 1.0)" in caplog.text


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


MAIN = "if __name__ == '__main__':\n"
PARSER = """
def number(text):
    return int(text)
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    group = parser.add_argument_group("of theirs")
    parser.add_argument("--root", default="/home/somebody/data")
    parser.add_argument("--output-dir", default="output/debug")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--must", required=True)
    parser.add_argument("place")
    group.add_argument("--enhanced-base", default="none")
    for name in ("--alpha", "--beta"):
        parser.add_argument(name, type=number, default="3")
    if True:
        parser.add_argument("--device", default="")
    parser.add_argument("opts", default=None, nargs=argparse.REMAINDER)
    ARGS
    raise SystemExit("never run")
"""
HEAD = "import argparse\nfrom yacs.config import CfgNode as CN\n"
KEYS = "    cfg.TRAINER.MINE = CN({'BASE': ARGS.enhanced_base, 'ALPHA': ARGS.alpha, 'MUST': ARGS.must})\n"


@pytest.mark.parametrize(("function", "args"), [
    ("def extend_cfg(cfg):\n" + KEYS.replace("ARGS", "args"), "args = parser.parse_args()"),        # a global of theirs
    ("def extend_cfg(cfg, flags):\n" + KEYS.replace("ARGS", "flags"), "args, rest = parser.parse_known_args()"),
    ("def extend_cfg(cfg, flags):\n" + KEYS.replace("ARGS", "flags"), "main(parser.parse_args())"),
])
def test_an_extend_cfg_that_reads_flags_gets_the_defaults_of_their_parser(theirs, monkeypatch, function, args):
    monkeypatch.setattr(sys, "argv", ["train.py", "--nonsense"])
    mine = keys(theirs(HEAD + function + PARSER.replace("ARGS", args)))
    assert (mine.BASE, mine.ALPHA, mine.MUST) == ("none", 3, None)


@pytest.mark.parametrize("ending", ["    return parser.parse_args()\nif __name__ == '__main__':\n    main(flags())",
                                    "    args = parser.parse_args()\n    return args\nargs = flags()\nmain(args)"])
def test_a_function_that_parses_is_called_for_them(theirs, ending):
    path = theirs(HEAD + "def flags():\n    parser = argparse.ArgumentParser()\n"
                  "    parser.add_argument('--n', type=int, default=4)\n" + ending
                  + "\ndef extend_cfg(cfg, args):\n    cfg.TRAINER.MINE = CN({'N': args.n})")
    assert keys(path).N == 4


RESET = """
def extend_cfg(cfg):
    cfg.TRAINER.MINE = CN({"SAMPLED": 0})
def reset_cfg(cfg, args):
    if args.root:
        cfg.DATASET.ROOT = args.root
    if args.seed:
        cfg.SEED = cfg.TRAINER.MINE.SAMPLED = args.seed
    if args.output_dir:
        cfg.OUTPUT_DIR = args.output_dir
    if args.device:
        cfg.DEVICE = args.device
    cfg.DATALOADER.TRAIN_X.SAMPLER = "SequentialSampler" if args.alpha == 3 else ""
RATES = {"Toy": 0.5}
def choose_attributes(cfg):
    cfg.TRAINER.MINE.ATTRIBUTE = "color" if cfg.DATASET.NAME == "Toy" else "none"
def setup_cfg(args):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.TRAINER.MINE.EARLY = cfg.SEED
    if args.config_file:
        cfg.merge_from_file(args.config_file)
    reset_cfg(cfg, args)
    cfg.TRAINER.MINE.BETA = args.beta
    if args.alpha:
        cfg.TRAINER.MINE.ALPHA = args.alpha
    cfg.merge_from_list(args.opts)
    choose_attributes(cfg)
    rate = RATES[cfg.DATASET.NAME]
    if cfg.DATASET.NUM_SHOTS == 1:
        cfg.OPTIM.MAX_EPOCH = 50
        cfg.merge_from_list(["OPTIM.LR", rate])
    wandb.init(cfg.OUTPUT_DIR)
    cfg.freeze()
    return cfg
"""


def test_keys_that_their_flags_set_have_the_flags_defaults_and_their_places_are_not_taken(theirs, caplog):
    path = theirs(HEAD + RESET + PARSER.replace("ARGS", "args = parser.parse_args()"))
    cfg = get_cfg_default()
    load_extend_cfg(path)(cfg)
    assert (cfg.SEED, cfg.DATALOADER.TRAIN_X.SAMPLER, cfg.DATASET.ROOT) == (7, "SequentialSampler", "")
    assert cfg.OUTPUT_DIR == "./output" and "DEVICE" not in cfg
    assert dict(cfg.TRAINER.MINE) == {"SAMPLED": 7, "BETA": 3, "ALPHA": 3, "EARLY": 7}
    assert "not done here: line 35: wandb.init(cfg.OUTPUT_DIR)." in caplog.text
    load_extend_cfg(path, {"seed": 2, "root": "here", "unknown_to_them": 1, "device": None})(cfg)
    assert (cfg.SEED, cfg.TRAINER.MINE.SAMPLED, cfg.DATASET.ROOT) == (2, 2, "here")


def test_a_new_key_is_declared_with_the_type_of_its_value_and_set_as_any_other(capsys):
    words = ["--new-key", "DEVICE", "cuda:0", "--new-key", "MODEL.DEEP.N", "4", *COOP, "--print-config"]
    assert train.cli([*words, "MODEL.DEEP.N", "5"]) == 0
    printed = capsys.readouterr().out
    assert "DEVICE: cuda:0" in printed and "DEEP:\n    N: 5" in printed
    assert train.cli([*words, "MODEL.DEEP.N", "five"]) == 2 and train.cli([*COOP, "--print-config", "DEVICE", "1"]) == 2
    assert "--new-key KEY VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["SEED", "SEED.X", "TRAINER.COOP.N_CTX", "A..B", ""])
def test_a_key_that_is_there_or_can_be_none_is_not_declared(key, capsys):
    assert train.cli(["--new-key", key, "1", *COOP, "--print-config"]) == 2
    assert "--new-key declares a key that is not there yet" in capsys.readouterr().err


@pytest.mark.parametrize(("line", "reason"), [
    ("args = missing.parse_args()", "line 8, which extend_cfg needs, fails: NameError"),
    ("args = argparse.ArgumentParser().parse_args()", "line 6, in reset_cfg: AttributeError: .*no_flag")])
def test_a_reset_that_fails_changes_nothing_and_is_told_with_its_line(theirs, caplog, line, reason):
    path = theirs("import argparse\ndef extend_cfg(cfg):\n    cfg.TRAINER.NAME = 'Theirs'\n"
                  f"def reset_cfg(cfg, args):\n    cfg.SEED = 5\n    cfg.A = args.no_flag\n{MAIN}    {line}\n")
    cfg = get_cfg_default()
    load_extend_cfg(path)(cfg)
    assert (cfg.TRAINER.NAME, cfg.SEED) == ("Theirs", -1)
    assert re.search(f"{reason}.*What it sets is left as it is", caplog.text)


def test_what_their_functions_print_is_printed_once(theirs, capsys):
    path = theirs("import argparse\ndef extend_cfg(cfg):\n    pass\ndef reset_cfg(cfg, args):\n    print('reset')\n"
                  f"{MAIN}    args = argparse.ArgumentParser().parse_args()\n")
    load_extend_cfg(path)(get_cfg_default())
    assert capsys.readouterr().out == "reset\n"


def test_what_their_setup_does_to_the_merged_config_is_done_before_the_options(theirs, tmp_path, capsys, caplog):
    path = theirs(HEAD + RESET.replace("wandb.init(cfg.OUTPUT_DIR)", "pass")
                  + PARSER.replace("ARGS", "args = parser.parse_args()"))
    words = ["--extend-cfg", path, "--trainer", "CoOp", "--print-config", "DATASET.NAME"]
    assert train.cli([*words, "Toy", "DATASET.NUM_SHOTS", "1", "OPTIM.LR", "0.25"]) == 0
    printed = capsys.readouterr().out
    assert "ATTRIBUTE: color" in printed and "MAX_EPOCH: 50" in printed and "  LR: 0.25" in printed
    assert train.cli([*words, "Other", "DATASET.NUM_SHOTS", "1"]) == 0
    printed = capsys.readouterr().out
    assert "ATTRIBUTE:" not in printed and "MAX_EPOCH: 10" in printed
    assert "line 31, in setup_cfg: KeyError: 'Other'" in caplog.text


def test_a_default_of_their_flags_wins_over_their_yaml_and_loses_against_the_options(theirs, tmp_path, capsys):
    path = theirs(HEAD + """
def extend_cfg(cfg):
    cfg.TRAINER.MINE = CN({"N": 0})
def reset_cfg(cfg, args):
    cfg.TRAINER.MINE.N = args.alpha
    cfg.OPTIM.MAX_EPOCH = 7 if cfg.DATASET.NUM_SHOTS == 4 else 9
    cfg.SEED = args.seed
""" + PARSER.replace("ARGS", "args = parser.parse_args()"))
    (tmp_path / "mine.yaml").write_text("TRAINER: {MINE: {N: 2}}\nDATASET: {NUM_SHOTS: 4}\n")
    words = ["--extend-cfg", path, "--trainer", "CoOp", "--config-file", str(tmp_path / "mine.yaml"), "--seed", "0",
             "--print-config", "DATASET.NAME", "Toy"]
    for options, expected in ([], 3), (["TRAINER.MINE.N", "5"], 5):
        assert train.cli([*words, *options]) == 0
        printed = capsys.readouterr().out
        assert f"MINE:\n    N: {expected}\n" in printed and "MAX_EPOCH: 7" in printed and "\nSEED: 0" in printed


PETS = """
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
@DATASET_REGISTRY.register()
class Digits(DatasetBase):
    pass
"""


@pytest.mark.parametrize("given", [False, True])
def test_a_dataset_of_a_plugins_repository_is_named_where_the_run_takes_another(tmp_path, monkeypatch, caplog, given):
    from dassl.data.datasets import DATASET_REGISTRY

    monkeypatch.setattr(DATASET_REGISTRY, "_obj_map", dict(DATASET_REGISTRY._obj_map))
    (tmp_path / "datasets").mkdir()
    for name, text in {"mine.py": "", "train.py": "", "datasets/digits.py": PETS}.items():
        (tmp_path / name).write_text(text)
    theirs = str(tmp_path / "datasets" / "digits.py")
    words = ["--plugin", str(tmp_path / "mine.py"), *(["--plugin", theirs, "--replace"] if given else []), *COOP,
             "--dataset-config-file", "configs/datasets/digits.yaml"]
    train.setup_cfg(train.parser().parse_args(words))
    assert (f"--plugin {theirs} --replace" in caplog.text) is not given


EVALUATOR = """
from dassl.evaluation import EVALUATOR_REGISTRY, Classification
from marks import MARK
@EVALUATOR_REGISTRY.register()
class OfThisTest(Classification):
    mark = MARK
"""


def test_an_evaluator_that_their_train_py_imports_is_registered_where_a_run_names_it(theirs, tmp_path, monkeypatch):
    from dassl.evaluation import EVALUATOR_REGISTRY

    monkeypatch.setattr(EVALUATOR_REGISTRY, "_obj_map", dict(EVALUATOR_REGISTRY._obj_map))
    (tmp_path / "evaluators").mkdir()
    for name, text in {"evaluators/ours.py": EVALUATOR, "evaluators/never.py": "raise SystemExit('not asked for')",
                       "marks.py": "MARK = 'theirs'"}.items():
        (tmp_path / name).write_text(text)
    path = theirs("import evaluators.never, no_such_module_anywhere\nfrom evaluators import ours\n"
                  "def extend_cfg(cfg):\n    cfg.TEST.EVALUATOR = 'OfThisTest'")
    cfg = train.setup_cfg(train.parser().parse_args(["--extend-cfg", path, *COOP]))
    assert EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR).mark == "theirs"


@pytest.mark.parametrize(("line", "file"), [
    ("from dassl.config import get_cfg_default", "dassl/config/defaults.py"),
    ("from dassl.config import get_cfg_default", "Dassl.pytorch/dassl/config/defaults.py"),
    ("from my_dassl.config import get_cfg_default", "my_dassl/config/defaults.py"),
    ("from configs.theirs import get_cfg_default", "configs/theirs.py")])
def test_keys_and_defaults_of_their_own_copy_of_dassls_are_taken(theirs, tmp_path, caplog, line, file):
    """HiCroPL's copy of Dassl has OPTIM.EPS and tests the best epoch; UPL starts from a file of its own."""
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("""
from yacs.config import CfgNode as CN
_C = CN()
_C.OPTIM = CN()
_C.OPTIM.LR = 0.0003
_C.OPTIM.EPS = 0.001
_C.OPTIM.STEPSIZE = [-1]
_C.TEST = CN()
_C.TEST.FINAL_MODEL = "best_val"
_C.TRAINER = CN()
_C.TRAINER.ROUNDS = 2
def get_cfg_default():
    return _C.clone()
""")
    path = theirs(f"{line}\ndef extend_cfg(cfg):\n    cfg.TRAINER.SUM = cfg.TRAINER.ROUNDS + 1\n")
    cfg = get_cfg_default()
    extend(cfg, load_extend_cfg(path), path)
    assert (cfg.TRAINER.SUM, cfg.OPTIM.EPS, cfg.TEST.FINAL_MODEL) == (3, 0.001, "best_val")
    assert "only code of its repository reads: OPTIM.EPS" in caplog.text
    assert "takes: TEST.FINAL_MODEL 'best_val' (was 'last_step')" in caplog.text
    assert type(cfg.OPTIM.STEPSIZE) is tuple


def test_none_for_a_key_of_a_dataset_leaves_its_default():
    cfg = get_cfg_default()
    extend(cfg, lambda cfg: setattr(cfg.DATASET, "NUM_SHOTS", None), "their train.py")
    assert cfg.DATASET.NUM_SHOTS == -1
