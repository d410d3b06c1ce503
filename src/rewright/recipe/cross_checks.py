"""Keys of a recipe that would do nothing, seen before anything runs.

A key that is written down and has no effect is a mistake: whoever wrote it expects one. Checked here is what the types
can't say: keys that belong to another kind of tasks, to another engine, or to another reward. So are the addresses of
servers: a run must not end at the first request to one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.registry import find, known
from rewright.engines.settings import DEFAULT_ENGINE, ModelSettings
from rewright.recipe.schema import Recipe
from rewright.tasks.formats import WorldFormat, find_format

__all__ = ["check_addresses", "settle"]

WORLD_KEYS: Final = ("split", "profile", "count", "seed")
"""Keys of a tasks section that only the worlds read."""
TASKS: Final = (("tasks",), ("eval", "tasks"), ("rl", "tasks"))
MODELS: Final = (("model",), ("repair", "model"))
OF_CALLS: Final = ("assignment", "unmatched", "reg", "ot_scale", "weights", "aggregate")
"""Keys of `rl.credit` that say what calls are paid."""
UNUSED: Final = {
    "grpo": ("gamma", "fusion", "singleton_turn", "join"),
    "leave_one_out": ("gamma", "fusion", "singleton_turn", "join", "eps"),
    "fixed_horizon": ("fusion", "singleton_turn", "eps"),
    "delta": ("gamma",),
}
"""Keys of `rl.credit` that an estimator of ours does not read. (Of one's own, nobody knows.)"""


def settle(
    data: dict[str, Any], places: Mapping[str, str], standard: Mapping[str, Any], where: str, *, stored: bool = False
) -> None:
    """Settle what follows from other keys, in place. Raises InputError for a key that has no effect.

    `data` is the recipe as it was written, `standard` the defaults of every section, `places` says where each key
    stands, `where` the whole. A path without a format is a file in the format of `tasks`, else in our own. What a
    recipe file says of a world is dropped where an override names another format. So is every key without effect under
    the chosen reward where the file is a run's own (`stored`).
    """
    file_format = "rewright"
    for keys in TASKS:
        section = _section(data, keys)
        if section is not None:
            name = ".".join(keys)
            if section.get("path") is not None:
                section.setdefault("format", file_format)
            usual = _section(standard, keys) or {}
            draws = _draws_tasks(section, name, places, usual, where, stored=stored)
            if draws is not None:
                _check_tasks(section, name, places, usual, where, draws=draws)
            if name == "tasks" and draws is False:
                file_format = section.get("format", usual.get("format"))
    _check_rewards(data, places, standard, where, stored=stored)
    for keys in MODELS:
        section = _section(data, keys)
        if section is not None:
            _check_model(section, ".".join(keys), places, where, stored=stored)


def _check_model(section: dict[str, Any], name: str, places: Mapping[str, str], where: str, *, stored: bool) -> None:
    """Raise InputError for an unknown engine, and for keys of another engine. An override may replace the engine."""
    place = _place(name, "engine", places, where)
    try:
        kind = ModelSettings.kind(section)
    except InputError as problem:
        raise InputError(f"{place}: {name}.engine: {problem}") from None
    engine = section.get("engine", DEFAULT_ENGINE)
    for key in [key for key in section if key not in kind.__struct_fields__]:
        others = [one for one in known("engine") if key in find("engine", one).__struct_fields__]
        if not others:
            continue  # unknown to all: the check of keys says so, with the nearest
        own = _place(name, key, places, where)
        value = section.pop(key)
        if stored or value is None or (place.startswith("override ") and not own.startswith("override ")):
            continue
        raise InputError(
            f"{own}: {name}.{key} has no effect: {name}.engine is {engine}, and {key} is a setting of "
            f"engine {' and '.join(others)}: expected engine: {others[0]}, or no {key}"
        )


def check_addresses(recipe: Recipe, place_of: Callable[[str], str]) -> None:
    """Raise InputError for an address in the recipe that no client could use. `place_of`: where a key stands."""
    from rewright.net.endpoint import checked_url, server_address  # not before there is an address to check

    models = {"model": recipe.model, "repair.model": recipe.repair.model}
    servers = {"reward.url": recipe.reward.url, "sandbox.url": recipe.sandbox.url}
    search = recipe.tools.search
    if search is not None and _looks_like_an_address(search):
        servers["tools.search"] = search
    given: list[tuple[str, str, Callable[[str], str]]] = [
        *(
            (f"{name}.{key}", url, checked_url)
            for name, model in models.items()
            if model is not None
            for key, url in model.addresses().items()
        ),
        *((name, url, lambda url: server_address(url, "a server")) for name, url in servers.items() if url is not None),
    ]
    for name, url, check in given:
        try:
            if re.search(r"[\s\x00-\x1f\x7f]", url):
                raise InputError(f"{url!r} holds a space: expected an address such as http://127.0.0.1:8080")
            check(url)
        except InputError as problem:
            raise InputError(f"{place_of(name)}: {name}: {problem}") from None


def _looks_like_an_address(search: str) -> bool:
    """Is `tools.search` meant as a server's address, with its scheme or without, and not as a folder?"""
    return "://" in search or (re.match(r"[\w.\-]+:\d+(/|$)|\[", search) is not None and not Path(search).exists())


def _draws_tasks(
    section: dict[str, Any],
    name: str,
    places: Mapping[str, str],
    standard: Mapping[str, Any],
    where: str,
    *,
    stored: bool,
) -> bool | None:
    """Whether the format of a tasks section is a world. Raises InputError for an unknown format.

    None: that is not looked at. Another check says what is wrong with a format that is no text; and a stored recipe
    may name code, which is not imported before its user has allowed it, or a format of a package that is gone.
    """
    kind = section.get("format", standard.get("format"))
    if not isinstance(kind, str) or (stored and kind not in known("task_format")):
        return None
    try:
        return isinstance(find_format(kind, f"{name}.format"), WorldFormat)
    except InputError as problem:
        raise InputError(f"{_place(name, 'format', places, where)}: {problem}") from None


def _check_tasks(
    section: dict[str, Any],
    name: str,
    places: Mapping[str, str],
    standard: Mapping[str, Any],
    where: str,
    *,
    draws: bool,
) -> None:
    kind = section.get("format", standard.get("format"))
    if draws:
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


def _check_rewards(
    data: dict[str, Any], places: Mapping[str, str], standard: Mapping[str, Any], where: str, *, stored: bool
) -> None:
    """Keys that the chosen trajectory reward, assignment or estimator does not read.

    Those that have their default values are no mistake: a resolved recipe holds every key. What a file says is dropped
    where an override has chosen something else.
    """
    defaults = _section(standard, ("rl",)) or {}
    for name, cause, value in _without_effect(data, defaults):
        key = name.rpartition(".")[2]
        section = _section(data, tuple(name.split(".")[:-1]))
        usual = (defaults["credit"] if ".credit." in name else defaults if name.startswith("rl.") else {}).get(key)
        if section is None or key not in section or _same(section[key], usual):
            continue
        if key in ("call_weight", "reward_model_weight") and section[key] == 0:
            continue  # which is how it is
        place = places.get(name, where)
        if not place.startswith("override ") and (stored or places.get(cause, where).startswith("override ")):
            del section[key]
            continue
        raise InputError(f"{place}: {name} has no effect: {cause} is {value}")


def _without_effect(data: dict[str, Any], defaults: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(key, the key that is the cause, its value) of all keys without effect, given or not."""
    rl, credit = _section(data, ("rl",)) or {}, _section(data, ("rl", "credit")) or {}
    reward = rl.get("trajectory_reward", defaults["trajectory_reward"])
    if reward == "matchtir":
        for key in ("rl.reward_model_weight", "rl.reward_model_clip", "reward.url"):
            yield key, "rl.trajectory_reward", reward
    elif rl.get("reward_model_weight", defaults["reward_model_weight"]) == 0:
        for key in ("rl.reward_model_clip", "reward.url"):
            yield key, "rl.reward_model_weight", 0
    if reward == "autotraj":
        yield "rl.call_weight", "rl.trajectory_reward", reward
        yield from ((f"rl.credit.{key}", "rl.trajectory_reward", reward) for key in OF_CALLS)
    elif rl.get("call_weight", defaults["call_weight"]) == 0:
        yield from ((f"rl.credit.{key}", "rl.call_weight", 0) for key in OF_CALLS)
    assignment = credit.get("assignment", defaults["credit"]["assignment"])
    for key in ("unmatched",) if assignment == "ot" else ("reg", "ot_scale"):
        yield f"rl.credit.{key}", "rl.credit.assignment", assignment
    estimator = credit.get("estimator", defaults["credit"]["estimator"])
    for key in UNUSED.get(estimator, ()) if isinstance(estimator, str) else ():
        yield f"rl.credit.{key}", "rl.credit.estimator", estimator


def _same(value: Any, usual: Any) -> bool:
    return list(value) == list(usual) if isinstance(usual, list | tuple) and isinstance(value, list) else value == usual


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
