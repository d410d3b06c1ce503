"""How a model writes calls, results and answers."""

from rewright.dialects.base import Dialect, Parsed, conversation
from rewright.dialects.hermes import Hermes
from rewright.dialects.tags import Tags
from rewright.errors import InputError

__all__ = ["DIALECTS", "Dialect", "Hermes", "Parsed", "Tags", "conversation", "dialect_named"]

DIALECTS: dict[str, type[Dialect]] = {"hermes": Hermes, "tags": Tags}


def dialect_named(name: str) -> Dialect:
    """The dialect of that name. Raises InputError for an unknown one."""
    if name not in DIALECTS:
        raise InputError(f"unknown dialect {name!r}: expected one of {', '.join(DIALECTS)}")
    return DIALECTS[name]()
