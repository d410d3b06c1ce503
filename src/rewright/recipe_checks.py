"""Keys of a recipe that would do nothing, seen before anything runs.

A key that is written down and has no effect is a mistake: whoever wrote it expects one. Checked here is what the types
can't say: keys that belong to another kind of tasks or to another engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rewright.errors import InputError

__all__ = ["WORLD_FORMATS", "settle"]

WORLD_FORMATS: Final = ("town", "almanac")
"""`tasks.format` of the embedded worlds, which make their tasks themselves; all others are read from `tasks.path`."""
WORLD_KEYS: Final = ("split", "profile", "count", "seed")
"""Keys of a tasks section that only the worlds read."""
TASKS: Final = (("tasks",), ("eval", "tasks"), ("rl", "tasks"))
MODELS: Final = (("model",), ("repair", "model"))


def settle(data: dict[str, Any], places: Mapping[str, str], standard: Mapping[str, Any], where: str) -> None:
    """Settle what follows from other keys, in place. Raises InputError for a key that has no effect.

    `data` is the recipe as it was written, `standard` the defaults of every section, `places` says where each key
    stands, `where` the whole. A path without a format is a file in the format of `tasks`, else in our own. What a
    recipe file says of a world is dropped where an override names another format.
    """
    file_format = "rewright"
    for keys in TASKS:
        section = _section(data, keys)
        if section is not None:
            name = ".".join(keys)
            if section.get("path") is not None:
                section.setdefault("format", file_format)
            _check_tasks(section, name, places, _section(standard, keys) or {}, where)
            if name == "tasks" and section.get("format", "town") not in WORLD_FORMATS:
                file_format = section["format"]
    for keys in MODELS:
        section = _section(data, keys)
        if section is not None and section.get("base_url") is not None and section.get("engine", "hf") == "hf":
            name = ".".join(keys)
            raise InputError(
                f"{_place(name, 'base_url', places, where)}: {name}.base_url names a server, but {name}.engine is hf: "
                "expected engine: openai (or base_url: null)"
            )


def _check_tasks(
    section: dict[str, Any], name: str, places: Mapping[str, str], standard: Mapping[str, Any], where: str
) -> None:
    kind = section.get("format", standard.get("format"))
    if kind in WORLD_FORMATS:
        if section.get("path") is not None:
            raise InputError(
                f"{_place(name, 'path', places, where)}: {name}.path is {section['path']}, but {name}.format is "
                f"{kind}, which makes its tasks itself: expected the file's format, as {name}.format=rewright"
            )
        return
    for key in (key for key in WORLD_KEYS if key in section):
        value, place = section.pop(key), _place(name, key, places, where)
        overridden = _place(name, "format", places, where).startswith("override ")
        if value != standard.get(key) and (place.startswith("override ") or not overridden):
            raise InputError(
                f"{place}: {name}.{key} has no effect: {name}.format is {kind}, and {key} is for the embedded worlds "
                f"(at most so many tasks: {name}.limit)"
            )


def _section(data: Any, keys: tuple[str, ...]) -> Any:
    """The section of that name as a mapping, its short form (a path) written out; None where there is none."""
    for key in keys:
        if not isinstance(data, dict):
            return None
        if key == "tasks" and isinstance(data.get(key), str):
            data[key] = {"path": data[key]}
        data = data.get(key)
    return data if isinstance(data, dict) else None


def _place(name: str, key: str, places: Mapping[str, str], where: str) -> str:
    return places.get(f"{name}.{key}", places.get(name, where))
