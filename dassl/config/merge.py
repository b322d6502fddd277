"""Merge YAML files and KEY VALUE pairs into a config; a wrong key or type is named, with the nearest right one."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import yaml
from yacs.config import CfgNode

from dassl.utils.errors import UserError

RETIRED = {"TRAIN.CUDA_GRAPHS": False}      # keys that are gone, with the value under which old configs still load


class UnknownKey(UserError):
    """A config key that neither the engine nor a plugin has."""


def merge_file(cfg: CfgNode, path: str | Path) -> None:
    """Merge one YAML file, read safely.

    Raises:
        UserError: no such file, no YAML, an unknown key (UnknownKey), or a value of another type.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file) or {}
    except FileNotFoundError as error:
        near = [p.name for p in Path(path).parent.glob("*.y*ml")] if Path(path).parent.is_dir() else []
        raise UserError(f"No config file at {path}. In that folder: {', '.join(sorted(near)) or 'nothing'}.") from error
    except RecursionError as error:
        raise UserError(f"{path} is not a readable YAML file (it is nested too deeply).") from error
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise UserError(f"{path} is not a readable YAML file ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}, not KEY: value pairs.")
    for key, value in _pairs(content, cfg):
        _set(cfg, key, value, f"{path}: ")


def merge_opts(cfg: CfgNode, opts: Sequence) -> None:
    """Merge ["KEY", value, "KEY", value ...]; text values are read as Python literals where they are one.

    Raises:
        UserError: an odd number of words, an unknown key, or a value of another type.
    """
    opts = list(opts or [])
    if len(opts) % 2:
        raise UserError(f"Options come in pairs KEY VALUE; {opts[-1]!r} has no value (or a flag was misspelt).")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        _set(cfg, str(key), value, "")


def _set(cfg: CfgNode, key: str, value, where: str) -> None:
    *path, name = key.split(".")
    node = cfg
    for part in path:
        node = node.get(part) if isinstance(node, CfgNode) else None
    if not isinstance(node, CfgNode) or name not in node:
        if key in RETIRED and str(value) == str(RETIRED[key]):
            return
        raise UnknownKey(f"{where}unknown config key {key}.{_nearest_key(cfg, key)}")
    if isinstance(node[name], CfgNode):
        raise UserError(f"{where}{key} is a section, not a value; set one of its keys: "
                        f"{', '.join(f'{key}.{k}' for k in list(node[name])[:4])} ...")
    old = node[name]
    new = CfgNode._decode_cfg_value(value) if not isinstance(value, CfgNode) else value
    if isinstance(old, str) and not isinstance(new, str):
        new = str(value)                                        # a folder called 2024, a class called "None"
    node[name] = _fit(key, old, new, where)


def _fit(key: str, old, new, where: str):
    """`new` in the type of `old`: whole numbers serve as floats, lists and tuples for each other."""
    if old is None or new is None or type(old) is type(new):
        return new
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if isinstance(old, (tuple, list)) and isinstance(new, (tuple, list)):
        return type(old)(new)
    raise UserError(f"{where}{key} takes {_word(old)} such as {old!r}, got {new!r}, {_word(new)}.")


def _word(value) -> str:
    return {bool: "True or False", int: "a whole number", float: "a number", str: "text", tuple: "a list",
            list: "a list"}.get(type(value), type(value).__name__)


def _pairs(content: dict, node: CfgNode, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in content.items():
        below = node.get(key) if isinstance(node, CfgNode) else None
        if isinstance(value, dict) and (isinstance(below, CfgNode) or below is None):
            yield from _pairs(value, below, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def leaves(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(key, value) of every value, e.g. ("OPTIM.LR", 0.002)."""
    for key, value in cfg.items():
        yield from leaves(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else [(f"{prefix}{key}", value)]


def _nearest_key(cfg: CfgNode, key: str) -> str:
    known = [known for known, _ in leaves(cfg)]
    same_end = [k for k in known if k.rsplit(".", 1)[-1] == key.upper().rsplit(".", 1)[-1]]
    near = get_close_matches(key.upper(), known, 1, cutoff=0.5) or same_end[:1]
    return f" Did you mean {near[0]}?" if near else ""


def with_values(cfg: CfgNode, values: Mapping[str, object]) -> CfgNode:
    """A frozen copy in which these dotted KEYs have other values, which are not checked."""
    cfg = cfg.clone()
    cfg.defrost()
    for key, value in values.items():
        *sections, name = key.split(".")
        node = cfg
        for section in sections:
            node = node[section]
        node[name] = value
    cfg.freeze()
    return cfg
