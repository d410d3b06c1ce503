"""Checks of the groups, and of the advantages of trajectories that have several rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewright.credit.batch_checks.evidence import generated
from rewright.credit.batch_checks.rows import Batch, BatchRow, NotChecked, Result, Trajectory, runs

__all__ = ["mixed_prompts", "single_groups", "step_advantages"]

_ENOUGH = 4
"""Groups of one trajectory without any advantage, of which fewer may be a part of a batch with equal rewards."""


def step_advantages(batch: Batch) -> Result:
    """The masked advantages of the last step are copied onto earlier steps, which get zeros (SkyRL 1507)."""
    rows = [row for row in batch.rows if row.index not in batch.padded and row.advantages is not None]
    several = [one for one in batch.trajectories(rows) if len(one.rows) > 1]
    if not several:
        return NotChecked("needs advantages and a trajectory with several rows (trajectory)")
    silent = [(one, row) for one in several for row in _earlier(one) if _is_silent(one, row)]
    heard = any(not _is_silent(one, row) for one in several for row in _earlier(one) if _is_loud(one.last))
    always = not heard and all(row.turn_rewards is None for row in rows)
    always = always or _is_per_trajectory([one for one in several if not any(one is other for other, _ in silent)])
    findings = []
    for one, row in silent:
        if not ((always and not _is_loud(row)) or _is_copied(one.last, row) or _is_mixed(batch, row)):
            continue
        values = _advantages(row)
        token = int(np.argmax(row.mask & (values == 0)))
        value = _advantages(one.last)[one.last.mask]
        what = f"advantage 0 on {int((values[row.mask] == 0).sum())} trained tokens of an earlier step"
        expected = f"{float(value[np.argmax(np.abs(value))]):.4g}, as at its last step (row {one.last.index})"
        findings.append(row.finding("step_advantages", what, token, expected))
    if not findings and not heard and silent:
        return NotChecked("all earlier steps have advantage 0, which their turn_rewards may be the reason of")
    return findings


def mixed_prompts(batch: Batch) -> Result:
    """Rows of different prompts are in one group (agent-lightning 489)."""
    findings, checked = [], False
    for name, rows in batch.groups().items():
        firsts = [one.rows[0] for one in batch.trajectories(rows) if one.rows[0].prompt is not None]
        checked = checked or bool(firsts)
        if not firsts:
            continue
        prompts = [row.prompt for row in firsts]
        usual = max(prompts, key=prompts.count)
        usual_row = firsts[prompts.index(usual)]
        for row in firsts:
            if row.prompt != usual:
                what = f"group {name} has another prompt in this row than in row {usual_row.index}{_later(usual, row)}"
                expected = "one prompt per group, or the trajectory of each row"
                findings.append(row.finding("mixed_prompts", what, None, expected))
    return findings if checked else NotChecked("needs group, and task or prompt_ids")


def single_groups(batch: Batch) -> Result:
    """Each trajectory is a group of its own: its raw reward is its advantage (rLLM 605), or it has none."""
    groups = {name: batch.trajectories(rows) for name, rows in batch.groups().items()}
    if not groups:
        return NotChecked("needs group")
    singles = [trajectories[0] for trajectories in groups.values() if len(trajectories) == 1]
    every_single = len(singles) == len(groups)
    by_prompt: dict[object, list[list[Trajectory]]] = {}
    for trajectories in groups.values():
        prompt = trajectories[0].rows[0].prompt
        if prompt is not None:
            by_prompt.setdefault(prompt, []).append(trajectories)
    findings = []
    for parts in by_prompt.values():
        if len(parts) < 2 or any(len(part) > 1 for part in parts):
            continue
        raw = _all_raw([part[0].last for part in parts])
        if not raw and not _none_learned([part[0] for part in parts]):
            continue
        why = "an advantage is the raw reward" if raw else "all advantages are 0, though rewards differ"
        what = f"{len(parts)} trajectories of one prompt are {len(parts)} groups: {why}"
        expected = f"one group of {len(parts)} trajectories"
        findings.append(parts[0][0].rows[0].finding("single_groups", what, None, expected))
    if not findings and every_single and len(singles) >= _ENOUGH and _none_learned(singles):
        what = f"{len(singles)} groups have one trajectory each: all advantages are 0, though rewards differ"
        findings.append(singles[0].rows[0].finding("single_groups", what, None, "several trajectories in a group"))
    if not findings and every_single and any(one.rows[0].prompt is None for one in singles):
        return NotChecked("needs task or prompt_ids, which show trajectories of one prompt")
    if not findings and every_single and any(len(parts) > 1 and _none_tell(parts) for parts in by_prompt.values()):
        return NotChecked("needs different rewards: all advantages of the trajectories of a prompt are 0")
    return findings


def _advantages(row: BatchRow) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.zeros(len(row.ids)) if row.advantages is None else row.advantages


def _earlier(one: Trajectory) -> list[BatchRow]:
    return [row for row in one.rows if row is not one.last and row.mask.any()]


def _is_loud(row: BatchRow) -> bool:
    return bool(_advantages(row)[row.mask].any())


def _is_silent(one: Trajectory, row: BatchRow) -> bool:
    """Whether trained tokens of an earlier step have no advantage, while the last step has one."""
    return _is_loud(one.last) and bool((_advantages(row)[row.mask] == 0).any())


def _is_per_trajectory(others: Sequence[Trajectory]) -> bool:
    """Whether the steps of other trajectories have one advantage each, that of the trajectory."""
    loud = [one for one in others if _earlier(one) and _is_loud(one.last)]
    return len(loud) > 1 and all(one.scalar is not None for one in loud)


def _is_copied(last: BatchRow, row: BatchRow) -> bool:
    """Whether the non-zero advantages are those of the last step: they lie beside this row's mask, or are its values.

    A copy of values that differ from token to token is known by them. It is aligned at the start or at the end.
    """
    values, lasts = _advantages(row), _advantages(last) * last.mask
    several = len(np.unique(values[values != 0]))
    if several > 1:
        size = min(len(values), len(lasts))
        rest = len(values) - size
        left = np.array_equal(values[:size], lasts[:size]) and not values[size:].any()
        right = np.array_equal(values[rest:], lasts[len(lasts) - size :]) and not values[:rest].any()
        if left or right or several > 2:
            return left or right
    return bool((values[~row.mask] != 0).any()) and not bool((_advantages(last)[~last.mask] != 0).any())


def _is_mixed(batch: Batch, row: BatchRow) -> bool:
    """Whether one turn has tokens with and without an advantage."""
    known = generated(batch, row)
    for start, end in known.turns if known is not None and known.exact else runs(row.mask):
        values = _advantages(row)[start:end][row.mask[start:end]]
        if values.any() and not values.all() and len(np.unique(values)) == 2:
            return True
    return False


def _later(usual: object, row: BatchRow) -> str:
    if isinstance(usual, tuple) and isinstance(row.prompt, tuple):
        short, long = sorted((usual, row.prompt), key=len)
        if long[: len(short)] == short:
            return " (the one continues the other: turns of a trajectory count as rollouts)"
    return ""


def _is_raw(row: BatchRow) -> bool:
    """Whether the advantage is the reward, up to an epsilon of the deviation."""
    scalar = row.scalar
    return scalar is not None and row.reward is not None and abs(scalar - row.reward) <= 5e-3 * abs(row.reward)


def _all_raw(rows: Sequence[BatchRow]) -> bool:
    """Whether all known advantages are the rewards. True if none is known: the groups alone are wrong then."""
    known = [row for row in rows if row.scalar is not None and row.reward is not None]
    return all(_is_raw(row) for row in known)


def _none_tell(parts: Sequence[list[Trajectory]]) -> bool:
    """Whether all advantages are 0 as in a group of equal rewards, which may be the groups of one trajectory too."""
    rows = [row for part in parts for one in part for row in one.rows if row.mask.any()]
    return bool(rows) and all(row.advantages is not None and not _is_loud(row) for row in rows)


def _none_learned(trajectories: Sequence[Trajectory]) -> bool:
    """Whether all advantages are 0 while rewards differ, as those of trajectories that are compared with themselves."""
    trained = [one for one in trajectories if any(row.mask.any() for row in one.rows)]
    rewards = [one.last.reward for one in trained if one.last.reward is not None]
    rows = [row for one in trained for row in one.rows if row.mask.any()]
    return (
        len(rewards) > 1
        and all(row.advantages is not None and not row.advantages[row.mask].any() for row in rows)
        and max(rewards) - min(rewards) > 1e-6 * max(map(abs, rewards))
    )
