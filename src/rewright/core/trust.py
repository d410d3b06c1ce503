"""Consent to run code that files name: a function named in a file runs only if the user allows its package.

A task file is checked against the recipe or the command line (`sandbox.trusted`, `judges`). The recipe of a stored run
is a file too, and is checked against the command line (`recipe_code`). In Rewright itself, a file can only name the
tools of built-in tasks (`builtin_targets`) and registered names. Trusting a package does not extend this: other
functions of Rewright remove folders or write files, and must not be callable from a file.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from rewright.core.errors import InputError

__all__ = [
    "builtin_targets",
    "check_packages",
    "check_trusted_packages",
    "is_builtin_path",
    "is_in_packages",
    "needs_consent",
    "register_builtin_target",
    "target_problem",
]

_builtin_targets: dict[str, bool] = {}


def register_builtin_target(path: str, *, in_files: bool = True) -> None:
    """Register the function of Rewright at the import path `path` as a tool of built-in tasks.

    Every task file may name it, unless `in_files` is False: then it runs code that the recipe or command line names.
    """
    _builtin_targets[path] = in_files


def needs_consent(target: str | None) -> bool:
    """Return True for a tool of built-in tasks that a task file must not name."""
    return target in builtin_targets() and not _builtin_targets[target or ""]


def builtin_targets() -> tuple[str, ...]:
    """Return the import paths of the tools of built-in tasks (`rewright.builtin` registers them)."""
    importlib.import_module("rewright.builtin")
    return tuple(_builtin_targets)


def is_builtin_path(path: str) -> bool:
    """Return True if a module name, or an import path `"package.module:function"`, belongs to Rewright."""
    return path.partition(":")[0].strip().partition(".")[0] == "rewright"


def is_in_packages(path: str, trusted: Iterable[str]) -> bool:
    """Return True if `trusted` contains the import path `"package.module:function"`, its module or its package."""
    return any(path == name or (":" not in name and path.startswith((f"{name}.", f"{name}:"))) for name in trusted)


def check_packages(packages: Iterable[str], where: str) -> None:
    """Raise InputError if `packages`, the value of the key or flag `where`, name Rewright itself."""
    for package in packages:
        if is_builtin_path(package) and package not in builtin_targets():
            raise InputError(
                f"{where} names {package!r}: expected packages of your own (the tools and judges of Rewright that a "
                "task file may name are allowed already; others cannot be allowed)"
            )


def target_problem(name: str, target: str) -> str | None:
    """Describe what is wrong with the `target` of the tool `name`; None if it is valid."""
    if ":" not in target:
        return f"tool {name}: target {target!r} is not of the form package.module:function"
    if is_builtin_path(target) and target not in builtin_targets():
        known = ", ".join(builtin_targets())
        return f"tool {name}: target {target!r} is a function of Rewright: expected {known} or your own function"
    return None


def check_trusted_packages(name: str, packages: tuple[str, ...]) -> None:
    """Raise ValueError if `packages`, the value of the setting `name`, contain a package of Rewright."""
    for package in packages:
        if is_builtin_path(package):
            problem = "files cannot name functions of Rewright"
            raise ValueError(f"{name} must name packages of your own, got {package!r}: {problem}")
