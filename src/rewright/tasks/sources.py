"""Static checks of tool sources: is the function defined, and does its signature match the schema?"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import re
import symtable
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

__all__ = ["Problem", "source_problems"]

Problem = tuple[Literal["error", "warning"], str, str]
"""(severity, kind of finding, message)."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def source_problems(name: str, source: str, schema: dict[str, Any]) -> Iterator[Problem]:
    """Yield the problems in the source of the tool `name`, also compared with its OpenAI function schema."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings such as invalid escapes are not ours to report
            tree = ast.parse(source)
            compile(source, f"<{name}>", "exec", dont_inherit=True)
    except SyntaxError as problem:
        yield "error", "source-syntax", f"its source is not valid Python: {problem.msg} (line {problem.lineno})"
        return
    except (ValueError, RecursionError, MemoryError) as problem:
        yield "error", "source-syntax", f"its source can't be compiled: {str(problem) or type(problem).__name__}"
        return
    for module in sorted(_imports(tree)):
        if not _importable(module):
            yield "warning", "import-missing", f"its source imports {module!r}, which is not installed here"
    for undefined in sorted(_undefined(name, source)):
        yield "warning", "undefined-name", f"its source uses {undefined!r}, which is defined nowhere"
    functions = [node for node in tree.body if isinstance(node, _Function) and node.name == name]
    if functions:
        yield from _signature_problems(functions[-1], schema)
    elif name not in _assigned(tree):
        defined = ", ".join(node.name for node in tree.body if isinstance(node, _Function)) or "no function"
        yield "error", "source-no-function", f"its source defines no function of that name; it defines {defined}"


def _signature_problems(function: _Function, schema: dict[str, Any]) -> Iterator[Problem]:
    if isinstance(function, ast.AsyncFunctionDef):
        yield "error", "source-async", "its function is async, and tools are called as plain functions"
    arguments = function.args
    by_position = [*arguments.posonlyargs, *arguments.args]
    required = {each.arg for each in by_position[: len(by_position) - len(arguments.defaults)]}
    required |= {
        each.arg for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value is None
    }
    accepted = {each.arg for each in (*arguments.args, *arguments.kwonlyargs)}
    parameters = schema.get("function", {}).get("parameters") or {}
    properties = parameters.get("properties") or {}
    if not isinstance(properties, dict):
        return
    required_by_schema = parameters.get("required")
    asked = {name for name in properties if isinstance(required_by_schema, list) and name in required_by_schema}
    for each in arguments.posonlyargs:
        yield "error", "signature", f"its parameter {each.arg!r} is positional only, and tools are called by keyword"
    if arguments.kwarg is None:
        for name in sorted(set(properties) - accepted - {each.arg for each in arguments.posonlyargs}):
            yield "error", "signature", f"the schema has the parameter {name!r}, which its function does not take"
    for name in sorted(required - set(properties)):
        yield "error", "signature", f"its function requires {name!r}, which the schema does not have"
    for name in sorted((required & set(properties)) - asked):
        yield "warning", "signature", f"its function requires {name!r}, which the schema calls optional"
    for name in sorted(accepted - required - set(properties)):
        yield "warning", "signature", f"its function takes {name!r}, which the schema does not have"


def _assigned(tree: ast.Module) -> set[str]:
    """Return names that the module scope binds by other means than `def`. Static checks can't tell their type."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif not isinstance(node, _Function):
            names |= {
                each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            }
            names |= {
                each.name
                for each in ast.walk(node)
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            }
    return names


def _undefined(name: str, source: str) -> set[str]:
    """Return names that are used but not defined by the module or builtins. Empty if the source uses `import *`."""
    module = symtable.symtable(source, f"<{name}>", "exec")
    scopes, used, bound = [module], set[str](), set[str]()
    while scopes:
        scope = scopes.pop()
        scopes.extend(scope.get_children())
        for symbol in scope.get_symbols():
            binds = symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
            if binds and (scope is module or symbol.is_declared_global()):
                bound.add(symbol.get_name())
            if symbol.is_referenced() and symbol.is_global():
                used.add(symbol.get_name())
    if re.search(r"^\s*from\s+\S+\s+import\s+\*", source, re.MULTILINE):
        return set()
    return used - bound - set(dir(builtins)) - {"__name__", "__file__", "__doc__"}


def _imports(tree: ast.Module) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module.partition(".")[0])
    return modules


@lru_cache(maxsize=1024)
def _importable(module: str) -> bool:
    """Return True if a top-level module is installed, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ValueError, ImportError):
        return False
