"""Advantage estimators: functions from one group to its turn advantages.

An estimator is a function `f(group: Group) -> (n, T) array`; entries after a trajectory's last turn are ignored.
Register one with `@register_estimator("name")` (kind `estimator` of `rewright.core.registry`), or refer to it by
import path, "package.module:function". The built-in estimators are registered in `rewright.builtin`. Settings of its
own are keyword arguments (`rewright.credit.with_settings`); those of `advantages` are attributes of the group. What it
reads besides rewards it declares with `reads`. Attributes of the function, all optional:

finish            is given the advantages of all groups of a batch, their components, token counts, `eps` and the
                  settings, and returns the final advantages
compares_groups   is given the settings, and returns True if it reads `Group.batch_outcomes`, so that a group must be
                  given with all groups of its batch
named_components  is given the settings, and returns a mapping from each component that they name to its key
check_join        is given `join` and the settings, and raises ValueError if the estimator ignores the outcome
"""
# ruff: noqa: N802, N815  (arrays are named by axis)

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewright.core.registry import known, register
from rewright.credit.lookup import find_function

__all__ = [
    "EQUAL_TOLERANCE",
    "FLOAT32_TOLERANCE",
    "READS",
    "Estimator",
    "Group",
    "all_equal",
    "check_join",
    "estimator_names",
    "find_estimator",
    "reads",
    "reads_of",
    "register_estimator",
]

Array = NDArray[np.float64]

EQUAL_TOLERANCE = 1e-12
"""Relative tolerance below which the values of a group count as equal (rounding of sums)."""

FLOAT32_TOLERANCE = 1e-6
"""The tolerance for rewards that a trainer has stored as float32: 0.8 + 0.2 is then 1 + 1.5e-8."""

_MIN_SQUARABLE = 1e-100
"""Values below this are rescaled before normalization, since their squares underflow to 0."""


@dataclass(frozen=True)
class Group:
    """The n rollouts of one task, zero-padded to the T turns of the longest.

    Attributes:
        rewards_nT: turn rewards (n, T).
        present_nT: bool (n, T), which turns exist.
        trajectory_n: trajectory rewards (n,).
        gamma, eps, fusion, singleton_turn: settings of `advantages`.
        missing_nT: bool (n, T), turns whose reward could not be computed (0 in `rewards_nT`).
        tokens_nT: int (n, T), generated tokens per turn; None if `advantages` got no `token_counts`.
        keys_of: for each kind of key the keys of a rollout by its row, see `keys`.
        masked_nT: bool (n, T), turns that are excluded from the loss.
        components: the parts of the trajectory reward by name, float64 (n,), NaN where a part is unknown.
        component_weights: weights of the parts; 1 for those that are not named.
        shares: what the estimator reports, see `report`; shared by the groups of a batch.
        outcome_n: outcomes (n,), NaN if unknown; None if `advantages` got no `outcomes`.
        batch_outcomes: the outcomes of each group of the batch, this one included; empty if `advantages` got none.
        joined: `rewards_nT` includes the outcome, in the last turn of each rollout.
        tolerance: relative difference up to which values count as equal.
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
    keys_of: Mapping[str, Callable[[int], Sequence[Hashable]]] = field(default_factory=dict)
    masked_nT: NDArray[np.bool_] | None = None
    components: Mapping[str, Array] = field(default_factory=dict)
    component_weights: Mapping[str, float] = field(default_factory=dict)
    shares: dict[str, tuple[float, float]] = field(default_factory=dict)
    outcome_n: Array | None = None
    batch_outcomes: Sequence[Array] = ()
    joined: bool = True
    tolerance: float = EQUAL_TOLERANCE

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
        token_counts: Sequence[Sequence[int]] | None = None,
        masked: Sequence[Sequence[bool]] | None = None,
        **more: Any,
    ) -> Group:
        """Pad the turn rewards (T_i,) of n rollouts.

        `trajectory_rewards` (n,) defaults to the sum over turns. The other arguments are the attributes, unpadded;
        `more`: attributes that are not padded.
        """
        longest = max((len(row) for row in rewards), default=0)
        padded = np.zeros((len(rewards), longest))
        for index, row in enumerate(rewards):
            padded[index, : len(row)] = row
        missing_nT, masked_nT = np.zeros(padded.shape, dtype=bool), np.zeros(padded.shape, dtype=bool)
        for target, masks in ((missing_nT, missing), (masked_nT, masked)):
            for index, mask in enumerate(masks or ()):
                target[index, : len(mask)] = mask
        tokens_nT = None if token_counts is None else np.zeros(padded.shape, dtype=np.int64)
        for index, counts in enumerate(token_counts or ()):
            tokens_nT[index, : len(counts)] = counts  # type: ignore[index]
        lengths = np.array([len(row) for row in rewards])
        present = np.arange(longest) < lengths[:, None]
        total = trajectory_rewards
        if total is None:
            tolerance = more.get("tolerance", EQUAL_TOLERANCE)
            total = _without_rounding(padded.sum(axis=1), np.abs(padded).sum(axis=1), tolerance)
        return cls(
            padded,
            present,
            total,
            gamma,
            eps,
            fusion,
            singleton_turn,
            missing_nT,
            tokens_nT,
            masked_nT=masked_nT,
            **more,
        )

    @cached_property
    def keys_nT(self) -> NDArray[np.object_] | None:
        """The keys of the kind "history": equal keys are equal states before the turn."""
        return self.keys("history")

    def keys(self, kind: str) -> NDArray[np.object_] | None:
        """The keys of one kind, object (n, T); None for unknown states and padding.

        The result is None if `advantages` got no `state_keys` of that kind (see `CreditTrajectory.keys`).
        """
        keys_of = self.keys_of.get(kind)
        if keys_of is None:
            return None
        keys_nT = np.full(self.rewards_nT.shape, None, dtype=object)
        for row in range(len(keys_nT)):
            for turn, key in enumerate(keys_of(row)):  # no slice assignment: numpy would unpack tuple keys
                keys_nT[row, turn] = key
        return keys_nT

    @property
    def calls_nT(self) -> Array:
        """The turn rewards without the outcome, (n, T)."""
        calls: Array = self.rewards_nT.copy()
        if self.joined and self.outcome_n is not None:
            rows = np.flatnonzero(self.present_nT.any(axis=1))
            calls[rows, self.present_nT[rows].sum(axis=1) - 1] -= np.nan_to_num(self.outcome_n[rows])
        return calls

    def report(self, name: str, part: float, whole: float) -> None:
        """Report a share, which is logged over all groups of a batch: the sum of the parts by that of the wholes."""
        parts, wholes = self.shares.get(name, (0.0, 0.0))
        self.shares[name] = (parts + part, wholes + whole)

    @cached_property
    def returns_nT(self) -> Array:
        """Turn returns D_t = r_t + gamma D_{t+1}, (n, T); 0 in padding."""
        returns, sizes = self.rewards_nT.copy(), np.abs(self.rewards_nT)
        for turn in range(returns.shape[1] - 2, -1, -1):
            returns[:, turn] += self.gamma * returns[:, turn + 1]
            sizes[:, turn] += self.gamma * sizes[:, turn + 1]
        return _without_rounding(returns, sizes, self.tolerance)

    @property
    def surplus_n(self) -> Array:
        """Trajectory rewards minus the sums of the turn rewards (such as a reward model's score), (n,)."""
        return np.asarray(self.trajectory_n - self.rewards_nT.sum(axis=1))

    def normalised(self, values: ArrayLike) -> Array:
        """(x - mean) / (std + eps) with the sample std. A single value uses mean 0 and std 1; equal values give 0."""
        array = np.asarray(values, dtype=np.float64)
        if array.size == 0:
            return array.copy()
        if array.size == 1:
            return array / (1.0 + self.eps)
        if all_equal(array, self.tolerance):
            return np.zeros_like(array)
        eps = self.eps
        largest = float(np.abs(array).max())
        if largest < _MIN_SQUARABLE:
            array, eps = array / largest, eps / max(largest, 1e-300)
        return np.asarray((array - array.mean()) / (array.std(ddof=1) + eps))

    def fused(self, trajectory_nT: Array, turn_nT: Array) -> Array:
        """Combine both levels (n, T): their mean (MatchTIR's code) or their sum (the paper's figure)."""
        total = trajectory_nT + turn_nT
        return total / 2.0 if self.fusion == "mean" else total


READS: Mapping[str, str] = {
    "state_keys": "the states of the turns",
    "components": "the parts of the trajectory reward",
    "outcomes": "the outcomes",
    "scores": "the scores of the states",
    "answers": "the gold answers",
    "token_ids": "the token ids",
    "tau2_tasks": "the tasks of the format tau2",
}
"""What an estimator may read besides rewards, or a signal besides calls and messages, for messages."""

Function = TypeVar("Function", bound=Callable[..., Any])


def reads(*names: str) -> Callable[[Function], Function]:
    """Decorator that says what an estimator or a signal reads (keys of `READS`). A trainer without it refuses it."""

    def keep(function: Function) -> Function:
        function.reads = names  # type: ignore[attr-defined]
        return function

    return keep


def reads_of(function: Any) -> tuple[str, ...]:
    """Return what an estimator or a signal reads (keys of `READS`)."""
    return tuple(getattr(function, "reads", ()))


def check_join(function: Any, join: str, settings: Mapping[str, Any]) -> None:
    """Raise ValueError, which begins with the key, for a `join` with which the estimator ignores the outcome."""
    check = getattr(function, "check_join", None)
    if check is not None:
        check(join, **settings)


Estimator = Callable[..., ArrayLike]
"""A function of a `Group` and keyword settings of its own."""


def register_estimator(name: str) -> Callable[[Estimator], Estimator]:
    """Decorator that registers an estimator by name. Raises ValueError if the name is empty or taken."""
    return register("estimator", name)


def estimator_names() -> list[str]:
    """Return the sorted names of the registered estimators, including those of installed packages."""
    return known("estimator")


def find_estimator(estimator: str | Estimator) -> Estimator:
    """Look up an estimator (see `find_function`). Raises ValueError listing the known names."""
    function: Estimator = find_function("estimator", estimator)
    return function


def all_equal(values: Array, tolerance: float = EQUAL_TOLERANCE) -> bool:
    """Return True if the values are equal up to rounding, so that their std would be noise.

    `tolerance`: relative to the largest absolute value; that of a group is `Group.tolerance`.
    """
    return bool(np.ptp(values) <= tolerance * np.abs(values).max())


def _without_rounding(sums: Array, sizes: Array, tolerance: float) -> Array:
    """Sums, 0 where they are the rounding of terms that cancel out. `sizes`: the sums of the absolute terms."""
    return np.where(np.abs(sums) <= tolerance * sizes, 0.0, sums)


def _trajectory_level(group: Group) -> Array:
    """The trajectory-level advantage A_traj on every turn, (n, T)."""
    return np.broadcast_to(group.normalised(group.trajectory_n)[:, None], group.rewards_nT.shape)


def grpo(group: Group) -> Array:
    """The normalised trajectory reward on every turn (GRPO, Shao et al. 2024; MatchTIR's trajectory level)."""
    return _trajectory_level(group)


def matchtir(group: Group) -> Array:
    """MatchTIR's dual-level advantage: GRPO's term fused with turn returns normalised per turn index."""
    return group.fused(_trajectory_level(group), turn_level(group))


def turn_level(group: Group) -> Array:
    """MatchTIR's turn level, (n, T): turn returns, each turn index normalised over the rollouts that reach it."""
    turn_nT = np.zeros_like(group.rewards_nT)
    for turn in range(turn_nT.shape[1]):
        present = group.present_nT[:, turn]
        returns = group.returns_nT[present, turn]
        if len(returns) > 1:
            turn_nT[present, turn] = group.normalised(returns)
        elif group.singleton_turn == "raw":
            turn_nT[present, turn] = returns
    return turn_nT


def fixed_horizon(group: Group) -> Array:
    """A_t = D_t minus the mean of D_t over the whole group, where rollouts that have ended count as 0.

    The baseline of a turn index always averages n terms, so the policy cannot change it by stopping early. There is no
    division by a standard deviation: the expected gradient is (n - 1) / n times the true one. The part of
    `trajectory_rewards` beyond the turn rewards is received at the end of the rollout, undiscounted.
    """
    returns = np.where(group.present_nT, group.returns_nT + group.surplus_n[:, None], 0.0)
    return _centred(returns, group.tolerance)


def leave_one_out(group: Group) -> Array:
    """A = R minus the mean R of the other rollouts, on every turn (RLOO: Kool et al. 2019, Ahmadian et al. 2024).

    Unbiased without a correction factor. In a group of one, A = R.
    """
    count = len(group.trajectory_n)
    if count == 1:
        advantage_n1 = group.trajectory_n[:, None]
    else:
        advantage_n1 = _centred(group.trajectory_n[:, None], group.tolerance) * (count / (count - 1))
    return np.broadcast_to(advantage_n1, group.rewards_nT.shape)


def delta(group: Group) -> Array:
    """GRPO's term fused with the turn reward r_t, normalised over all turns of the group.

    r_t is the turn's contribution to the trajectory reward. A turn that contributes nothing is below the group's mean,
    regardless of its position. Effects on later turns are credited at the trajectory level only.
    """
    progress = group.rewards_nT[group.present_nT]
    turn_nT = np.zeros_like(group.rewards_nT)
    if len(progress) > 1:
        turn_nT[group.present_nT] = group.normalised(progress)
    elif group.singleton_turn == "raw":
        turn_nT[group.present_nT] = progress
    return group.fused(_trajectory_level(group), turn_nT)


def _centred(values_nT: Array, tolerance: float) -> Array:
    """Subtract the column means; columns of equal values become exactly 0."""
    centred: Array = values_nT - values_nT.mean(axis=0)
    for turn in range(values_nT.shape[1]):
        if all_equal(values_nT[:, turn], tolerance):
            centred[:, turn] = 0.0
    return centred
