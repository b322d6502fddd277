"""Numbers among a method's options: finite, within what the method declares, and no size that takes all memory."""
import math

import pytest

from dassl.config import CfgNode, merge_opts
from dassl.utils import UserError
from tools import train
from trainers._checks import check_options
from trainers.options import LARGEST


def numbers(options: CfgNode) -> dict[str, int | float]:
    return {key: value for key, value in options.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)}


@pytest.fixture(scope="module")
def methods():
    """Each method's class and a config with its defaults, by its name."""
    from dassl.engine import TRAINER_REGISTRY

    cfg = train.setup_cfg(train.parser().parse_args(["--trainer", "CoOp"])).clone()
    cfg.defrost()
    found = {name: TRAINER_REGISTRY.get(name) for name in TRAINER_REGISTRY.registered_names()}
    found = {name: method for name, method in found.items()
             if method.__module__.startswith("trainers.") and method.section}
    assert len(found) > 50
    return cfg, found


def refused(method, cfg, key, value):
    """The message of the refusal, or ""."""
    cfg = cfg.clone()
    merge_opts(cfg, [f"TRAINER.{method.section}.{key}", value,
                     "INPUT.TRANSFORMS", ["normalize"] if method.normalised else []])
    try:
        check_options(method, cfg)
    except UserError as error:
        return str(error)
    return ""


def test_the_defaults_of_every_method_are_within_its_bounds(methods):
    cfg, found = methods
    for method in found.values():
        for key, value in numbers(cfg.TRAINER[method.section]).items():
            assert not refused(method, cfg, key, value)


def test_numbers_that_are_no_float32_are_refused_by_every_method(methods):
    cfg, found = methods
    for method in found.values():
        for key in (key for key, value in numbers(cfg.TRAINER[method.section]).items() if isinstance(value, float)):
            for value in (math.inf, -math.inf, math.nan, 1e38):     # an optimiser makes infinity of the last
                assert f"TRAINER.{method.section}.{key}" in refused(method, cfg, key, value)


def test_a_million_is_no_size_of_a_method(methods):
    """Only numbers of steps, and of parameters that a search may give, may be that large."""
    cfg, found = methods
    free = {(name, key) for name, method in found.items() for key, value in
            numbers(cfg.TRAINER[method.section]).items()
            if isinstance(value, int) and str(10 ** 6) not in refused(method, cfg, key, 10 ** 6)}
    assert free == {("CLIPLoRA", "ITERATIONS"), ("TwoSFS", "ITERATIONS"), ("LPPlusPlus", "STEPS"),
                    ("NOAH", "LIMIT")}


def test_numbers_in_lists_have_the_same_bounds(methods):
    cfg, found = methods
    assert f"at most {LARGEST}" in refused(found["SubNet"], cfg, "PROMPT", [8, 10 ** 6])
    assert "must be a number, got nan" in refused(found["SubNet"], cfg, "PROMPT", [8, math.nan])


@pytest.mark.parametrize(("name", "key", "value", "said"), [
    ("PromptKD", "TEMPERATURE", 0.0, "above 0, got 0.0"), ("ProGrad", "T", -1.0, "above 0, got -1.0"),
    ("NOAH", "MUTATION", 1.5, "at most 1, got 1.5"), ("LASP", "NOISE", -1.0, "at least 0, got -1.0"),
    ("L2P", "CLIP_NORM", -1.0, "at least 0, got -1.0"), ("DVPcls", "KMEANS_STARTS", 0, "at least 1, got 0")])
def test_numbers_that_mean_nothing_are_refused_with_their_key(methods, name, key, value, said):
    cfg, found = methods
    assert f"TRAINER.{found[name].section}.{key} must be {said}" in refused(found[name], cfg, key, value)


def test_templates_of_every_method_need_a_place_for_the_name(methods):
    cfg, found = methods
    with_any = [(method, key) for method in found.values() for key in ("TEMPLATE", "TEMPLATES")
                if key in cfg.TRAINER[method.section]]
    assert len(with_any) > 25
    for method, key in with_any:
        for text in ("words", "{} and {}", " "):
            value = [text] if key == "TEMPLATES" else text
            assert f"TRAINER.{method.section}.{key} must have one {{}}" in refused(method, cfg, key, value)
        assert not refused(method, cfg, key, ["a {}."] if key == "TEMPLATES" else "a {}.")
    assert not refused(found["FLYP"], cfg, "TEMPLATES", ["imagenet"])
    assert "'imagenet'" in refused(found["GDA"], cfg, "TEMPLATES", ["imagenet"])


@pytest.mark.parametrize(("name", "key", "value"), [
    ("IVLP", "N_CTX_VISION", 4096), ("DPT", "N_CTX_VISION", 4096), ("MMRL", "N_REP_TOKENS", 4096), ("RPO", "K", 4096),
    ("MVLPT", "N_CTX_VISION", 4096), ("PLOTPP", "N_CTX_V", 4096), ("L2P", "TOP", 4096), ("VPT", "N_CTX_VISION", 4096),
    ("SubNet", "PROMPT", "[4096]")])
def test_what_a_brick_refuses_is_told_with_the_key(make_cfg, name, key, value):
    from dassl.engine import TRAINER_REGISTRY, build_trainer

    key = f"TRAINER.{TRAINER_REGISTRY.get(name).section}.{key}"
    size = ["TRAINER.L2P.SIZE", 4096] if name == "L2P" else []
    with pytest.raises(UserError, match=rf"Not at .* default.*{key} \S*4096"):
        build_trainer(make_cfg(name, key, value, *size))


def test_bounds_are_of_options_that_exist(methods):
    cfg, found = methods
    for method in found.values():
        own = method.bounds.keys() - {"LR", "TEXT_LR", "VIEWS"}             # those of several methods
        assert own <= cfg.TRAINER[method.section].keys(), method
