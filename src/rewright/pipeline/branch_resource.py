"""Open the resource `branch` for the stored trajectories of a run: its policies, tools and judges.

A trajectory is continued by the policy that generated it. RL's rollouts cannot be continued, because the policy of each
step is not kept.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory
from rewright.core.storage import read_strict
from rewright.credit.trajectories import CreditTrajectory
from rewright.engines.base import Sampling
from rewright.engines.settings import ModelSettings
from rewright.judging.judges import judge_trajectory
from rewright.pipeline.context import Context
from rewright.pipeline.registry import run_order
from rewright.pipeline.rounds import round_file
from rewright.pipeline.run_directory import Run, evaluation_files
from rewright.pipeline.stages.policy import policy, policy_before
from rewright.pipeline.task_checks import check_tools, check_verdicts
from rewright.rollout.branches import Branches
from rewright.rollout.replay import Replayer

__all__ = ["BranchResource", "StageFiles", "open_branch", "policy_of", "policy_stages", "tasks_of"]


class StageFiles(NamedTuple):
    """Where the trajectories of a stage and their verdicts are stored.

    `evaluates`: the stage whose model it evaluates, or `base`; None: it makes candidates. `stage`: its name in the run.
    """

    trajectories: str
    verdicts: str
    stage: str
    evaluates: str | None = None


def policy_stages(context: Context) -> dict[str, StageFiles]:
    """The stages whose policy a run of the recipe stores, the newest first: evaluations, and candidates of each round.

    They have the names of the trajectories' `stage`: `eval-rl`, `eval-sft_2`, `synth_2`, `eval-sft`, `synth`.
    """
    found: dict[str, StageFiles] = {}
    for stage in reversed(run_order(context.recipe)):
        if stage.evaluates is not None:
            trajectories, verdicts = evaluation_files(stage.evaluates)
            found[f"eval-{stage.evaluates}"] = StageFiles(trajectories, verdicts, stage.name, stage.evaluates)
        elif stage.base == "synth":
            trajectories = round_file("trajectories.jsonl", stage.round)
            found[stage.name] = StageFiles(trajectories, round_file("verdicts.jsonl", stage.round), stage.name)
    return found


def policy_of(context: Context, stage: str) -> ModelSettings:
    """The model that generated the trajectories of a stage of `policy_stages`. Raises InputError as `policy` does."""
    files = policy_stages(context)[stage]
    if files.evaluates is not None:
        return policy(context, files.evaluates)
    return context.candidate_model() if files.stage == "synth" else policy_before(context, files.stage)


def tasks_of(context: Context, stage: str) -> dict[str, Task]:
    """The tasks of a stage of `policy_stages` by id, as the recipe loads them. Nothing is written."""
    made = policy_stages(context)[stage].evaluates is None
    return {task.id: task for task in (context.load_tasks() if made else context.load_eval_tasks())}


class BranchResource:
    """Continues stored trajectories of a run, with engines and tools in a thread of its own. Close it at the end.

    Raises InputError if the run's recipe names code of a package, which only commands that take `--trusted` may run.
    """

    def __init__(self, run: Path) -> None:
        opened = Run.open(run)
        opened.check_code()
        self._context = Context(opened, opened.recipe())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rewright-branch", daemon=True)
        self._thread.start()
        self._stop = asyncio.Event()
        self._held: list[Future[None]] = []
        self._branches: dict[str, Branches] = {}
        self._stored: dict[str, Trajectory] = {}
        for stage, files in policy_stages(self._context).items():
            path = run / files.trajectories
            if path.exists():
                self._stored |= {one.id: one for _, one in read_strict(path, Trajectory) if one.stage == stage}

    def __call__(
        self, trajectory: CreditTrajectory, turn: int, count: int, seed: int, /, *, alternative: Any = None
    ) -> list[float | None]:
        """Continue a trajectory (see `rewright.credit.resources`). Raises InputError for one that is not stored."""
        stored = self._stored.get(trajectory.id)
        if stored is None:
            raise InputError(
                f"trajectory {trajectory.id} cannot be continued: expected one of "
                f"{', '.join(policy_stages(self._context))}, whose policy is stored"
            )
        if stored.stage not in self._branches:
            self._branches[stored.stage] = self._open(stored)
        return self._branches[stored.stage](trajectory, turn, count, seed, alternative=alternative)

    def close(self) -> None:
        """Close the engines and the tools."""
        self._loop.call_soon_threadsafe(self._stop.set)
        for held in self._held:
            held.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _open(self, stored: Trajectory) -> Branches:
        stage = stored.stage
        own = {key: one for key, one in self._stored.items() if one.stage == stage}
        tasks = tasks_of(self._context, stage)
        needed = [tasks[one] for one in dict.fromkeys(one.task_id for one in own.values()) if one in tasks]
        check_tools(self._context, needed)
        check_verdicts(needed)
        ready: Future[Branches] = Future()
        sampling = Sampling(
            temperature=float(stored.provenance.sampling.get("temperature", 1.0)),
            top_p=float(stored.provenance.sampling.get("top_p", 1.0)),
        )
        seconds = self._context.recipe.judge_seconds

        async def outcome(task: Task, trajectory: Trajectory) -> float:
            return (await asyncio.to_thread(judge_trajectory, task, trajectory, seconds=seconds)).outcome

        async def hold() -> None:
            try:
                async with self._context.rollout(policy_of(self._context, stage), sampling, needed) as rollout:
                    ready.set_result(Branches(Replayer(rollout), own, tasks, outcome))
                    await self._stop.wait()
            except BaseException as problem:
                if ready.done():
                    raise
                ready.set_exception(problem)

        self._held.append(asyncio.run_coroutine_threadsafe(hold(), self._loop))
        return ready.result()


def open_branch(sources: Any) -> BranchResource:
    """Open `branch` for the run `sources.run`. Raises InputError if there is no run, and as `BranchResource` does."""
    if sources.run is None:
        raise InputError("the signal branch continues the trajectories of a run: expected a run directory")
    return BranchResource(Path(sources.run))
