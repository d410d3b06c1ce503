"""Finding the functions that credit is computed with: estimators and signals, by name, import path or as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from rewright.core.registry import find, known
from rewright.core.trust import is_builtin_path

__all__ = ["find_function"]


def find_function(kind: Literal["estimator", "signal"], given: Any) -> Callable[..., Any]:
    """The function for a registered name, an import path "package.module:function", or a function.

    Raises ValueError for an unknown name (with the known ones and the nearest), for a path to nothing or to what is no
    function, and for a path into Rewright: its functions are named by their registered names.
    """
    if callable(given):
        return given  # type: ignore[no-any-return]
    if not isinstance(given, str) or (":" in given and is_builtin_path(given)):
        raise ValueError(f"{kind} is {given!r}: {_expected(kind)}")
    found = find(kind, given)
    if not callable(found):
        raise ValueError(f"{kind} {given!r} is a {type(found).__name__}: {_expected(kind)}")
    return found  # type: ignore[no-any-return]


def _expected(kind: Literal["estimator", "signal"]) -> str:
    return f"expected one of {', '.join(known(kind))}, or 'package.module:function'"
