"""Statements out of somebody's script: what a name of its top level needs, and nothing else, is run."""
from __future__ import annotations

import argparse
import ast
import builtins
import contextlib
import dis
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any
from unittest import mock

from dassl.utils.errors import UserError

from . import repository

_READS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}
_CHANGES = {"append", "add", "extend", "insert", "setdefault", "update", "add_argument", "set_defaults"}
_GROUPS = {"add_argument_group", "add_mutually_exclusive_group"}            # of a parser; what they give completes it
_FLAGS = annotations.compiler_flag            # of the future above: what an annotation names is not needed


class Script:
    """A script of somebody's, parsed and never run as a whole.

    Its imports are those of its repository (`dassl.compat.repository`), and its parsers see an empty command line.
    """

    def __init__(self, path: Path, name: str):
        """`name`: the function that it was given for, for messages."""
        self.path, self.name, tree = path, name, _parsed(path, name)
        self.body = tree.body
        self.providers = _providers(tree.body)
        self._flags, self._done = None, set()
        main = [statement for node in tree.body if _is_main(node) for statement in node.body]
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        for body in (main, tree.body, *(node.body for node in functions)):
            self._flags = self._flags or next(filter(None, map(self._parses, body)), None)
            if self._flags:                     # what only a main block or a function makes, its parser above all
                self.providers = {**_providers(body), **self.providers}
                break
        package = repository.package_around(path.resolve().parent)
        self.space = {"__name__": f"{package}.{path.stem} (--extend-cfg)", "__file__": str(path.resolve()),
                      "__builtins__": repository.builtins_of(package)}

    def function(self, name: str) -> ast.FunctionDef | None:
        """The function of that name at the top level."""
        return next((node for node in self.providers.get(name, ()) if isinstance(node, ast.FunctionDef)), None)

    def value(self, name: str) -> Any:
        """What a name of the top level stands for, after running the statements that it needs.

        Raises:
            UserError: one of them fails.
        """
        with _empty_command_line():
            for node in _needed(name, self.providers):
                if node not in self._done:
                    self._done.add(node)
                    self._run(node)
        return self.space[name]

    def run(self, nodes: list[ast.stmt], names: dict[str, Any]) -> None:
        """Execute statements of a function, in which `names` are local, after what they need of the top level."""
        for name in set().union(*(_reads(_compiled(node, "needed")) for node in nodes)) - names.keys():
            if name in self.providers:
                self.value(name)
        exec(compile(ast.Module(nodes, []), str(self.path), "exec"), {**self.space, **names})

    def flags(self) -> argparse.Namespace | None:
        """The defaults of its parser; None where it has none."""
        if self._flags is None:
            return None
        self.value(self._flags.partition("(")[0].partition(".")[0])
        with _empty_command_line():
            return eval(self._flags, self.space)

    def _parses(self, node: ast.stmt) -> str | None:
        """What stands for parsed flags: a name that the statement gives them, or the call in `main(parse())`."""
        for call in (inner for inner in ast.walk(node) if isinstance(inner, ast.Call)
                     and isinstance(node, (ast.Assign, ast.Expr))):
            words, by = ast.unparse(call.func), self.function(ast.unparse(call.func))
            if words.endswith((".parse_args", ".parse_known_args")) or by and ".parse_args(" in ast.unparse(by):
                return _targets(node.targets[0])[0] if isinstance(node, ast.Assign) else ast.unparse(call)
        return None

    def _run(self, node: ast.stmt) -> None:
        try:
            exec(_compiled(node, str(self.path)), self.space)
        except (Exception, SystemExit) as error:
            raise UserError(f"{self.path}, line {node.lineno}, which {self.name} needs, fails: {type(error).__name__}: "
                            f"{error}. Nothing else of that file was run.") from error


@contextlib.contextmanager
def _empty_command_line() -> Iterator[None]:
    """Parsers give their defaults; nothing is required."""
    parse = argparse.ArgumentParser.parse_known_args

    def defaults(self, args=None, namespace=None):
        for part in (*self._actions, *self._mutually_exclusive_groups):
            part.required = False
        return parse(self, [], namespace)

    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", defaults):
        yield


def _parsed(path: Path, name: str) -> ast.Module:
    if not path.is_file():
        raise UserError(f"--extend-cfg takes a Python file that defines {name}(cfg); there is none at "
                        f"{path.absolute()}.")
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line, reason = getattr(error, "lineno", None) or 1, getattr(error, "msg", error)
        raise UserError(f"{path}, line {line}, is not Python: {reason}. --extend-cfg takes the file that defines "
                        f"{name}(cfg).") from error


def _providers(body: list[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """For every name of the top level, the statements that make it, in their order; "*" for star imports."""
    found: dict[str, list[ast.stmt]] = {}
    for node in _statements(body):
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
        call = node.value.func if isinstance(node.value, ast.Call) else None
        if isinstance(call, ast.Attribute) and call.attr in _GROUPS:
            return [*_targets(node.targets[0]), *_targets(call.value)]
        return [name for target in node.targets for name in _targets(target)]
    if isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        return _targets(node.target) if node.value is not None else []
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        return _targets(node.value.func.value) if node.value.func.attr in _CHANGES else []
    if isinstance(node, (ast.If, ast.Try, ast.For)):
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
                waiting += [*_reads(_compiled(node, "needed")), *_makes(node)]
    return sorted(chosen, key=lambda node: (node.lineno, node.col_offset))


def _compiled(node: ast.stmt, filename: str) -> CodeType:
    return compile(ast.Module([node], type_ignores=[]), filename, "exec", flags=_FLAGS, dont_inherit=True)


def _reads(code: CodeType) -> set[str]:
    """Names of the top level that the code, or a function in it, reads."""
    own = {step.argval for step in dis.get_instructions(code) if step.opname in _READS}
    return own.union(*(_reads(inner) for inner in code.co_consts if isinstance(inner, CodeType)))
