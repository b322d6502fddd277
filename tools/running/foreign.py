"""Somebody else's code in a run: `extend_cfg(cfg)` out of a train.py without running it, and what code may ask for.

The file of --extend-cfg is parsed, never imported. Of its top level only what the function needs is executed: the
imports that it uses, constants that it reads, functions and classes that it calls, and what these need in turn.
"""
from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from clip import clip
from clip.errors import InputError
from dassl.compat import repository
from dassl.compat.cpu_shim import cuda_of_others
from dassl.config import CfgNode
from dassl.utils.errors import UserError

from .extracting import Script
from .their_files import files_of_repositories

NAME = "extend_cfg"
_PLACES = ("root", "output_dir", "resume", "model_dir", "config_file", "dataset_config_file")    # of the author's
_USUAL = {NAME, "reset_cfg", "clean_cfg", "merge_from_file", "print", "freeze", "defrost", "set_trace"}

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def code_of_others(cuda_on_cpu: bool) -> Iterator[None]:
    """Around whatever may run a plugin: what CLIP refuses, and calls for CUDA where there is none, are told as ours.

    Its files are found in its repository, and the few-shot lists of ours under the names of CoOp's pickles.

    Args:
        cuda_on_cpu: run these on the CPU, see `cuda_of_others`.
    """
    from datasets.kept_lists import coop_pickle

    try:
        with cuda_of_others(cuda_on_cpu), files_of_repositories(coop_pickle):
            yield
    except InputError as error:
        raise UserError(str(error)) from error


def share_weights(module: ModuleType) -> None:
    """A repository's copy of OpenAI's clip.py finds weights as ours does: also "tiny", files, what CLIP_CACHE holds."""
    models, download = vars(module).get("_MODELS"), vars(module).get("_download")
    if isinstance(models, dict) and callable(download):
        published = {url.rpartition("/clip/models/")[2]: url for url in clip._MODELS.values()}

        def find(url: str, *args, **kwargs) -> str:
            known = published.get(url.rpartition("/clip/models/")[2], url)
            is_ours = known in published.values() or Path(known).expanduser().is_file()
            return clip._download(known) if is_ours else download(url, *args, **kwargs)

        module._MODELS, module._download = type(clip._MODELS)({**clip._MODELS, **models}), find


repository.after_import.append(share_weights)


def load_extend_cfg(file: str | Path, given: Mapping[str, Any] | None = None) -> Callable[[CfgNode], None]:
    """The function of that name in `file`, followed by what the file does to a config with its own flags.

    Its flags have their parser's defaults. `reset_cfg(cfg, args)` and assignments of flags to keys in its setup_cfg are
    run, or the warning says why not; other statements there, which depend on the merged config, are named in a warning.

    Args:
        given: flags of this run, in the place of flags of the file with the same names.
    Raises:
        UserError: no such file, a syntax error in it, no `extend_cfg(cfg)` at its top level, or what that needs fails.
    """
    path = Path(file).expanduser()
    script = Script(path, NAME)
    if script.function(NAME) is None:
        taken = next((f" It imports one from {node.module}: give that file." for node in script.providers.get(NAME, ())
                      if isinstance(node, ast.ImportFrom)), "")
        raise UserError(f"{path} defines no {NAME}(cfg) at its top level.{taken} --extend-cfg takes the file that "
                        "does; in repositories of CoOp's kind that is train.py.")
    function, setup = script.value(NAME), _setup_of(script)
    arguments = [] if _takes(function, CfgNode()) else [_flags(script, given or {})]
    if arguments and not (arguments[0] and _takes(function, CfgNode(), *arguments)):
        raise UserError(f"{NAME}{inspect.signature(function)} of {path} does not take the config alone, nor the config "
                        f"and the flags of a parser in that file. Write a file with an {NAME}(cfg) that gives its "
                        "other arguments, and name that.")
    reset, from_flags, left_out = script.function("reset_cfg"), [], []
    for node in setup.body if setup else ():
        if _sets_from_flags(node, setup):
            from_flags.append(node)
        elif not _is_usual(node):
            left_out.append(f"line {node.lineno}: {ast.unparse(node).splitlines()[0]}")

    def set_from_flags(cfg: CfgNode) -> None:
        flags = _flags(script, given or {})
        if flags is not None and reset:
            _call(path, lambda: script.value("reset_cfg")(cfg, flags))
        if flags is not None and from_flags:
            names = {**script.space, setup.args.args[0].arg: flags, _config_of(setup): cfg}
            _call(path, lambda: exec(compile(ast.Module(from_flags, []), str(path), "exec"), names))

    def extend_cfg(cfg: CfgNode) -> None:
        _call(path, lambda: function(cfg, *arguments))
        if reset or from_flags:
            try:
                set_from_flags(cfg.clone())
                set_from_flags(cfg)
            except UserError as error:
                logger.warning("%s What it sets from its flags is left as it is: give it as KEY VALUE options.", error)
        if left_out:
            logger.warning("%s also changes the merged config, which --extend-cfg does not do (%s). Give what it sets "
                           "as KEY VALUE options.", path, "; ".join(left_out))

    extend_cfg.source = str(path)
    return extend_cfg


def _takes(function: Callable, *arguments: Any) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    return True


def _flags(script: Script, given: Mapping[str, Any]) -> argparse.Namespace | None:
    """Defaults of the script's parser, with this run's flags; places on the author's machine are left out."""
    flags = script.flags()
    if flags is not None:
        flags = argparse.Namespace(**{**vars(flags), **{name: "" for name in _PLACES if name in flags},
                                      **{name: value for name, value in given.items() if name in flags and value}})
    return flags


def _setup_of(script: Script) -> ast.FunctionDef | None:
    """The function that makes the config and merges files into it, if it takes the flags."""
    functions = (node for node in script.body if isinstance(node, ast.FunctionDef) and node.args.args)
    return next((node for node in functions if _config_of(node)), None)


def _config_of(function: ast.FunctionDef) -> str:
    """What a function calls the config that get_cfg_default() gives it; "" where it makes none."""
    return next((node.targets[0].id for node in function.body if isinstance(node, ast.Assign)
                 and isinstance(node.targets[0], ast.Name) and "get_cfg_default(" in ast.unparse(node.value)), "")


def _sets_from_flags(node: ast.stmt, setup: ast.FunctionDef) -> bool:
    """`cfg.KEY = args.flag`, perhaps below an if."""
    if isinstance(node, ast.If):
        return not node.orelse and all(_sets_from_flags(inner, setup) for inner in node.body) \
            and _config_of(setup) not in _names(node.test)
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith(f"{_config_of(setup)}.") \
        and _names(node.value) == {setup.args.args[0].arg}


def _names(node: ast.expr) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _is_usual(node: ast.stmt) -> bool:
    """It is what every setup_cfg does, and this command too."""
    if isinstance(node, ast.If):
        return all(map(_is_usual, [*node.body, *node.orelse]))
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call):
        name = ast.unparse(call.func).rpartition(".")[2]
        return name in _USUAL or name == "merge_from_list" and ast.unparse(call.args[0]).endswith(".opts")
    return isinstance(node, (ast.Return, ast.Pass, ast.Expr, ast.Import, ast.ImportFrom)) or \
        isinstance(node, ast.Assign) and "get_cfg_default(" in ast.unparse(node.value)


def _call(path: Path, function: Callable[[], None]) -> None:
    """Call something out of the file; a failure names its line there."""
    try:
        function()
    except (Exception, SystemExit) as error:
        lines = [step.lineno for step in traceback.extract_tb(error.__traceback__) if step.filename == str(path)]
        raise UserError(f"{path}, line {lines[-1] if lines else '?'}, in {NAME}: {type(error).__name__}: {error}. "
                        "Only what this function needs of that file is run.") from error
