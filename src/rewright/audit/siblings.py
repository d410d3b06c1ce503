"""How a signal correlates with the outcomes of siblings: other attempts that did the same in the same state.

Needs no continuation, so that it works on any stored run with several attempts at a task. It is a correlation in what
happened, and not an effect: attempts that share a turn also share all that led to it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewright.audit.ranks import correlation, ranks, rounded
from rewright.audit.table import Estimate, coded, estimate, task_weights
from rewright.credit.trajectories import CreditTrajectory

__all__ = ["SiblingRow", "Siblings", "siblings_of"]

Array = NDArray[np.float64]


class SiblingRow(NamedTuple):
    """Correlations of a signal at N turns with what siblings reached.

    `pearson`, `spearman`: with the mean outcome of the siblings that did the same. `contrast`: Pearson's with that
    mean less the mean of attempts that did something else in the same state, over turns that have both.
    """

    signal: str
    turns: int
    tasks: int
    pearson: Estimate
    spearman: Estimate
    contrast_turns: int
    contrast: Estimate


class Siblings(NamedTuple):
    """For each turn that has siblings: its trajectory and turn, its task, the mean outcome of other trajectories of its
    group with the same state after it, and that mean less the one of those with the same state only before it."""

    places: list[tuple[int, int]]
    tasks: list[Hashable]
    same: Array
    contrast: Array

    def row(self, name: str, values: Sequence[Array], *, seed: int = 0, resamples: int = 2000) -> SiblingRow:
        """Correlate a signal, B arrays (T_i,) with NaN for missing values.

        The intervals are those of a bootstrap of tasks. Raises ValueError if fewer than 3 turns have siblings.
        """
        signal = rounded(np.array([values[index][turn] for index, turn in self.places]))
        known = ~np.isnan(signal)
        if known.sum() < 3:
            raise ValueError(f"{int(known.sum())} turns have siblings and a value of {name}: expected at least 3")
        random = np.random.default_rng(seed)
        both = known & ~np.isnan(self.contrast)

        def over(chosen: NDArray[np.bool_], target: Array, change: Callable[[Array, Array], Array]) -> Estimate:
            if chosen.sum() < 3:
                return Estimate(np.nan, np.nan, np.nan)
            tasks = coded([task for task, keep in zip(self.tasks, chosen, strict=True) if keep])
            weights = task_weights(int(tasks.max()) + 1, resamples, random)[:, tasks]
            found = []
            for drawn in (np.ones((1, int(chosen.sum()))), weights):
                left, right = (change(one[chosen], drawn) for one in (signal, target))
                found.append(correlation(left, right, drawn))
            return estimate(float(found[0][0]), found[1])

        return SiblingRow(
            name,
            int(known.sum()),
            len({task for task, keep in zip(self.tasks, known, strict=True) if keep}),
            over(known, self.same, _plain),
            over(known, self.same, ranks),
            int(both.sum()),
            over(both, self.contrast, _plain),
        )


def siblings_of(trajectories: Sequence[CreditTrajectory], groups: Sequence[Hashable]) -> Siblings:
    """Find the siblings of every turn.

    Args:
        trajectories: B trajectories. Those without an outcome have no siblings and are none.
        groups: the group of each (B,), such as its task and its step of RL; None: no group.
    """
    before: dict[Hashable, dict[int, float]] = {}
    after: dict[Hashable, dict[int, float]] = {}
    keys: list[list[tuple[Hashable, str | None]]] = []
    for index, (trajectory, group) in enumerate(zip(trajectories, groups, strict=True)):
        if trajectory.outcome is None or group is None:
            keys.append([])
            continue
        states = [*trajectory.state_keys, None]  # what follows the last turn is the outcome itself
        keys.append([(group, state) for state in states])
        for turn in range(len(trajectory.turns)):
            for found, state in ((before, states[turn]), (after, states[turn + 1])):
                if state is not None:
                    found.setdefault((group, state), {})[index] = trajectory.outcome
    places, tasks, same, contrast = [], [], [], []
    for index, own in enumerate(keys):
        for turn in range(len(own) - 1):
            start, end = own[turn], own[turn + 1]
            alike = {other: value for other, value in after.get(end, {}).items() if other != index}
            if None in (start[1], end[1]) or not alike:
                continue
            others = [value for other, value in before[start].items() if other != index and other not in alike]
            places.append((index, turn))
            tasks.append(trajectories[index].task_id)
            same.append(float(np.mean(list(alike.values()))))
            contrast.append(same[-1] - float(np.mean(others)) if others else np.nan)
    return Siblings(places, tasks, rounded(np.array(same)), rounded(np.array(contrast)))


def _plain(values: Array, weights: Array) -> Array:
    return np.broadcast_to(values, weights.shape)
