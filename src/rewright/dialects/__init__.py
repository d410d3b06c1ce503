"""Dialects: the formats in which models write calls and answers and read tool results."""

from rewright.core.errors import InputError
from rewright.core.registry import find
from rewright.dialects.base import Dialect, Parsed, conversation
from rewright.dialects.chat import Chat
from rewright.dialects.hermes import Hermes
from rewright.dialects.tags import Tags

__all__ = ["Chat", "Dialect", "Hermes", "Parsed", "Tags", "conversation", "get_dialect"]


def get_dialect(name: str) -> Dialect:
    """Return the dialect with a registered name or an import path. Raises InputError for an unknown name."""
    dialect_class = find("dialect", name)
    if not isinstance(dialect_class, type) or not hasattr(dialect_class, "parse"):
        raise InputError(f"dialect {name!r} is {dialect_class!r:.60}: expected a class with the methods of a Dialect")
    dialect: Dialect = dialect_class()
    return dialect
