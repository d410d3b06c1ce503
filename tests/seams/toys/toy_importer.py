"""An importer in one file: lines of `task, call, result, call, result, …, answer`, with a tab between the parts.

A call is a tool's name with its one argument, as in `age(Ada)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rewright.core.errors import InputError
from rewright.core.records import Task, ToolCall, ToolResult, Trajectory, Turn
from rewright.credit import CreditTrajectory
from rewright.importers.base import Importer
from rewright.importers.chat_logs import Log


def trajectories(path: Path, tasks: Sequence[Task]) -> Iterator[Trajectory]:
    """The attempts of a file, for `rewright import`."""
    known = {task.id for task in tasks}
    for index, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        task, *pairs, answer = line.split("\t")
        if task not in known:
            raise InputError(f"{path}:{index + 1}: unknown task {task}")
        turns = []
        for call, result in zip(pairs[::2], pairs[1::2], strict=True):
            name, _, argument = call.removesuffix(")").partition("(")
            turns.append(Turn(text=call, calls=(ToolCall(name, {"of": argument}),), results=(ToolResult(result),)))
        turns.append(Turn(text=f"<answer>{answer}</answer>"))
        yield Trajectory(
            id=f"toy/{index}", task_id=task, stage="import", index=index, turns=tuple(turns), stop_reason="answered",
            answer=answer,
        )  # fmt: skip


def logs(path: Path, outcome: str | Sequence[str] | None) -> Iterator[Log]:
    """The same attempts for `rewright credit`, which needs no tasks. These files hold no outcome."""
    text = path.read_text(encoding="utf-8")
    for one in trajectories(path, [Task(id=line.split("\t")[0], messages=()) for line in text.splitlines()]):
        yield Log(
            id=one.id,
            group=one.task_id,
            turns=[list(turn.calls) for turn in one.turns],
            texts=[turn.text for turn in one.turns],
            prompt="",
            golds=None,
            outcome=None,
            seen=f"a line of {path}",
            whole=CreditTrajectory.of(one),
        )


IMPORTER = Importer(trajectories=trajectories, logs=logs)
