"""Keys of a recipe that have another name than in earlier versions, and modules of import paths that have moved.

A recipe that a person writes gets an error that names the new one. The recipe of a stored run is read as if it had been
written today.
"""

from __future__ import annotations

from typing import Any, Final

from rewright.builtin import RENAMED
from rewright.core.errors import InputError
from rewright.credit.settings import RENAMED as RENAMED_CREDIT
from rewright.recipe.yaml_file import nearest

__all__ = ["RENAMED_KEYS", "check_renamed", "moved_path", "rename"]

RENAMED_KEYS: Final[dict[str, str]] = {f"rl.credit.{old}": f"rl.credit.{new}" for old, new in RENAMED_CREDIT.items()}
"""Dotted key of an earlier version -> its key today."""


def moved_path(text: str) -> str:
    """An import path of an earlier version by its name today (`rewright.builtin.RENAMED`); other texts as they are."""
    return RENAMED.get(text, text)


def rename(data: dict[str, Any], places: dict[str, str] | None = None) -> None:
    """Give the keys and values of a stored recipe their names of today, in place.

    `data` is the recipe as it was read, `places` says where its keys stand. A key that stands under both names keeps
    the value of the new one.
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
    """Raise InputError for a key or a value of an earlier version, naming the one of today."""
    for old, new in RENAMED_KEYS.items():
        if _section(data, old)[0] is not None:
            raise InputError(f"{nearest(old, where, places)}: {old} was renamed: expected {new}")
    _check_moved(data, "", where, places)


def _section(data: Any, name: str) -> tuple[dict[str, Any] | None, str]:
    """(the section that holds the key, the key); None where there is no such key."""
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
