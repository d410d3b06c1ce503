"""Recipes: a YAML file plus dotted overrides, checked into one frozen settings object.

Every mistake is an `InputError` in one line with file, line and key, and names the nearest valid key. Nothing here runs
anything. What can be set is in `rewright.recipe.schema`.
"""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from rewright.core.errors import InputError
from rewright.core.settings import convert
from rewright.engines.settings import ModelSettings
from rewright.recipe.consent import check_recipe_code, imported_code
from rewright.recipe.cross_checks import apply_cross_field_rules, check_addresses
from rewright.recipe.keys import check_keys, check_numbers, located, struct_of
from rewright.recipe.renamed import check_renamed, rename
from rewright.recipe.schema import Recipe
from rewright.recipe.yaml_file import nearest, parse_value, read_yaml
from rewright.tasks.settings import TaskSettings

__all__ = ["load_recipe", "recipe_hash"]

FORMAT_1_MODEL: Final = {
    "api_key_env": "OPENAI_API_KEY", "attempts": 5, "base_url": None, "check_model": True, "concurrency": 32,
    "extra_body": None, "log_probs": "raw", "max_length": None, "max_wait_seconds": 60.0, "mode": "auto", "slots": 48,
    "timeout_seconds": 300.0,
}  # fmt: skip
"""The keys that belong to one engine only today, and their defaults in format 1, where every model had them."""
SHORT_FORMS = {"tasks": "path", "model": "path", "sandbox": "level"}
"""Sections that may be given as one string, and the key that the string then is."""


def load_recipe(
    path: Path | None,
    overrides: Sequence[str] = (),
    *,
    stored: bool = False,
    trusted: Sequence[str] | None = (),
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Recipe:
    """Read a recipe file (None: all defaults) and apply `section.key=value` overrides.

    `stored`: the file is a run's own copy. A key that has no effect under its reward was refused or dropped when the
    run was started, and one that an older version let pass is no reason not to read the run. Reading it imports no
    code but that of `trusted` (None: any; the user has given the recipe). `upgrade` makes what an older version has
    stored into a recipe of today (`rewright.pipeline.migration`).

    Raises InputError, also for a file that says nothing: a run of nothing but defaults was not asked for.
    """
    data: Any = {}
    places: dict[str, str] = {}
    where = str(path) if path is not None else "recipe"
    empty = False
    if path is not None:
        data, places = read_yaml(path)
        empty = not data
        if upgrade is not None:
            data = upgrade(data)
        elif stored:
            rename(data, places)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise InputError(f"override {override!r}: expected section.key=value")
        _set(data, key.split("."), parse_value(text), override)
        places[key] = f"override {override!r}"
        while "." in key:
            key = key.rpartition(".")[0]
            places.setdefault(key, f"override {override!r}")
    if stored and trusted is not None:
        check_recipe_code(imported_code(data), trusted, where)
    check_numbers(data, "", where, places)
    check_renamed(data, where, places)
    apply_cross_field_rules(data, places, _standard(), where, stored=stored)
    data = _expand(data, Recipe, Recipe())
    check_keys(data, Recipe, "", where, places)
    try:
        recipe = convert(_with_engines(data, Recipe, "", where, places), Recipe, dec_hook=_as_built)
        msgspec.json.encode(recipe)  # as its hash and its copy in the run need it
    except msgspec.ValidationError as problem:
        raise InputError(located(str(problem), where, places)) from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: not a recipe: a text holds bytes that are not UTF-8") from None
    if empty:
        raise InputError(f"{where}: is empty: expected a recipe with at least one key, such as name: mine")
    check_addresses(recipe, lambda name: nearest(name, where, places))
    return recipe


def recipe_hash(recipe: Recipe, sections: Iterable[str]) -> str:
    """Eight hexadecimal digits of the named sections: part of every id that depends on them.

    Seeds depend on ids, so equal recipes must keep their hash: a model is hashed with the keys that it had in the first
    format of run directories, whatever its engine.
    """
    parts = {name: msgspec.to_builtins(getattr(recipe, name)) for name in sections}
    for section in (parts, parts.get("repair", {})):
        if isinstance(section.get("model"), dict):
            section["model"] = {**FORMAT_1_MODEL, **section["model"]}
    return hashlib.blake2b(msgspec.json.encode(parts, order="sorted"), digest_size=4).hexdigest()


def _set(data: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for depth, key in enumerate(keys[:-1]):
        below = data.setdefault(key, {})
        if isinstance(below, str) and key in SHORT_FORMS:
            below = data[key] = {SHORT_FORMS[key]: below}
        if below is None:
            below = data[key] = {}
        if not isinstance(below, dict):
            raise InputError(f"override {override!r}: {'.'.join(keys[: depth + 1])} is not a section")
        data = below
    last = keys[-1]
    if last in SHORT_FORMS and isinstance(value, str) and isinstance(data.get(last), dict):
        data[last][SHORT_FORMS[last]] = value
    else:
        data[last] = value


def _expand(data: Any, kind: Any, standard: Any) -> Any:
    """`data` with its short forms written out. What a section leaves out is as in `standard`, its default.

    (`eval.tasks` has other defaults than `tasks`: giving one of its keys must not change the others.)
    """
    struct = struct_of(kind, data)
    if struct is None or not isinstance(data, dict):
        return data
    fields = typing.get_type_hints(struct)
    expanded: dict[str, Any] = {}
    for key, value in data.items():
        below = fields.get(key)
        section = struct_of(below, value)
        default = getattr(standard, key, None) if isinstance(key, str) else None
        if section is None:
            expanded[key] = value
            continue
        if value is None and isinstance(below, type):
            given: Any = {}  # a section whose keys are all commented out
        elif isinstance(value, str) and key in SHORT_FORMS:
            given = {SHORT_FORMS[key]: value}
        else:
            given = _expand(value, below, default)
        expanded[key] = _own_defaults(default) | given if isinstance(given, dict) else given
    return expanded


def _standard() -> dict[str, Any]:
    """The defaults of every section, those included that are None unless given."""
    standard: dict[str, Any] = msgspec.to_builtins(Recipe())
    standard["rl"]["tasks"] = msgspec.to_builtins(TaskSettings())
    return standard


def _own_defaults(standard: Any) -> dict[str, Any]:
    """The fields in which a section's default differs from the default of its type."""
    if not isinstance(standard, msgspec.Struct):
        return {}
    usual = type(standard)()
    names = [name for name in standard.__struct_fields__ if getattr(standard, name) != getattr(usual, name)]
    return {name: msgspec.to_builtins(getattr(standard, name)) for name in names}


def _with_engines(data: Any, kind: Any, prefix: str, where: str, places: dict[str, str]) -> Any:
    """`data` with the sections of models made into the settings of their engines, which msgspec cannot choose."""
    struct = struct_of(kind, data)
    if struct is None or not isinstance(data, dict):
        return data
    if issubclass(struct, ModelSettings):
        try:
            return convert(data, struct)
        except msgspec.ValidationError as problem:
            reason, _, path = str(problem).partition(" - at `$")
            raise InputError(located(f"{reason} - at `$.{prefix}{path or '`'}", where, places)) from None
    fields = typing.get_type_hints(struct)
    return {
        key: _with_engines(value, fields.get(key), f"{prefix}.{key}".lstrip("."), where, places)
        for key, value in data.items()
    }


def _as_built(kind: type, value: Any) -> Any:
    """msgspec's hook for what `_with_engines` has made."""
    if isinstance(value, kind):
        return value
    raise ValueError(f"Expected `object`, got `{type(value).__name__}`")
