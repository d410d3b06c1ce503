"""Checks of the groups, and of the advantages of trajectories that have several rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewright.credit.batch_checks.rows import Batch, BatchRow, NotChecked, Result, Trajectory

__all__ = ["mixed_prompts", "single_groups", "step_advantages"]


def step_advantages(batch: Batch) -> Result:
    """The masked advantages of the last step are copied onto earlier steps, which get zeros (SkyRL 1507)."""
    rows = [row for row in batch.rows if row.index not in batch.padded and row.advantages is not None]
    several = [one for one in batch.trajectories(rows) if len(one.rows) > 1]
    if not several:
        return NotChecked("needs advantages and a trajectory with several rows (trajectory)")
    silent = [(one, row) for one in several for row in _earlier(one) if _is_silent(one, row)]
    heard = any(not _is_silent(one, row) for one in several for row in _earlier(one) if _is_loud(one.last))
    always = not heard and all(row.turn_rewards is None for row in rows)
    findings = []
    for one, row in silent:
        if not (always or _is_copied(one.last, row) or _is_mixed(row)):
            continue
        values = _advantages(row)
        token = int(np.argmax(row.mask & (values == 0)))
        value = _advantages(one.last)[one.last.mask]
        what = f"advantage 0 on {int((values[row.mask] == 0).sum())} trained tokens of an earlier step"
        expected = f"{float(value[np.argmax(np.abs(value))]):.4g}, as at its last step (row {one.last.index})"
        findings.append(row.finding("step_advantages", what, token, expected))
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
    """Each trajectory is a group of its own, so that its raw reward is its advantage (rLLM 605)."""
    groups = {name: batch.trajectories(rows) for name, rows in batch.groups().items()}
    if not groups:
        return NotChecked("needs group")
    by_prompt: dict[object, list[str]] = {}
    unknown = 0
    for name, trajectories in groups.items():
        prompt = trajectories[0].rows[0].prompt
        unknown += prompt is None
        by_prompt.setdefault("" if prompt is None else prompt, []).append(name)
    if unknown and not all(_is_raw(one.last) for trajectories in groups.values() for one in trajectories):
        every_single = all(len(trajectories) == 1 for trajectories in groups.values())
        return NotChecked("needs task or prompt_ids, or reward and advantages") if every_single else []
    findings = []
    for names in by_prompt.values():
        parts = [groups[name] for name in names]
        if len(parts) < 2 or any(len(part) > 1 for part in parts) or not _all_raw([part[0].last for part in parts]):
            continue
        row = parts[0][0].rows[0]
        what = f"{len(parts)} trajectories of one prompt are {len(parts)} groups: an advantage is the raw reward"
        findings.append(row.finding("single_groups", what, None, f"one group of {len(parts)} trajectories"))
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


def _is_copied(last: BatchRow, row: BatchRow) -> bool:
    """Whether the non-zero advantages lie where those of the last step do, beside this row's own mask."""
    return bool((_advantages(row)[~row.mask] != 0).any()) and not bool((_advantages(last)[~last.mask] != 0).any())


def _is_mixed(row: BatchRow) -> bool:
    """Whether one turn has tokens with and without an advantage."""
    values = _advantages(row)[row.mask]
    return bool(values.any()) and len(np.unique(values)) == 2


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
