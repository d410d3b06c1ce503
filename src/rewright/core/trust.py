"""Consent to run code that files name: a function named in a file runs only if the user allows its package.

A task file is checked against the recipe or the command line (`sandbox.trusted`, `judges`). The recipe of a stored run
is a file too, and is checked against the command line (`recipe_code`). Of Rewright itself a file reaches the tools of
its own tasks (`own_targets`) and what is registered under a name, whatever anybody trusts: other functions of the
package, which remove folders or write files, were never meant to be called by a file.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from rewright.core.errors import InputError

__all__ = [
    "check_packages",
    "check_trusted_packages",
    "is_builtin_path",
    "is_in_packages",
    "own_targets",
    "register_target",
    "target_problem",
]

_own_targets: dict[str, None] = {}


def register_target(path: str) -> None:
    """Let any task file name the function at the import path `path` of Rewright: a tool of tasks of ours."""
    _own_targets[path] = None


def own_targets() -> tuple[str, ...]:
    """The tools of Rewright's own tasks, by import path (`rewright.builtin` registers them)."""
    importlib.import_module("rewright.builtin")
    return tuple(_own_targets)


def is_builtin_path(path: str) -> bool:
    """Return True if a module name, or an import path `"package.module:function"`, belongs to Rewright."""
    return path.partition(":")[0].strip().partition(".")[0] == "rewright"


def is_in_packages(path: str, trusted: Iterable[str]) -> bool:
    """Return True if `trusted` holds the import path `"package.module:function"`, its module or its package."""
    return any(path == one or (":" not in one and path.startswith((f"{one}.", f"{one}:"))) for one in trusted)


def check_packages(packages: Iterable[str], where: str) -> None:
    """Raise InputError if `packages`, the value of the key or flag `where`, name Rewright itself."""
    for one in packages:
        if is_builtin_path(one) and one not in own_targets():
            raise InputError(
                f"{where} names {one!r}: expected packages of your own (the tools and judges of Rewright that a task "
                "file may name are allowed already; others cannot be allowed)"
            )


def target_problem(name: str, target: str) -> str | None:
    """Describe what is wrong with the `target` of the tool `name`; None if it is valid."""
    if ":" not in target:
        return f"tool {name}: target {target!r} is not of the form package.module:function"
    if is_builtin_path(target) and target not in own_targets():
        return (
            f"tool {name}: target {target!r} is a function of Rewright: expected {', '.join(own_targets())} or your own"
        )
    return None


def check_trusted_packages(name: str, packages: tuple[str, ...]) -> None:
    """Raise ValueError where the setting `name` holds packages of Rewright's."""
    for package in packages:
        if is_builtin_path(package):
            problem = "files cannot name functions of Rewright"
            raise ValueError(f"{name} must name packages of your own, got {package!r}: {problem}")
