"""Checks of rewards and log-probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rewright.credit.batch_checks.rows import Batch, BatchRow, Finding, NotChecked, Result, Trajectory
from rewright.credit.batch_checks.statistics import ROUNDING, implied_rewards

__all__ = ["lost_reward", "masked_log_probs", "not_finite"]

_TOLERANCE = 1e-3
_AGREEING = 2
"""Rows whose reward is the sum of their turns' rewards, from which on a row that lacks its last one is a finding."""


def lost_reward(batch: Batch) -> Result:
    """A reward is lost, as with a turn that was cut off at the length limit."""
    findings: list[Finding] = []
    checked = False
    rows = [row for row in batch.rows if row.index not in batch.padded]
    for one in batch.trajectories(rows):
        for fault in (_on_padding(one), _not_on_tokens(one), _not_on_turns(one)):
            checked = checked or fault is not None
            findings += fault or []
    findings += _last_turn_lost(rows)
    for group in batch.groups().values():
        for one, seen, is_stated in implied_rewards(batch.trajectories(group)) or []:
            checked = True
            if not is_stated:
                what = f"the advantage is that of the reward {seen:.4g}, and the row was cut off"
                findings.append(one.last.finding("lost_reward", what, None, f"reward {one.last.reward:.4g}"))
    if not checked:
        return NotChecked("needs token_rewards, turn_rewards with turns, or truncated with reward and advantages")
    return findings


def masked_log_probs(batch: Batch) -> Result:
    """Log-probabilities of masked tokens are filled with 1, which makes their ratio e or 1/e (Flash-RL 19)."""
    findings, checked = [], False
    for row in batch.rows:
        for name, values in (("log_probs", row.log_probs), ("old_log_probs", row.old_log_probs)):
            if values is None:
                continue
            checked = True
            above = values > _TOLERANCE
            if above.any():
                token = int(np.argmax(above))
                kind = "a trained" if row.mask[token] else "a masked"
                what = f"{name} is {values[token]:.4g} at {kind} token and at {int(above.sum())} tokens of the row"
                findings.append(row.finding("masked_log_probs", what, token, "0 or less, the same in both"))
    return findings if checked else NotChecked("needs log_probs or old_log_probs")


def not_finite(batch: Batch) -> Result:
    """An advantage or the trainer's log-probability of a trained token is NaN or infinite: so is the whole loss."""
    findings, checked = [], False
    for row in batch.trained:
        for name, values in (("advantages", row.advantages), ("old_log_probs", row.old_log_probs)):
            if values is None:
                continue
            checked = True
            broken = row.mask & ~np.isfinite(values)
            if broken.any():
                token = int(np.argmax(broken))
                what = f"{name} is not finite at {int(broken.sum())} of {int(row.mask.sum())} trained tokens of the row"
                findings.append(row.finding("not_finite", what, token, "a finite number"))
    return findings if checked else NotChecked("needs advantages or old_log_probs")


def _on_padding(one: Trajectory) -> list[Finding] | None:
    """Rewards on tokens of padding. None: no rewards per token."""
    rows = [row for row in one.rows if row.token_rewards is not None]
    findings = []
    for row in rows:
        lost = (row.token_rewards if row.token_rewards is not None else np.zeros(len(row.ids))) * ~row.real
        if lost.any():
            token = int(np.argmax(lost != 0))
            what = f"a reward of {lost[token]:.4g} is on padding"
            findings.append(row.finding("lost_reward", what, token, f"it on token {max(row.end - 1, 0)}"))
    return findings if rows else None


def _not_on_tokens(one: Trajectory) -> list[Finding] | None:
    """A stated reward that the tokens do not have, in the row or in the trajectory."""
    rows = [row for row in one.rows if row.token_rewards is not None and row.reward_stated and row.reward is not None]
    if len(one.rows) == 1 and one.last.last_step is False:
        return None  # the reward may be at the last step, in a row without a label
    if not rows:
        return None
    paid = [row.token_rewards for row in rows if row.token_rewards is not None]
    sums = [float(values.sum()) for values in paid]
    wrong = [
        (row, total)
        for row, total, values in zip(rows, sums, paid, strict=True)
        if not _equal(total, row.reward, values)
    ]
    if not wrong or _equal(sum(sums), one.last.reward, np.concatenate(paid)):
        return []
    row, total = wrong[-1]
    token = max(row.end - 1, 0)
    what = f"the rewards of the tokens sum up to {total:.4g}"
    return [row.finding("lost_reward", what, token, f"{row.reward:.4g}, the reward of the row")]


def _not_on_turns(one: Trajectory) -> list[Finding] | None:
    """Turns without a reward, and rewards without a turn."""
    rows = [row for row in one.rows if row.turn_rewards is not None and row.turns is not None]
    findings = []
    for row in rows:
        rewards, turns = row.turn_rewards or [], row.turns or []
        if len(rewards) < len(turns):
            start = turns[len(rewards)][0]
            what = f"{len(turns)} turns, but {len(rewards)} turn rewards"
            findings.append(row.finding("lost_reward", what, start, "a reward for every turn"))
        elif any(rewards[len(turns) :]):
            what = f"{len(turns)} turns, but {len(rewards)} turn rewards: {sum(rewards[len(turns) :]):.4g} is lost"
            findings.append(row.finding("lost_reward", what, len(row.ids) - 1, "a turn for every reward"))
        elif (fault := _cut_off(row)) is not None:
            findings.append(fault)
    return findings if rows else None


def _cut_off(row: BatchRow) -> Finding | None:
    """A turn beyond the end of the row whose reward is missing in the row's reward or on its tokens."""
    rewards, turns, length = row.turn_rewards or [], row.turns or [], len(row.ids)
    kept = sum(reward for reward, (start, _) in zip(rewards, turns, strict=True) if start < length)
    lost = sum(rewards) - kept
    counted = row.reward if row.token_rewards is None else float(row.token_rewards.sum())
    if _equal(lost, 0.0) or counted is None or not _equal(kept, counted, rewards):
        return None
    what = f"turns beyond the end of the row have a reward of {lost:.4g}, which is missing in {counted:.4g}"
    return row.finding("lost_reward", what, length - 1, f"{sum(rewards):.4g}")


def _last_turn_lost(rows: list[BatchRow]) -> list[Finding]:
    """Rows that were cut off and whose reward lacks that of the last turn, unlike the rewards of all other rows."""
    agreeing, lacking = 0, []
    for row in rows:
        rewards = row.turn_rewards or []
        if row.reward is None or _equal(sum(rewards), 0.0) or _equal(sum(rewards[:-1]), sum(rewards), rewards):
            continue
        if _equal(sum(rewards), row.reward, rewards):
            agreeing += 1
        elif row.truncated and _equal(sum(rewards[:-1]), row.reward, rewards):
            lacking.append((row, rewards))
        else:
            return []
    if agreeing < _AGREEING:
        return []
    return [
        row.finding(
            "lost_reward",
            f"the row was cut off, and the reward of its last turn, {rewards[-1]:.4g}, is missing in {row.reward:.4g}",
            max(row.end - 1, 0),
            f"{sum(rewards):.4g}, the sum of the rewards of its turns",
        )
        for row, rewards in lacking
    ]


def _equal(left: float, right: float | None, parts: ArrayLike = 0.0) -> bool:
    """Whether two numbers are the same, of which `left` is the sum of `parts`, each of them rounded."""
    rounding = ROUNDING * float(np.abs(parts).sum() + abs(left)) if np.any(parts) else 0.0
    return right is not None and abs(left - right) <= max(_TOLERANCE * max(1.0, abs(right)), rounding)
