"""The trajectories that verl's agent loops have stored, and the metrics of a step that are computed from them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec

from rewright.core.records import Trajectory
from rewright.credit.missing import check_missing
from rewright.training.group_credit import Rewards
from rewright.training.rl_step import step_metrics

__all__ = ["check_step", "keep_steps", "metrics_of", "read_steps", "rewards_of"]


def read_steps(folder: Path, first: int, last: int) -> dict[int, list[Trajectory]]:
    """The trajectories of the steps `first` to `last`, counted from 1, in a stable order."""
    steps: dict[int, list[Trajectory]] = defaultdict(list)
    for path in sorted(folder.glob("*.jsonl")):
        for _, trajectory in _lines(path):
            if first <= _step(trajectory) <= last:
                steps[_step(trajectory)].append(trajectory)
    return {step: sorted(steps[step], key=lambda one: (one.task_id, one.index)) for step in sorted(steps)}


def keep_steps(folder: Path, last: int) -> None:
    """Remove the trajectories of later steps, which will be made again."""
    for path in folder.glob("*.jsonl"):
        kept = [line for line, trajectory in _lines(path) if _step(trajectory) <= last]
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(b"".join(line + b"\n" for line in kept))
        temporary.replace(path)


def metrics_of(trajectories: list[Trajectory], planned: int) -> dict[str, float]:
    """The metrics that every trainer logs of a step (`rewright.training.rl_step.step_metrics`).

    `planned`: number of rollouts of the step. Those with an infrastructure failure are not stored.
    """
    earned = [trajectory.credit for trajectory in trajectories]
    rewards = Rewards(
        turn_rewards=[
            [] if credit is None else [math.nan if one is None else one for one in credit.turn_rewards]
            for credit in earned
        ],
        trajectory_rewards=[None if credit is None else credit.trajectory_reward for credit in earned],
        advantages=[],
        outcomes=[None if credit is None or credit.verdict is None else credit.verdict.outcome for credit in earned],
        reward_model=[],
        missing=[credit is not None and None in credit.turn_rewards for credit in earned],
        left_out=[_is_left_out(trajectory) for trajectory in trajectories],
    )
    return step_metrics(rewards, trajectories) | {"rewright/failures": float(planned - len(trajectories))}


def check_step(trajectories: list[Trajectory], signal: str, *, bridged: bool = False) -> None:
    """Raise InputError if more than a tenth of the rollouts of a step were left out: the signal has no numbers."""
    left_out = [(one.id, None) for one in trajectories if _is_left_out(one)]
    check_missing(signal, left_out, len(trajectories), bridged=bridged)


def rewards_of(trajectories: list[Trajectory]) -> dict[str, float]:
    """The rewards that verl logs of a step.

    verl saves the checkpoint of a step before it logs the step, so that a kill between the two loses the logged row.
    """
    rewards = [one.credit.trajectory_reward for one in trajectories if one.credit is not None]
    known = [reward for reward in rewards if reward is not None]
    if not known:
        return {}
    return {"reward": sum(known) / len(known), "reward_max": max(known), "reward_min": min(known)}


def _is_left_out(trajectory: Trajectory) -> bool:
    credit = trajectory.credit
    return credit is not None and None in credit.turn_rewards and credit.trajectory_reward is None


def _lines(path: Path) -> Iterator[tuple[bytes, Trajectory]]:
    """The complete lines: a process that was killed may have left half of one."""
    for line in path.read_bytes().splitlines():
        try:
            yield line, msgspec.json.decode(line, type=Trajectory)
        except msgspec.DecodeError:
            continue


def _step(trajectory: Trajectory) -> int:
    """The step, counted from 1, of a trajectory with the id rl/TASK/STEP/INDEX, which counts from 0."""
    return int(trajectory.id.rsplit("/", 2)[1]) + 1
