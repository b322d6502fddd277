"""A run as a folder that can be given away, and back: tensors, settings, classes, results; nothing that runs.

config.yaml, classes.json, results.json   as in the run, without paths of the machine and without the command
prompt_learner.safetensors and .json      what was learned, see `dassl.utils.portable`; so for every learned model
README.md                                 the model card
"""
from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import yaml

from dassl.utils import UserError, save_checkpoint, write_json
from dassl.utils.portable import ENDING, read_portable, write_portable
from dassl.utils.tools import write_text
from dassl.utils.torchtools import load_checkpoint
from tools.labs.hub.card import card
from tools.runs.folder import BEST, CLASSES, CONFIG, LEARNER
from tools.runs.record import FILE as RESULTS
from tools.runs.run import Run

CARD = "README.md"
FILES = (CONFIG, CLASSES, RESULTS, CARD, f"*{ENDING}", "*.json")          # of a shared folder; nothing else is taken
_LARGEST = {".yaml": 2 ** 20, ".json": 2 ** 26, ".md": 2 ** 20}         # bytes of a text file from elsewhere
_NAME = re.compile(r"[A-Za-z]\w{0,63}")                                   # of a learned model
_MACHINE = ("OUTPUT_DIR", "RESUME", "ROOT", "DIR", "INIT_WEIGHTS", "DESCRIPTIONS", "CLASSNAMES")


def pack(run: Run, folder: Path, title: str, licence: str = "") -> Path:
    """Write a run into a new folder.

    Args:
        title: where it will be found: user/repository, or ./folder. licence: its identifier on the hub, e.g. "mit".
    Raises:
        UserError: it has nothing learned of its own, or the folder holds something already.
    """
    if run.learned_in is not run:
        raise UserError(f"{run.folder} tested what {run.learned_in.folder} had learned. Share that one.")
    settings = without_paths(run.settings)
    classes = {"trainer": run.trainer, "dataset": run.dataset, "template": run.template, **run.classes,
               "classnames": run.classnames}
    classes["backbone"] = {**run.backbone, "name": settings["MODEL"]["BACKBONE"]["NAME"]}
    results = {key: value for key, value in run.record.items() if key != "command"}
    results |= {"cell": without_paths(results["cell"])} if "cell" in results else {}
    results |= {"backbone": classes["backbone"]} if "backbone" in results else {}
    with _whole(folder) as part:
        facts = {"trainer": run.trainer, "dataset": run.dataset, "backbone": classes["backbone"]}
        for name, checkpoint in _checkpoints(run):
            state = load_checkpoint(str(checkpoint))
            write_portable(part / name, state["state_dict"], {"model": name, "epoch": state.get("epoch"), **facts})
        if run.trainer != "ZeroshotCLIP" and not list(part.glob(f"*{ENDING}")):
            raise UserError(f"{run.folder} holds no checkpoint, so there is nothing to share: train it to its end.")
        write_text(yaml.safe_dump(settings, sort_keys=True, allow_unicode=True), str(part / CONFIG))
        write_json(classes, str(part / CLASSES))
        if results:
            write_json(results, str(part / RESULTS))
        write_text(card(title, {**classes, "dataset": run.dataset_name}, results, settings, licence), str(part / CARD))
    return folder


def unpack(shared: Path, folder: Path) -> Path:
    """Make a run folder of a shared one; what it names is plain data, and nothing of it is run.

    Raises:
        UserError: it is no shared run, was changed or cut, or the folder holds something already.
    """
    if not (shared / CONFIG).is_file() or not (shared / CLASSES).is_file():
        raise UserError(f"{shared} is no shared run: it lacks {CONFIG} or {CLASSES}, which tools/share.py push writes.")
    settings, classes = _settings(shared / CONFIG), _classes(shared / CLASSES)
    with _whole(folder) as part:
        write_text(yaml.safe_dump(settings, sort_keys=True, allow_unicode=True), str(part / CONFIG))
        write_json(classes, str(part / CLASSES))
        if (shared / RESULTS).is_file():
            write_json(_object(shared / RESULTS), str(part / RESULTS))
        if (shared / CARD).is_file():
            write_text(_text(shared / CARD), str(part / CARD))
        for file in sorted(shared.glob(f"*{ENDING}")):
            if not _NAME.fullmatch(file.stem):
                raise UserError(f"{file.name} is no name of a learned model; expected are letters, digits and _.")
            tensors, facts = read_portable(file)
            epoch = facts.get("epoch")
            save_checkpoint({"state_dict": tensors, "epoch": epoch if isinstance(epoch, int) and epoch >= 0 else 0},
                            str(part / file.stem))
    return folder


def without_paths(settings: dict) -> dict:
    """Settings without places of the machine: keys that name one are empty, other paths keep their last part."""
    plain = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            plain[name] = without_paths(value)
        elif name in _MACHINE and isinstance(value, str):
            plain[name] = ""
        else:
            plain[name] = _last_part(value) if isinstance(value, str) else value
    return plain


def _last_part(text: str) -> str:
    path = PureWindowsPath(text) if "\\" in text else PurePosixPath(text)
    return path.name if path.is_absolute() or text.startswith(("~", "./", "../", "..\\")) else text


def _checkpoints(run: Run) -> Iterator[tuple[str, Path]]:
    """(name, file) of every learned model: of the checkpoint that the run was tested with, or of the chosen epoch."""
    for folder in sorted(run.folder.iterdir()):
        if not any((folder / name).is_file() for name in ("checkpoint", BEST)) or not _NAME.fullmatch(folder.name):
            continue
        yield folder.name, run.checkpoint if folder.name == LEARNER else run.checkpoint_file(folder.name, run.epoch)


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A new folder that is there whole or not at all: `with _whole(folder) as part: ...` fills part."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty; nothing of it is replaced. Name another folder, or "
                        "remove it first.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        part = Path(temporary, "part")
        part.mkdir()
        yield part
        part.replace(folder)


def _settings(file: Path) -> dict:
    """A config from elsewhere: plain YAML without aliases, which could unfold without end."""
    text = _text(file)
    try:
        if any(isinstance(token, (yaml.AliasToken, yaml.TagToken)) for token in yaml.scan(text)):
            raise UserError(f"{file} holds YAML aliases or tags, which no config of ours has. It is not read.")
        settings = yaml.safe_load(text)
        named = settings["TRAINER"]["NAME"], settings["DATASET"]["NAME"], settings["MODEL"]["BACKBONE"]["NAME"]
    except (yaml.YAMLError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{file} is no config of a run: {' '.join(str(error).split())}.") from error
    if not all(isinstance(name, str) for name in named):
        raise UserError(f"{file} is no config of a run: its trainer, dataset and backbone are {named}.")
    return without_paths(settings)


def _classes(file: Path) -> dict:
    content = _object(file)
    names, backbone = content.get("classnames"), content.get("backbone")
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names) and isinstance(backbone, dict)
            and isinstance(content.get("template"), (str, type(None)))):
        raise UserError(f"{file} names no classes: it holds a list of texts as \"classnames\", a \"template\" and a "
                        "\"backbone\". Fetch it again.")
    return content


def _object(file: Path) -> dict:
    try:
        content = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not readable JSON ({error}). Fetch it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}, not an object. Fetch it again.")
    return content


def _text(file: Path) -> str:
    if (size := file.stat().st_size) > _LARGEST[file.suffix]:
        raise UserError(f"{file} has {size:,} bytes, more than any of ours ({_LARGEST[file.suffix]:,}). It is not "
                        "read.")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not text in UTF-8 ({error}). Fetch it again.") from error
