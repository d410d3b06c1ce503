"""Import paths: "package.module:name", as recipes, registrations and the command line name code."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from rewright.core.errors import InputError

__all__ = ["load_function", "load_object"]


@lru_cache(maxsize=64)
def load_object(path: str, what: str) -> Any:
    """What stands at `"package.module:name"`. `InputError` says what is wrong with the path of a `what`."""
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise InputError(f"{what} {path!r}: expected an import path of the form package.module:name")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as problem:
        raise InputError(f"{what} {path!r}: {problem}") from problem
    except (Exception, SystemExit) as problem:  # whatever a module raises that is not well
        raise InputError(f"{what} {path!r}: {type(problem).__name__}: {problem}") from problem
    return found


def load_function(path: str, what: str) -> Callable[..., Any]:
    """The function at `"package.module:function"`. `InputError` says what is wrong with the path of a `what`."""
    found = load_object(path, what)
    if not callable(found):
        raise InputError(f"{what} {path!r}: it is a {type(found).__name__}, expected a function")
    return found  # type: ignore[no-any-return]
