"""Records of AutoTraj and Tool-Star as trajectories of known tasks.

The format itself is in `rewright.importers.tagged_texts`, the exporter in `rewright.exports.autotraj`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rewright.core.records import Task, Trajectory
from rewright.dialects import Tags
from rewright.importers.attempts import known_task, to_trajectory
from rewright.importers.log_files import read_conversations
from rewright.importers.made_tasks import asked, plain

__all__ = ["read_trajectories"]


def read_trajectories(path: Path | str, tasks: Sequence[Task]) -> Iterator[Trajectory]:
    """Yield every attempt in a file as a trajectory of the task with the same question. Ids number the attempts.

    Raises InputError for a row without question or text, whose question matches no task, or whose text is not in the
    dialect's tags.
    """
    dialect = Tags()
    by_question: dict[str, Task] = {}
    for task in tasks:
        by_question.setdefault(plain(asked(task.messages)), task)
    count: Counter[str] = Counter()
    for found in read_conversations(Path(path), "autotraj"):
        own = known_task(found, by_question)
        if own is None:
            raise found.row.fail(
                f"no task asks {asked(found.prompt)[:60]!r}: expected a question of the recipe's tasks"
            )
        yield to_trajectory(found, own.id, count[own.id], dialect)
        count[own.id] += 1
