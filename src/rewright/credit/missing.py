"""Trajectories that are left out of their groups because a signal has no number for one of their turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rewright.core.errors import InputError

__all__ = ["MAX_MISSING", "check_missing"]

MAX_MISSING: Final = 0.1
"""Share of the trajectories of a step that may be left out. What remains of more is a selection."""


def check_missing(
    signal: str,
    left_out: Sequence[tuple[str, str | None]],
    count: int,
    *,
    key: str = "rl.credit",
    bridged: bool = False,
) -> None:
    """Raise InputError, which names the signal, if more than a tenth of the trajectories of a step are left out.

    Args:
        signal: name of the signal.
        left_out: the names of the trajectories that are left out, and why.
        count: the number of all trajectories, without those with an infrastructure failure.
        key: where the settings of the signal stand, for the message.
        bridged: `missing` is `bridge`, so that a trajectory is left out only if all of its numbers are missing.
    """
    if len(left_out) > MAX_MISSING * count:
        name, cause = left_out[0]
        advice = "" if bridged else f", or {key}.missing: bridge"
        raise InputError(
            f"{key}.signal {signal} has no number for {len(left_out)} of {count} trajectories, more than a tenth "
            f"(the first is {name}: {cause or 'a turn has no number'}): expected fewer{advice}"
        )
