"""Config keys and values as Dassl 0.6.3's, and merges that name what is wrong."""
import numpy as np
import pytest
import yaml
from yacs.config import CfgNode

from dassl.config import clean_cfg, get_cfg_default, merge_file, merge_opts
from dassl.utils import UserError

# What CoOp's train.py and the yaml files of the dumped run add to the engine's keys, and what they set.
ADDED = {"DATASET.SUBSAMPLE_CLASSES"}
ADDED_SECTIONS = ("TRAINER.COOP.", "TRAINER.COCOOP.")
SET = {"DATALOADER.NUM_WORKERS", "DATALOADER.TEST.BATCH_SIZE", "DATALOADER.TRAIN_X.BATCH_SIZE", "DATASET.NAME",
       "DATASET.NUM_SHOTS", "DATASET.ROOT", "INPUT.INTERPOLATION", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD", "INPUT.SIZE",
       "INPUT.TRANSFORMS", "MODEL.BACKBONE.NAME", "OPTIM.LR", "OPTIM.LR_SCHEDULER", "OPTIM.MAX_EPOCH", "OPTIM.NAME",
       "OPTIM.WARMUP_EPOCH", "OPTIM.WARMUP_TYPE", "OUTPUT_DIR", "SEED", "TRAIN.PRINT_FREQ", "TRAINER.NAME"}
OURS = {"DATASET.TRAIN_ON_VAL", "TRAIN.STREAMS", "TRAIN.TRACKERS", "TEST.SAVE_LOGITS", "OPTIM.WARMUP_STEPS",
        "DATALOADER.CACHE_MB", "DATALOADER.TRAIN_X.DROP_LAST", "OPTIM.ADAM_EPS", "OPTIM.MIN_LR",
        "INPUT.TIMM_RANDAUGMENT", "INPUT.ERASING_P"}


def flat(node, prefix=""):
    rows = {}
    for key, value in node.items():
        rows |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return rows


@pytest.fixture(scope="module")
def dumped(request):
    """A config printed by Dassl 0.6.3 with CoOp's keys; origin: tests/golden/README.md."""
    text = str(np.load(request.config.rootpath / "tests" / "golden" / "coop_end.npz")["cfg"])
    return flat(yaml.safe_load(text))


def test_the_keys_are_dassls_and_a_few_of_our_own(dumped):
    theirs = {k for k in dumped if k not in ADDED and not k.startswith(ADDED_SECTIONS)}
    assert len(theirs) > 130
    assert set(flat(get_cfg_default())) == theirs | OURS


def test_values_that_the_dumped_run_did_not_set_are_dassls(dumped):
    ours, checked = flat(get_cfg_default()), 0
    for key in set(ours) - SET - OURS:
        value = CfgNode._decode_cfg_value(dumped[key] if dumped[key] is not None else "")
        assert (ours[key], type(ours[key])) == (value, type(value)), key
        checked += 1
    assert checked > 110


def test_values_that_the_dumped_run_set_are_by_default_dassls():
    """Origin: Dassl.pytorch 0.6.3, dassl/config/defaults.py."""
    defaults = {
        "DATALOADER.NUM_WORKERS": 4, "DATALOADER.TEST.BATCH_SIZE": 32, "DATALOADER.TRAIN_X.BATCH_SIZE": 32,
        "DATASET.NAME": "", "DATASET.NUM_SHOTS": -1, "DATASET.ROOT": "", "INPUT.INTERPOLATION": "bilinear",
        "INPUT.PIXEL_MEAN": [0.485, 0.456, 0.406], "INPUT.PIXEL_STD": [0.229, 0.224, 0.225], "INPUT.SIZE": (224, 224),
        "INPUT.TRANSFORMS": (), "MODEL.BACKBONE.NAME": "", "OPTIM.LR": 0.0003, "OPTIM.LR_SCHEDULER": "single_step",
        "OPTIM.MAX_EPOCH": 10, "OPTIM.NAME": "adam", "OPTIM.WARMUP_EPOCH": -1, "OPTIM.WARMUP_TYPE": "linear",
        "OUTPUT_DIR": "./output", "SEED": -1, "TRAIN.PRINT_FREQ": 10, "TRAINER.NAME": ""}
    ours = flat(get_cfg_default())
    assert {key: ours[key] for key in SET} == defaults


def test_every_default_config_is_fresh():
    one = get_cfg_default()
    one.INPUT.PIXEL_MEAN.append(7)
    one.TRAINER.MCD.N_STEP_F = 99
    assert get_cfg_default().INPUT.PIXEL_MEAN == [0.485, 0.456, 0.406]
    assert get_cfg_default().TRAINER.MCD.N_STEP_F == 4


def test_clean_cfg_drops_the_sections_of_other_trainers():
    cfg = get_cfg_default()
    clean_cfg(cfg, "MixMatch")
    assert set(cfg.TRAINER) == {"NAME", "MIXMATCH"}


@pytest.mark.parametrize("key, text, value", [
    ("OPTIM.LR", "1", 1.0), ("OPTIM.LR", "1e-3", 1e-3), ("OPTIM.LR", 2, 2.0), ("OPTIM.MAX_EPOCH", "3", 3),
    ("OPTIM.STEPSIZE", "[1, 2]", (1, 2)), ("INPUT.SIZE", "(32, 32)", (32, 32)), ("INPUT.PIXEL_MEAN", "(0, 1)", [0, 1]),
    ("OUTPUT_DIR", "2024", "2024"), ("OUTPUT_DIR", "a b", "a b"), ("DATASET.NAME", "None", "None"),
    ("USE_CUDA", "False", False),
    ("MODEL.BACKBONE.NAME", "ViT-B/16", "ViT-B/16"), ("INPUT.TRANSFORMS", "['normalize']", ("normalize",)),
])
def test_words_become_values_in_the_type_of_the_default(key, text, value):
    cfg = get_cfg_default()
    merge_opts(cfg, [key, text])
    merged = flat(cfg)[key]
    assert merged == value and type(merged) is type(value)


@pytest.mark.parametrize("opts, told", [
    (["OPTIM.LR"], "Options come in pairs KEY VALUE; 'OPTIM.LR' has no value"),
    (["OPTIM.MAX_EPOCHS", "3"], "unknown config key OPTIM.MAX_EPOCHS. Did you mean OPTIM.MAX_EPOCH?"),
    (["optim.lr", "3"], "unknown config key optim.lr. Did you mean OPTIM.LR?"),
    (["NUM_SHOTS", "3"], "Did you mean DATASET.NUM_SHOTS?"),
    (["OPTIM.LR.X", "3"], "unknown config key OPTIM.LR.X."),
    (["OPTIM.LR", "fast"], "OPTIM.LR takes a number such as 0.0003, got 'fast', text."),
    (["OPTIM.MAX_EPOCH", "2.5"], "OPTIM.MAX_EPOCH takes a whole number such as 10, got 2.5, a number."),
    (["OPTIM.MAX_EPOCH", "True"], "got True, True or False"),
    (["OPTIM.LR", "True"], "OPTIM.LR takes a number"),
    (["USE_CUDA", "1"], "USE_CUDA takes True or False such as True, got 1, a whole number."),
    (["INPUT.SIZE", "224"], "INPUT.SIZE takes a list such as (224, 224), got 224"),
    (["OPTIM", "3"], "OPTIM is a section, not a value; set one of its keys: OPTIM.NAME"),
])
def test_wrong_options_are_named_with_the_way_out(opts, told):
    cfg = get_cfg_default()
    with pytest.raises(UserError) as error:
        merge_opts(cfg, opts)
    assert told in str(error.value)
    assert cfg == get_cfg_default()


@pytest.mark.parametrize("text, told", [
    ("OPTIM:\n  LRR: 1", "unknown config key OPTIM.LRR. Did you mean OPTIM.LR?"),
    ("OPTIMS:\n  LR: 1", "unknown config key OPTIMS.LR. Did you mean OPTIM.LR?"),
    ("OPTIM:\n  LR: fast", "OPTIM.LR takes a number such as 0.0003, got 'fast', text."),
    ("OPTIM: 3", "OPTIM is a section"),
    ("INPUT:\n  SIZE:\n    H: 3", "INPUT.SIZE takes a list"),
    ("- 1\n- 2", "holds list, not KEY: value pairs"),
    ("a: [1", "is not a readable YAML file"),
    ("OPTIM: !!python/object/apply:os.system ['true']", "is not a readable YAML file"),
])
def test_a_wrong_file_is_named_with_its_path(tmp_path, text, told):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        merge_file(get_cfg_default(), path)
    assert told in str(error.value) and str(path) in str(error.value)


def test_a_missing_file_is_named_with_its_neighbours(tmp_path):
    (tmp_path / "vit_b16.yaml").touch()
    with pytest.raises(UserError, match="vit_b32.yaml. In that folder: vit_b16.yaml"):
        merge_file(get_cfg_default(), tmp_path / "vit_b32.yaml")


def test_a_file_sets_its_keys_and_no_others(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text('OPTIM:\n  LR: 1\n  STEPSIZE: [3, 4]\n  WARMUP_CONS_LR: 2e-5\nINPUT:\n  SIZE: "(32, 32)"\n'
                    'DATASET:\n  NAME: 101\n')
    cfg, before = get_cfg_default(), flat(get_cfg_default())
    merge_file(cfg, path)
    changed = {k: v for k, v in flat(cfg).items() if v != before[k]}
    assert changed == {"OPTIM.LR": 1.0, "OPTIM.STEPSIZE": (3, 4), "OPTIM.WARMUP_CONS_LR": 2e-5,
                       "INPUT.SIZE": (32, 32), "DATASET.NAME": "101"}
    (tmp_path / "empty.yaml").touch()
    merge_file(cfg, tmp_path / "empty.yaml")
    assert {k: v for k, v in flat(cfg).items() if v != before[k]} == changed


def test_a_key_that_is_gone_still_loads_with_its_default_and_only_with_that(tmp_path):
    cfg, file = get_cfg_default(), tmp_path / "old.yaml"
    file.write_text("OPTIM:\n  LR: 1\nTRAIN:\n  CUDA_GRAPHS: false\n")
    merge_file(cfg, file)
    merge_opts(cfg, ["TRAIN.CUDA_GRAPHS", "False"])
    assert cfg.OPTIM.LR == 1 and "CUDA_GRAPHS" not in cfg.TRAIN
    with pytest.raises(UserError, match="unknown config key TRAIN.CUDA_GRAPHS"):
        merge_opts(cfg, ["TRAIN.CUDA_GRAPHS", "True"])
