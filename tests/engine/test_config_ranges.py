"""Values of the engine's keys are checked before anything is built, also for a config of somebody else's train.py."""
import pytest

from dassl.config import get_cfg_default
from dassl.config.checks import RULES, check_values
from dassl.utils import UserError


def test_the_defaults_are_in_range():
    check_values(get_cfg_default())


@pytest.mark.parametrize(("key", "value", "told"), [
    ("DATALOADER.TRAIN_X.BATCH_SIZE", 0, "at least 1, got 0"), ("DATALOADER.NUM_WORKERS", -1, "0 to 1024, got -1"),
    ("INPUT.SIZE", (32,), "two sides"), ("INPUT.SIZE", (0, 32), "two sides"), ("INPUT.PIXEL_STD", [1, 0, 1], "above 0"),
    ("INPUT.PIXEL_MEAN", [0.5], "three numbers"), ("INPUT.TRANSFORMS", (1,), "a list of names"),
    ("OPTIM.LR", float("nan"), "got nan"), ("OPTIM.LR", 1e38, "got 1e[+]38"), ("OPTIM.LR", -0.1, "from 0 .*got -0.1"),
    ("OPTIM.ADAM_BETA1", 1.0, r"in \[0, 1\), got 1.0"), ("OPTIM.MAX_EPOCH", -1, "0 or more epochs, got -1"),
    ("DATASET.TARGET_DOMAINS", (0, 0), "a list of names"), ("INPUT.RRCROP_SCALE", (0.5, 0.1), "the smaller first"),
    ("OPTIM.WARMUP_EPOCH", None, r"no value \(None\); by default it is -1")])
def test_a_value_out_of_range_is_named_with_its_rule(key, value, told):
    cfg = get_cfg_default()
    *path, name = key.split(".")
    node = cfg
    for part in path:
        node = node[part]
    node[name] = value
    with pytest.raises(UserError, match=f"{key}.*{told}"):
        check_values(cfg)


def test_a_config_that_lacks_a_key_is_let_pass():
    cfg = get_cfg_default()
    del cfg.DATALOADER["CACHE_MB"], cfg.INPUT["GB_K"]
    check_values(cfg)


def test_every_rule_is_about_a_key_that_exists():
    cfg = get_cfg_default()
    for _, _, section, keys in RULES:
        for key in keys.split():
            node = cfg[section]
            for part in key.split("."):
                node = node[part]
