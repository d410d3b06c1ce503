"""Validate rules that involve several sections of a recipe, before anything runs.

- A key that has no effect is an error, because its author expects one. The function `unused_keys` of the package that
  owns the settings lists such keys. This module adds their location and handles overrides.
- Server addresses are checked, so that a run does not fail at the first request.
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
from rewright.recipe.yaml_file import nearest
from rewright.repair import settings as repair
from rewright.rollout import settings as rollout
from rewright.sandbox import settings as sandbox
from rewright.tasks import settings as tasks
from rewright.tasks.formats import PackageFormat, TaskFormat, WorldFormat, find_format
from rewright.tools import settings as tools
from rewright.training import unused as training

__all__ = ["apply_cross_field_rules", "check_addresses"]

TASKS: Final = ("tasks", "eval.tasks", "rl.tasks")
SECTIONS: Final = {
    "sandbox": sandbox.unused_keys,
    "tools": tools.unused_keys,
    "user": rollout.unused_user_keys,
    "repair": repair.unused_keys,
}
"""Sections whose keys without effect follow from the section alone."""
MODELS: Final = ("model", "repair.model", "user.model", "signals.scorer", "signals.judge")


def apply_cross_field_rules(
    data: dict[str, Any], places: Mapping[str, str], defaults: Mapping[str, Any], where: str, *, stored: bool = False
) -> None:
    """Validate and normalize dependent keys in place. Raises InputError for a key that has no effect.

    A path without a format has the format of `tasks`, else Rewright's own format. A key without effect is dropped
    instead of an error if it has its default value (a resolved recipe contains every key), if an override removed its
    effect, or if the file is a run's copy (`stored`).

    Args:
        data: The recipe as written.
        places: Location of each key.
        defaults: Defaults of every section.
        where: Location of the recipe.
        stored: Whether the file is a run's copy.
    """

    def drop(unused: Iterable[UnusedKey], prefix: str, usual: Mapping[str, Any]) -> None:
        for unused_key in list(unused):
            name, cause = f"{prefix}{unused_key.key}", f"{prefix}{unused_key.cause}"
            parent, _, key = name.rpartition(".")
            section = _section(data, parent)
            if section is None or key not in section:
                continue
            value, place = section.pop(key), nearest(name, where, places)
            overridden = nearest(cause, where, places).startswith("override ")
            if stored or _same(value, _at(usual, name)) or (overridden and not place.startswith("override ")):
                continue
            raise InputError(f"{place}: {name} has no effect: {cause} is {unused_key.value}{unused_key.hint}")

    file_format = "rewright"
    for name in TASKS:
        section, usual = _section(data, name), _at(defaults, name) or {}
        if section is None:
            continue
        items = _sources(section, name, places, where)
        if items:
            drop(tasks.unused_mixture_keys(section), f"{name}.", defaults)
        for place, source in items or [(name, section)]:
            if source.get("path") is not None:
                source.setdefault("format", file_format)
            chosen = _format(source, usual, place, places, where, stored=stored)
            draws = None if chosen is None else isinstance(chosen, WorldFormat)
            if draws and (problem := tasks.path_problem(source, usual, place)) is not None:
                raise InputError(f"{nearest(f'{place}.path', where, places)}: {problem}")
            if draws is False:
                seeded = isinstance(chosen, PackageFormat) and chosen.seeded
                drop(tasks.unused_keys(source, usual, seeded=seeded), f"{place}.", defaults)
                if name == place == "tasks":
                    file_format = str(source.get("format", usual.get("format")))
    for name, unused_keys in SECTIONS.items():
        drop(unused_keys(_section(data, name) or {}), f"{name}.", defaults)
    drop(training.unused_stage_keys(data, defaults), "", defaults)
    usual = defaults["rl"]
    drop(training.unused_keys(_section(data, "rl") or {}, usual), "", defaults)
    drop(credit.unused_keys(_section(data, "rl.credit") or {}, usual["credit"]), "rl.credit.", defaults)
    if (backend := (_section(data, "rl") or {}).get("backend", usual["backend"])) != "verl":
        drop([UnusedKey("ray.address", "rl.backend", backend)], "", defaults)
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
    """Raise InputError for an invalid server address in the recipe. `place_of` returns the location of a key."""
    for name, url, is_model in _addresses(recipe):
        from rewright.net.urls import normalize_base_url, server_address  # lazy: only needed if there is an address

        try:
            if re.search(r"[\s\x00-\x1f\x7f]", url):
                raise InputError(f"{url!r} holds a space: expected an address such as http://127.0.0.1:8080")
            if is_model:
                normalize_base_url(url)
            else:
                # An MCP server may have a query, such as ?task=….
                server_address(url.partition("?")[0] if name.startswith("tools.mcp.") else url, "a server")
        except InputError as problem:
            raise InputError(f"{place_of(name)}: {name}: {problem}") from None


def _format(
    section: Mapping[str, Any],
    usual: Mapping[str, Any],
    name: str,
    places: Mapping[str, str],
    where: str,
    *,
    stored: bool,
) -> TaskFormat | None:
    """Return the format of a tasks section. Raises InputError for an unknown format.

    Returns None if this is not checked: for a format that is not text (another check reports that), and for a stored
    recipe whose format is untrusted code or from a package that is no longer installed.
    """
    kind = section.get("format", usual.get("format"))
    if not isinstance(kind, str) or (stored and kind not in known("task_format")):
        return None
    try:
        return find_format(kind, f"{name}.format")
    except InputError as problem:
        raise InputError(f"{nearest(f'{name}.format', where, places)}: {problem}") from None


def _sources(
    section: dict[str, Any], name: str, places: Mapping[str, str], where: str
) -> list[tuple[str, dict[str, Any]]]:
    """Return (dotted name, source) for the sources of a tasks section, with short forms expanded. Empty: no mixture."""
    sources = section.get("sources")
    if not isinstance(sources, list):
        return []
    if not sources and name in places and f"{name}.sources" not in places:
        raise InputError(f"{places[name]}: {name}: the list is empty: expected at least one source of tasks")
    section["sources"] = [{"path": one} if isinstance(one, str) else one for one in sources]
    found = [(f"{name}.sources[{number}]", one) for number, one in enumerate(section["sources"])]
    return [(place, one) for place, one in found if isinstance(one, dict)]


def _addresses(settings: Settings, prefix: str = "") -> Iterator[tuple[str, str, bool]]:
    """Yield (dotted key, address, whether it is a model server) for all sections."""
    for key, url in settings.addresses().items():
        yield f"{prefix}{key}", url, isinstance(settings, engines.ModelSettings)
    for name in settings.__struct_fields__:
        below = getattr(settings, name)
        if isinstance(below, Settings):
            yield from _addresses(below, f"{prefix}{name}.")


def _same(value: Any, usual: Any) -> bool:
    return list(value) == list(usual) if isinstance(usual, list | tuple) and isinstance(value, list) else value == usual


def _section(data: Any, name: str) -> Any:
    """Return the section as a mapping with its short form (a path, a list) expanded, or None if it is missing."""
    for key, number in re.findall(r"([^.\[]+)(?:\[(\d+)\])?", name):
        if not isinstance(data, dict):
            return None
        if key == "tasks" and isinstance(data.get(key), str | list):
            data[key] = {"path" if isinstance(data[key], str) else "sources": data[key]}
        data = data.get(key)
        if number:
            data = data[int(number)] if isinstance(data, list) else None
    return data if isinstance(data, dict) else None


def _at(defaults: Any, name: str) -> Any:
    """Return the default of a dotted key, or None. A source has the defaults of its section."""
    for key in re.sub(r"\.sources\[\d+\]", "", name).split("."):
        defaults = defaults.get(key) if isinstance(defaults, Mapping) else None
    return defaults
