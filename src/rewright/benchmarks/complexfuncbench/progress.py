"""How far a trajectory is after every turn: which results of the gold calls it has obtained.

    CreditTrajectory.of(trajectory, task, scores=turn_progress(task, trajectory))

`scores` is where a credit signal of kind "value" reads the state values. Two trajectories of a task are in the same
state if they have obtained the same results, whatever else they did.
"""

from __future__ import annotations

from rewright.core.records import Task, Trajectory
from rewright.credit import similarity_matrix
from rewright.judging.calls import comparison_of

__all__ = ["obtained", "state_keys", "turn_progress"]


def obtained(task: Task, trajectory: Trajectory) -> list[frozenset[int]]:
    """Return the positions of the gold calls whose results were obtained, before any turn and after each: T + 1 sets.

    A gold call counts from the first equal call that returned a result. Equal calls have a similarity of 1 under
    `metadata.compare` (`rewright.credit.similarity_matrix`). A call with an error, or cut off by a limit, obtains
    nothing. Raises InputError for settings in `metadata.compare` that are invalid or name code.
    """
    golds = task.gold.calls or ()
    made = [
        (number, call)
        for number, turn in enumerate(trajectory.turns)
        for call, result in zip(turn.calls, turn.results, strict=False)
        if call.error is None and result.error is None
    ]
    found: set[int] = set()
    states = [frozenset(found)]
    equal: dict[int, set[int]] = {}
    if made and golds:
        schemas = [tool.schema for tool in task.all_tools]
        similarity_PG = similarity_matrix([call for _, call in made], golds, compare=comparison_of(task), tools=schemas)
        for (number, _), row in zip(made, similarity_PG, strict=True):
            equal.setdefault(number, set()).update(gold for gold, value in enumerate(row) if value == 1.0)
    for number in range(len(trajectory.turns)):
        found |= equal.get(number, set())
        states.append(frozenset(found))
    return states


def turn_progress(task: Task, trajectory: Trajectory) -> list[float]:
    """Return the share of the gold results obtained, before any turn and after each: T + 1 numbers in [0, 1]."""
    total = len(task.gold.calls or ()) or 1
    return [len(found) / total for found in obtained(task, trajectory)]


def state_keys(task: Task, trajectory: Trajectory) -> list[str]:
    """Return a name of the state before any turn and after each, T + 1 texts: the task and the results obtained."""
    return [f"{task.id}:{','.join(map(str, sorted(found)))}" for found in obtained(task, trajectory)]
