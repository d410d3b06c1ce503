"""A credit signal in one file: a turn earns 1 if its tools told something that the trajectory had not been told yet.

Registered by one line, or named as `seams.toys.toy_signal:new_results` in a recipe (`rl.credit.signal`). A recipe sets
its settings as in `signal: {name: seams.toys.toy_signal:new_results, reward: 2}`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rewright.core.settings import PositiveFloat, Settings
from rewright.credit import CreditTrajectory, with_settings


class NewResults(Settings, frozen=True):
    """What a recipe can set."""

    reward: PositiveFloat = 1.0
    """Reward of a turn with a new result."""
    ignored: tuple[str, ...] = ()
    """Results that are never new."""


@with_settings(NewResults)
def new_results(
    trajectories: Sequence[CreditTrajectory], *, reward: float = 1.0, ignored: Sequence[str] = ()
) -> list[list[float]]:
    """`reward` for each turn with a new result, else 0; NaN where the results of a turn with calls are not known."""
    values = []
    for one in trajectories:
        told = set(ignored)
        values.append([])
        for turn in one.turns:
            known = not turn.calls or turn.results is not None
            new = set(turn.results or ()) - told
            told |= new
            values[-1].append((reward if new else 0.0) if known else math.nan)
    return values
