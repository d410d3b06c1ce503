"""Format the credit of stored trajectories (`rewright.reports.stored_credit`) as a table or as JSON types."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from rewright.core.errors import InputError
from rewright.credit.allowed import allowed_parts
from rewright.credit.messages import arguments_of, name_of
from rewright.credit.settings import TurnCredit
from rewright.importers.chat_logs import names_apart, unread_calls
from rewright.reports.stored_credit import Credited

__all__ = [
    "TABLE_NAMES",
    "Facts",
    "GoldFacts",
    "Summary",
    "credit_as_json",
    "credit_as_table",
    "golds_as_json",
    "log_warnings",
    "remark",
    "table_line",
    "table_row",
]


def credit_as_json(credited: Credited, golds: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Convert one trajectory's credit to JSON types. `golds`: its gold calls, if they are known in JSON types.

    `calls` is in order; each has its turn, its reward and, for a hard assignment, its matched gold call. `reward` is
    the trajectory reward. `group` and `turn_advantages` are null for a trajectory without a group. A turn reward is
    null where the signal has no number; `missing` says why.
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
        "turn_rewards": [None if math.isnan(reward) else reward for reward in credited.rewards.tolist()],
        "turn_advantages": None if credited.advantages is None else credited.advantages.tolist(),
        "used_by_rl": credited.used_by_rl,
        "signal": credited.signal,
        "missing": credited.missing,
        "calls": calls,
        "gold": golds_as_json(stored.golds) if golds is None else golds,
    }


def golds_as_json(golds: Sequence[Any] | None) -> list[dict[str, Any]] | None:
    """Convert gold calls to JSON types."""
    if golds is None:
        return None
    keys = ["arguments" if allowed_parts(call) is None else "allowed" for call in golds]
    return [{"name": name_of(call), key: _plain(arguments_of(call))} for key, call in zip(keys, golds, strict=True)]


def _plain(value: Any) -> Any:
    """Convert a value to JSON types: dates and other number types become text, non-finite numbers null."""
    if type(value) is str or type(value) is int:  # most values
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


TABLE_NAMES: Final = ("trajectory", "outcome", "reward", "turn rewards", "turn advantages")


def table_row(result: Credited) -> tuple[str, ...]:
    """The cells of one trajectory in the table."""
    return (
        result.stored.id,
        "-" if result.stored.outcome is None else f"{result.stored.outcome:.3f}",
        "-" if result.trajectory_reward is None else f"{result.trajectory_reward:.3f}",
        " ".join(["-" if math.isnan(value) else f"{value:.3f}" for value in result.rewards.tolist()]),
        "-" if result.advantages is None else " ".join([f"{value:+.3f}" for value in result.advantages.tolist()]),
    )


def table_line(row: Sequence[str], widths: Sequence[int]) -> str:
    """A line of the table. `widths`: of all columns but the last."""
    return "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()


def credit_as_table(results: Sequence[Credited]) -> Iterator[str]:
    """Yield lines of text: a header, then one line per trajectory with its values per turn."""
    rows = [TABLE_NAMES, *map(table_row, results)]
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows), strict=True)]
    for row in rows:
        yield table_line(row, widths)


class GoldFacts(NamedTuple):
    """What notes and warnings say about gold calls; see `Facts`."""

    gold: bool | None
    all_lists: bool | None
    blank: bool

    @classmethod
    def of(cls, golds: Sequence[Any] | None) -> GoldFacts:
        """The facts about gold calls; None: they are unknown."""
        values = [value for call in golds or () if allowed_parts(call) is None for value in _values(call)]
        lists = all(isinstance(value, list) for value in values)
        return cls(
            gold=None if golds is None else bool(golds),
            all_lists=lists if values else None,
            blank=lists and any("" in value for value in values),
        )


class Facts(NamedTuple):
    """What notes and warnings say about one trajectory."""

    id: str
    group: str | None
    stage: str
    kept: bool
    used_by_rl: bool
    outcome: bool
    gold: bool | None
    """Whether it has a gold call; None: the gold calls are unknown."""
    calls: bool
    all_lists: bool | None
    """Whether all arguments of the gold calls are lists; None without arguments."""
    blank: bool
    """Whether one of those lists has the value ""."""
    turns: int = 0
    """The number of its turns; 0 after an infrastructure failure, when the signal is not computed."""
    missing_turns: int = 0
    missing: str | None = None
    """Why the signal has no number for a turn."""
    left_out: bool = False
    """Whether it is in no group because of that."""
    total: float = 0.0
    """The sum of its turn rewards."""
    paid: int = 0
    """The number of its turns whose reward is not 0."""

    @classmethod
    def of(cls, credited: Credited, gold: GoldFacts | None = None) -> Facts:
        """The facts about a trajectory. `gold`: those about its gold calls, if they are known."""
        stored = credited.stored
        gold = GoldFacts.of(stored.golds) if gold is None else gold
        return cls(
            id=stored.id,
            group=stored.group,
            stage=stored.stage,
            kept=stored.kept is not None,
            used_by_rl=credited.used_by_rl,
            outcome=stored.outcome is not None,
            gold=gold.gold,
            calls=any(stored.turns),
            all_lists=gold.all_lists,
            blank=gold.blank,
            turns=0 if stored.broken else len(credited.rewards),
            missing_turns=0 if stored.broken else int(np.isnan(credited.rewards).sum()),
            missing=credited.missing,
            left_out=credited.left_out,
            total=float(np.nansum(credited.rewards)),
            paid=int(np.count_nonzero(np.nan_to_num(credited.rewards))),
        )


class Summary:
    """Notes and warnings about the credit of many trajectories, whose facts are added one by one in their order."""

    def __init__(self) -> None:
        self.count = 0
        self._groups: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._cause = ""
        self._total = 0.0

    @classmethod
    def of(cls, results: Iterable[Credited]) -> Summary:
        """Sum up results that are in memory."""
        summary = cls()
        for one in results:
            summary.add(Facts.of(one))
        return summary

    def add(self, facts: Facts) -> None:
        """Count a trajectory."""
        self.count += 1
        if facts.group is not None:
            self._groups[facts.group] += 1
        recomputed = facts.stage == "rl" and not facts.used_by_rl
        for name, holds in (
            ("recomputed", recomputed and facts.kept),
            ("without values", recomputed and not facts.kept),
            ("no gold calls", facts.gold is None),
            ("no outcome", not facts.outcome),
            ("gold", facts.gold),
            ("calls", facts.calls),
            ("lists", facts.all_lists),
            ("other arguments", facts.all_lists is False),
            ("blank", facts.blank),
            ("missing", facts.missing is not None),
            ("left out", facts.left_out),
        ):
            if holds:
                self._counts[name] += 1
                self._first.setdefault(name, facts.id)
        self._counts["turns"] += facts.turns
        self._counts["missing turns"] += facts.missing_turns
        self._counts["paid"] += facts.paid
        self._total += facts.total
        self._cause = self._cause or facts.missing or ""

    def add_all(self, other: Summary) -> None:
        """Add up with the summary of trajectories that come after these."""
        self.count += other.count
        self._groups.update(other._groups)
        self._counts.update(other._counts)
        for name, first in other._first.items():
            self._first.setdefault(name, first)
        self._total += other._total
        self._cause = self._cause or other._cause

    def described(self, settings: TurnCredit, stats: Mapping[str, float]) -> str:
        """Return a line that says which signal the turn rewards are from, and what they are like.

        `stats`: the signal's own metrics.
        """
        counts = self._counts
        known = counts["turns"] - counts["missing turns"]
        signal = settings.signal if isinstance(settings.signal, str) else json.dumps(settings.signal)
        parts = [
            f"credit: signal {signal}, estimator {settings.estimator_name}: {self.count} trajectories",
            f"{counts['turns']} turns, {counts['missing turns']} without a number",
        ]
        if known:
            parts.append(f"mean turn reward {self._total / known:.3f}, {counts['paid'] / known:.0%} not 0")
        parts += [f"{name} {value:.4g}" for name, value in stats.items()]
        return "; ".join(parts)

    def check(self, signal: str) -> None:
        """Raise InputError if the signal has all its numbers for no trajectory."""
        if self.count and self._counts["missing"] == self.count:
            raise InputError(
                f"signal {signal} has no number for a turn of any trajectory (the first is "
                f"{self._first['missing']!r}: {self._cause})"
            )

    def notes(self) -> list[str]:
        """Return notes, one line each, about RL rollouts whose credit differs from the values used in RL."""
        recomputed, without_values = self._counts["recomputed"], self._counts["without values"]
        notes = []
        if recomputed:
            notes.append(
                f"credit: the credit of {recomputed} rollouts is computed with the given settings; RL used others"
            )
        if without_values:
            notes.append(
                f"credit: {without_values} rollouts do not store the values that RL used (an older version, or RL "
                "stopped before they were scored): recomputed without a reward model"
            )
        return notes

    def warnings(
        self,
        signal: str = "matched",
        logs: Callable[[str], Iterable[str]] = lambda _: (),
        *,
        judging: str = "",
    ) -> Iterator[str]:
        """Yield warnings, one line each, about trajectories without gold calls, outcome or group.

        Their values are not measurements, although they look like those of other trajectories. `signal` is the name of
        the credit signal: only `matched` needs gold calls and rewards calls. `logs` returns further warnings, given
        what becomes of calls that nobody sees. `judging`: how the trajectories get outcomes.
        """
        matches = signal == "matched"
        source = "calls" if matches else f"the signal {signal}"
        unseen = "their calls earn 0" if matches else f"the signal {signal} sees none of their calls"
        alone = [group for group, count in self._groups.items() if count == 1]
        if alone:
            share = f"{_share(len(alone), len(self._groups), 'group')} one trajectory only"
            yield f"warning: {share} (the first is {alone[0][:60]!r}): its advantages compare it with nothing"
        if matches:
            yield from self._remark("no gold calls", unseen)
        if self._counts["no outcome"] < self.count:
            yield from self._remark("no outcome", f"their turns are rewarded for {source} only")
        elif self.count:
            how = f"; {judging}" if judging else ""
            yield f"warning: no trajectory has an outcome: turns are rewarded for {source} only{how}"
        if self._counts["gold"] and not self._counts["calls"]:
            yield "warning: no trajectory has a call, though there are gold calls"
        if self._counts["missing"]:
            place, left_out = "counted as no change", self._counts["left out"]
            if left_out == self._counts["missing"]:
                place = "such a trajectory is in no group"
            elif left_out:  # `bridge` leaves out those without any number
                place = f"{left_out} of them {'are' if left_out > 1 else 'is'} in no group, the others {place}"
            what = f"a turn without a number of the signal {signal}"
            yield from self._remark("missing", f"{self._cause}; {place}", what=what)
        yield from logs(unseen)
        if self._counts["lists"] and not self._counts["other arguments"] and self._counts["blank"]:
            yield (
                'warning: every argument of the gold calls is a list, some with "" in it: if these are the allowed '
                "values (as in BFCL), say so with --allowed-values"
            )

    def _remark(self, name: str, meaning: str, *, what: str | None = None) -> Iterator[str]:
        if self._counts[name]:
            yield remark(self._counts[name], self.count, what or name, self._first[name], meaning)


def log_warnings(results: Sequence[Credited], signal: str, unseen: str) -> Iterator[str]:
    """Yield warnings about logs of other projects: calls that were not read, and names that differ."""
    stored = [row.stored for row in results if row.stored.seen]
    unread = [(row, marker) for row in stored if row.golds and (marker := unread_calls(row)) is not None]
    if unread:
        what = f"no call that was read, but {unread[0][1]} in the text"
        yield remark(len(unread), len(results), what, unread[0][0].id, unseen)
    apart = names_apart(stored) if signal == "matched" else None
    if apart is not None:
        yield f"warning: {apart}"


def remark(count: int, total: int, what: str, first: str, meaning: str) -> str:
    """A warning about some of the trajectories."""
    return f"warning: {_share(count, total, 'trajectory')} {what} (the first is {first!r}): {meaning}"


def _share(count: int, total: int, noun: str) -> str:
    plural = {"trajectory": "trajectories", "group": "groups"}[noun]
    return f"{count} of {total} {plural} {'has' if count == 1 else 'have'}"


def _values(call: Any) -> Sequence[Any]:
    arguments = arguments_of(call)
    return list(arguments.values()) if isinstance(arguments, Mapping) else []
