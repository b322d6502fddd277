"""Registry, meters, logger, seeds, files, config and plugins."""

import json
import logging
import random
import sys

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dassl.config import clean_cfg, get_cfg_default, merge_file, merge_opts
from dassl.engine import plugins
from dassl.utils import (
    AverageMeter,
    MetricMeter,
    Registry,
    UserError,
    cache_dir,
    collect_env_info,
    count_num_param,
    listdir_nohidden,
    read_image,
    read_json,
    set_random_seed,
    setup_logger,
    tolist_if_not,
    write_json,
)


def test_a_registry_gives_what_was_registered_and_suggests_the_nearest_name():
    registry = Registry("THING")

    @registry.register()
    class Apple:
        pass

    registry.register(int)
    assert registry.get("Apple") is Apple and registry.registered_names() == ["Apple", "int"] and "int" in registry
    with pytest.raises(UserError, match="'aple'.*Apple") as caught:
        registry.get("aple")
    assert isinstance(caught.value, KeyError) and not str(caught.value).startswith('"')


def test_a_clash_of_names_names_both_modules_unless_forced():
    registry, first, second = Registry("THING"), type("Same", (), {}), type("Same", (), {})
    first.__module__, second.__module__ = "one.module", "other.module"
    registry.register(first)
    with pytest.raises(UserError, match="other.module.*one.module"):
        registry.register(second)
    assert registry.get("Same") is first
    registry.register(second, force=True)
    assert registry.get("Same") is second


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(1, 9)), min_size=1, max_size=20))
def test_an_average_is_weighted_by_counts(pairs):
    meter = AverageMeter()
    for value, n in pairs:
        meter.update(value, n)
    assert meter.val == pairs[-1][0] and meter.count == sum(n for _, n in pairs)
    assert meter.avg == pytest.approx(sum(v * n for v, n in pairs) / meter.count, abs=1e-9)


def test_meters_take_tensors_and_print_latest_and_mean():
    meters = MetricMeter()
    meters.update({"loss": torch.tensor(1.0), "acc": 50})
    meters.update({"loss": 2.0})
    assert str(meters) == "loss 2.0000 (1.5000) acc 50.0000 (50.0000)"
    meters.update(None)
    with pytest.raises(TypeError, match="float"):
        meters.update(1.0)
    ema = AverageMeter(ema=True)
    ema.update(10)
    assert ema.avg == pytest.approx(1.0)


def test_the_log_holds_messages_and_prints_and_the_console_gets_its_stdout_back(tmp_path, capsys):
    before, handlers, level = sys.stdout, list(logging.getLogger().handlers), logging.getLogger().level
    with setup_logger(str(tmp_path)) as log:
        assert setup_logger(str(tmp_path)) is log and sys.stdout is not before
        logging.getLogger("some.module").info("a detail %d", 3)
        print("printed", "by a trainer")
    assert sys.stdout is before and logging.getLogger().handlers == handlers and logging.getLogger().level == level
    assert (tmp_path / "log.txt").read_text() == "a detail 3\nprinted by a trainer\n"
    out = capsys.readouterr().out
    assert "printed by a trainer" in out and "a detail" not in out
    log.close()


def test_a_second_log_ends_the_first_and_an_old_file_is_kept(tmp_path):
    before = sys.stdout
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "log.txt").write_text("old\n")
    first = setup_logger(str(tmp_path / "a"))
    with setup_logger(str(tmp_path / "b")):
        print("new")
    first.close()
    assert sys.stdout is before and setup_logger(None) is None and setup_logger("") is None
    assert (tmp_path / "a" / "log.txt").read_text() == ""
    texts = sorted(p.read_text() for p in (tmp_path / "b").iterdir())
    assert texts == ["new\n", "old\n"]


def test_closing_a_log_leaves_a_stdout_that_someone_replaced_meanwhile(tmp_path, monkeypatch):
    log, mine = setup_logger(str(tmp_path)), open(tmp_path / "mine", "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", mine)
    log.close()
    assert sys.stdout is mine
    mine.close()


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5])
def test_a_seed_fixes_all_three_streams(seed):
    def draws():
        set_random_seed(seed)
        return random.random(), np.random.rand(), torch.rand(()).item()

    assert draws() == draws()
    set_random_seed(seed + 1)
    assert random.random() != draws()[0]


def test_files_are_written_whole_and_read_back(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "a.json"
    write_json({"name": "é", "n": [1, 2]}, str(path))
    assert read_json(str(path)) == {"name": "é", "n": [1, 2]} and [p.name for p in path.parent.iterdir()] == ["a.json"]
    with pytest.raises(TypeError):
        write_json({"bad": object()}, str(path))
    assert json.loads(path.read_text())["name"] == "é" and [p.name for p in path.parent.iterdir()] == ["a.json"]
    (tmp_path / ".hidden").touch()
    (tmp_path / "b").touch()
    assert listdir_nohidden(str(tmp_path), sort=True) == ["b", "deep"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "dassl" and not cache_dir().exists()


def test_small_tools_do_as_in_dassl(tmp_path):
    assert tolist_if_not("a") == ["a"] and tolist_if_not(["a"]) == ["a"]
    assert count_num_param(torch.nn.Linear(3, 2)) == 8
    assert count_num_param(params=[{"params": [torch.zeros(2, 2)]}, {"params": [torch.zeros(3)]}]) == 7
    assert "PyTorch" in collect_env_info()
    with pytest.raises(UserError, match="nothing.png"):
        read_image(str(tmp_path / "nothing.png"))


def test_defaults_are_dassls():
    """Origin: Dassl.pytorch 0.6.3's own values, spelled out where a run depends on them."""
    cfg = get_cfg_default()
    expected = {"SEED": -1, "USE_CUDA": True, "OUTPUT_DIR": "./output", "RESUME": "", "VERSION": 1}
    assert {k: cfg[k] for k in expected} == expected
    optim = dict(
        NAME="adam",
        LR=0.0003,
        WEIGHT_DECAY=5e-4,
        MOMENTUM=0.9,
        SGD_DAMPNING=0,
        SGD_NESTEROV=False,
        RMSPROP_ALPHA=0.99,
        ADAM_BETA1=0.9,
        ADAM_BETA2=0.999,
        STAGED_LR=False,
        NEW_LAYERS=(),
        BASE_LR_MULT=0.1,
        LR_SCHEDULER="single_step",
        STEPSIZE=(-1,),
        GAMMA=0.1,
        MAX_EPOCH=10,
        WARMUP_EPOCH=-1,
        WARMUP_TYPE="linear",
        WARMUP_CONS_LR=1e-5,
        WARMUP_MIN_LR=1e-5,
        WARMUP_RECOUNT=True,
    )
    assert dict(cfg.OPTIM) == optim
    assert (cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION, cfg.INPUT.RRCROP_SCALE) == ((224, 224), "bilinear", (0.08, 1.0))
    assert (cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.DATALOADER.TEST.BATCH_SIZE) == (
        4,
        32,
        32,
    )
    assert (cfg.DATASET.NUM_SHOTS, cfg.TEST.FINAL_MODEL, cfg.TRAIN.PRINT_FREQ) == (-1, "last_step", 10)


def test_the_keys_are_those_of_a_dassl_config(golden):
    """Every key of the authors' dumped config, less what CoOp's and DAPT's train.py add, and one of our own."""
    theirs = yaml.safe_load(golden("dapt").data["cfg"].item())
    del theirs["TRAINER"]["DAPT"], theirs["DATASET"]["SUBSAMPLE_CLASSES"]

    def keys(node, prefix=""):
        return {
            k
            for key, v in node.items()
            for k in (keys(v, f"{prefix}{key}.") if isinstance(v, dict) else [prefix + key])
        }

    ours = keys(get_cfg_default())
    assert len(ours) > 100 and ours == keys(theirs) | {"DATALOADER.CACHE_MB"}


def test_two_configs_share_nothing():
    one, two = get_cfg_default(), get_cfg_default()
    one.OPTIM.LR, one.TRAINER.MCD.N_STEP_F = 9.0, 9
    assert two.OPTIM.LR == 0.0003 and two.TRAINER.MCD.N_STEP_F == 4
    clean_cfg(one, "mcd")
    assert set(one.TRAINER) == {"NAME", "MCD"}


@pytest.mark.parametrize(
    "given, value",
    [
        (("OPTIM.LR", "20"), 20.0),
        (("OPTIM.LR", "1e-5"), 1e-5),
        (("INPUT.SIZE", "[32, 32]"), (32, 32)),
        (("INPUT.PIXEL_MEAN", "(1, 2, 3)"), [1, 2, 3]),
        (("DATASET.NAME", "2024"), "2024"),
        (("USE_CUDA", "False"), False),
        (("OUTPUT_DIR", "a b"), "a b"),
        (("OPTIM.MAX_EPOCH", 7), 7),
    ],
)
def test_options_take_the_type_of_their_key(given, value):
    cfg = get_cfg_default()
    merge_opts(cfg, given)
    node = cfg
    for part in given[0].split("."):
        node = node[part]
    assert node == value and type(node) is type(value)


@pytest.mark.parametrize(
    "opts, message",
    [
        (["OPTIM.LRR", "1"], "OPTIM.LRR.*OPTIM.LR"),
        (["optim.lr", "1"], "OPTIM.LR"),
        (["LR", "1"], "OPTIM.LR"),
        (["OPTIM.LR", "fast"], "OPTIM.LR.*number.*fast"),
        (["OPTIM.MAX_EPOCH", "1.5"], "MAX_EPOCH.*whole"),
        (["OPTIM.MAX_EPOCH", "True"], "MAX_EPOCH"),
        (["INPUT.SIZE", "32"], "INPUT.SIZE"),
        (["OPTIM", "1"], "section"),
        (["OPTIM.LR"], "pairs"),
        (["OPTIM.LR.X", "1"], "OPTIM.LR"),
    ],
)
def test_options_that_do_not_fit_are_named(opts, message):
    with pytest.raises(UserError, match=message):
        merge_opts(get_cfg_default(), opts)


@pytest.mark.parametrize(
    "text, message",
    [
        ("OPTIM:\n  LRR: 1\n", "OPTIM.LRR.*OPTIM.LR"),
        ("OPTIM:\n  LR: fast\n", "OPTIM.LR.*fast"),
        ("- a\n- b\n", "list"),
        ("OPTIM: [", "YAML"),
        ("OPTIM: 3\n", "OPTIM"),
        ("!!python/object/apply:os.system ['true']", "YAML"),
    ],
)
def test_a_yaml_file_that_does_not_fit_is_named(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        merge_file(get_cfg_default(), tmp_path / "bad.yaml")
    assert "bad.yaml" in str(caught.value)


def test_a_yaml_file_merges_with_numbers_as_dassl_writes_them(tmp_path):
    (tmp_path / "good.yaml").write_text(
        'OPTIM:\n  LR: 2\n  WARMUP_CONS_LR: 1e-5\nINPUT:\n  SIZE: (32, 32)\n  TRANSFORMS: ["normalize"]\n'
    )
    cfg = get_cfg_default()
    merge_file(cfg, tmp_path / "good.yaml")
    assert (cfg.OPTIM.LR, cfg.OPTIM.WARMUP_CONS_LR, cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS) == (
        2.0,
        1e-5,
        (32, 32),
        ("normalize",),
    )
    (tmp_path / "empty.yaml").write_text("")
    merge_file(cfg, tmp_path / "empty.yaml")
    with pytest.raises(UserError, match="good.yaml"):
        merge_file(cfg, tmp_path / "missing.yaml")


PLUGIN = """
from dassl.engine import TRAINER_REGISTRY, TrainerX
from yacs.config import CfgNode as CN
def extend_cfg(cfg):
    cfg.TRAINER.{name} = CN({{"CALLS": cfg.TRAINER.get("{name}", {{}}).get("CALLS", 0) + 1}})
@TRAINER_REGISTRY.register(force=True)
class {name}(TrainerX):
    pass
"""


def test_a_plugin_file_registers_once_and_extends_the_config_once(tmp_path):
    from dassl.engine import TRAINER_REGISTRY

    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.format(name="EnginePlugin"))
    module, again = plugins.load_plugin(str(path)), plugins.load_plugin(str(path))
    assert module is again and "EnginePlugin" in TRAINER_REGISTRY
    cfg = get_cfg_default()
    plugins.extend_all(cfg, [module, again, module])
    assert cfg.TRAINER.EnginePlugin.CALLS == 1


def test_a_folder_gives_its_public_modules_and_a_broken_one_stops(tmp_path, monkeypatch):
    package = tmp_path / "engine_test_package"
    (package / "sub").mkdir(parents=True)
    for name, text in {"__init__.py": "", "a.py": "X = 1", "_private.py": "1 / 0", "sub/__init__.py": "1 / 0"}.items():
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert [m.__name__ for m in plugins.discover("engine_test_package")] == [
        "engine_test_package",
        "engine_test_package.a",
    ]
    (package / "broken.py").write_text("import nothing_of_this_name")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        plugins.discover("engine_test_package")


def test_a_plugin_that_is_not_there_is_named_and_a_broken_one_keeps_its_traceback(tmp_path):
    for missing in (str(tmp_path / "missing.py"), "no_such_package.module"):
        with pytest.raises(UserError, match="missing.py|no_such_package"):
            plugins.load_plugin(missing)
    (tmp_path / "broken.py").write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            plugins.load_plugin(str(tmp_path / "broken.py"))
