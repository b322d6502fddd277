"""CfgNode: yacs's config tree, with errors that name the key, the value and the nearest known key."""
from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode as _YacsNode

from dassl.utils.errors import UnknownName, UserError, WrongValue, suggestion


class CfgNode(_YacsNode):
    """yacs's node whose `merge_from_file` and `merge_from_list` raise UserErrors and read YAML safely."""

    def merge_from_file(self, cfg_filename: str | Path) -> None:
        merge_file(self, cfg_filename)

    def merge_from_list(self, cfg_list: list) -> None:
        merge_opts(self, cfg_list)


def known_keys(cfg: _YacsNode, prefix: str = "") -> list[str]:
    """Full names of all values, e.g. OPTIM.LR."""
    keys = []
    for key, value in cfg.items():
        keys += known_keys(value, f"{prefix}{key}.") if isinstance(value, _YacsNode) else [prefix + key]
    return keys


def merge_file(cfg: _YacsNode, path: str | Path) -> None:
    """Merges a YAML file.

    Raises:
        UserError: the file is missing, is not YAML, or has a key or a value that does not fit.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise UserError(f"There is no config file {path}. Check --config-file and --dataset-config-file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the config file {path}: {error}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if tree is None:
        return
    if not isinstance(tree, dict):
        raise WrongValue(f"{path} must hold sections such as OPTIM and INPUT; it holds a {type(tree).__name__}.")
    _merge_tree(cfg, cfg, tree, "", f" in {path}")


def merge_opts(cfg: _YacsNode, opts: list) -> None:
    """Merges `["OPTIM.LR", "0.1", ...]`.

    Raises:
        UserError: an odd count, or a key or a value that does not fit.
    """
    opts = list(opts)
    if len(opts) % 2:
        raise WrongValue(f"Options come in pairs KEY VALUE; there are {len(opts)}: {' '.join(map(str, opts))}.")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        node, where = cfg, ""
        *sections, last = str(key).split(".")
        for section in sections:
            if not isinstance(node.get(section), _YacsNode):
                raise _unknown(cfg, key, "")
            node, where = node[section], f"{where}{section}."
        _merge_value(cfg, node, where, last, value, "")


def _merge_tree(cfg: _YacsNode, node: _YacsNode, tree: dict, prefix: str, source: str) -> None:
    for key, value in tree.items():
        _merge_value(cfg, node, prefix, str(key), value, source)


def _merge_value(cfg: _YacsNode, node: _YacsNode, prefix: str, key: str, value: Any, source: str) -> None:
    name = prefix + key
    if cfg.is_frozen():
        raise AttributeError(f"Cannot set {name}: the config is frozen. Call cfg.defrost() first.")
    if key not in node:
        if not node.is_new_allowed():
            raise _unknown(cfg, name, source)
        node[key] = _decode(value)
    elif isinstance(node[key], _YacsNode):
        if value is None:
            return
        if not isinstance(value, dict):
            raise WrongValue(f"{name}{source} is a section and takes no value; got {value!r}. "
                             f"Its keys: {', '.join(node[key])}.")
        _merge_tree(cfg, node[key], value, name + ".", source)
    else:
        node[key] = _coerce(node[key], value, name, source)


def _unknown(cfg: _YacsNode, name: str, source: str) -> UnknownName:
    keys = known_keys(cfg)
    tail = [k for k in keys if k.rsplit(".", 1)[-1] == str(name).rsplit(".", 1)[-1]]
    hint = suggestion(name, keys) if len(tail) != 1 else f" (did you mean {tail[0]!r}?)"
    return UnknownName(f"There is no config key {name!r}{source}{hint}.")


def _decode(value: Any) -> Any:
    """Text that is a Python literal, as that literal: "1e-5", "(224, 224)", "True"."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _coerce(old: Any, raw: Any, name: str, source: str) -> Any:
    """`raw` in the type of the default `old`."""
    value = _decode(raw)
    if old is None or value is None or type(value) is type(old):
        return raw if isinstance(old, str) and isinstance(raw, str) else value
    if isinstance(old, str) and isinstance(raw, str):
        return raw
    if type(old) is float and type(value) is int:
        return float(value)
    if isinstance(old, (list, tuple)) and isinstance(value, (list, tuple)):
        return type(old)(value)
    raise WrongValue(f"{name}{source} takes a value of type {type(old).__name__}, such as {old!r}; got {raw!r} "
                     f"({type(value).__name__}).")
