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

    `what` describes it in errors ("judge", say). Raises InputError for a malformed path, a missing module or name, and
    a module that fails to import.
    """
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise InputError(f"{what} {path!r}: expected an import path of the form package.module:name")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as problem:
        raise InputError(f"{what} {path!r}: {problem}") from problem
    except (Exception, SystemExit) as problem:  # a module can raise anything while it is imported
        raise InputError(f"{what} {path!r}: {type(problem).__name__}: {problem}") from problem
    return found


def load_function(path: str, what: str) -> Callable[..., Any]:
    """Import the function at `"package.module:function"`. Raises InputError, also for a non-callable."""
    found = load_object(path, what)
    if not callable(found):
        raise InputError(f"{what} {path!r}: it is a {type(found).__name__}, expected a function")
    return found  # type: ignore[no-any-return]
