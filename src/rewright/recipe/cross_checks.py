"""Rules that concern several sections of a recipe, applied before anything runs.

A key that is written down and has no effect is a mistake: whoever wrote it expects one. Which keys these are is said by
the function `unused_keys` of the room that owns the settings; here stands where they are written, and what an override
changes. So are the addresses of servers checked: a run must not end at the first request to one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.registry import known
from rewright.core.settings import Settings, UnusedKey
from rewright.credit import settings as credit
from rewright.engines import settings as engines
from rewright.recipe.schema import Recipe
from rewright.tasks import settings as tasks
from rewright.tasks.formats import WorldFormat, find_format
from rewright.training import settings as training

__all__ = ["apply_cross_field_rules", "check_addresses"]

TASKS: Final = ("tasks", "eval.tasks", "rl.tasks")
MODELS: Final = ("model", "repair.model")


def apply_cross_field_rules(
    data: dict[str, Any], places: Mapping[str, str], defaults: Mapping[str, Any], where: str, *, stored: bool = False
) -> None:
    """Validate and normalize dependent keys in place. Raises InputError for a key that has no effect.

    `data` is the recipe as it was written, `defaults` the defaults of every section, `places` says where each key
    stands, `where` the whole. A path without a format is a file in the format of `tasks`, else in our own. A key
    without effect is dropped, not refused, where it has its default value (a resolved recipe holds every key), where an
    override has taken its effect away, and where the file is a run's own (`stored`).
    """

    def drop(unused: Iterable[UnusedKey], prefix: str, usual: Mapping[str, Any]) -> None:
        for one in list(unused):
            name, cause = f"{prefix}{one.key}", f"{prefix}{one.cause}"
            parent, _, key = name.rpartition(".")
            section = _section(data, parent)
            if section is None or key not in section:
                continue
            value, place = section.pop(key), places.get(name, places.get(parent, where))
            overridden = places.get(cause, places.get(parent, where)).startswith("override ")
            if stored or _same(value, _at(usual, name)) or (overridden and not place.startswith("override ")):
                continue
            raise InputError(f"{place}: {name} has no effect: {cause} is {one.value}{one.hint}")

    file_format = "rewright"
    for name in TASKS:
        section, usual = _section(data, name), _at(defaults, name) or {}
        if section is not None:
            if section.get("path") is not None:
                section.setdefault("format", file_format)
            draws = _draws_tasks(section, usual, name, places, where, stored=stored)
            if draws and (problem := tasks.path_problem(section, usual, name)) is not None:
                raise InputError(f"{places.get(f'{name}.path', places.get(name, where))}: {problem}")
            if draws is False:
                drop(tasks.unused_keys(section, usual), f"{name}.", defaults)
                if name == "tasks":
                    file_format = section.get("format", usual.get("format"))
    usual = defaults["rl"]
    drop(training.unused_keys(_section(data, "rl") or {}, usual), "", defaults)
    drop(credit.unused_keys(_section(data, "rl.credit") or {}, usual["credit"]), "rl.credit.", defaults)
    for name in MODELS:
        section = _section(data, name)
        if section is not None:
            try:
                unused = list(engines.unused_keys(section))
            except InputError as problem:
                place = places.get(f"{name}.engine", places.get(name, where))
                raise InputError(f"{place}: {name}.engine: {problem}") from None
            drop(unused, f"{name}.", {})


def check_addresses(recipe: Recipe, place_of: Callable[[str], str]) -> None:
    """Raise InputError for an address in the recipe that no client could use. `place_of`: where a key stands."""
    for name, url, is_model in _addresses(recipe):
        from rewright.net.urls import normalize_base_url, server_address  # not before there is an address to check

        try:
            if re.search(r"[\s\x00-\x1f\x7f]", url):
                raise InputError(f"{url!r} holds a space: expected an address such as http://127.0.0.1:8080")
            if is_model:
                normalize_base_url(url)
            else:
                server_address(url, "a server")
        except InputError as problem:
            raise InputError(f"{place_of(name)}: {name}: {problem}") from None


def _draws_tasks(
    section: Mapping[str, Any],
    usual: Mapping[str, Any],
    name: str,
    places: Mapping[str, str],
    where: str,
    *,
    stored: bool,
) -> bool | None:
    """Whether the format of a tasks section is a world. Raises InputError for an unknown format.

    None: that is not looked at. Another check says what is wrong with a format that is no text; and a stored recipe
    may name code, which is not imported before its user has allowed it, or a format of a package that is gone.
    """
    kind = section.get("format", usual.get("format"))
    if not isinstance(kind, str) or (stored and kind not in known("task_format")):
        return None
    try:
        return isinstance(find_format(kind, f"{name}.format"), WorldFormat)
    except InputError as problem:
        raise InputError(f"{places.get(f'{name}.format', places.get(name, where))}: {problem}") from None


def _addresses(settings: Settings, prefix: str = "") -> Iterator[tuple[str, str, bool]]:
    """(dotted key, address, is it a model's?) of all sections."""
    for key, url in settings.addresses().items():
        yield f"{prefix}{key}", url, isinstance(settings, engines.ModelSettings)
    for name in settings.__struct_fields__:
        below = getattr(settings, name)
        if isinstance(below, Settings):
            yield from _addresses(below, f"{prefix}{name}.")


def _same(value: Any, usual: Any) -> bool:
    return list(value) == list(usual) if isinstance(usual, list | tuple) and isinstance(value, list) else value == usual


def _section(data: Any, name: str) -> Any:
    """The section of that name as a mapping, its short form (a path) written out; None where there is none."""
    for key in name.split("."):
        if not isinstance(data, dict):
            return None
        if key == "tasks" and isinstance(data.get(key), str):
            data[key] = {"path": data[key]}
        data = data.get(key)
    return data if isinstance(data, dict) else None


def _at(defaults: Any, name: str) -> Any:
    """The default of a dotted key; None where there is none."""
    for key in name.split("."):
        defaults = defaults.get(key) if isinstance(defaults, Mapping) else None
    return defaults
