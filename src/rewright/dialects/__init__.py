"""How a model writes calls, results and answers."""

from rewright.core.errors import InputError
from rewright.dialects.base import Dialect, Parsed, conversation
from rewright.dialects.hermes import Hermes
from rewright.dialects.tags import Tags

__all__ = ["DIALECTS", "Dialect", "Hermes", "Parsed", "Tags", "conversation", "get_dialect"]

DIALECTS: dict[str, type[Dialect]] = {"hermes": Hermes, "tags": Tags}


def get_dialect(name: str) -> Dialect:
    """The dialect of that name. Raises InputError for an unknown one."""
    if name not in DIALECTS:
        raise InputError(f"unknown dialect {name!r}: expected one of {', '.join(DIALECTS)}")
    return DIALECTS[name]()
