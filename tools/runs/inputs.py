"""What makes a run's result, in inputs.json of its folder: so that a sweep can tell a result from another one's.

Imports nothing heavy.
"""
from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import yaml

from tools.runs.cell import NO_EFFECT, ROOT

FILE = "inputs.json"
_NOT_INPUTS = {"root", "output_dir", "resume", "list", "print_config", "allow_cpu_shim", "anew"}      # where, not what
_PLACES = ("dataset_dir", "classnames")                     # flags that are paths
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
    if tests_itself(args):                         # what it has learned once more: a part of the same run
        del flags["eval_only"], flags["model_dir"]
    if "model_dir" in flags:                       # the run that is tested, wherever the results lie
        flags["model_dir"] = "/".join(Path(flags["model_dir"]).parts[-4:])
    files = [getattr(args, name) for name in _FILES if getattr(args, name)]
    return {"flags": flags, "opts": dict(zip(args.opts[::2], args.opts[1::2])),
            "files": {"/".join(Path(os.path.normpath(f)).parts[-3:]): _hash(f) for f in files}}


def words_of(given: Mapping) -> str:
    """The user's file of class names and template, as short as tells them apart: "names-1f3a9c-a_photo_of_a-90b2"."""
    flags, found = given.get("flags", {}), []
    if names := flags.get("classnames"):
        content = next((value for file, value in given.get("files", {}).items()
                        if Path(file).name == Path(names).name), names)
        found.append(f"{_plain(Path(names).stem)}-{content[:6]}")
    if template := flags.get("template"):
        found.append(f"{_plain(template)}-{sha256(template.encode()).hexdigest()[:4]}")
    return "-".join(found)


def _plain(text: str) -> str:
    """Letters and digits of any text, for the name of a folder."""
    return re.sub(r"\W+", "_", text)[:24].strip("_").lower()


def words_of_flags(flags: Sequence[str]) -> str:
    """`words_of` --template and --classnames among flags and their values."""
    given = {flag.removeprefix("--"): value for flag, value in zip(flags, flags[1:])}
    names = given.get("classnames", "")
    return words_of({"flags": given, "files": {names: _hash(names)} if names else {}})


def tests_itself(args: argparse.Namespace) -> bool:
    """Whether a command only tests, in a run's own folder, what that run has learned."""
    return bool(args.eval_only and args.model_dir and args.output_dir
                and os.path.realpath(args.model_dir) == os.path.realpath(args.output_dir))


def differences(then: dict, now: dict) -> list[str]:
    """One phrase per thing that was otherwise and can change a result; empty where both made the same one."""
    found = []
    for kind in ("flags", "opts"):
        old, new = then.get(kind, {}), now.get(kind, {})
        for key in sorted({*old, *new} - NO_EFFECT):
            if not _same(key, old.get(key), new.get(key)):
                found.append(f"{key} {old.get(key, 'not set')}, now {new.get(key, 'not set')}")
    old = then.get("files", {})
    for name, content in now.get("files", {}).items():
        known = next((value for other, value in old.items()
                      if other == name or f"/{other}".endswith(f"/{name}") or f"/{name}".endswith(f"/{other}")), None)
        if known != content:
            found.append(f"{name} has changed" if known else f"{name} is new: the earlier run did not read it")
    return found


def _same(key: str, old, new) -> bool:
    """Whether a flag or option is the same; a place may be written in several ways."""
    if key in _PLACES and old and new:                      # of the file of names its content counts, in `files`
        return key == "classnames" or _place(old) == _place(new)
    return old == new


def write(folder: str | Path, args: argparse.Namespace, **more: str | dict) -> None:
    """inputs.json, whole or not at all; `more` is kept next to what `differences` compares."""
    from dassl.files.whole import write_whole

    images = {"images": _place(args.dataset_dir)} if args.dataset_dir else {}
    write_whole(Path(folder, FILE), json.dumps({**describe(args), **images, **more}, indent=2) + "\n")


def read(folder: str | Path) -> dict | None:
    """What `write` wrote there, or None."""
    return read_json(Path(folder) / FILE)


def read_json(path: Path) -> dict | None:
    """A JSON object, or None where there is no file or a cut one (a run that was killed)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def parse_yaml(text: str):
    """Plain values, by PyYAML's loader in C where it has it, which takes an eighth of the other one's time.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def existing(path: str | Path) -> Path:
    """A yaml as named, or the checkout's where the name is relative and the call comes from another folder."""
    given = Path(path).expanduser()
    return ROOT / given if not given.exists() and (ROOT / given).is_file() else given


def own_flags(dataset_dir: str, template: str | None, classnames: str | None) -> tuple[str, ...]:
    """The flags of tools/train.py that name images of one's own, those that were not given left out."""
    flags = {"--dataset-dir": dataset_dir, "--template": template, "--classnames": classnames}
    return tuple(word for pair in flags.items() if pair[1] for word in pair)


def name_of(path: str | Path) -> str:
    """The name under which images of one's own are kept: that of their folder, or of their list without its ending."""
    path = Path(os.path.abspath(os.path.expanduser(path)))
    return path.stem if path.suffix.lower() in (".csv", ".tsv", ".txt", ".json") else path.name


def own_name(output: str | Path, path: str | Path) -> str:
    """What images of one's own are called below `output`: as `name_of`, unless that name is of other images there.

    A list "fruit.csv" next to a folder "fruit" is called "fruit.csv" then, and what comes after these gets some letters
    of the sha256 of its place.
    """
    from tools.runs.folder import below

    place = _place(path)
    for name in dict.fromkeys((name_of(path), Path(place).name)):
        contents = [read(run.folder) or {} for run in below(Path(output, name))]
        held = [content.get("images") or content.get("flags", {}).get("dataset_dir") for content in contents]
        if all(other and _place(other) == place for other in held):
            return name
    return f"{name_of(path)}-{sha256(place.encode()).hexdigest()[:6]}"


def _place(path: str | Path) -> str:
    return os.path.realpath(os.path.expanduser(path))


def _hash(path: str) -> str:
    """sha256 of a file, or of the names in a folder."""
    path = existing(path)
    if path.is_dir():
        files = sorted(str(file.relative_to(path)) for file in path.rglob("*"))
        return sha256("\n".join(files).encode(errors="surrogateescape")).hexdigest()
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
