"""The estimators behind `advantages`: functions from one group to its turn advantages.

An estimator is a function `f(group: Group) -> (n, T) array`; what it writes behind a trajectory's last turn is cut
off. Register one with `@register_estimator("name")` (kind `estimator` of `rewright.core.registry`), or name it by
import path, "package.module:function". Ours are registered in `rewright.builtin`.
"""
# ruff: noqa: N802, N815  (arrays are named by axis)

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewright.core.registry import known, register
from rewright.credit.lookup import find_function

__all__ = ["Estimator", "Group", "estimator_names", "find_estimator", "register_estimator"]

Array = NDArray[np.float64]

_EQUAL = 1e-12
"""Values of a group that differ by less than this part of the largest are the same number, summed in another order."""

_SQUARABLE = 1e-100
"""Differences below this have a square of 0, and then a standard deviation of 0."""


@dataclass(frozen=True)
class Group:
    """The n rollouts of one task, padded with zeros to the T turns of the longest.

    `rewards_nT` (n, T): turn rewards. `present_nT` (n, T) bool: which turns exist. `trajectory_n` (n,): trajectory
    rewards. The settings are those of `advantages`. `missing_nT` (n, T) bool: turns whose reward could not be computed
    (it is 0 there). `tokens_nT` (n, T) of int: the model's tokens in each turn. None where the caller of `advantages`
    gave none. `keys_of`: the state keys of a rollout by its row, see `keys_nT`.
    """

    rewards_nT: Array
    present_nT: NDArray[np.bool_]
    trajectory_n: Array
    gamma: float
    eps: float
    fusion: Literal["mean", "sum"]
    singleton_turn: Literal["raw", "zero"]
    missing_nT: NDArray[np.bool_]
    tokens_nT: NDArray[np.int64] | None = None
    keys_of: Callable[[int], Sequence[Hashable]] | None = None

    @classmethod
    def of(
        cls,
        rewards: Sequence[Array],
        trajectory_rewards: Array | None,
        *,
        gamma: float,
        eps: float,
        fusion: Literal["mean", "sum"],
        singleton_turn: Literal["raw", "zero"],
        missing: Sequence[NDArray[np.bool_]] | None = None,
        keys_of: Callable[[int], Sequence[Hashable]] | None = None,
        token_counts: Sequence[Sequence[int]] | None = None,
    ) -> Group:
        """Pad the turn rewards (T_i,) of n rollouts; `trajectory_rewards` None means the sum over turns."""
        longest = max((len(row) for row in rewards), default=0)
        padded = np.zeros((len(rewards), longest))
        for index, row in enumerate(rewards):
            padded[index, : len(row)] = row
        missing_nT = np.zeros(padded.shape, dtype=bool)
        for index, mask in enumerate(missing or ()):
            missing_nT[index, : len(mask)] = mask
        tokens_nT = None if token_counts is None else np.zeros(padded.shape, dtype=np.int64)
        for index, counts in enumerate(token_counts or ()):
            tokens_nT[index, : len(counts)] = counts  # type: ignore[index]
        lengths = np.array([len(row) for row in rewards])
        present = np.arange(longest) < lengths[:, None]
        total = padded.sum(axis=1) if trajectory_rewards is None else trajectory_rewards
        return cls(padded, present, total, gamma, eps, fusion, singleton_turn, missing_nT, tokens_nT, keys_of)

    @cached_property
    def keys_nT(self) -> NDArray[np.object_] | None:
        """The key of the state before each turn, (n, T) of objects: None for a state without one, and behind the end.

        None in all where the caller of `advantages` gave no state keys.
        """
        if self.keys_of is None:
            return None
        keys_nT = np.full(self.rewards_nT.shape, None, dtype=object)
        for row in range(len(keys_nT)):
            for turn, key in enumerate(self.keys_of(row)):  # one by one: a key may be a tuple
                keys_nT[row, turn] = key
        return keys_nT

    @cached_property
    def returns_nT(self) -> Array:
        """D_t = r_t + gamma D_{t+1}, (n, T); 0 behind the end."""
        returns: Array = self.rewards_nT.copy()
        for turn in range(returns.shape[1] - 2, -1, -1):
            returns[:, turn] += self.gamma * returns[:, turn + 1]
        return returns

    @property
    def beyond_n(self) -> Array:
        """What the trajectory rewards hold beyond the turn rewards (a reward model's score …), (n,); 0 if nothing."""
        return np.asarray(self.trajectory_n - self.rewards_nT.sum(axis=1))

    def normalised(self, values: ArrayLike) -> Array:
        """(x - mean) / (std + eps), sample std; one value: mean 0, std 1; equal values: exactly 0."""
        array = np.asarray(values, dtype=np.float64)
        if array.size == 0:
            return array.copy()
        if array.size == 1:
            return array / (1.0 + self.eps)
        if all_equal(array):
            return np.zeros_like(array)
        eps = self.eps
        largest = float(np.abs(array).max())
        if largest < _SQUARABLE:
            array, eps = array / largest, eps / max(largest, 1e-300)
        return np.asarray((array - array.mean()) / (array.std(ddof=1) + eps))

    def fused(self, trajectory_nT: Array, turn_nT: Array) -> Array:
        """Both levels together: their mean (the release) or their sum (the paper's figure)."""
        total = trajectory_nT + turn_nT
        return total / 2.0 if self.fusion == "mean" else total


Estimator = Callable[[Group], ArrayLike]


def register_estimator(name: str) -> Callable[[Estimator], Estimator]:
    """Decorator: make an estimator known by name. Raises ValueError where the name is taken, or there is none."""
    return register("estimator", name)


def estimator_names() -> list[str]:
    """The registered names, sorted: ours, and those of installed packages."""
    return known("estimator")


def find_estimator(estimator: str | Estimator) -> Estimator:
    """The function for a name, an import path or a function. Raises ValueError naming what is known."""
    found: Estimator = find_function("estimator", estimator)
    return found


def all_equal(values: Array) -> bool:
    """Whether the values are one number, but for the rounding of sums: their std would be noise."""
    return bool(np.ptp(values) <= _EQUAL * np.abs(values).max())


def _trajectory_level(group: Group) -> Array:
    """A_traj on every turn, (n, T)."""
    return np.broadcast_to(group.normalised(group.trajectory_n)[:, None], group.rewards_nT.shape)


def grpo(group: Group) -> Array:
    """The normalised trajectory reward on every turn (GRPO, Shao et al. 2024; MatchTIR's trajectory level)."""
    return _trajectory_level(group)


def matchtir(group: Group) -> Array:
    """MatchTIR's dual level: GRPO's term, fused with turn returns normalised among the rollouts that have the turn."""
    turn_nT = np.zeros_like(group.rewards_nT)
    for turn in range(turn_nT.shape[1]):
        present = group.present_nT[:, turn]
        returns = group.returns_nT[present, turn]
        if len(returns) > 1:
            turn_nT[present, turn] = group.normalised(returns)
        elif group.singleton_turn == "raw":
            turn_nT[present, turn] = returns
    return group.fused(_trajectory_level(group), turn_nT)


def fixed_horizon(group: Group) -> Array:
    """A_t = D_t minus the mean of D_t over the whole group, a rollout that has ended counting as 0.

    The baseline of a turn index has the same n terms for every rollout, however early it stopped, so the policy cannot
    change it by stopping. Not divided by a standard deviation: the expected gradient is (n - 1) / n of the true one.
    What `trajectory_rewards` hold beyond the turn rewards arrives at the end of the rollout, undiscounted.
    """
    returns = np.where(group.present_nT, group.returns_nT + group.beyond_n[:, None], 0.0)
    return _centred(returns)


def leave_one_out(group: Group) -> Array:
    """A = R minus the mean R of the other rollouts, on every turn (RLOO: Kool et al. 2019, Ahmadian et al. 2024).

    Unbiased without a factor. A rollout alone has nothing to be compared with and keeps R.
    """
    count = len(group.trajectory_n)
    if count == 1:
        baseline_free = group.trajectory_n[:, None]
    else:
        baseline_free = _centred(group.trajectory_n[:, None]) * (count / (count - 1))
    return np.broadcast_to(baseline_free, group.rewards_nT.shape)


def delta(group: Group) -> Array:
    """GRPO's term, fused with the turn's own progress: r_t, normalised over all turns of the group.

    r_t is what the turn added to the trajectory's reward. A turn that adds nothing lies below the group's average turn,
    whenever it happens. What the turn made possible later is credited by the trajectory level only.
    """
    progress = group.rewards_nT[group.present_nT]
    turn_nT = np.zeros_like(group.rewards_nT)
    if len(progress) > 1:
        turn_nT[group.present_nT] = group.normalised(progress)
    elif group.singleton_turn == "raw":
        turn_nT[group.present_nT] = progress
    return group.fused(_trajectory_level(group), turn_nT)


def _centred(values_nT: Array) -> Array:
    """Each column minus its mean; exactly 0 where a column holds one number only."""
    centred: Array = values_nT - values_nT.mean(axis=0)
    for turn in range(values_nT.shape[1]):
        if all_equal(values_nT[:, turn]):
            centred[:, turn] = 0.0
    return centred
