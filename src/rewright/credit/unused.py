"""Settings that have no effect: with the signal, assignment or estimator of a `credit:` section, or in a trainer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from rewright.core.settings import UnusedKey
from rewright.credit.choices import chosen_name, parts_of, settings_in

if TYPE_CHECKING:
    from rewright.credit.settings import TurnCredit

__all__ = ["CALL_KEYS", "check_unread", "reads_trajectory_reward", "unused_keys"]

CALL_KEYS: Final = ("assignment", "unmatched", "reg", "ot_scale", "weights", "compare", "aggregate")
"""Settings of the signal `matched`. They stand beside `signal`, or in it if it is a mapping."""
UNUSED_BY_ESTIMATOR: Final = {
    "grpo": ("gamma", "fusion", "singleton_turn", "join"),
    "leave_one_out": ("gamma", "fusion", "singleton_turn", "join", "eps"),
    "fixed_horizon": ("fusion", "singleton_turn", "eps"),
    "igpo": ("fusion", "singleton_turn"),
    "lotapo": ("gamma", "fusion", "singleton_turn", "join"),
    "delta": ("gamma",),
    "outcome_or_calls": ("join",),
    "gigpo": ("fusion", "singleton_turn"),
    "hgpo": ("fusion", "singleton_turn"),
    "gdpo": ("gamma", "fusion", "singleton_turn", "join"),
    "turn_credit": ("gamma", "eps", "fusion", "singleton_turn"),
}
"""Settings that each built-in estimator ignores. (Those that estimators of other packages ignore are unknown.)"""
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
    if estimator == "igpo" and settings_in(choice).get("normalize") == "index":
        yield from (UnusedKey(key, "estimator.normalize", "index") for key in ("gamma", "eps"))


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
