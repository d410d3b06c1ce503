"""Import paths: "package.module:function", as recipes and the command line name code."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from rewright.core.errors import InputError

__all__ = ["load_function"]


@lru_cache(maxsize=64)
def load_function(path: str, what: str) -> Callable[..., Any]:
    """The function at `"package.module:function"`. `InputError` says what is wrong with the path of a `what`."""
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise InputError(f"{what} {path!r}: expected an import path of the form package.module:function")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as problem:
        raise InputError(f"{what} {path!r}: {problem}") from problem
    except (Exception, SystemExit) as problem:  # whatever a module raises that is not well
        raise InputError(f"{what} {path!r}: {type(problem).__name__}: {problem}") from problem
    if not callable(function):
        raise InputError(f"{what} {path!r}: it is a {type(function).__name__}, expected a function")
    return function  # type: ignore[no-any-return]
