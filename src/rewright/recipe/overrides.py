"""Apply `section.key=value` to the data of a recipe. A number in the key is the index of an item of a list."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from rewright.core.errors import InputError

__all__ = ["SHORT_FORMS", "override_names", "override_of", "set_override"]

SHORT_FORMS: Final = {"tasks": "path", "model": "path", "sandbox": "level"}
"""Sections that may be given as one string, and the key that the string sets. (`tasks` may be a list: `sources`.)"""
_NAMED: Final = ("signal", "estimator")
"""Keys that are a name, or a mapping with `name` and the settings of what is named. Another name has other settings."""


def override_of(key: str, value: Any) -> str:
    """Return the override that sets `key` to this value, whatever a text would mean in YAML (`a: b`, `1.0`, `null`)."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"  # escapes of two halves (emoji) are two characters in YAML


def override_names(key: str) -> list[str]:
    """Return the names that messages use for the key of an override: `tasks.0.count` is `tasks.sources[0].count`."""
    indexed = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", key)
    return list(dict.fromkeys([key, indexed, re.sub(r"(^|\.)tasks\[", r"\1tasks.sources[", indexed)]))


def set_override(data: dict[str, Any], key: str, value: Any, override: str) -> None:
    """Set the dotted `key` in the data of a recipe. Raises InputError, which names `override`, if there is no place."""
    keys = key.split(".")
    section: Any = data
    for depth, word in enumerate(keys):
        name = ".".join(keys[:depth])
        if word.isdecimal() and isinstance(section, dict) and section.get("sources"):
            section, name = section["sources"], f"{name}.sources"
        is_last = depth == len(keys) - 1
        if isinstance(section, list):
            index = _index(section, word, name, override)
            if is_last:
                section[index] = value
                return
            if isinstance(section[index], str) and re.search(r"(^|\.)tasks(\.sources)?$", name):
                section[index] = {"path": section[index]}
            if isinstance(section[index], str) and name.endswith("signal"):
                section[index] = {"name": section[index]}
            section = section[index]
        elif is_last:
            _set_last(section, word, value)
            return
        else:
            section = _below(section, word, followed_by=keys[depth + 1])
        following, name = keys[depth + 1], ".".join(keys[: depth + 1])
        if not isinstance(section, dict | list) and not following.isdecimal():
            raise InputError(f"override {override!r}: {name} is not a section")
        is_section = isinstance(section, dict) and (section.get("sources") or following in section)
        if following.isdecimal() and not isinstance(section, list) and not is_section:
            raise InputError(
                f"override {override!r}: {name} is not a list in the recipe: give a list whole, as {name}=[…, …]"
            )


def _index(items: list[Any], word: str, name: str, override: str) -> int:
    if not word.isdecimal():
        raise InputError(
            f"override {override!r}: {name} is a list: expected the index of an item, as {name}.0, or the whole list, "
            f"as {name}=[…, …]"
        )
    if int(word) >= len(items):
        count = "1 item" if len(items) == 1 else f"{len(items)} items"
        raise InputError(
            f"override {override!r}: {name} has {count}: expected an index below {len(items)}, or the whole list, as "
            f"{name}=[…, …]"
        )
    return int(word)


def _below(section: dict[str, Any], key: str, *, followed_by: str) -> Any:
    """The value of `key`, made or expanded to a section if it can be one."""
    below = section.setdefault(key, {})
    if isinstance(below, str) and key in SHORT_FORMS and not followed_by.isdecimal():
        below = section[key] = {SHORT_FORMS[key]: below}
    if isinstance(below, str) and key in _NAMED:
        below = section[key] = {"name": below}
    if isinstance(below, list) and key == "tasks":
        below = section[key] = {"sources": below}
    if below is None:
        below = section[key] = {}
    return below


def _set_last(section: dict[str, Any], key: str, value: Any) -> None:
    below = section.get(key)
    if key in SHORT_FORMS and isinstance(value, str) and isinstance(below, dict) and "sources" not in below:
        below[SHORT_FORMS[key]] = value
    else:
        section[key] = value
