"""Look up estimators and signals by registered name or import path, and the settings that they own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import numpy as np

from rewright.core.registry import find, known
from rewright.core.trust import is_builtin_path

__all__ = ["find_function", "validated", "with_settings"]

Function = TypeVar("Function", bound=Callable[..., Any])


def with_settings(settings: type) -> Callable[[Function], Function]:
    """Decorator that gives a signal or an estimator settings of its own, which a recipe sets and Rewright validates.

        class Words(Settings, frozen=True):                     # rewright.core.settings
            limit: PositiveInt = 20

        @register("signal", "short")
        @with_settings(Words)
        def short(trajectories, *, limit=20): ...

    `settings` is a subclass of `rewright.core.settings.Settings`. Its fields are keyword arguments of the function.
    """

    def keep(function: Function) -> Function:
        function.settings = settings  # type: ignore[attr-defined]
        return function

    return keep


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


def validated(
    kind: Literal["estimator", "signal"], name: Any, function: Any, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keyword arguments that a program gives a function, those that are settings of its own validated.

    Numbers of numpy are converted. Raises ValueError for an invalid value.
    """
    kept = getattr(function, "settings", None)
    known = getattr(kept, "__struct_fields__", ())
    own = {
        key: value.item() if isinstance(value, np.generic) else value for key, value in given.items() if key in known
    }
    if kept is None or not own:
        return dict(given)
    from rewright.credit.choices import checked  # imported lazily: credit from calls alone needs no msgspec

    built = checked(kind, str(name), own, kept, known)
    return {**given, **{key: built[key] for key in own}}


def _expected(kind: Literal["estimator", "signal"]) -> str:
    return f"expected one of {', '.join(known(kind))}, or 'package.module:function'"
