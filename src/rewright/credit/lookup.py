"""Look up estimators and signals by registered name or import path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from rewright.core.registry import find, known
from rewright.core.trust import is_builtin_path

__all__ = ["find_function"]


def find_function(kind: Literal["estimator", "signal"], given: Any) -> Callable[..., Any]:
    """Return the function for a registered name or an import path "package.module:function".

    A callable is returned unchanged.

    Raises ValueError for an unknown name (listing the known names and the closest one), for a path that does not
    resolve to a function, and for a path into Rewright, whose functions are available under registered names.
    """
    if callable(given):
        return given  # type: ignore[no-any-return]
    if not isinstance(given, str) or (":" in given and is_builtin_path(given)):
        raise ValueError(f"{kind} is {given!r}: {_expected(kind)}")
    function = find(kind, given)
    if not callable(function):
        raise ValueError(f"{kind} {given!r} is a {type(function).__name__}: {_expected(kind)}")
    return function  # type: ignore[no-any-return]


def _expected(kind: Literal["estimator", "signal"]) -> str:
    return f"expected one of {', '.join(known(kind))}, or 'package.module:function'"
