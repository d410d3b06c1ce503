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

__all__ = ["credit_as_json", "credit_as_table", "credit_notes", "credit_remarks"]


def credit_notes(found: Sequence[Credited]) -> list[str]:
    """Return notes, one line each, about RL rollouts whose credit differs from the values used in RL."""
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
    """Convert one trajectory's credit to JSON types.

    `calls` is in order; each has its turn, its reward and, for a hard assignment, its matched gold call. `reward` is
    the trajectory reward. `group` and `turn_advantages` are null for a trajectory without a group.
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


def credit_as_table(found: Sequence[Credited]) -> Iterator[str]:
    """Yield lines of text: a header, then one line per trajectory with its values per turn."""
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


def credit_remarks(found: Sequence[Credited]) -> Iterator[str]:
    """Yield warnings, one line each, about trajectories without gold calls, outcome or group.

    Their values are not measurements, although they look like those of other trajectories.
    """
    stored = [one.stored for one in found]
    counts = Counter(one.group for one in stored if one.group is not None)
    alone = [group for group, count in counts.items() if count == 1]
    if alone:
        share = f"{_share(len(alone), len(counts), 'group')} one trajectory only (the first is {alone[0][:60]!r})"
        yield f"warning: {share}: its advantages compare it with nothing"
    yield from _remark(stored, [one for one in stored if one.golds is None], "no gold calls", "their calls earn 0")
    if any(one.outcome is not None for one in stored):
        without = [one for one in stored if one.outcome is None]
        yield from _remark(stored, without, "no outcome", "their turns are paid for calls alone")
    elif stored:
        yield "warning: no trajectory has an outcome: turns are paid for calls alone"
    if any(one.golds for one in stored) and not any(turn for one in stored for turn in one.turns):
        yield "warning: no trajectory has a call, though there are gold calls"
    unread = {one.id: how for one in stored if one.seen and one.golds and (how := unread_calls(one)) is not None}
    if unread:
        which = [one for one in stored if one.id in unread]
        how = unread[which[0].id]
        yield from _remark(stored, which, f"no call that was read, but {how} in the text", "their calls earn 0")
    apart = names_apart([one for one in stored if one.seen])
    if apart is not None:
        yield f"warning: {apart}"
    golds = [gold for one in stored for gold in one.golds or ()]
    if golds and _look_allowed(golds):
        yield (
            'warning: every argument of the gold calls is a list, some with "" in it: if these are the allowed values '
            "(as in BFCL), say so with --allowed-values"
        )


def _remark(stored: Sequence[Stored], which: Sequence[Stored], what: str, meaning: str) -> Iterator[str]:
    if which:
        yield (
            f"warning: {_share(len(which), len(stored), 'trajectory')} {what} (the first is {which[0].id!r}): {meaning}"
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
