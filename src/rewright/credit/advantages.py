"""Advantages: one number for each turn of each trajectory, from turn rewards and groups (MatchTIR, dual level).

A group is the rollouts of one task. r_t are the turn rewards of a trajectory with T turns, R its trajectory reward
(the sum over its turns, or what the caller gives), D_t = r_t + gamma D_{t+1} its turn returns. Which estimator is
unbiased, and when to use which, is explained in docs/bias.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewright.credit.estimators import Estimator, Group, find_estimator
from rewright.credit.signals import TurnSignal
from rewright.credit.similarity import LARGEST, is_finite

__all__ = ["advantages"]

Array = NDArray[np.float64]


def advantages(
    turn_rewards: Sequence[ArrayLike] | TurnSignal,
    group_ids: Sequence[Hashable],
    *,
    estimator: str | Estimator = "matchtir",
    gamma: float = 0.9,
    eps: float = 1e-6,
    fusion: Literal["mean", "sum"] = "mean",
    singleton_turn: Literal["raw", "zero"] = "raw",
    trajectory_rewards: ArrayLike | None = None,
    state_keys: Sequence[Sequence[Hashable]] | Callable[[int], Sequence[Hashable]] | None = None,
    token_counts: Sequence[Sequence[int]] | None = None,
    missing: Literal["raise", "bridge"] = "raise",
) -> list[Array]:
    """Turn advantages of B trajectories: a list of float64 (T_i,), in the order given.

    `turn_rewards`: B arrays (T_i,), T_i may differ and may be 0. `group_ids`: B hashable labels; equal labels are one
    group, in any order. `trajectory_rewards` (B,) replaces the sum over turns at trajectory level, so that a reward
    model and the like join there only. The defaults are those of the MatchTIR release.

    In place of turn rewards, a `TurnSignal`: rewards as they are, of a value its differences; an advantage is added to
    what the estimator makes of the trajectory rewards (of nothing, where none are given).

    `estimator`: "matchtir", "grpo", "fixed_horizon", "delta", "leave_one_out" (see `rewright.credit.estimators`), a
    name registered with `register_estimator`, an import path "package.module:function", or a function.
    `gamma`: discount from turn to turn. `eps`: added to standard deviations. `fusion`: of the two levels.
    `singleton_turn`: a turn index that only one rollout of the group reaches has nothing to be normalised with; "raw"
    (parity) keeps its return, "zero" gives it no turn-level advantage. `state_keys` (B lists of T_i hashable keys, None
    where a state has none; or a function from the place of a trajectory to its list, called only where it is needed)
    and `token_counts` (B lists of T_i) are for estimators that read `Group.keys_nT` and `Group.tokens_nT`. `missing`:
    what to do where a reward could not be computed (NaN, or the mask of a signal); "bridge" counts it as 0, and marks
    it in `Group.missing_nT`.

    Equal values in a group give exactly 0. Raises ValueError for lengths that do not fit, unknown settings, labels
    that cannot be compared, rewards that are not finite (with `missing="raise"` a reward that could not be computed
    does not become a number here), and an estimator that fails, or returns another shape or what is not finite.
    """
    function = find_estimator(estimator)
    if fusion not in ("mean", "sum"):
        raise ValueError(f"fusion is {fusion!r}: expected 'mean' or 'sum'")
    if singleton_turn not in ("raw", "zero"):
        raise ValueError(f"singleton_turn is {singleton_turn!r}: expected 'raw' or 'zero'")
    if not (is_finite(gamma) and 0.0 <= gamma <= 1.0):
        raise ValueError(f"gamma is {gamma!r}: expected a number from 0 to 1")
    if not (is_finite(eps) and eps >= 0.0):
        raise ValueError(f"eps is {eps!r}: expected a finite number >= 0")
    if missing not in ("raise", "bridge"):
        raise ValueError(f"missing is {missing!r}: expected 'raise' or 'bridge'")
    rewards, masks, added = _read_rewards(turn_rewards, bridge=missing == "bridge")
    labels = _labels(group_ids)
    if len(labels) != len(rewards):
        raise ValueError(f"{len(labels)} group_ids, but {len(rewards)} trajectories: give exactly one each")
    given = None
    if trajectory_rewards is not None:
        given = _numbers("trajectory_rewards", trajectory_rewards)
        if given.shape != (len(rewards),):
            raise ValueError(f"trajectory_rewards has shape {given.shape}: expected ({len(rewards)},)")
        _check_finite("trajectory_rewards", given)
    _check_rows("token_counts", token_counts, rewards)
    keys = state_keys
    if keys is not None and not callable(keys):
        _check_rows("state_keys", keys, rewards)
        keys = keys.__getitem__

    members: dict[Any, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    results: list[Array] = [np.zeros(0)] * len(rewards)
    for indices in members.values():
        group = Group.of(
            [rewards[index] for index in indices],
            None if given is None else given[indices],
            gamma=gamma,
            eps=eps,
            fusion=fusion,
            singleton_turn=singleton_turn,
            missing=[masks[index] for index in indices],
            keys_of=None if keys is None else partial(_keys_of, keys, indices, rewards),
            token_counts=None if token_counts is None else [token_counts[index] for index in indices],
        )
        try:
            advantage_nT = np.asarray(function(group), dtype=np.float64)
        except Exception as error:  # a user's function, perhaps none of this kind
            raise ValueError(f"estimator {estimator!r} failed: {type(error).__name__}: {error}") from error
        if advantage_nT.shape != group.rewards_nT.shape:
            raise ValueError(
                f"estimator {estimator!r} returned shape {advantage_nT.shape}: expected {group.rewards_nT.shape}, "
                "a number for every turn of every trajectory of the group"
            )
        if not np.isfinite(advantage_nT[group.present_nT]).all():
            raise ValueError(
                f"estimator {estimator!r} returned {advantage_nT.tolist()!r:.200}: expected finite numbers"
            )
        for position, index in enumerate(indices):
            results[index] = advantage_nT[position, : len(rewards[index])].copy()
    return results if added is None else [row + more for row, more in zip(results, added, strict=True)]


def _read_rewards(
    given: Sequence[ArrayLike] | TurnSignal, *, bridge: bool
) -> tuple[list[Array], list[NDArray[np.bool_]], list[Array] | None]:
    """Turn rewards (T_i,), which of them are missing, and the advantages that a signal gives by itself (else None)."""
    added = None
    if isinstance(given, TurnSignal):
        rewards, masks = given.rewards, given.missing
        for index, mask in enumerate(masks):
            if mask.any() and not bridge:
                raise ValueError(
                    f"turn_rewards[{index}]: the signal could not be computed for turn {int(mask.argmax())}: expected "
                    "missing='bridge', which counts it as 0"
                )
        added = given.values if given.kind == "advantage" else None
    else:
        rewards = [_numbers(f"turn_rewards[{index}]", row) for index, row in enumerate(given)]
        masks = [np.isnan(row) if bridge else np.zeros(row.shape, dtype=bool) for row in rewards]
        if bridge:
            rewards = [np.where(mask, 0.0, row) for mask, row in zip(masks, rewards, strict=True)]
    for index, row in enumerate(rewards):
        if row.ndim != 1:
            raise ValueError(f"turn_rewards[{index}] has shape {row.shape}: expected one number for each turn, (T,)")
        _check_finite(f"turn_rewards[{index}]", row)
    return rewards, masks, added


def _keys_of(
    keys: Callable[[int], Sequence[Hashable]], indices: Sequence[int], rewards: Sequence[Array], row: int
) -> Sequence[Hashable]:
    """The state keys of a row of a group."""
    found = keys(indices[row])
    _check_row(f"state_keys[{indices[row]}]", found, rewards[indices[row]], "a hashable key, or None")
    return found


def _check_rows(name: str, rows: Sequence[Sequence[Any]] | None, rewards: Sequence[Array]) -> None:
    """Raise ValueError unless there is one entry for each turn of each trajectory, or nothing at all."""
    if rows is None:
        return
    if len(rows) != len(rewards):
        raise ValueError(f"{len(rows)} {name}, but {len(rewards)} trajectories: give exactly one list each")
    for index, (row, own) in enumerate(zip(rows, rewards, strict=True)):
        expected = "a hashable key, or None" if name == "state_keys" else "a number of tokens"
        _check_row(f"{name}[{index}]", row, own, expected)


def _check_row(name: str, row: Sequence[Any], own: Array, expected: str) -> None:
    if len(row) != len(own):
        raise ValueError(f"{name} has {len(row)} entries: expected {len(own)}, one for each turn")
    for entry in row:
        if not isinstance(entry, Hashable) or ("tokens" in expected and not _is_count(entry)):
            raise ValueError(f"{name} holds {entry!r:.200}: expected {expected}")


def _is_count(value: Any) -> bool:
    """Whether this is a whole number from 0 (numpy's too)."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= int(value) < 2**62


def _numbers(name: str, values: Any) -> Array:
    """An array of numbers; ValueError with the name of what cannot be one."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is {values!r:.200}: expected numbers ({error})") from None


def _labels(group_ids: Any) -> list[Hashable]:
    """Group labels that can be compared: tensors and arrays as the Python values that they hold.

    A torch tensor is equal to itself only, and so is NaN (pandas' missing value): every rollout would silently be a
    group of its own.
    """
    values = group_ids.tolist() if callable(getattr(group_ids, "tolist", None)) else group_ids
    if not isinstance(values, Iterable):
        raise ValueError(f"group_ids is {values!r}: expected one label for each trajectory")
    labels = [label.tolist() if callable(getattr(label, "tolist", None)) else label for label in values]
    for index, label in enumerate(labels):
        if not isinstance(label, Hashable) or (isinstance(label, float) and math.isnan(label)):
            raise ValueError(f"group_ids[{index}] is {label!r:.200}: expected a hashable label (text, number, None)")
    return labels


def _check_finite(name: str, values: Array) -> None:
    """Raise ValueError with the name of what is not a usable number."""
    if values.size and not np.abs(values).max() <= LARGEST:  # False for NaN too
        raise ValueError(f"{name} is {values.tolist()!r:.200}: expected finite numbers (of at most {LARGEST:g})")
