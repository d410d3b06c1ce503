"""The signals of an audit as one number for each planned turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

from rewright.audit.plan import AuditPlan
from rewright.audit.ranks import DECIMALS
from rewright.audit.source import Source
from rewright.core.errors import InputError
from rewright.core.records import Trajectory
from rewright.credit.choices import Choice, chosen_name, own_settings
from rewright.credit.resources import Resources, resources_for
from rewright.credit.settings import CALL_KEYS, TurnCredit
from rewright.credit.signals import find_signal, signal_names, turn_signal
from rewright.credit.trajectories import CreditTrajectory
from rewright.credit.unused import check_choice

__all__ = [
    "ALWAYS",
    "baselines",
    "check_signal",
    "covariates",
    "read_signal",
    "scale_warning",
    "signal_name",
    "turn_values",
]

Array = NDArray[np.float64]

SMALL: Final = 1e-8
"""If all numbers of a signal are smaller, rounding may change its ranks."""
ALWAYS: Final = ("random", "index", "log-prob", "outcome")
"""The rows that every table has, besides the signals."""


def read_signal(text: str) -> Choice:
    """Read `--signal`: a name, an import path, or a mapping `{name: branch, k: 2}`. Raises InputError."""
    if text.lstrip().startswith("["):
        raise InputError(
            f"--signal is {text!r}: expected one signal (it can be repeated): a list is a sum, and its parts are "
            "audited one by one"
        )
    if not text.lstrip().startswith("{"):
        return text.strip()
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise InputError(f"--signal is {text!r}: expected a name, or a mapping such as '{{name: branch, k: 4}}'")
    return value


def check_signal(choice: Choice, credit: TurnCredit, resources: Resources) -> None:
    """Raise InputError for an unknown signal, a setting that is wrong or has no effect, and a missing resource."""
    name = str(chosen_name(choice))
    try:
        _settings(choice, credit)
        check_choice(choice, credit)
        resources_for(find_signal(name), name, resources)
    except ValueError as problem:
        raise problem if isinstance(problem, InputError) else InputError(f"--signal: {problem}") from None


def turn_values(
    choice: Choice, trajectories: Sequence[CreditTrajectory], credit: TurnCredit, resources: Resources | None
) -> list[Array]:
    """The signal's number for each turn, B arrays (T_i,): rewards, differences of values, or advantages.

    Missing numbers are NaN. Raises InputError as the signal does.
    """
    name = str(chosen_name(choice))
    try:
        found = turn_signal(trajectories, name, resources=resources, **_settings(choice, credit))
    except ValueError as problem:
        raise problem if isinstance(problem, InputError) else InputError(str(problem)) from None
    if found.added is not None:
        raise InputError(
            f"signal {name!r} gives {found.kind}s, and advantages beside them (`added`): expected one number a turn, "
            "as of two signals that are audited one by one"
        )
    rows = found.values if found.kind == "advantage" else found.rewards
    return [np.where(mask, np.nan, row) for row, mask in zip(rows, found.missing_rewards, strict=True)]


def scale_warning(name: str, values: Array) -> str | None:
    """Return a warning for a signal (N,) whose numbers are nearly lost in the rounding before they are ranked."""
    largest = float(np.abs(values[~np.isnan(values)]).max(initial=0.0))
    if largest == 0 or largest >= SMALL:
        return None
    return (
        f"warning: the numbers of {name} are at most {largest:.1g}, and what differs by less than 1e-{DECIMALS} counts "
        "as equal: expected a signal of larger numbers, such as a multiple of it"
    )


def _settings(choice: Choice, credit: TurnCredit) -> dict[str, Any]:
    """The settings of a signal: its own, and for `matched` those of the run's recipe."""
    if chosen_name(choice) != "matched":
        return own_settings("signal", choice)
    given = {key: value for key, value in credit.as_mapping().items() if key != "signal"}
    inside = {key: value for key, value in choice.items() if key != "name"} if isinstance(choice, Mapping) else {}
    settings = TurnCredit.of({**given, **inside, "signal": "matched"})
    return {key: getattr(settings, key) for key in CALL_KEYS}


def signal_name(choice: Choice) -> str:
    """The name of a signal in the table: with its settings, so that one signal can stand there twice.

    The name of a row that is always there is that row, unless a package has registered a signal of that name.
    """
    name = str(chosen_name(choice))
    if name in ALWAYS and name != "outcome" and name in signal_names():
        name = f"signal {name}"
    if not isinstance(choice, Mapping) or len(choice) == 1:
        return name
    return f"{name}({', '.join(f'{key}={value}' for key, value in choice.items() if key != 'name')})"


def baselines(plan: AuditPlan, source: Source, stored: Mapping[str, Trajectory]) -> dict[str, Array]:
    """The rows that every table has (N,): a random number, the turn's number, its log-probability, the outcome.

    `log-prob` is left out if the engine gave no log-probabilities.
    """
    known = covariates(plan, stored)
    rows = {
        "random": np.random.default_rng([plan.seed, 1]).random(len(plan.turns)),
        "index": known["index"],
        "log-prob": known["log_prob"],
        "outcome": np.array([source.outcomes[one.trajectory] for one in plan.turns]),
    }
    return {name: row for name, row in rows.items() if not np.isnan(row).any()}


def covariates(plan: AuditPlan, stored: Mapping[str, Trajectory]) -> dict[str, Array]:
    """What partial correlations hold fixed (N,): mean log-probability, number, and length of each turn.

    The length is in tokens, or in characters without token ids.
    """
    turns = [stored[one.trajectory].turns[one.turn] for one in plan.turns]
    return {
        "log_prob": np.array([np.mean(turn.log_probs) if turn.log_probs else np.nan for turn in turns]),
        "index": np.array([one.turn for one in plan.turns], dtype=np.float64),
        "length": np.array([float(len(turn.text if turn.token_ids is None else turn.token_ids)) for turn in turns]),
    }
