"""Weighted sums of credit signals: `rl.credit.signal` as a list."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewright.credit.signals import TurnSignal

__all__ = ["add_signals"]


def add_signals(signals: Sequence[TurnSignal], scales: Sequence[float], names: Sequence[str]) -> TurnSignal:
    """Return the weighted sum of N signals of the same B trajectories.

    Rewards, and the differences of values, are added to each other; advantages are added to advantages. A number that
    is missing in one signal is missing in the sum, whose value is 0 there.

    Args:
        signals: N signals.
        scales: their factors.
        names: their names, for the provenance and the metrics.

    The kind is "advantage" if all signals are advantages, else "reward", with the sum of the advantages in `added`.
    """
    kinds = [signal.kind for signal in signals]
    masks = [np.logical_or.reduce(rows) for rows in zip(*(signal.missing_rewards for signal in signals), strict=True)]
    totals = [
        np.asarray(sum(scale * row for scale, row in zip(scales, rows, strict=True)))
        for rows in zip(*(signal.rewards for signal in signals), strict=True)
    ]
    rewards = [np.where(mask, 0.0, row) for mask, row in zip(masks, totals, strict=True)]
    parts = [
        [scale * row for row in advantages]
        for signal, scale in zip(signals, scales, strict=True)
        if (advantages := signal.advantages) is not None
    ]
    added = None
    if parts:
        added = [np.where(mask, 0.0, sum(rows)) for mask, *rows in zip(masks, *parts, strict=True)]
    only_advantages = added is not None and set(kinds) == {"advantage"}
    return TurnSignal(
        values=added if only_advantages and added is not None else rewards,
        missing=masks,
        kind="advantage" if only_advantages else "reward",
        added=None if only_advantages else added,
        stats={
            f"{name}/{key}": value for name, one in zip(names, signals, strict=True) for key, value in one.stats.items()
        },
        provenance={
            "signal": " + ".join(names),
            "parts": [{"scale": scale, **one.provenance} for scale, one in zip(scales, signals, strict=True)],
        },
        details=next((one.details for one in signals if one.details is not None), None),
        causes={
            index: f"{name}: {cause}"
            for name, one in reversed(list(zip(names, signals, strict=True)))
            for index, cause in one.causes.items()
        },
    )
