"""`rw.repair`: wrong and low-quality trajectories, solved again by a model that reads the attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rewright.api.judges import JudgeLike, judged_by
from rewright.api.rollouts import as_sandbox
from rewright.api.session import ToolLike, as_tools, checked, dialect_of, session
from rewright.api.settings import LimitsLike, ModelLike, RecipeLike, SandboxLike, recipe_with
from rewright.api.tasks import TasksLike, as_task_list
from rewright.api.twins import synchronous
from rewright.api.verdicts import judge as verdicts_of
from rewright.api.verdicts import score
from rewright.core.progress import hidden_bars
from rewright.core.records import Quality, Repair, Trajectory, Verdict
from rewright.pipeline.stages.repair import repair as repair_candidates

__all__ = ["Repaired", "repair", "repair_sync"]


@dataclass(frozen=True, slots=True)
class Repaired:
    """One case of the repairer.

    Attributes:
        original: the candidate.
        attempts: the attempts at repairing it, in order. Their `provenance.parent` is the candidate's id.
        verdicts: the verdicts on the attempts.
        record: the decision, as a run stores it.
    """

    original: Trajectory
    attempts: tuple[Trajectory, ...]
    verdicts: tuple[Verdict, ...]
    record: Repair

    @property
    def accepted(self) -> bool:
        """Whether an attempt was accepted."""
        return self.record.accepted

    @property
    def reason(self) -> str:
        """Why the last attempt was (not) accepted."""
        return self.record.reason

    @property
    def trajectory(self) -> Trajectory | None:
        """The accepted repair; None for a hard case."""
        return self.attempts[-1] if self.record.accepted else None


async def repair(
    trajectories: Iterable[Trajectory],
    tasks: TasksLike,
    *,
    model: ModelLike | None = None,
    base_url: str | None = None,
    tools: Iterable[ToolLike] = (),
    qualities: Iterable[Quality] | None = None,
    judge: JudgeLike | None = None,
    attempts: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    show_gold: bool | None = None,
    seed: int | None = None,
    dialect: str | None = None,
    limits: LimitsLike | None = None,
    sandbox: SandboxLike | None = None,
    concurrency: int | None = None,
    tokenizer: Any = None,
    recipe: RecipeLike | None = None,
    progress: bool = True,
) -> list[Repaired]:
    """Repair the wrong and the low-quality ones of trajectories (AutoTraj, section 5).

    The repairer reads the task, its tools and the attempt, and solves the task again with the real tools. Its
    trajectory is accepted if it is well formed, right and of a quality above the threshold. Settings that are no
    arguments here (thresholds, refused phrases, prompt) are those of the section `repair` of the recipe.

    Args:
        trajectories: the candidates.
        tasks: their tasks, or what `rw.load_tasks` loads.
        model: the repairer, as in `rw.rollout`; default: the recipe's repairer, else its
            policy.
        base_url: address of the repairer's OpenAI-compatible server.
        tools: functions and `rw.tool` objects, as in `rw.rollout`.
        qualities: the scores of the candidates, as `rw.score` returns; default: they are judged and scored first.
        judge: the judge of candidates and repairs, as in `rw.judge`; default: the judge of each task.
        attempts: maximum number of attempts per candidate; default: the recipe's, usually 1.
        temperature: sampling temperature; default: the recipe's, usually 0.
        top_p: nucleus sampling probability; default: the recipe's, usually 1.
        show_gold: show the gold answer to the repairer; default: the recipe's, usually False.
        seed: seed of sampling; default: the recipe's.
        dialect: dialect of the trajectories and of the repairer; default: the one that reads the stored calls and
            answers.
        limits: limits of an attempt, such as `{"turns": 6}`.
        sandbox: isolation of tools that are source text.
        concurrency: maximum number of concurrent repairs.
        tokenizer: the tokenizer of an engine, as in `rw.rollout`.
        recipe: a recipe, as in `rw.rollout`; the arguments above take precedence.
        progress: show a progress bar.

    Returns:
        One `Repaired` per candidate that needed repair, accepted or not, in their order.

    Raises:
        InputError: a mistake in the arguments.
        JudgeError: a judge failed on an answer.
        EngineError, SandboxError, ToolError: all repairs failed for this reason.

    Example:
        ```python
        cases = await rw.repair(trajectories, tasks, model="gpt-5", base_url=url, tools=[get_weather], attempts=3)
        repaired = [case.trajectory for case in cases if case.accepted]
        ```
    """
    known = as_task_list(tasks)
    found = checked(trajectories, known)
    candidates = [one for one in found if one.provenance.parent is None]
    if not candidates:
        return []
    chosen = recipe_with(
        recipe,
        model=model,
        base_url=base_url,
        tokenizer=tokenizer,
        key="repair.model",
        seed=seed,
        dialect=dialect_of(found, dialect),
        limits=limits,
        sandbox=as_sandbox(sandbox),
        repair__attempts=attempts,
        repair__temperature=temperature,
        repair__top_p=top_p,
        repair__show_gold=show_gold,
        repair__concurrency=concurrency,
    )
    given = as_tools(tools)
    if qualities is None:
        verdicts = await asyncio.to_thread(
            verdicts_of, candidates, known, judge=judge, dialect=chosen.dialect, seconds=chosen.judge_seconds
        )
        qualities = score(candidates, verdicts, quality=chosen.quality, dialect=chosen.dialect)
    with (
        judged_by(known, judge) as judged_tasks,
        session(chosen, judged_tasks, tools=given) as opened,
        hidden_bars(not progress),
    ):
        run = opened.run
        run.trajectories.rewrite(candidates)
        run.qualities.rewrite(qualities)
        await repair_candidates(opened)
        stored = {one.id: one for one in run.trajectories}
        judged = {one.trajectory_id: one for one in run.verdicts}
        tries: dict[str, list[Trajectory]] = {}
        for one in stored.values():
            if one.provenance.parent is not None:
                tries.setdefault(one.provenance.parent, []).append(one)
        return [
            Repaired(
                stored[record.original_id],
                tuple(tries.get(record.original_id, ())),
                tuple(judged[one.id] for one in tries.get(record.original_id, ())),
                record,
            )
            for record in run.repairs
        ]


repair_sync = synchronous(repair)
