"""Load a recipe: a YAML file plus dotted overrides, validated into one frozen `Recipe`.

Each error is a one-line `InputError` with file, line and key, and the closest valid key. The settings are defined in
`rewright.recipe.schema`.
"""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from rewright.core.errors import InputError
from rewright.core.settings import convert
from rewright.credit.comparison import Comparison
from rewright.engines.settings import ModelSettings
from rewright.recipe.consent import check_recipe_code, imported_code
from rewright.recipe.cross_checks import apply_cross_field_rules, check_addresses
from rewright.recipe.keys import check_keys, check_numbers, located
from rewright.recipe.overrides import SHORT_FORMS, override_names, set_override
from rewright.recipe.renamed import check_renamed, rename
from rewright.recipe.schema import Recipe
from rewright.recipe.suggestions import item_of, struct_of
from rewright.recipe.yaml_file import nearest, parse_value, read_yaml
from rewright.rollout.settings import UserSettings
from rewright.tasks.settings import TaskSettings
from rewright.training.settings import SignalSettings
from rewright.training.verl.settings import VerlSettings

__all__ = ["load_recipe", "recipe_hash"]

FORMAT_1_MODEL: Final = {
    "api_key_env": "OPENAI_API_KEY", "attempts": 5, "base_url": None, "check_model": True, "concurrency": 32,
    "extra_body": None, "log_probs": "raw", "max_length": None, "max_wait_seconds": 60.0, "mode": "auto", "slots": 48,
    "timeout_seconds": 300.0,
}  # fmt: skip
"""The keys that belong to one engine only today, and their defaults in format 1, where every model had them."""


def load_recipe(
    path: Path | None,
    overrides: Sequence[str] = (),
    *,
    stored: bool = False,
    trusted: Sequence[str] | None = (),
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Recipe:
    """Read a recipe file and apply `section.key=value` overrides.

    Args:
        path: Recipe file; None means all defaults.
        overrides: Settings that take precedence over the file.
        stored: The file is a run's copy: keys without effect are dropped, and only `trusted` code may be imported.
        trusted: Trusted code of a stored recipe; None trusts all of it (the user has given the recipe).
        upgrade: Converts the data of an older version's recipe to the current format (`rewright.pipeline.migration`).
        settings: Settings of a program by dotted key, which take precedence over the file and the overrides.

    Raises InputError for an invalid recipe, and for an empty file, which is probably a mistake.
    """
    data: Any = {}
    places: dict[str, str] = {}
    where = str(path) if path is not None else "recipe"
    empty = False
    if path is not None:
        data, places = read_yaml(path)
        places |= {name.replace("tasks[", "tasks.sources[", 1): place for name, place in places.items()}
        empty = not data
        if upgrade is not None:
            data = upgrade(data)
        elif stored:
            rename(data, places)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise InputError(f"override {override!r}: expected section.key=value")
        set_override(data, key, parse_value(text), override)
        for name in override_names(key):
            places[name] = f"override {override!r}"
        while "." in key:
            key = key.rpartition(".")[0]
            for name in override_names(key):
                places.setdefault(name, f"override {override!r}")
    for key, value in (settings or {}).items():
        set_override(data, key, msgspec.to_builtins(value), key)
        places.setdefault(key, f"argument {key}")
    if stored and trusted is not None:
        check_recipe_code(imported_code(data), trusted, where)
    check_numbers(data, "", where, places)
    check_renamed(data, where, places)
    check_keys(data, Recipe, "", where, places, any_engine=True)
    apply_cross_field_rules(data, places, _all_defaults(), where, stored=stored)
    data = _expand(data, Recipe, Recipe())
    check_keys(data, Recipe, "", where, places)
    try:
        recipe = convert(_with_engines(data, Recipe, "", where, places), Recipe, dec_hook=_as_built)
        msgspec.json.encode(recipe)  # fails early for what can't be hashed and stored
    except msgspec.ValidationError as problem:
        raise InputError(located(str(problem), where, places)) from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: not a recipe: a text holds bytes that are not UTF-8") from None
    if "dialect" not in data and not stored:
        recipe = msgspec.structs.replace(recipe, dialect=recipe.model.default_dialect)
    if empty:
        raise InputError(f"{where}: is empty: expected a recipe with at least one key, such as name: mine")
    check_addresses(recipe, lambda name: nearest(name, where, places))
    return recipe


def recipe_hash(recipe: Recipe, sections: Iterable[str]) -> str:
    """Return a hash of the named sections (8 hexadecimal digits), which is part of ids that depend on them.

    Seeds depend on ids, so equal recipes must keep their hash: a model is hashed with the keys that it had in the first
    format of run directories, whatever its engine, and `eval` without `benchmark` and `report_to`, which change
    nothing that is generated. Of several servers the first one counts, so that others can be added to a run.
    """
    parts = {name: msgspec.to_builtins(getattr(recipe, name)) for name in sections}
    for key in ("benchmark", "report_to"):
        parts.get("eval", {}).pop(key, None)
    if "rl" in parts:
        added = {
            "engine": "hf",
            "server": None,
            "importance_correction": None,
            "share_prompts": False,
            "verl": msgspec.to_builtins(VerlSettings()),
            "vllm": None,
        }
        _drop_defaults(parts["rl"], added)
        _drop_defaults(parts["rl"]["credit"], {"compare": msgspec.to_builtins(Comparison()), "missing": "leave_out"})
    if "reward" in parts:
        _drop_defaults(parts["reward"], {"prefixes": False})
    if "repair" in parts:
        parts["repair"].pop("rounds")  # further rounds change nothing in those before
        added = {"by": "model", "form": "rewrite", "show_error": None, "round_tasks": None, "round_start": "base"}
        _drop_defaults(parts["repair"], added)
    unset = {"user": msgspec.to_builtins(UserSettings()), "signals": msgspec.to_builtins(SignalSettings())}
    _drop_defaults(parts, unset)
    if "tools" in parts:
        servers = parts["tools"].pop("mcp")
        if servers:  # what a model sees of a server; another address or limit of it makes no other trajectories
            seen = ("session", "prefix", "tools", "call_seconds")
            parts["tools"]["mcp"] = {name: {key: one[key] for key in seen} for name, one in servers.items()}
    for section in (parts, parts.get("repair", {}), parts.get("user", {})):
        if isinstance(section.get("model"), dict):
            section["model"] = {**FORMAT_1_MODEL, **section["model"]}
            if isinstance(section["model"]["base_url"], list | tuple):
                section["model"]["base_url"] = section["model"]["base_url"][0]
    for section in (parts, parts.get("eval", {}), parts.get("rl", {})):
        if isinstance(section.get("tasks"), dict):
            section["tasks"].pop("contamination", None)  # it changes no task
            _drop_defaults(section["tasks"], {"sources": [], "environment": None, "arguments": {}})
    return hashlib.blake2b(msgspec.json.encode(parts, order="sorted"), digest_size=4).hexdigest()


def _drop_defaults(section: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Remove keys that earlier versions did not have, if they have their default."""
    for key, default in defaults.items():
        if section.get(key) == default or (not section.get(key) and not default):
            section.pop(key, None)


def _expand(data: Any, kind: Any, standard: Any) -> Any:
    """Expand short forms in `data`, and fill in missing keys from the section's default `standard`.

    The defaults of a section may differ from those of its type: setting one key of `eval.tasks` must not reset its
    other keys to the defaults of `tasks`.
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
            is_mixture = key == "sources" and isinstance(value, list)
            # Sources have the defaults of the section that they are in.
            expanded[key] = [_with_defaults(one, standard) for one in value] if is_mixture else value
            continue
        if value is None and isinstance(below, type):
            given: Any = {}  # YAML null: a section whose keys are all commented out
        elif isinstance(value, str) and key in SHORT_FORMS:
            given = {SHORT_FORMS[key]: value}
        else:
            given = _expand(value, below, default)
        expanded[key] = _with_defaults(given, default)
    return expanded


def _with_defaults(given: Any, standard: Any) -> Any:
    return _own_defaults(standard) | given if isinstance(given, dict) else given


def _all_defaults() -> dict[str, Any]:
    """Return the defaults of all sections, including optional ones."""
    standard: dict[str, Any] = msgspec.to_builtins(Recipe())
    standard["rl"]["tasks"] = msgspec.to_builtins(TaskSettings())
    return standard


def _own_defaults(standard: Any) -> dict[str, Any]:
    """Return the fields in which a section's default differs from the default of its type."""
    if not isinstance(standard, msgspec.Struct):
        return {}
    usual = type(standard)()
    names = [name for name in standard.__struct_fields__ if getattr(standard, name) != getattr(usual, name)]
    return {name: msgspec.to_builtins(getattr(standard, name)) for name in names}


def _with_engines(data: Any, kind: Any, prefix: str, where: str, places: dict[str, str]) -> Any:
    """Convert model sections to the settings type of their engine, which msgspec can't select."""
    struct, item = struct_of(kind, data), item_of(kind)
    if item is not None and isinstance(data, dict):
        for key, value in data.items():  # only checked: msgspec does not say which entry of a mapping is wrong
            try:
                convert(value, item)
            except msgspec.ValidationError as problem:
                reason, _, path = str(problem).partition(" - at `$")
                raise InputError(located(f"{reason} - at `$.{prefix}.{key}{path or '`'}", where, places)) from None
        return data
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
    """Decoding hook of msgspec that accepts the objects created by `_with_engines`."""
    if isinstance(value, kind):
        return value
    raise ValueError(f"Expected `object`, got `{type(value).__name__}`")
