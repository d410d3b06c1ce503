"""Renamed recipe keys and moved import paths of earlier versions.

For a recipe written by a user, an old name is an error that gives the new one. The recipe of a stored run is converted
to the new names.
"""

from __future__ import annotations

from typing import Any, Final

from rewright.builtin import RENAMED
from rewright.core.errors import InputError
from rewright.credit.settings import RENAMED as RENAMED_CREDIT
from rewright.recipe.yaml_file import nearest

__all__ = ["RENAMED_KEYS", "check_renamed", "moved_path", "rename"]

RENAMED_KEYS: Final[dict[str, str]] = {f"rl.credit.{old}": f"rl.credit.{new}" for old, new in RENAMED_CREDIT.items()}
"""Old dotted key -> current key."""


def moved_path(text: str) -> str:
    """Return the current name of a moved import path (`rewright.builtin.RENAMED`), or `text` unchanged."""
    return RENAMED.get(text, text)


def rename(data: dict[str, Any], places: dict[str, str] | None = None) -> None:
    """Rename the keys and values of a stored recipe to their current names, in place.

    `data` is the parsed recipe and `places` the locations of its keys. If both names of a key are present, the value of
    the new one is kept.
    """
    for old, new in RENAMED_KEYS.items():
        section, key = _section(data, old)
        if section is None:
            continue
        value = section.pop(key)
        *sections, last = new.split(".")
        target: Any = data
        for name in sections:
            target = target.setdefault(name, {}) if isinstance(target, dict) else None
        if isinstance(target, dict):
            target.setdefault(last, value)
        if places is not None and old in places:
            places.setdefault(new, places.pop(old))
    _move(data)


def check_renamed(data: dict[str, Any], where: str, places: dict[str, str]) -> None:
    """Raise InputError for a renamed key or value, with its current name."""
    for old, new in RENAMED_KEYS.items():
        if _section(data, old)[0] is not None:
            raise InputError(f"{nearest(old, where, places)}: {old} was renamed: expected {new}")
    _check_moved(data, "", where, places)


def _section(data: Any, name: str) -> tuple[dict[str, Any] | None, str]:
    """Return (section, key) of a dotted key. The section is None if the key is not present."""
    *sections, key = name.split(".")
    for section in sections:
        data = data.get(section) if isinstance(data, dict) else None
    return (data, key) if isinstance(data, dict) and key in data else (None, key)


def _move(data: Any) -> None:
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        if isinstance(value, str):
            data[key] = moved_path(value)
        elif isinstance(value, dict | list):
            _move(value)


def _check_moved(data: Any, name: str, where: str, places: dict[str, str]) -> None:
    if isinstance(data, dict):
        for key, value in data.items():
            _check_moved(value, f"{name}.{key}".lstrip("."), where, places)
    elif isinstance(data, list):
        for number, item in enumerate(data):
            _check_moved(item, f"{name}[{number}]", where, places)
    elif isinstance(data, str) and moved_path(data) != data:
        raise InputError(f"{nearest(name, where, places)}: {name}: {data} has moved: expected {moved_path(data)}")
