"""Load objects by import path, "package.module:name", as used in recipes, registrations and the command line."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from rewright.core.errors import InputError

__all__ = ["load_function", "load_object"]


@lru_cache(maxsize=64)
def load_object(path: str, what: str) -> Any:
    """Import the object at `"package.module:name"`.

    `what` names the kind of object in errors, such as "judge". Raises InputError for a malformed path, a missing module
    or name, and a module that fails to import.
    """
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise InputError(f"{what} {path!r}: expected an import path of the form package.module:name")
    try:
        loaded: Any = importlib.import_module(module)
        for part in name.split("."):
            loaded = getattr(loaded, part)
    except (ImportError, AttributeError) as problem:
        raise InputError(f"{what} {path!r}: {problem}") from problem
    except (Exception, SystemExit) as problem:  # a module can raise anything while it is imported
        raise InputError(f"{what} {path!r}: {type(problem).__name__}: {problem}") from problem
    return loaded


def load_function(path: str, what: str) -> Callable[..., Any]:
    """Import the function at `"package.module:function"`. Raises InputError, also for a non-callable."""
    function = load_object(path, what)
    if not callable(function):
        raise InputError(f"{what} {path!r} is a {type(function).__name__}: expected a function")
    return function  # type: ignore[no-any-return]
