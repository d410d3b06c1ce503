"""Verdicts on stored trajectories. A judge error on one answer does not affect the verdicts on others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from typing import Final

from rewright.core.errors import JudgeError
from rewright.core.records import Task, Trajectory, Verdict
from rewright.core.storage import RecordFile, Span, encode_line, spans
from rewright.judging import judge_trajectory
from rewright.workers.ordered import SPAN_BYTES, in_order

__all__ = ["MAX_JUDGE_FAILURES", "judge_file", "judge_missing"]

MAX_JUDGE_FAILURES: Final = 20
"""Stop judging after this many judge errors, since the judge may be waiting for a dead server."""


def judge_missing(
    trajectories: Iterable[Trajectory],
    verdicts: RecordFile[Verdict],
    task_of: Callable[[Trajectory], Task],
    *,
    seconds: float,
) -> None:
    """Judge every trajectory without a verdict and append to `verdicts`. One trajectory is in memory at a time.

    Args:
        trajectories: the trajectories.
        verdicts: file of verdicts.
        task_of: returns the task of a trajectory.
        seconds: time limit of a custom judge per answer.

    Raises JudgeError with the number of judge errors and the first one, after the other trajectories are judged or
    after `MAX_JUDGE_FAILURES` errors. A missing verdict must not be mistaken for a wrong answer.
    """
    known = verdicts.keys()
    _append((_judged(one, task_of, seconds) for one in trajectories if one.id not in known), verdicts)


def judge_file(
    trajectories: RecordFile[Trajectory],
    verdicts: RecordFile[Verdict],
    task_of: Callable[[Trajectory], Task],
    *,
    seconds: float,
    known: Collection[str],
    processes: int,
    on_verdict: Callable[[], None],
) -> None:
    """Same as `judge_missing`, for a whole file and in several processes.

    Args:
        trajectories, verdicts, task_of, seconds: as for `judge_missing`.
        known: ids of the trajectories that have verdicts.
        processes: number of processes. Judges of other packages must be called in one.
        on_verdict: called after each new verdict.
    """

    def judged(span: Span) -> Iterator[bytes | str]:
        for line in trajectories.lines(span):
            if line.record.id not in known:
                yield _judged(line.record, task_of, seconds)

    with closing(in_order(judged, spans(trajectories.path, SPAN_BYTES), processes=processes)) as results:
        _append(results, verdicts, on_verdict)


def _judged(trajectory: Trajectory, task_of: Callable[[Trajectory], Task], seconds: float) -> bytes | str:
    """The line of a verdict, or the message of a judge error."""
    try:
        return encode_line(judge_trajectory(task_of(trajectory), trajectory, seconds=seconds))
    except JudgeError as problem:
        return f"{trajectory.id}: {problem}"


def _append(
    results: Iterable[bytes | str], verdicts: RecordFile[Verdict], on_verdict: Callable[[], None] = lambda: None
) -> None:
    failed: list[str] = []
    judged = 0
    for result in results:
        if isinstance(result, str):
            failed.append(result)
            if len(failed) == MAX_JUDGE_FAILURES:
                break
        else:
            verdicts.append_line(result)
            judged += 1
            on_verdict()
    if failed:
        raise JudgeError(f"{len(failed)} answers could not be judged ({judged} could), the first: {failed[0]}")
