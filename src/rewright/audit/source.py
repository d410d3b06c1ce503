"""The trajectories of a run that can be audited: those of a policy that is still there, with their verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory, Verdict
from rewright.core.storage import read_strict
from rewright.credit.trajectories import CreditTrajectory
from rewright.engines.settings import ModelSettings
from rewright.judging.scores import own_states, turn_scores
from rewright.pipeline.branch_resource import policy_of, policy_stages, tasks_of
from rewright.pipeline.context import Context
from rewright.pipeline.task_checks import check_tools, check_verdicts

__all__ = ["Source", "open_source"]

RIGHT: Final = 0.5
"""Least outcome that counts as a success."""


@dataclass(frozen=True)
class Source:
    """Stored trajectories of one policy.

    Attributes:
        stage: the stage that generated them.
        trajectories: those without a failure and with an outcome, in file order.
        outcomes: their outcomes by id.
        tasks: their tasks by id.
        model: the policy.
        temperature, top_p: how they were sampled.
        left_out: number of trajectories with a failure, a time limit or no verdict.
    """

    stage: str
    trajectories: Sequence[Trajectory]
    outcomes: Mapping[str, float]
    tasks: Mapping[str, Task]
    model: ModelSettings
    temperature: float
    top_p: float
    left_out: int

    @property
    def success(self) -> float:
        """The share of trajectories with an outcome of at least one half."""
        return sum(self.won(one) for one in self.trajectories) / len(self.trajectories)

    def won(self, trajectory: Trajectory) -> bool:
        """Whether a trajectory is a success."""
        return self.outcomes[trajectory.id] >= RIGHT

    def credit_trajectories(self, trajectories: Sequence[Trajectory]) -> list[CreditTrajectory]:
        """The trajectories as input of signals, with their outcomes and what the tasks say about their states."""
        found = []
        for one in trajectories:
            task = self.tasks[one.task_id]
            scores, states = partial(turn_scores, task, one), partial(own_states, task, one)
            outcome = self.outcomes[one.id]
            found.append(CreditTrajectory.of(one, task, outcome=outcome, scores=scores, own_states=states))
        return found


def open_source(context: Context, stage: str | None) -> Source:
    """Read the trajectories of a stage of a run; None: of the newest policy that has any.

    Raises InputError for an unknown stage, one without trajectories or verdicts, a policy that is not there, and tasks
    that cannot be opened or judged.
    """
    run, known = context.run, policy_stages(context)
    if stage is not None and stage not in known:
        raise InputError(
            f"--stage is {stage!r}: expected one of {', '.join(known)} (the policy of each RL step is not "
            "kept, so that its rollouts cannot be continued)"
        )
    for name in known if stage is None else (stage,):
        files = known[name]
        if not run.file(files[0]).exists():
            continue
        verdicts = {}
        if run.file(files[1]).exists():
            verdicts = {one.trajectory_id: one.outcome for _, one in read_strict(run.file(files[1]), Verdict)}
        found = [
            one
            for _, one in read_strict(run.file(files[0]), Trajectory)
            if one.provenance.parent is None and one.stage == name
        ]
        usable = [
            one
            for one in found
            if one.turns
            and one.failure is None
            and one.stop_reason != "time_limit"
            and not math.isnan(verdicts.get(one.id, math.nan))
        ]
        if usable:
            break
        if found and stage is not None:
            raise InputError(f"{run.file(files[0])}: no trajectory of {name} has a verdict: expected a judged one")
    else:
        which = " or ".join(known) if stage is None else stage
        raise InputError(f"{run.path}: there are no judged trajectories of {which}: expected some of a stored policy")
    tasks = tasks_of(context, name)
    unknown = next((one for one in usable if one.task_id not in tasks), None)
    if unknown is not None:
        raise InputError(f"{run.file(files[0])}: {unknown.id} is of the task {unknown.task_id}, which is not loaded")
    needed = [tasks[identity] for identity in dict.fromkeys(one.task_id for one in usable)]
    check_tools(context, needed)
    check_verdicts(needed)
    sampling = usable[0].provenance.sampling
    return Source(
        stage=name,
        trajectories=usable,
        outcomes={one.id: verdicts[one.id] for one in usable},
        tasks=tasks,
        model=policy_of(context, name),
        temperature=float(sampling.get("temperature", 1.0)),
        top_p=float(sampling.get("top_p", 1.0)),
        left_out=len(found) - len(usable),
    )
