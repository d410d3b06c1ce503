"""Check a recipe's keys and values against its schema. Errors include file, line and key."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from rewright.core.errors import InputError
from rewright.engines.settings import EngineSettings
from rewright.recipe.schema import Recipe
from rewright.recipe.suggestions import engine_settings, item_of, struct_of, suggestions
from rewright.recipe.yaml_file import nearest, one_line

__all__ = ["check_keys", "check_numbers", "located"]


def check_keys(
    data: Any, kind: Any, prefix: str, where: str, places: dict[str, str], *, any_engine: bool = False
) -> None:
    """Raise InputError for a key that is not in the schema, with the keys that may have been meant.

    `any_engine`: accept keys of every engine in a model section, and no section of an unknown engine is checked; both
    are reported by checks with more to say.
    """
    try:
        struct = struct_of(kind, data)
    except InputError:
        if not any_engine:
            raise
        return
    below = item_of(kind)
    if below is not None and isinstance(data, list | dict):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        for key, item in items:
            if isinstance(key, int | str):
                name = f"{prefix}.{key}" if isinstance(data, dict) else f"{prefix}[{key}]"
                check_keys(item, below, name, where, places, any_engine=any_engine)
        if isinstance(data, list):
            return
    if not isinstance(data, dict):
        return
    if struct is None:
        _check_free(data, prefix, where, places)
        return
    fields = typing.get_type_hints(struct)
    if any_engine and issubclass(struct, EngineSettings):
        fields |= {name: Any for other in engine_settings() for name in other.__struct_fields__ if name not in fields}
    for key, value in data.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if key not in fields:
            found = suggestions(prefix, str(key), fields)
            hint = f"did you mean {_or(found)}?" if found else f"expected one of {', '.join(sorted(fields))}"
            if "arguments" in fields and "backend" in fields and not found:
                hint += f" (an argument of the trainer's own configuration is {prefix}.arguments.{key})"
            raise InputError(f"{nearest(name, where, places)}: unknown key {one_line(name)}: {hint}")
        check_keys(value, fields[key], name, where, places, any_engine=any_engine)


def _or(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _check_free(data: Any, name: str, where: str, places: dict[str, str]) -> None:
    """Raise InputError for values in a free-form section that JSON can't represent."""
    if isinstance(data, dict):
        for key, value in data.items():
            below = f"{name}.{key}"
            if not isinstance(key, str):
                place, kind = nearest(below, where, places), type(key).__name__
                raise InputError(f"{place}: {one_line(below)}: expected a text as key, got `{kind}`: write '{key}'")
            _check_free(value, below, where, places)
    elif isinstance(data, list):
        for number, item in enumerate(data):
            _check_free(item, f"{name}[{number}]", where, places)
    elif isinstance(data, float) and not math.isfinite(data):
        place = nearest(name, where, places)
        raise InputError(f"{place}: {one_line(name)}: expected a finite number, got {data}")
    elif not isinstance(data, str | int | float | None):
        place, kind = nearest(name, where, places), type(data).__name__
        raise InputError(f"{place}: {one_line(name)}: expected a text, a number, a list or a section, got `{kind}`")


def check_numbers(data: Any, name: str, where: str, places: dict[str, str]) -> None:
    """Raise InputError for integers beyond 64 bits, as key or value, because msgspec and others can't store them."""
    if isinstance(data, dict):
        for key, value in data.items():
            check_numbers(key, name, where, places)
            check_numbers(value, f"{name}.{key}".lstrip("."), where, places)
    elif isinstance(data, list):
        for number, item in enumerate(data):
            check_numbers(item, f"{name}[{number}]", where, places)
    elif isinstance(data, int) and not -(2**63) <= data < 2**63:
        raise InputError(f"{nearest(name, where, places)}: {one_line(name) or 'recipe'}: a number beyond 64 bits")


def _choices(name: str) -> str:
    """Return a hint with the valid values of the key `name`, or an empty string."""
    kind: Any = Recipe
    for key in re.sub(r"\[[^\]]*\]", "", name).split("."):
        struct = struct_of(kind)
        kind = None if struct is None else typing.get_type_hints(struct).get(key)
    words = [str(word) for word in get_args(kind)] if get_origin(kind) is Literal else []
    if get_origin(kind) is tuple:
        words = [str(word) for word in get_args(get_args(kind)[0])]
    return f": expected one of {', '.join(words)}" if words else ""


def located(problem: str, where: str, places: dict[str, str]) -> str:
    """Prefix a msgspec message ("Expected `int`, got `str` - at `$.synth.n`") with file, line and key."""
    reason, _, path = problem.partition(" - at `$")
    name = path.rstrip("`").lstrip(".")
    # Checks in `__post_init__` name the key in the message instead of in the path ("gamma must be …").
    if " must " in reason:
        key, _, reason = reason.partition(" ")
        name = f"{name}.{key}".lstrip(".")
    plain = re.sub(r"\[[^\]]*\]", "", name)
    choices = _choices(name) if "enum" in reason else ""
    reason = f"{reason[:1].lower()}{reason[1:]}".replace("`object`", "a section").replace("`array`", "a list")
    # Other such messages have the forms "gamma is …" and "unknown estimator …".
    mentioned_key = f"{plain}.{reason.removeprefix('unknown ').partition(' ')[0]}"
    place = nearest(mentioned_key if mentioned_key in places else name if name in places else plain, where, places)
    return one_line(f"{place}: {name or 'recipe'}: {reason}{choices}")
