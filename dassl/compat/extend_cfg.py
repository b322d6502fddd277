"""`extend_cfg(cfg)` out of somebody's train.py without running it, and what that file does to a config besides.

The file of --extend-cfg is parsed, never imported. Of its top level only what the function needs is executed: the
imports that it uses, constants that it reads, functions and classes that it calls, and what these need in turn.
"""
from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import io
import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from dassl.config import get_cfg_default
from dassl.config.merge import leaves
from dassl.utils.errors import UserError

from .extracting import Script

NAME = "extend_cfg"
_PLACES = ("root", "output_dir", "resume", "model_dir", "config_file", "dataset_config_file")    # of the author's
_USUAL = {NAME, "reset_cfg", "clean_cfg", "merge_from_file", "print", "print_args", "freeze", "defrost", "set_trace"}

logger = logging.getLogger(__name__)


def load_extend_cfg(file: str | Path, given: Mapping[str, Any] | None = None) -> Callable[[CfgNode], None]:
    """The function of that name in `file`, followed by what the file does to a config with its own flags.

    Its flags have their parser's defaults: for `reset_cfg(cfg, args)` and assignments of flags to keys in setup_cfg.
    The function's `after_merging(cfg)` does so again, and what else setup_cfg does to the merged config, such as
    settings per dataset: there, flags win over files.
    What of this fails changes nothing, and a warning says why; statements about other things are named in one.

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
    function, steps, defaults = script.value(NAME), Steps.of(script), _other_defaults(script)
    arguments = [] if _takes(function, CfgNode()) else [_flags(script, given or {})]
    if arguments and not (arguments[0] and _takes(function, CfgNode(), *arguments)):
        raise UserError(f"{NAME}{inspect.signature(function)} of {path} does not take the config alone, nor the config "
                        f"and the flags of a parser in that file. Write a file with an {NAME}(cfg) that gives its "
                        "other arguments, and name that.")

    resets = script.function("reset_cfg") is not None

    def run(nodes: list[ast.stmt], cfg: CfgNode) -> None:
        flags = _flags(script, given or {})
        if resets and flags is not None:
            _call(path, "reset_cfg", lambda: script.value("reset_cfg")(cfg, flags))
        _call(path, "setup_cfg", lambda: script.run(nodes, {steps.flags: flags, steps.config: cfg}))

    def run_or_warn(nodes: list[ast.stmt], cfg: CfgNode) -> None:
        if nodes or resets:
            try:
                with contextlib.redirect_stdout(io.StringIO()):     # a trial: what fails half-way changes nothing
                    run(nodes, cfg.clone())
                run(nodes, cfg)
            except UserError as error:
                logger.warning("%s What it sets is left as it is: give it as KEY VALUE options.", error)

    def extend_cfg(cfg: CfgNode) -> None:
        if new := _put(cfg, defaults):
            logger.warning("The copy of Dassl that %s uses has keys of its own, which only code of its repository "
                           "reads: %s", path, ", ".join(new))
        _call(path, NAME, lambda: function(cfg, *arguments))
        run_or_warn(steps.early, cfg)
        if steps.left_out:
            logger.warning("The function that makes the config in %s also does this, which is not done here: %s.", path,
                           "; ".join(steps.left_out))

    extend_cfg.source, extend_cfg.after_merging = str(path), lambda cfg: run_or_warn(steps.late, cfg)
    return extend_cfg


@dataclass
class Steps:
    """What a setup_cfg(args) does to its config, besides what every one does and this command too.

    Attributes:
        flags, config: what it calls them. early: before files are merged, or from flags alone, which may make keys.
            late: after that.
        left_out: statements about other things, with their lines.
    """

    flags: str = ""
    config: str = ""
    early: list[ast.stmt] = field(default_factory=list)
    late: list[ast.stmt] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, script: Script) -> Steps:
        for function in script.body:
            config = next((node.targets[0].id for node in getattr(function, "body", ()) if isinstance(node, ast.Assign)
                           and isinstance(node.targets[0], ast.Name) and "get_cfg_default(" in ast.unparse(node)), "")
            if config and isinstance(function, ast.FunctionDef) and function.args.args:
                return cls(function.args.args[0].arg, config)._sort(function.body)
        return cls()

    def _sort(self, body: list[ast.stmt]) -> Steps:
        merged = False
        for node in body:
            merged = merged or "merge_from_file(" in ast.unparse(node)
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self.early.append(node)
                self.late.append(node)
            elif _is_usual(node):
                continue
            elif self._changes(node):
                if not merged or self.config not in _reads(node):
                    self.early.append(node)
                if merged:
                    self.late.append(node)
            else:
                self.left_out.append(f"line {node.lineno}: {ast.unparse(node).splitlines()[0]}")
        if all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in self.late):
            self.late = []
        return self

    def _changes(self, node: ast.stmt) -> bool:
        """It sets keys or names, or gives the config to a function."""
        if isinstance(node, (ast.If, ast.For)):
            return all(_is_usual(inner) or self._changes(inner) for inner in (*node.body, *node.orelse))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            given = [part.id for part in (*node.value.args, node.value.func) if isinstance(part, ast.Name)]
            return self.config in given or ast.unparse(node.value.func).startswith(f"{self.config}.")
        return isinstance(node, (ast.Assign, ast.AugAssign))


def _reads(node: ast.stmt) -> set[str]:
    """Names that a statement reads, without the config in `cfg.KEY = ...`."""
    targets = {part for assign in ast.walk(node) if isinstance(assign, ast.Assign) for target in assign.targets
               for part in ast.walk(target)}
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and part not in targets}


def _is_usual(node: ast.stmt) -> bool:
    """It is what every setup_cfg does, and this command too."""
    if isinstance(node, ast.If):
        return all(map(_is_usual, [*node.body, *node.orelse]))
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call):
        name = ast.unparse(call.func).rpartition(".")[2]
        return name in _USUAL or name == "merge_from_list" and ast.unparse(call.args[0]).endswith(".opts")
    return isinstance(node, (ast.Return, ast.Pass, ast.Expr)) or \
        isinstance(node, ast.Assign) and "get_cfg_default(" in ast.unparse(node.value)


def _other_defaults(script: Script) -> dict[str, Any]:
    """Keys and values in which the defaults that a script starts from differ from Dassl's: those of its own copy."""
    source = next((node.module for node in script.providers.get("get_cfg_default", ())
                   if isinstance(node, ast.ImportFrom) and node.module), "")
    *package, last = source.split(".")
    theirs = None
    if last == "config" and package and package[-1].endswith("dassl"):
        home, inner = script.path.resolve().parent, Path(*package, last, "defaults.py")
        if file := next((found for depth in range(3) for found in sorted(home.glob(f"{'*/' * depth}{inner}"))), None):
            copy = Script(file, "_C")
            theirs = copy.value("_C") if "_C" in copy.providers else None
    elif source:
        theirs = script.value("get_cfg_default")()
    usual = dict(leaves(get_cfg_default()))
    return {key: value for key, value in leaves(theirs or CfgNode())
            if key not in usual or _as_list(value) != _as_list(usual[key])}


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _put(cfg: CfgNode, values: Mapping[str, Any]) -> list[str]:
    """Set dotted keys, whatever their kinds; returns those outside TRAINER that were not there."""
    new = []
    for key, value in values.items():
        *sections, name = key.split(".")
        node = cfg
        for section in sections:
            node = node.setdefault(section, CfgNode())
        if name not in node and sections[:1] != ["TRAINER"]:
            new.append(key)
        node[name] = value
    return new


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


def _call(path: Path, name: str, function: Callable[[], None]) -> None:
    """Call something out of the file; a failure names its line there."""
    try:
        function()
    except (Exception, SystemExit) as error:
        lines = [step.lineno for step in traceback.extract_tb(error.__traceback__) if step.filename == str(path)]
        raise UserError(f"{path}, line {lines[-1] if lines else '?'}, in {name}: {type(error).__name__}: {error}. "
                        f"Only what {name} needs of that file is run.") from error
