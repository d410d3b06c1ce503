"""Check that the module and the function of a tool's `target` exist, without importing them."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Sequence
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Final

from rewright.core.records import ToolSpec
from rewright.core.trust import is_builtin_path, is_in_packages

__all__ = ["target_missing"]

MAX_SOURCE_BYTES: Final = 4 * 1024 * 1024


def target_missing(tool: ToolSpec, trusted: Sequence[str]) -> str | None:
    """Say what is missing of the tool's target; None if nothing is, or if it cannot be known without importing.

    A target in a package that is `trusted` is looked for where this process would import it. Any other one is run in
    the sandbox, which does not see the current directory.
    """
    target = tool.target
    if target is None or ":" not in target or is_builtin_path(target):
        return None
    module, _, function = target.partition(":")
    if module in sys.modules and getattr(sys.modules[module], "__file__", None) is None:
        return None  # built in, or made by a program
    here, package = str(Path.cwd()), module.partition(".")[0]
    everywhere = tuple(path or here for path in sys.path)
    is_trusted = is_in_packages(target, trusted)
    places = everywhere if is_trusted else tuple(path for path in everywhere if path != here)
    problem = _missing(module, function, places)
    if problem is not None and not is_trusted and _missing(module, function, everywhere) is None:
        return (
            f"tool {tool.name}: target {target!r} is in the current directory, which the sandbox does not see: "
            f"expected {package} among the trusted packages (sandbox.trusted), or an installed package"
        )
    return None if problem is None else f"tool {tool.name}: target {target!r}: {problem}"


@lru_cache(maxsize=1024)
def _missing(module: str, function: str, places: tuple[str, ...]) -> str | None:
    if module.partition(".")[0] in sys.builtin_module_names:
        return None
    spec, below = None, list(places)
    names = module.split(".")
    for depth in range(len(names)):
        spec = PathFinder.find_spec(".".join(names[: depth + 1]), below)
        if spec is None:
            return f"there is no module {'.'.join(names[: depth + 1])}"
        below = list(spec.submodule_search_locations or ())
    first = function.partition(".")[0]
    defined = _names(spec)
    return f"module {module} defines no {first}" if defined is not None and first not in defined else None


def _names(spec: ModuleSpec | None) -> set[str] | None:
    """The names that the module scope binds; None if they are not known from its source."""
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin)
    try:
        if path.stat().st_size > MAX_SOURCE_BYTES:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"globals", "setattr"}:
            return None
    return None if names & {"*", "__getattr__"} else names
