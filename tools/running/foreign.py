"""Somebody else's code in a run: `extend_cfg(cfg)` out of a train.py without running it, and what code may ask for.

The file of --extend-cfg is parsed, never imported. Of its top level only what the function needs is executed: the
imports that it uses, constants that it reads, functions and classes that it calls, and what these need in turn.
"""
from __future__ import annotations

import ast
import builtins
import contextlib
import dis
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType

from clip.errors import InputError
from dassl.compat.cpu_shim import cuda_of_others
from dassl.config import CfgNode
from dassl.utils.errors import UserError

NAME = "extend_cfg"
_READS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}
_CHANGES = {"append", "add", "extend", "insert", "setdefault", "update"}      # methods by which constants are completed
_FLAGS = annotations.compiler_flag            # of the future above: what an annotation names is not needed


@contextlib.contextmanager
def code_of_others(cuda_on_cpu: bool) -> Iterator[None]:
    """Around whatever may run a plugin: what CLIP refuses, and calls for CUDA where there is none, are told as ours.

    Args:
        cuda_on_cpu: run these on the CPU, see `cuda_of_others`.
    """
    try:
        with cuda_of_others(cuda_on_cpu):
            yield
    except InputError as error:
        raise UserError(str(error)) from error


def load_extend_cfg(file: str | Path) -> Callable[[CfgNode], None]:
    """The function of that name in `file`.

    Raises:
        UserError: no such file, a syntax error in it, no `extend_cfg(cfg)` at its top level, or what that needs fails.
    """
    path = Path(file).expanduser()
    tree = _parsed(path)
    providers = _providers(tree)
    makers = providers.get(NAME, [])
    if not any(isinstance(node, ast.FunctionDef) for node in makers):
        taken = next((f" It imports one from {node.module}: give that file." for node in makers
                      if isinstance(node, ast.ImportFrom)), "")
        raise UserError(f"{path} defines no {NAME}(cfg) at its top level.{taken} --extend-cfg takes the file that "
                        "does; in repositories of CoOp's kind that is train.py.")
    space = {"__name__": f"{path.stem} (--extend-cfg)", "__file__": str(path.resolve())}
    with _beside(path):
        for node in _needed(NAME, providers):
            _run(node, space, path)
    return _told(space[NAME], path)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Modules in the file's folder can be imported, after all of ours."""
    folder = str(path.resolve().parent)
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.reverse()
        sys.path.remove(folder)
        sys.path.reverse()


def _parsed(path: Path) -> ast.Module:
    if not path.is_file():
        raise UserError(f"--extend-cfg takes a Python file that defines {NAME}(cfg); there is none at "
                        f"{path.absolute()}.")
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line, reason = getattr(error, "lineno", None) or 1, getattr(error, "msg", error)
        raise UserError(f"{path}, line {line}, is not Python: {reason}. --extend-cfg takes the file that defines "
                        f"{NAME}(cfg).") from error


def _providers(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """For every name of the top level, the statements that make it, in their order; "*" for star imports."""
    found: dict[str, list[ast.stmt]] = {}
    for node in _statements(tree.body):
        for name in _makes(node):
            found.setdefault(name, []).append(node)
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements, each import split into its names; a try or an if is one statement of its own."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                one = ast.Import([alias]) if isinstance(node, ast.Import) else \
                    ast.ImportFrom(node.module, [alias], node.level)
                yield ast.copy_location(one, node)
        elif not _is_main(node):
            yield node


def _is_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def _makes(node: ast.stmt) -> list[str]:
    """Names that a statement gives a value to, or completes."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or (alias.name.split(".")[0] if isinstance(node, ast.Import) else alias.name)
                for alias in node.names]
    if isinstance(node, ast.Assign):
        return [name for target in node.targets for name in _targets(target)]
    if isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        return _targets(node.target) if node.value is not None else []
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        return _targets(node.value.func.value) if node.value.func.attr in _CHANGES else []
    if isinstance(node, (ast.If, ast.Try)):
        bodies = [node.body, node.orelse, getattr(node, "finalbody", []),
                  *(handler.body for handler in getattr(node, "handlers", []))]
        inner = [statement for body in bodies for statement in body]
        return sorted({name for statement in inner for name in _makes(statement)}) if all(map(_is_plain, inner)) else []
    return []


def _is_plain(node: ast.stmt) -> bool:
    """It only makes names: a block of such statements may run as a whole."""
    return isinstance(node, (ast.Pass, ast.Raise)) or bool(_makes(node))


def _targets(target: ast.expr) -> list[str]:
    """x of `x`, `x["key"]` and `x.field`; every one of `x, y`."""
    if isinstance(target, (ast.Tuple, ast.List)):
        return [name for item in target.elts for name in _targets(item)]
    while isinstance(target, (ast.Attribute, ast.Subscript, ast.Starred)):
        target = target.value
    return [target.id] if isinstance(target, ast.Name) else []


def _needed(name: str, providers: dict[str, list[ast.stmt]]) -> list[ast.stmt]:
    """The statements that `name` needs, each once, in the order of the file."""
    chosen, waiting, seen = [], [name], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        unknown = name not in providers and not hasattr(builtins, name) and not name.startswith("__")
        for node in providers.get("*" if unknown else name, []):
            if node not in chosen:
                chosen.append(node)
                waiting += _reads(_compiled(node, "needed"))
    return sorted(chosen, key=lambda node: (node.lineno, node.col_offset))


def _compiled(node: ast.stmt, filename: str) -> CodeType:
    return compile(ast.Module([node], type_ignores=[]), filename, "exec", flags=_FLAGS, dont_inherit=True)


def _reads(code: CodeType) -> set[str]:
    """Names of the top level that the code, or a function in it, reads."""
    own = {step.argval for step in dis.get_instructions(code) if step.opname in _READS}
    return own.union(*(_reads(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _run(node: ast.stmt, space: dict, path: Path) -> None:
    try:
        exec(_compiled(node, str(path)), space)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path}, line {node.lineno}, which {NAME} needs, fails: {type(error).__name__}: {error}. "
                        "Nothing else of that file was run.") from error


def _told(function: Callable, path: Path) -> Callable[[CfgNode], None]:
    """The function, whose failures name the file and the line."""
    try:
        inspect.signature(function).bind(CfgNode())
    except TypeError as error:
        raise UserError(f"{NAME}{inspect.signature(function)} of {path} does not take the config alone. Write a file "
                        f"with an {NAME}(cfg) that gives its other arguments, and name that.") from error

    def extend_cfg(cfg: CfgNode) -> None:
        try:
            with _beside(path):
                function(cfg)
        except (Exception, SystemExit) as error:
            lines = [step.lineno for step in traceback.extract_tb(error.__traceback__) if step.filename == str(path)]
            raise UserError(f"{path}, line {lines[-1] if lines else '?'}, in {NAME}: {type(error).__name__}: {error}. "
                            "Only what this function needs of that file is run.") from error

    extend_cfg.source = str(path)
    return extend_cfg
