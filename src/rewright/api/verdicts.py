"""`rw.judge` and `rw.score`: verdicts and quality of trajectories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rewright.api.judges import JudgeLike, judged_by
from rewright.api.session import checked, dialect_of, session
from rewright.api.settings import recipe_with
from rewright.api.tasks import TasksLike, as_task_list
from rewright.core.errors import InputError
from rewright.core.progress import hidden_bars
from rewright.core.records import Quality, Trajectory, Verdict
from rewright.pipeline.stages import data
from rewright.repair.settings import QualitySettings

__all__ = ["judge", "score"]


def judge(
    trajectories: Iterable[Trajectory],
    tasks: TasksLike,
    *,
    judge: JudgeLike | None = None,
    dialect: str | None = None,
    seconds: float | None = None,
) -> list[Verdict]:
    """Judge the answers of trajectories.

    Args:
        trajectories: the trajectories.
        tasks: their tasks, or what `rw.load_tasks` loads.
        judge: the name or import path of a judge; a function of yours, `(answer, golds) -> float` between 0 and 1; or a
            `rewright.judging.base.TrajectoryJudge`. Default: the judge of each task.
        dialect: dialect of the trajectories; default: the one that reads their stored calls and answers.
        seconds: time limit per answer of a judge of another package; default: 60. (A function of this program has
            none.)

    Returns:
        One verdict per trajectory, in their order. `correct` says whether the answer is right.

    Raises:
        InputError: a trajectory of an unknown task, or a task that cannot be judged (no gold answer).
        JudgeError: a judge failed on answers. (A missing verdict is not a wrong answer.)

    Example:
        ```python
        verdicts = rw.judge(trajectories, tasks)
        success = sum(verdict.correct for verdict in verdicts) / len(verdicts)
        ```
    """
    known = as_task_list(tasks)
    found = checked(trajectories, known)
    if not found:
        return []
    recipe = recipe_with(None, dialect=dialect_of(found, dialect), judge_seconds=seconds)
    with judged_by(known, judge) as judged, session(recipe, judged) as opened, hidden_bars():
        opened.run.trajectories.rewrite(found)
        data.judge(opened)
        return list(opened.run.verdicts)


def score(
    trajectories: Iterable[Trajectory],
    verdicts: Iterable[Verdict],
    *,
    quality: Mapping[str, Any] | QualitySettings | None = None,
    dialect: str | None = None,
) -> list[Quality]:
    """Score the quality of candidates, and select those to keep (AutoTraj, section 4).

    Trajectories of one task are compared with each other. Repairs (trajectories with a parent) are not scored.

    Args:
        trajectories: the candidates.
        verdicts: their verdicts, as `rw.judge` returns.
        quality: dimensions, weights and thresholds: a recipe's section `quality`; default: the paper's.
        dialect: dialect of the trajectories; default: the one that reads their stored calls and answers.

    Returns:
        One `Quality` per candidate, in their order. `selected` is `kept`, `low` (right, but of low quality) or `wrong`.

    Raises:
        InputError: a candidate without verdict, or invalid settings.

    Example:
        ```python
        qualities = rw.score(trajectories, rw.judge(trajectories, tasks))
        ```
    """
    found = checked(trajectories)
    candidates = [one for one in found if one.provenance.parent is None]
    given: Sequence[Verdict] = list(verdicts)
    if not candidates:
        return []
    judged = {verdict.trajectory_id for verdict in given}
    missing = next((one.id for one in candidates if one.id not in judged), None)
    if missing is not None:
        raise InputError(f"trajectory {missing} has no verdict: expected the verdicts of rw.judge on all of them")
    with session(recipe_with(None, dialect=dialect_of(found, dialect), quality=quality)) as opened, hidden_bars():
        opened.run.trajectories.rewrite(candidates)
        opened.run.verdicts.rewrite(given)
        data.score(opened)
        return list(opened.run.qualities)
