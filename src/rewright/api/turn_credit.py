"""`rw.credit`: turn rewards and advantages of trajectories from any source."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from rewright.api.in_memory import as_arguments, caller_level, row_file, without_path
from rewright.api.runs import Run
from rewright.api.session import dialect_of
from rewright.api.tasks import TasksLike, as_task_list
from rewright.core.errors import InputError
from rewright.core.records import ToolCall, Trajectory, Verdict
from rewright.credit import Resources
from rewright.credit.messages import gold_calls as read_gold_calls
from rewright.reports.credit_picture import drawing_of
from rewright.reports.credit_table import Summary, credit_as_json, log_warnings
from rewright.reports.run_credit import stored_of
from rewright.reports.stored_credit import Credited, GoldCalls, Stored, read_gold, read_stored, settings_for
from rewright.reports.stored_credit import credit as credit_stored

__all__ = ["CallCredit", "GoldLike", "SignalLike", "TrajectoryCredit", "credit"]

GoldLike: TypeAlias = str | Path | Sequence[Any] | Mapping[str, Sequence[Any]]
"""A file, one list of calls for every trajectory, one list per trajectory, or lists by task id."""
SignalLike: TypeAlias = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]
"""A signal, or the parts of a sum of signals."""


@dataclass(frozen=True, slots=True)
class CallCredit:
    """A call, its reward, and the index of the gold call that it matches (None: none, or a soft assignment)."""

    turn: int
    name: str
    arguments: Any
    reward: float
    gold: int | None


@dataclass(frozen=True, slots=True)
class TrajectoryCredit:
    """The credit of one trajectory.

    Attributes:
        id: id of the trajectory.
        group: label of the trajectories that it is compared with; None without a group.
        outcome: the outcome; None if it is unknown.
        turn_rewards: reward of every turn (T,); the outcome is added to the last one. NaN: the signal has no number.
        advantages: advantage of every turn (T,); None without a group, or if the trajectory is left out of it because
            of a missing number.
        trajectory_reward: the reward of the whole; None if it needs an unknown outcome.
        calls: the calls in order.
        source: the trajectory and the match as `rewright credit` has them.
        missing: why the signal has no number for a turn; None if it has all.
    """

    id: str
    group: str | None
    outcome: float | None
    turn_rewards: NDArray[np.float64]
    advantages: NDArray[np.float64] | None
    trajectory_reward: float | None
    calls: tuple[CallCredit, ...]
    source: Credited
    missing: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the credit in JSON types, as `rewright credit --json` prints it."""
        return credit_as_json(self.source)

    def _repr_html_(self) -> str:
        """Return the picture of `rewright credit --picture`, for notebooks."""
        return drawing_of(self.source).svg()


def credit(
    trajectories: str | Path | Run | Iterable[Any],
    *,
    gold_calls: GoldLike | None = None,
    tasks: TasksLike | None = None,
    outcomes: Iterable[float | None] | Iterable[Verdict] | None = None,
    signal: SignalLike | None = None,
    estimator: str | Mapping[str, Any] | None = None,
    assignment: Literal["optimal", "greedy", "ot"] | None = None,
    settings: Mapping[str, Any] | None = None,
    outcome: str | Sequence[str] | None = None,
    format: str | None = None,  # noqa: A002
    dialect: str | None = None,
    resources: Resources | None = None,
    trusted: Sequence[str] = (),
) -> list[TrajectoryCredit]:
    """Compute turn rewards and advantages (MatchTIR) of trajectories or logs from any source.

    Args:
        trajectories: trajectories; rows of a log (dictionaries such as `{"messages": […], "reward": 1.0}`); lists of
            messages, or one list of messages; or a path: a log file of any format that `rewright credit` reads, or a
            run (its directory, or a `rw.Run`).
        gold_calls: the gold calls, `{"name", "arguments"}`: one list for every trajectory, one list per trajectory
            (None: unknown), lists by task id, or a file. Default: those of the rows, the tasks or the run.
        tasks: the tasks of trajectories, with their gold calls.
        outcomes: one outcome per trajectory (None: unknown), or the verdicts of `rw.judge`. Default: the column
            `reward` of a log, the verdicts of a run.
        signal: name or import path of a credit signal, a mapping of `name` and settings, or a list of them with a
            `scale` each, whose sum it is; default: `matched`.
        estimator: name or import path of an advantage estimator, or a mapping; default: `matchtir`.
        assignment: assignment of calls to gold calls; default: `optimal`.
        settings: other keys of a recipe's section `rl.credit`, such as `{"gamma": 1.0}`.
        outcome: of a file or rows: the column of the outcome; several are summed; `none`: there is none.
        format: of a file or rows: a registered importer or an import path; default: found by itself.
        dialect: dialect of trajectories; default: the one that reads their stored calls and answers.
        resources: the models that the signal needs, as functions (`rewright.credit.Resources`).
        trusted: packages in a run's recipe whose code may run.

    Returns:
        One `TrajectoryCredit` per trajectory, in their order.

    Raises:
        InputError: a log that is not understood, no gold calls, or an invalid setting. What is no mistake but makes
            numbers less telling (a group of one, no outcome) is a `UserWarning`.

    Example:
        ```python
        messages = [
            {"role": "user", "content": "Weather in Rome?"},
            {"role": "assistant", "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Rome"}}}]},
            {"role": "tool", "content": "21 C"},
            {"role": "assistant", "content": "It is 21 C."},
        ]
        (one,) = rw.credit(messages, gold_calls=[{"name": "get_weather", "arguments": {"city": "Rome"}}])
        one.turn_rewards                     # array([1., 0.])
        ```
    """
    if isinstance(trajectories, Run):
        trajectories = trajectories.path
    chosen = {"signal": signal, "estimator": estimator, "assignment": assignment, **(settings or {})}
    changes = [f"{key}={msgspec.json.encode(value).decode()}" for key, value in chosen.items() if value is not None]
    path = Path(trajectories) if isinstance(trajectories, str | Path) else None
    try:
        rl = settings_for(path or Path(), changes, trusted=trusted)
        # Without a part `matched` the tasks of a run need no gold calls.
        known = _known(gold_calls, path if rl.credit.match_scale else None)
        per_trajectory = _per_trajectory(gold_calls)
        stored = _with_given(list(_stored(trajectories, tasks, outcome, format, dialect)), per_trajectory, outcomes)
        found = credit_stored(
            stored,
            known,
            rl,
            recompute=bool(changes) or outcome is not None or outcomes is not None,
            resources=resources,
        )
        summary, name = Summary.of(found), rl.credit.signal_name
        summary.check(name)
    except ValueError as problem:
        raise InputError(as_arguments(str(problem))) from None
    for remark in (*summary.notes(), *summary.warnings(name, lambda unseen: log_warnings(found, name, unseen))):
        warnings.warn(as_arguments(remark.removeprefix("warning: ")), UserWarning, stacklevel=caller_level())
    return [_result(one) for one in found]


def _result(one: Credited) -> TrajectoryCredit:
    shown = credit_as_json(one)
    return TrajectoryCredit(
        id=one.stored.id,
        group=one.stored.group,
        outcome=one.stored.outcome,
        turn_rewards=one.rewards,
        advantages=one.advantages,
        trajectory_reward=one.trajectory_reward,
        calls=tuple(CallCredit(**call) for call in shown["calls"]),
        source=one,
        missing=one.missing,
    )


def _stored(
    given: Any,
    tasks: TasksLike | None,
    outcome: str | Sequence[str] | None,
    file_format: str | None,
    dialect: str | None,
) -> Iterator[Stored]:
    if isinstance(given, str | Path):
        return read_stored(given, outcome=outcome, file_format=file_format)
    if isinstance(given, Mapping):
        raise InputError("trajectories is one dictionary: expected a list of rows, or of messages")
    items = list(given)
    if items and all(isinstance(one, Trajectory) for one in items):
        return _of_trajectories(items, tasks, dialect)
    return iter(_of_rows(items, outcome, file_format))


def _of_trajectories(items: list[Trajectory], tasks: TasksLike | None, dialect: str | None) -> Iterator[Stored]:
    known = {} if tasks is None else {task.id: task for task in as_task_list(tasks)}
    name = dialect_of(items, dialect)
    return (stored_of(one, known.get(one.task_id), None, name) for one in items)


def _of_rows(items: list[Any], outcome: str | Sequence[str] | None, file_format: str | None) -> list[Stored]:
    """Read rows or messages as a log file with the same rows is read."""
    if items and all(isinstance(item, Mapping) and "role" in item for item in items):
        items = [items]
    rows = [{"messages": item} if isinstance(item, list | tuple) else item for item in items]
    with row_file(rows, "trajectories") as path:
        found = list(read_stored(path, outcome=outcome, file_format=file_format))
        return [replace(one, seen=without_path(one.seen, path, "trajectories")) for one in found]


def _known(given: GoldLike | None, path: Path | None) -> GoldCalls | None:
    """Return the gold calls that are for all trajectories, or found by task id. Those of a run come from its tasks."""
    if given is None:
        beside = path / "tasks.jsonl" if path is not None and path.is_dir() else None
        return read_gold(beside) if beside is not None and beside.exists() else None
    if isinstance(given, str | Path):
        return read_gold(given)
    if isinstance(given, Mapping):
        return GoldCalls({str(name): _calls(calls) for name, calls in given.items()}, {})
    return None if _per_trajectory(given) is not None else GoldCalls({}, {}, _calls(given))


def _per_trajectory(given: GoldLike | None) -> list[list[Any] | None] | None:
    """Return the gold calls of each trajectory, if that is what was given."""
    if given is None or isinstance(given, str | Path | Mapping):
        return None
    if not given or any(isinstance(call, Mapping | ToolCall) for call in given):
        return None
    for number, calls in enumerate(given):
        if not isinstance(calls, Sequence | None) or isinstance(calls, str):
            raise InputError(f"gold_calls[{number}] is {calls!r:.80}: expected a call, or a list of calls")
    return [None if calls is None else _calls(calls) for calls in given]


def _calls(calls: Any) -> list[Any]:
    return read_gold_calls(list(calls), "gold_calls") or []


def _with_given(stored: list[Stored], golds: list[list[Any] | None] | None, outcomes: Any) -> list[Stored]:
    if golds is not None:
        if len(golds) != len(stored):
            raise InputError(f"gold_calls: {len(golds)} lists for {len(stored)} trajectories: expected one each")
        stored = [replace(one, golds=own) for one, own in zip(stored, golds, strict=True)]
    if outcomes is None:
        return stored
    given = list(outcomes)
    if given and all(isinstance(one, Verdict) for one in given):
        by_id = {one.trajectory_id: one.outcome for one in given}
        return [replace(one, outcome=by_id.get(one.id, one.outcome)) for one in stored]
    if len(given) != len(stored):
        raise InputError(f"outcomes: {len(given)} for {len(stored)} trajectories: expected one each")
    for number, value in enumerate(given):
        if value is not None and not (isinstance(value, int | float | np.number) and np.isfinite(value)):
            raise InputError(f"outcomes[{number}] is {value!r:.80}: expected a finite number, or None")
    return [
        replace(one, outcome=None if value is None else float(value)) for one, value in zip(stored, given, strict=True)
    ]
