"""What makes a run's result, in inputs.json of its folder: so that a sweep can tell a result from another one's.

Imports nothing heavy.
"""
from __future__ import annotations

import argparse
import json
import os
from hashlib import sha256
from pathlib import Path

from tools.runs.cell import ROOT

FILE = "inputs.json"
_NOT_INPUTS = {"root", "output_dir", "resume", "list", "print_config", "allow_cpu_shim", "anew"}      # where, not what
_YAMLS = ("config_file", "dataset_config_file")
_FILES = (*_YAMLS, "dataset_dir", "classnames", "extend_cfg")                            # what they hold counts


def describe(args: argparse.Namespace) -> dict:
    """Flags, options and the hashes of the yaml files of one tools/train.py command.

    Args:
        args: parsed by `tools.train.parser()`.
    Returns:
        {"flags": {name: value}, "opts": {KEY: text}, "files": {path: sha256}}; flags that were not given are left out.
    """
    flags = {name: value for name, value in vars(args).items() if name not in (*_NOT_INPUTS, *_YAMLS, "opts")
             and value is not None and value is not False and value not in ("", [])}       # 0 is a seed
    if "model_dir" in flags:                       # the run that is tested, wherever the results lie
        flags["model_dir"] = "/".join(Path(flags["model_dir"]).parts[-4:])
    files = [getattr(args, name) for name in _FILES if getattr(args, name)]
    return {"flags": flags, "opts": dict(zip(args.opts[::2], args.opts[1::2])),
            "files": {"/".join(Path(f).parts[-3:]): _hash(f) for f in files}}


def differences(then: dict, now: dict) -> list[str]:
    """One phrase per thing that was otherwise; empty where both made the same result."""
    found = []
    for kind in ("flags", "opts"):
        old, new = then.get(kind, {}), now.get(kind, {})
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                found.append(f"{key} {old.get(key, 'not set')}, now {new.get(key, 'not set')}")
    old, new = then.get("files", {}), now.get("files", {})
    found += [f"{name} has changed" for name in new if old.get(name) not in (None, new[name])]
    return found + [f"{name} was not read by that run" for name in new if name not in old]


def write(folder: str | Path, args: argparse.Namespace, **more: str | dict) -> None:
    """inputs.json, whole or not at all; `more` is kept next to what `differences` compares."""
    from dassl.files.whole import write_whole

    write_whole(Path(folder, FILE), json.dumps({**describe(args), **more}, indent=2) + "\n")


def read(folder: str | Path) -> dict | None:
    """What `write` wrote there, or None."""
    return read_json(Path(folder) / FILE)


def read_json(path: Path) -> dict | None:
    """A JSON object, or None where there is no file or a cut one (a run that was killed)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def existing(path: str | Path) -> Path:
    """A yaml as named, or the checkout's where the name is relative and the call comes from another folder."""
    given = Path(path).expanduser()
    return ROOT / given if not given.exists() and (ROOT / given).is_file() else given


def name_of(path: str | Path) -> str:
    """The name under which images of one's own are kept: that of their folder, or of their list without its ending."""
    path = Path(os.path.abspath(os.path.expanduser(path)))
    return path.stem if path.suffix.lower() in (".csv", ".tsv", ".txt", ".json") else path.name


def _hash(path: str) -> str:
    """sha256 of a file, or of the names in a folder."""
    path = existing(path)
    if path.is_dir():
        files = sorted(str(file.relative_to(path)) for file in path.rglob("*"))
        return sha256("\n".join(files).encode(errors="surrogateescape")).hexdigest()
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
