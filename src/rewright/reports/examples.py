"""Select the trajectories shown on the page of a run and collect their verdicts, scores and credit.

Record files are streamed. Memory use depends on the number of examples and not on the size of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rewright.core.errors import InputError
from rewright.core.records import Provenance, Quality, Repair, Task, Trajectory, Verdict
from rewright.core.storage import read_jsonl
from rewright.pipeline.run_directory import Run
from rewright.reports.run_credit import group_of, stored_of
from rewright.reports.stored_credit import Credited, Stored, credit, is_known
from rewright.training.settings import RLSettings

__all__ = ["Attempt", "Example", "Head", "credited_by_id", "heads", "read_examples"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One trajectory with its verdict and credit; None if unknown (`credited`: if it can't be computed)."""

    trajectory: Trajectory
    verdict: Verdict | None
    credited: Credited | None


@dataclass(frozen=True, slots=True)
class Example:
    """A candidate with its quality and repair. `repaired` is the last repair attempt, accepted or not.

    The advantages of `candidate` are relative to its task's candidates. A repair has no group and only has rewards.
    """

    task: Task | None
    candidate: Attempt
    quality: Quality | None
    repair: Repair | None
    repaired: Attempt | None

    @property
    def labels(self) -> list[str]:
        """Return the filter labels of the page: selection (`kept`, `low`, `wrong`; `unscored`), `repaired` or `hard`.

        A trajectory with an infrastructure failure is `broken` instead of `wrong`.
        """
        selected = self.quality.selected if self.quality is not None else None
        broken = selected == "wrong" and self.candidate.trajectory.failure is not None
        labels: list[str] = ["broken" if broken else selected or "unscored"]
        if self.repair is not None:
            labels.append("repaired" if self.repair.accepted else "hard")
        return labels


class Head(msgspec.Struct, frozen=True):
    """The fields of a trajectory that selection needs. Tokens and texts are not decoded."""

    id: str
    task_id: str
    provenance: Provenance = Provenance()


def read_examples(run: Run, count: int, settings: RLSettings, dialect: str) -> list[Example]:
    """Return at most `count` candidates in file order, balanced over the kinds kept, low, wrong, repaired and hard.

    `settings` and `dialect` determine how credit is computed. Raises InputError for unreadable files and for an unknown
    estimator.
    """
    chosen = _choose(run, count)
    wanted = {head.id: head.task_id for head in heads(run.trajectories.path) if head.id in chosen}
    repairs = {repair.original_id: repair for repair in run.repairs if repair.original_id in wanted}
    wanted_repairs = {repair.repaired_id for repair in repairs.values()}
    task_ids = set(wanted.values())
    tasks = {task.id: task for task in run.tasks if task.id in task_ids}
    shown: dict[str, Trajectory] = {}
    compared: dict[str, Trajectory] = {}
    for trajectory in run.trajectories:
        if trajectory.id in wanted or trajectory.id in wanted_repairs:
            shown[trajectory.id] = trajectory
        if trajectory.task_id in task_ids and group_of(trajectory) is not None:
            compared[trajectory.id] = trajectory
    whole = {**compared, **shown}
    verdicts = {verdict.trajectory_id: verdict for verdict in run.verdicts if verdict.trajectory_id in whole}
    qualities = {quality.trajectory_id: quality for quality in run.qualities if quality.trajectory_id in wanted}
    credited = credited_by_id(
        [stored_of(one, tasks.get(one.task_id), verdicts.get(key), dialect) for key, one in whole.items()], settings
    )

    def attempt(key: str | None) -> Attempt | None:
        trajectory = shown.get(key or "")
        if trajectory is None:
            return None
        return Attempt(trajectory, verdicts.get(trajectory.id), credited.get(trajectory.id))

    examples = []
    for key, task_id in wanted.items():
        candidate, repair = attempt(key), repairs.get(key)
        if candidate is not None:
            repaired = attempt(repair.repaired_id) if repair is not None else None
            examples.append(Example(tasks.get(task_id), candidate, qualities.get(key), repair, repaired))
    return examples


def _choose(run: Run, count: int) -> set[str]:
    """Return the ids of the candidates to show, taken round-robin from the kinds until there are `count`."""
    kinds: dict[str, list[str]] = {"repaired": [], "kept": [], "hard": [], "low": [], "wrong": [], "unscored": []}

    def add(kind: str, key: str) -> None:
        if len(kinds[kind]) < count:
            kinds[kind].append(key)

    for repair in run.repairs:
        add("repaired" if repair.accepted else "hard", repair.original_id)
    for quality in run.qualities:
        if quality.selected is not None:
            add(quality.selected, quality.trajectory_id)
    if not any(kinds.values()):
        for head in heads(run.trajectories.path):
            if head.provenance.parent is None:
                add("unscored", head.id)
    chosen: set[str] = set()
    for index in range(max(map(len, kinds.values()))):
        for ids in kinds.values():
            if index < len(ids) and len(chosen) < count:
                chosen.add(ids[index])
    return chosen


def heads(path: Path) -> Iterator[Head]:
    """Yield the heads of a file of trajectories. Yields nothing if the file does not exist."""
    if path.exists():
        yield from (head for _, head in read_jsonl(path, Head))


def credited_by_id(stored: Sequence[Stored], settings: RLSettings) -> dict[str, Credited]:
    """Return credit by trajectory id. Trajectories without turns or known inputs for credit are omitted."""
    if not any(is_known(row) for row in stored):
        return {}
    try:
        credited = credit(stored, settings=settings)
    except ValueError as problem:
        raise problem if isinstance(problem, InputError) else InputError(str(problem)) from None
    return {
        result.stored.id: result
        for result in credited
        if result.stored.turns and is_known(result.stored) and not result.stored.broken
    }
