"""Turn advantages from turn rewards and groups (MatchTIR, dual-level advantage).

A group is the rollouts of one task. For a trajectory with T turns, r_t are the turn rewards, R is the trajectory
reward (the sum over turns, or `trajectory_rewards`) and D_t = r_t + gamma D_{t+1} are the turn returns. docs/bias.md
explains which estimators are unbiased and when to use each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewright.credit.estimators import EQUAL_TOLERANCE, Estimator, Group, find_estimator
from rewright.credit.formula import MAX_MAGNITUDE, as_floats, is_finite
from rewright.credit.lookup import validated
from rewright.credit.signals import TurnSignal

__all__ = ["advantages"]

Array = NDArray[np.float64]
StateKeys = Sequence[Sequence[Hashable]] | Callable[[int], Sequence[Hashable]]


def advantages(
    turn_rewards: Sequence[ArrayLike] | TurnSignal,
    group_ids: Sequence[Hashable],
    *,
    estimator: str | Estimator = "matchtir",
    estimator_settings: Mapping[str, Any] | None = None,
    gamma: float = 0.9,
    eps: float = 1e-6,
    fusion: Literal["mean", "sum"] = "mean",
    singleton_turn: Literal["raw", "zero"] = "raw",
    trajectory_rewards: ArrayLike | None = None,
    state_keys: StateKeys | Mapping[str, StateKeys] | None = None,
    token_counts: Sequence[Sequence[int]] | None = None,
    outcomes: Sequence[float | None] | None = None,
    joined: bool = True,
    masked: Sequence[Sequence[bool]] | None = None,
    components: Mapping[str, ArrayLike] | None = None,
    component_weights: Mapping[str, float] | None = None,
    missing: Literal["raise", "bridge"] = "raise",
    metrics: dict[str, float] | None = None,
    tolerance: float = EQUAL_TOLERANCE,
) -> list[Array]:
    """Compute the turn advantages of B trajectories. The defaults are those of the MatchTIR release.

    Args:
        turn_rewards: B arrays (T_i,); T_i may differ and may be 0. Or a `TurnSignal`: rewards are used as given,
            values as differences, and advantages are added to the estimator's advantages of the trajectory rewards
            (zeros if none are given).
        group_ids: B hashable labels; trajectories with equal labels form a group, in any order.
        estimator: "matchtir", "grpo", "fixed_horizon", "delta", "leave_one_out" (see `rewright.credit.estimators`),
            "gigpo", "hgpo", "gdpo", a name registered with `register_estimator`, an import path
            "package.module:function", or a function.
        estimator_settings: keyword arguments of the estimator.
        gamma: discount factor per turn.
        eps: added to standard deviations.
        fusion: "mean" or "sum" of the trajectory-level and turn-level advantages.
        singleton_turn: turn-level advantage of a turn index that only one rollout of the group reaches: "raw" (parity)
            is its return, "zero" is 0.
        trajectory_rewards: (B,), replaces the sum over turns at the trajectory level, for example to include a reward
            model's score there only.
        state_keys: for estimators that compare states (`Group.keys`): B lists of T_i hashable keys, None for an unknown
            state; or a function from a trajectory's index to its list, called only when needed. A mapping has one or
            the other for each kind of key; without a mapping the kind is "history". Tensors are unpacked.
        token_counts: for estimators that read `Group.tokens_nT`: B lists of T_i.
        outcomes: for estimators that read `Group.outcome_n`: (B,), None for an unknown one.
        joined: the turn rewards include the outcomes, each in the last turn of its trajectory.
        masked: B lists of T_i, True for turns that are excluded from the loss.
        components: for estimators that read the parts of the trajectory reward: (B,) each, NaN for an unknown part.
        component_weights: weights of the parts that an estimator adds; 1 for those that are not named.
        missing: handling of rewards that could not be computed (NaN, or the mask of a signal). "bridge" counts them
            as 0 and marks them in `Group.missing_nT`.
        metrics: a mapping to which the shares are added that the estimator reports.
        tolerance: relative difference up to which values of a group count as equal; for rewards that were float32
            `rewright.credit.estimators.FLOAT32_TOLERANCE`.

    Returns a list of float64 (T_i,), in the given order. Equal values in a group give exactly 0. Raises ValueError for
    lengths that do not match, unknown settings, labels that cannot be compared, rewards that are not finite (missing
    rewards included, with `missing="raise"`), and an estimator that raises or returns a wrong shape or values that are
    not finite.
    """
    function = find_estimator(estimator)
    own_settings = validated("estimator", estimator, function, estimator_settings or {})
    if fusion not in ("mean", "sum"):
        raise ValueError(f"fusion is {fusion!r}: expected 'mean' or 'sum'")
    if singleton_turn not in ("raw", "zero"):
        raise ValueError(f"singleton_turn is {singleton_turn!r}: expected 'raw' or 'zero'")
    if not (is_finite(gamma) and 0.0 <= gamma <= 1.0):
        raise ValueError(f"gamma is {gamma!r}: expected a number from 0 to 1")
    if not (is_finite(eps) and eps >= 0.0):
        raise ValueError(f"eps is {eps!r}: expected a finite number >= 0")
    if not (is_finite(tolerance) and 0.0 <= tolerance < 1.0):
        raise ValueError(f"tolerance is {tolerance!r}: expected a number from 0 to 1")
    if missing not in ("raise", "bridge"):
        raise ValueError(f"missing is {missing!r}: expected 'raise' or 'bridge'")
    rewards, masks, added = _read_rewards(turn_rewards, bridge=missing == "bridge")
    labels = _labels(group_ids)
    if len(labels) != len(rewards):
        raise ValueError(f"{len(labels)} group_ids, but {len(rewards)} trajectories: give exactly one each")
    trajectory_reward_B = None
    if trajectory_rewards is not None:
        trajectory_reward_B = _numbers("trajectory_rewards", trajectory_rewards)
        if trajectory_reward_B.shape != (len(rewards),):
            raise ValueError(f"trajectory_rewards has shape {trajectory_reward_B.shape}: expected ({len(rewards)},)")
        _check_finite("trajectory_rewards", trajectory_reward_B)
    outcome_B = None
    if outcomes is not None:
        outcome_B = _numbers("outcomes", [np.nan if outcome is None else outcome for outcome in outcomes])
        if outcome_B.shape != (len(rewards),):
            raise ValueError(f"outcomes has shape {outcome_B.shape}: expected ({len(rewards)},)")
        _check_finite("outcomes", outcome_B[~np.isnan(outcome_B)])
    _check_rows("token_counts", token_counts, rewards)
    _check_rows("masked", masked, rewards)
    sources = _key_sources(state_keys, rewards)
    parts = {name: _component(name, values, len(rewards)) for name, values in (components or {}).items()}
    unknown = sorted((component_weights or {}).keys() - parts.keys())
    if unknown:
        raise ValueError(f"component_weights name {unknown[0]!r}: expected one of {', '.join(parts) or 'no parts'}")
    shares: dict[str, tuple[float, float]] = {}

    members: dict[Any, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    results: list[Array] = [np.zeros(0)] * len(rewards)
    batch_outcomes = () if outcome_B is None else [outcome_B[indices] for indices in members.values()]
    for indices in members.values():
        group = Group.of(
            [rewards[index] for index in indices],
            None if trajectory_reward_B is None else trajectory_reward_B[indices],
            gamma=gamma,
            eps=eps,
            fusion=fusion,
            singleton_turn=singleton_turn,
            missing=[masks[index] for index in indices],
            keys_of={kind: partial(_keys_of, keys, indices, rewards) for kind, keys in sources.items()},
            token_counts=None if token_counts is None else [token_counts[index] for index in indices],
            outcome_n=None if outcome_B is None else outcome_B[indices],
            batch_outcomes=batch_outcomes,
            joined=joined,
            masked=None if masked is None else [masked[index] for index in indices],
            components={name: values[indices] for name, values in parts.items()},
            component_weights=component_weights or {},
            shares=shares,
            tolerance=tolerance,
        )
        try:
            advantage_nT = np.asarray(function(group, **own_settings), dtype=np.float64)
        except Exception as error:  # user code can raise anything
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
    finish = getattr(function, "finish", None)
    if finish is not None:
        results = finish(results, components=parts, token_counts=token_counts, eps=eps, **own_settings)
    if metrics is not None:
        metrics.update({name: part / whole for name, (part, whole) in shares.items() if whole})
    if added is None:
        return results
    return [row + signal_row for row, signal_row in zip(results, added, strict=True)]


def _read_rewards(
    given: Sequence[ArrayLike] | TurnSignal, *, bridge: bool
) -> tuple[list[Array], list[NDArray[np.bool_]], list[Array] | None]:
    """Return turn rewards (T_i,), the masks of missing ones, and the advantages of an advantage signal (else None)."""
    added = None
    if isinstance(given, TurnSignal):
        rewards, masks = given.rewards, given.missing_rewards
        for index, mask in enumerate(masks):
            if mask.any() and not bridge:
                cause = f" ({given.causes[index]})" if index in given.causes else ""
                raise ValueError(
                    f"turn_rewards[{index}]: the signal could not be computed for turn {int(mask.argmax())}{cause}: "
                    "expected missing='bridge', which counts it as 0"
                )
        added = given.advantages
        if added is not None:
            added = [_numbers(f"advantages[{index}] of the signal", row) for index, row in enumerate(added)]
    else:
        rewards = [_numbers(f"turn_rewards[{index}]", row) for index, row in enumerate(given)]
        masks = [np.isnan(row) if bridge else np.zeros(row.shape, dtype=bool) for row in rewards]
        if bridge:
            rewards = [np.where(mask, 0.0, row) for mask, row in zip(masks, rewards, strict=True)]
    for index, row in enumerate(rewards):
        if row.ndim != 1:
            raise ValueError(f"turn_rewards[{index}] has shape {row.shape}: expected one number for each turn, (T,)")
        _check_finite(f"turn_rewards[{index}]", row)
    for index, (row, turn_rewards) in enumerate(zip(added or (), rewards, strict=False)):
        if row.shape != turn_rewards.shape:
            raise ValueError(
                f"advantages[{index}] of the signal has shape {row.shape}: expected {turn_rewards.shape}, one for each "
                "turn"
            )
        _check_finite(f"advantages[{index}] of the signal", row)
    return rewards, masks, added


def _key_sources(given: Any, rewards: Sequence[Array]) -> dict[str, Callable[[int], Sequence[Hashable]]]:
    """Return a function from a trajectory's index to its keys for each kind of state key."""
    kinds = given if isinstance(given, Mapping) else {} if given is None else {"history": given}
    for keys in kinds.values():
        if not callable(keys):
            _check_rows("state_keys", keys, rewards)
    return {kind: keys if callable(keys) else keys.__getitem__ for kind, keys in kinds.items()}


def _component(name: str, values: Any, count: int) -> Array:
    """Return a part of the trajectory rewards (B,), NaN where it is unknown. Raises ValueError for other values."""
    array = _numbers(f"components[{name!r}]", values)
    if array.shape != (count,):
        raise ValueError(f"components[{name!r}] has shape {array.shape}: expected ({count},)")
    _check_finite(f"components[{name!r}]", array[~np.isnan(array)])
    return array


def _keys_of(
    keys: Callable[[int], Sequence[Hashable]], indices: Sequence[int], rewards: Sequence[Array], row: int
) -> Sequence[Hashable]:
    """Return the state keys of a row of a group, unpacked as `_labels` are."""
    row_keys = list(map(_unpacked, _unpacked(keys(indices[row]))))
    _check_row(f"state_keys[{indices[row]}]", row_keys, rewards[indices[row]], "a hashable key, or None")
    return row_keys


def _check_rows(name: str, rows: Sequence[Sequence[Any]] | None, rewards: Sequence[Array]) -> None:
    """Raise ValueError unless `rows` is None or has one valid entry per turn of each trajectory."""
    if rows is None:
        return
    if len(rows) != len(rewards):
        raise ValueError(f"{len(rows)} {name}, but {len(rewards)} trajectories: give exactly one list each")
    for index, (row, turn_rewards) in enumerate(zip(rows, rewards, strict=True)):
        expected = {"state_keys": "a hashable key, or None", "masked": "True or False"}.get(name, "a number of tokens")
        _check_row(f"{name}[{index}]", row, turn_rewards, expected)


def _check_row(name: str, row: Sequence[Any], turn_rewards: Array, expected: str) -> None:
    if len(row) != len(turn_rewards):
        raise ValueError(f"{name} has {len(row)} entries: expected {len(turn_rewards)}, one for each turn")
    for entry in row:
        if not isinstance(entry, Hashable) or _is_nan(entry) or ("tokens" in expected and not _is_count(entry)):
            raise ValueError(f"{name} holds {entry!r:.200}: expected {expected}")


def _is_count(value: Any) -> bool:
    """Return True if `value` is a non-negative Python or numpy integer."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= int(value) < 2**62


def _numbers(name: str, values: Any) -> Array:
    """Convert `values` to a float64 array. Raises ValueError with `name` if that fails."""
    try:
        return as_floats(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is {values!r:.200}: expected numbers ({error})") from None


def _labels(group_ids: Any) -> list[Hashable]:
    """Convert group labels to comparable Python values; elements of tensors and arrays are unpacked.

    Torch tensors compare by identity and NaN (pandas' missing value) equals nothing, so either would silently put each
    rollout into a separate group. Raises ValueError for labels that are NaN or not hashable.
    """
    values = _unpacked(group_ids)
    if not isinstance(values, Iterable):
        raise ValueError(f"group_ids is {values!r}: expected one label for each trajectory")
    labels = list(map(_unpacked, values))
    for index, label in enumerate(labels):
        if not isinstance(label, Hashable) or _is_nan(label):
            raise ValueError(f"group_ids[{index}] is {label!r:.200}: expected a hashable label (text, number, None)")
    return labels


def _unpacked(value: Any) -> Any:
    """Return the Python value of a tensor or an array; any other value unchanged."""
    return value.tolist() if callable(getattr(value, "tolist", None)) else value


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _check_finite(name: str, values: Array) -> None:
    """Raise ValueError with `name` unless all values are finite and at most `MAX_MAGNITUDE`."""
    if values.size and not np.abs(values).max() <= MAX_MAGNITUDE:  # False for NaN too
        raise ValueError(f"{name} is {values.tolist()!r:.200}: expected finite numbers (of at most {MAX_MAGNITUDE:g})")
