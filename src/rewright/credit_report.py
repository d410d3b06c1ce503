"""Credit of stored trajectories (`rewright.credit_files`) for people and machines: a table, or plain types for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rewright.credit_files import Credited, arguments_of, name_of

__all__ = ["credit_as_json", "credit_as_table", "credit_notes"]


def credit_notes(found: Sequence[Credited]) -> list[str]:
    """What must be said of rollouts of RL whose numbers are not those that RL used, a line each."""
    rollouts = [one.stored for one in found if one.stored.stage == "rl" and not one.used_by_rl]
    anew = sum(one.kept is not None for one in rollouts)
    lacking = len(rollouts) - anew
    notes = []
    if anew:
        notes.append(f"credit: {anew} rollouts are credited with the settings given here, RL used others")
    if lacking:
        notes.append(
            f"credit: {lacking} rollouts do not hold what RL used (an older version, or RL stopped before they were "
            "scored): computed anew, without a reward model"
        )
    return notes


def credit_as_json(credited: Credited) -> dict[str, Any]:
    """One trajectory's credit in plain types.

    `calls` in order, each with its turn, its reward and, for a hard assignment, the gold call that it matched. `reward`
    is the trajectory reward, and `group` and `turn_advantages` are null for a trajectory that is in no group.
    """
    stored, found = credited.stored, credited.match
    partner = dict(found.pairs or ())
    calls: list[dict[str, Any]] = []
    for turn, own in enumerate(stored.turns):
        for call in own:
            index = len(calls)
            calls.append(
                {
                    "turn": turn,
                    "name": name_of(call),
                    "arguments": _plain(arguments_of(call)),
                    "reward": float(found.rewards_P[index]),
                    "gold": partner.get(index),
                }
            )
    return {
        "id": stored.id,
        "group": stored.group,
        "outcome": stored.outcome,
        "reward": credited.trajectory_reward,
        "turn_rewards": credited.rewards.tolist(),
        "turn_advantages": None if credited.advantages is None else credited.advantages.tolist(),
        "used_by_rl": credited.used_by_rl,
        "calls": calls,
        "gold": None
        if stored.golds is None
        else [{"name": name_of(call), "arguments": _plain(arguments_of(call))} for call in stored.golds],
    }


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: a table's dates and numbers of other kinds as text, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


def credit_as_table(found: Sequence[Credited]) -> Iterator[str]:
    """Lines of text: a heading, then one trajectory a line, its numbers turn by turn."""
    names = ("trajectory", "outcome", "reward", "turn rewards")
    rows = [
        (
            one.stored.id,
            "-" if one.stored.outcome is None else f"{one.stored.outcome:.3f}",
            "-" if one.trajectory_reward is None else f"{one.trajectory_reward:.3f}",
            " ".join(f"{value:.3f}" for value in one.rewards),
            "-" if one.advantages is None else " ".join(f"{value:+.3f}" for value in one.advantages),
        )
        for one in found
    ]
    widths = [max(map(len, column)) for column in zip(names, *(row[:-1] for row in rows), strict=True)]
    for row in ((*names, "turn advantages"), *rows):
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()
