"""Settings as a flat mapping by their dotted names, to compare them and to show their values."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["dotted", "shown"]

_LONGEST: Final = 60


def dotted(value: Any, name: str = "") -> dict[str, Any]:
    """Return the settings below a section of builtins, by their dotted names (`rl.credit.normalize`)."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    found: dict[str, Any] = {}
    for key, below in value.items():
        found |= dotted(below, f"{name}.{key}".lstrip("."))
    return found


def shown(value: Any) -> str:
    """A value of a setting in a message, at most 60 characters of it."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
