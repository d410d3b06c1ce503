"""Signals and estimators with settings of their own: `rl.credit.signal` is a name, or a mapping that has `name`.

    rl: {credit: {signal: {name: new_results, reward: 0.5}}}

The settings are validated against the class that the function was given with `with_settings`. A signal may also be a
list of such choices, whose mappings may have a `scale`: their weighted sum.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from rewright.core.closest import closest_key
from rewright.core.settings import MAX_NUMBER, Settings, convert
from rewright.credit.lookup import find_function

__all__ = [
    "MAX_PARTS",
    "Choice",
    "Part",
    "SignalChoice",
    "check_scale",
    "checked",
    "chosen_name",
    "own_settings",
    "parts_of",
    "settings_in",
    "tidied",
]

Choice = str | dict[str, Any]
"""A name or an import path, or a mapping with `name` and settings."""
SignalChoice = str | dict[str, Any] | list[str | dict[str, Any]]
"""A choice, or a list of choices, whose mappings may have a `scale`."""
MAX_PARTS: Final = 8
"""Maximum number of signals in a list."""


class Part(NamedTuple):
    """One signal of a sum.

    Attributes:
        name: name or import path.
        settings: its settings as they were given.
        scale: its factor in the sum.
        key: where it stands, for messages: "signal", in a list "signal[0]".
    """

    name: str
    settings: dict[str, Any]
    scale: float = 1.0
    key: str = "signal"


def parts_of(choice: Any) -> tuple[Part, ...]:
    """Return the signals of a choice, one if it is not a list.

    Raises ValueError, which begins with the key, for an empty or too long list, an entry without a name, and a scale
    that is not a finite number other than 0.
    """
    if not isinstance(choice, list | tuple):
        if not isinstance(chosen_name(choice), str):
            raise ValueError(f"signal must have the key name, got {choice!r:.200}")
        return (Part(chosen_name(choice), settings_in(choice)),)
    if not 1 <= len(choice) <= MAX_PARTS:
        raise ValueError(f"signal must be a list of 1 to {MAX_PARTS} signals, got {len(choice)}")
    parts = []
    for number, one in enumerate(choice):
        key = f"signal[{number}]"
        if not isinstance(chosen_name(one), str):
            raise ValueError(f"{key} must be a name, or have the key name, got {one!r:.200}")
        given = settings_in(one)
        scale = given.pop("scale", 1.0)
        is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
        if not is_number or not math.isfinite(scale) or scale == 0 or abs(scale) > MAX_NUMBER:
            raise ValueError(f"{key}.scale must be a finite number other than 0, got {scale!r:.80}")
        parts.append(Part(chosen_name(one), given, float(scale), key))
    return tuple(parts)


def tidied(choice: Any) -> Any:
    """Return a valid choice of signals in its shortest form, so that equal choices are equal."""
    parts = parts_of(choice)
    short = [
        part.name
        if not part.settings and part.scale == 1
        else {"name": part.name, **({} if part.scale == 1 else {"scale": part.scale}), **part.settings}
        for part in parts
    ]
    return short[0] if len(parts) == 1 and parts[0].scale == 1 else short


def chosen_name(choice: Any) -> Any:
    """The name in a choice. Anything but a mapping is returned unchanged."""
    return choice.get("name") if isinstance(choice, Mapping) else choice


def settings_in(choice: Any) -> dict[str, Any]:
    """The settings in a choice as they were given; empty for a name."""
    return {key: value for key, value in choice.items() if key != "name"} if isinstance(choice, Mapping) else {}


def own_settings(
    kind: Literal["estimator", "signal"], choice: Any, *, shared: Collection[str] = (), key: str | None = None
) -> dict[str, Any]:
    """Return the settings of a chosen signal or estimator, defaults included, as keyword arguments of its function.

    `shared`: settings beside the choice, which an error points to. `key`: where the choice stands, for messages;
    default: `kind`. Raises ValueError for an unknown function, a setting that it does not have, and an invalid value.
    """
    name, given = chosen_name(choice), settings_in(choice)
    kept = getattr(find_function(kind, name), "settings", None)
    if kept is None:
        kept = Settings
    if not isinstance(kept, type) or not issubclass(kept, msgspec.Struct):
        raise ValueError(f"{kind} {name!r} has the settings {kept!r:.60}: expected a subclass of Settings")
    where = key or kind
    misplaced = next((key for key in given if key in shared and key not in kept.__struct_fields__), None)
    if misplaced is not None:
        raise ValueError(f"{where}.{misplaced} must be beside {kind}, not in it: every {kind} is given it")
    check_scale(where, choice, kept.__struct_fields__)
    return checked(where, name, given, kept, kept.__struct_fields__)


def check_scale(key: str, choice: Any, known: Collection[str]) -> None:
    """Raise ValueError for a scale of a signal that is in no list, unless the signal has a setting of that name."""
    given = settings_in(choice)
    if key == "signal" and "scale" in given and "scale" not in known:
        example = f"[{{name: {chosen_name(choice)}, scale: {given['scale']}}}]"
        raise ValueError(f"signal.scale must be in a list, as in signal: {example}, got a single signal")


def checked(
    kind: str, name: str, given: Mapping[str, Any], settings: type[msgspec.Struct], known: Collection[str]
) -> dict[str, Any]:
    """Return the `known` fields of `settings` after validation. Raises ValueError that names the key, as `kind.key`."""
    for key in given:
        if key not in known:
            near = closest_key(str(key), known)
            names = " or ".join(known) or "no settings"
            expected = f"expected {names}" if near is None else f"did you mean {near}?"
            raise ValueError(f"{kind}.{key} must be a setting of {name}: {expected}")
    try:
        built = convert(dict(given), settings)
    except msgspec.ValidationError as problem:
        reason, _, path = str(problem).partition(" - at `$")
        where = f"{kind}{path.rstrip('`')}"
        if " must " in reason:  # the message of a bound or of `__post_init__` begins with the key
            raise ValueError(f"{where}.{reason}") from None
        choices = get_type_hints(settings).get(path.strip(".`"))
        expected = (
            f": expected one of {', '.join(map(str, get_args(choices)))}" if get_origin(choices) is Literal else ""
        )
        raise ValueError(f"{where} must be valid: {reason[:1].lower()}{reason[1:]}{expected}") from None
    return {field: getattr(built, field) for field in known}
