"""Format the credit of stored trajectories (`rewright.reports.stored_credit`) as a table or as JSON types."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rewright.credit.allowed import allowed_parts
from rewright.credit.messages import arguments_of, name_of
from rewright.importers.chat_logs import names_apart, unread_calls
from rewright.reports.stored_credit import Credited, Stored

__all__ = ["credit_as_json", "credit_as_table", "credit_notes", "credit_warnings"]


def credit_notes(results: Sequence[Credited]) -> list[str]:
    """Return notes, one line each, about RL rollouts whose credit differs from the values used in RL."""
    rollouts = [stored.stored for stored in results if stored.stored.stage == "rl" and not stored.used_by_rl]
    recomputed = sum(stored.kept is not None for stored in rollouts)
    without_values = len(rollouts) - recomputed
    notes = []
    if recomputed:
        notes.append(f"credit: the credit of {recomputed} rollouts is computed with the given settings; RL used others")
    if without_values:
        notes.append(
            f"credit: {without_values} rollouts do not store the values that RL used (an older version, or RL stopped "
            "before they were scored): recomputed without a reward model"
        )
    return notes


def credit_as_json(credited: Credited) -> dict[str, Any]:
    """Convert one trajectory's credit to JSON types.

    `calls` is in order; each has its turn, its reward and, for a hard assignment, its matched gold call. `reward` is
    the trajectory reward. `group` and `turn_advantages` are null for a trajectory without a group.
    """
    stored, match = credited.stored, credited.match
    partner = dict(match.pairs or ())
    calls: list[dict[str, Any]] = []
    for turn, turn_calls in enumerate(stored.turns):
        for call in turn_calls:
            index = len(calls)
            calls.append(
                {
                    "turn": turn,
                    "name": name_of(call),
                    "arguments": _plain(arguments_of(call)),
                    "reward": float(match.rewards_P[index]),
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
        "gold": None if stored.golds is None else [_gold(call) for call in stored.golds],
    }


def _gold(call: Any) -> dict[str, Any]:
    key = "arguments" if allowed_parts(call) is None else "allowed"
    return {"name": name_of(call), key: _plain(arguments_of(call))}


def _plain(value: Any) -> Any:
    """Convert a value to JSON types: dates and other number types become text, non-finite numbers null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


def credit_as_table(results: Sequence[Credited]) -> Iterator[str]:
    """Yield lines of text: a header, then one line per trajectory with its values per turn."""
    names = ("trajectory", "outcome", "reward", "turn rewards")
    rows = [
        (
            result.stored.id,
            "-" if result.stored.outcome is None else f"{result.stored.outcome:.3f}",
            "-" if result.trajectory_reward is None else f"{result.trajectory_reward:.3f}",
            " ".join(f"{value:.3f}" for value in result.rewards),
            "-" if result.advantages is None else " ".join(f"{value:+.3f}" for value in result.advantages),
        )
        for result in results
    ]
    widths = [max(map(len, column)) for column in zip(names, *(row[:-1] for row in rows), strict=True)]
    for row in ((*names, "turn advantages"), *rows):
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()


def credit_warnings(results: Sequence[Credited], signal: str = "matched") -> Iterator[str]:
    """Yield warnings, one line each, about trajectories without gold calls, outcome or group.

    Their values are not measurements, although they look like those of other trajectories. `signal` is the name of the
    credit signal: only `matched` needs gold calls and rewards calls.
    """
    matches = signal == "matched"
    source = "calls" if matches else f"the signal {signal}"
    unseen = "their calls earn 0" if matches else f"the signal {signal} sees none of their calls"
    stored = [row.stored for row in results]
    counts = Counter(row.group for row in stored if row.group is not None)
    alone = [group for group, count in counts.items() if count == 1]
    if alone:
        share = f"{_share(len(alone), len(counts), 'group')} one trajectory only (the first is {alone[0][:60]!r})"
        yield f"warning: {share}: its advantages compare it with nothing"
    if matches:
        yield from _remark(stored, [row for row in stored if row.golds is None], "no gold calls", unseen)
    if any(row.outcome is not None for row in stored):
        without = [row for row in stored if row.outcome is None]
        yield from _remark(stored, without, "no outcome", f"their turns are rewarded for {source} only")
    elif stored:
        yield f"warning: no trajectory has an outcome: turns are rewarded for {source} only"
    if any(row.golds for row in stored) and not any(turn for row in stored for turn in row.turns):
        yield "warning: no trajectory has a call, though there are gold calls"
    unread = {row.id: marker for row in stored if row.seen and row.golds and (marker := unread_calls(row)) is not None}
    if unread:
        unread_rows = [row for row in stored if row.id in unread]
        marker = unread[unread_rows[0].id]
        yield from _remark(stored, unread_rows, f"no call that was read, but {marker} in the text", unseen)
    apart = names_apart([row for row in stored if row.seen]) if matches else None
    if apart is not None:
        yield f"warning: {apart}"
    golds = [gold for row in stored for gold in row.golds or ()]
    if golds and _look_allowed(golds):
        yield (
            'warning: every argument of the gold calls is a list, some with "" in it: if these are the allowed values '
            "(as in BFCL), say so with --allowed-values"
        )


def _remark(stored: Sequence[Stored], affected: Sequence[Stored], what: str, meaning: str) -> Iterator[str]:
    if affected:
        yield (
            f"warning: {_share(len(affected), len(stored), 'trajectory')} {what} (the first is {affected[0].id!r}): "
            f"{meaning}"
        )


def _share(count: int, total: int, noun: str) -> str:
    plural = {"trajectory": "trajectories", "group": "groups"}[noun]
    return f"{count} of {total} {plural} {'has' if count == 1 else 'have'}"


def _look_allowed(golds: Sequence[Any]) -> bool:
    """Return True if the gold calls look as if their lists were allowed values."""
    values = [value for call in golds if allowed_parts(call) is None for value in _values(call)]
    return bool(values) and all(isinstance(value, list) for value in values) and any("" in value for value in values)


def _values(call: Any) -> Sequence[Any]:
    arguments = arguments_of(call)
    return list(arguments.values()) if isinstance(arguments, Mapping) else []
