"""Settings that have no effect: with the signal, assignment or estimator of a `credit:` section, or in a trainer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_type_hints

import msgspec

from rewright.core.settings import UnusedKey
from rewright.credit.choices import Choice, Part, chosen_name, parts_of, settings_in
from rewright.credit.lookup import find_function

if TYPE_CHECKING:
    from rewright.credit.settings import TurnCredit

__all__ = ["CALL_KEYS", "check_choice", "check_unread", "reads_trajectory_reward", "unused_keys"]

CALL_KEYS: Final = ("assignment", "unmatched", "reg", "ot_scale", "weights", "compare", "aggregate")
"""Settings of the signal `matched`. They stand beside `signal`, or in it if it is a mapping."""
UNUSED_BY_ESTIMATOR: Final = {
    "grpo": ("gamma", "fusion", "singleton_turn", "join"),
    "leave_one_out": ("gamma", "fusion", "singleton_turn", "join", "eps"),
    "fixed_horizon": ("fusion", "singleton_turn", "eps"),
    "igpo": ("fusion", "singleton_turn", "join"),
    "lotapo": ("gamma", "fusion", "singleton_turn", "join"),
    "delta": ("gamma",),
    "outcome_or_calls": ("join",),
    "gigpo": ("fusion", "singleton_turn"),
    "hgpo": ("fusion", "singleton_turn"),
    "gdpo": ("gamma", "fusion", "singleton_turn", "join"),
    "turn_credit": ("gamma", "eps", "fusion", "singleton_turn"),
}
"""Settings that each built-in estimator ignores. (Those that estimators of other packages ignore are unknown.)"""
UNUSED_WITH: Final = {
    "igpo": ("normalize", "index", ("gamma", "eps", "estimator.parity")),
    "gigpo": ("normalisation", "mean", ("eps",)),
    "outcome_or_calls": ("level", "turn", ("fusion",)),
}
"""Of an estimator a setting, a value of it, and the settings that it then ignores."""
READ_WITH: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "likelihood": ("form", {"margin": "log_ratio", "marker": "delete", "weight": "delete", "eps": "delete"}),
    "judge": ("form", {"per": "ruler", "most": "ruler", "criteria": "draco"}),
    "model": ("form", {"temperature": "min"}),
}
"""Of a signal a setting, and others that it reads with one value of it only."""
WITHOUT_TRAJECTORY_REWARD: Final = ("outcome_or_calls",)
"""Estimators that read the outcomes in place of the trajectory rewards, so that a reward model has no effect."""


def reads_trajectory_reward(estimator: Any) -> bool:
    """Return False if the value of `credit.estimator` is one of the built-in estimators without trajectory rewards."""
    return chosen_name(estimator) not in WITHOUT_TRAJECTORY_REWARD


def unused_keys(section: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[UnusedKey]:
    """Yield the settings of a `credit:` section that its signal, assignment or estimator ignores."""
    try:
        parts = parts_of(section.get("signal", defaults["signal"]))
    except ValueError:  # the settings say what is wrong
        parts = ()
    for part in parts:
        yield from _of_another_form(part)
        if part.name == "outcome" and part.scale != 1:
            yield UnusedKey(f"{part.key}.scale", f"{part.key}.name", "outcome", ", whose turn rewards are 0")
    matched = [part for part in parts if part.name == "matched"]
    if parts and not matched:
        yield from (UnusedKey(key, "signal", " + ".join(part.name for part in parts)) for key in CALL_KEYS)
    if len(matched) == 1:
        inside, where = matched[0].settings, matched[0].key
        yield from (UnusedKey(key, f"{where}.{key}", inside[key]) for key in CALL_KEYS if key in inside)
        place = {key: f"{where}.{key}" if key in inside else key for key in CALL_KEYS}
        assignment = inside.get("assignment", section.get("assignment", defaults["assignment"]))
        for key in ("unmatched",) if assignment == "ot" else ("reg", "ot_scale"):
            yield UnusedKey(place[key], place["assignment"], assignment)
    choice = section.get("estimator", defaults["estimator"])
    estimator = chosen_name(choice)
    for key in UNUSED_BY_ESTIMATOR.get(estimator, ()) if isinstance(estimator, str) else ():
        yield UnusedKey(key, "estimator", estimator)
    if isinstance(estimator, str) and estimator in UNUSED_WITH:
        setting, value, keys = UNUSED_WITH[estimator]
        usual, given = _defaults("estimator", estimator), settings_in(choice)
        if given.get(setting, usual[setting]) == value:
            for key in keys:
                own = key.removeprefix("estimator.")
                if own == key or given.get(own, usual[own]) != usual[own]:
                    yield UnusedKey(key, f"estimator.{setting}", value)


def _of_another_form(part: Part) -> Iterator[UnusedKey]:
    """Yield the settings of a built-in signal that belong to another form of it, unless they have their defaults."""
    if part.name not in READ_WITH:
        return
    setting, readers = READ_WITH[part.name]
    usual = _defaults("signal", part.name)
    chosen = part.settings.get(setting, usual[setting])
    if chosen not in get_args(get_type_hints(_settings_class("signal", part.name))[setting]):
        return  # the settings say what is wrong
    for key, reader in readers.items():
        if key in part.settings and chosen != reader and part.settings[key] != usual[key]:
            yield UnusedKey(f"{part.key}.{key}", f"{part.key}.{setting}", chosen)


def _defaults(kind: Literal["estimator", "signal"], name: str) -> dict[str, Any]:
    """The defaults of the settings of a built-in signal or estimator."""
    return msgspec.structs.asdict(_settings_class(kind, name)())


def _settings_class(kind: Literal["estimator", "signal"], name: str) -> Any:
    function: Any = find_function(kind, name)
    return function.settings


def check_choice(choice: Choice, settings: TurnCredit) -> None:
    """Raise ValueError for a setting inside the choice of a single signal that has no effect, as in a recipe.

    `settings`: what `matched` is given besides.
    """
    usual, given = type(settings)().as_mapping(), settings_in(choice)
    for unused in unused_keys({**settings.as_mapping(), "signal": choice}, usual):
        section, _, key = unused.key.rpartition(".")
        if section == "signal" and key in given and given[key] != usual.get(key):
            raise ValueError(f"{unused.key} has no effect: {unused.cause} is {unused.value}")


def check_unread(settings: TurnCredit, keys: Collection[str], why: str) -> None:
    """Raise ValueError for settings that a trainer does not read, unless they have their defaults.

    Args:
        settings: the settings.
        keys: names of those that are not read.
        why: why they are not, for the message.
    """
    defaults = type(settings)().as_mapping()
    given = [key for key, value in settings.as_mapping().items() if key in keys and value != defaults[key]]
    if given:
        raise ValueError(f"{', '.join(given)} {'have' if len(given) > 1 else 'has'} no effect here: {why}")
