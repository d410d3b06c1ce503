"""The trajectories that the page of a run shows: which ones, and everything that is known of each.

Record files are streamed; what is held in memory grows with the number of examples, not with the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rewright.credit_files import Credited, Stored, credit, prompt_text
from rewright.dialects.hermes import split_thought
from rewright.errors import InputError
from rewright.plugins.settings import TurnCredit
from rewright.records import Provenance, Quality, Repair, Task, Trajectory, Verdict
from rewright.runs import Run
from rewright.storage import read_jsonl

__all__ = ["Attempt", "Example", "Head", "credited_group", "heads", "read_examples", "stored_of"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One trajectory with its verdict and its credit; None: not computed (`credited`: no gold calls or no turns)."""

    trajectory: Trajectory
    verdict: Verdict | None
    credited: Credited | None


@dataclass(frozen=True, slots=True)
class Example:
    """A candidate with what was decided about it. `repaired` is the last attempt at its repair, taken or not.

    The advantages of `candidate` are those within its task's candidates; a repair is in no group and has rewards only.
    """

    task: Task | None
    candidate: Attempt
    quality: Quality | None
    repair: Repair | None
    repaired: Attempt | None

    @property
    def labels(self) -> list[str]:
        """What the page filters by: the selection (`kept`, `low`, `wrong`; `unscored`), then `repaired` or `hard`.

        What an engine or a tool server broke is `broken`, not `wrong`.
        """
        selected = self.quality.selected if self.quality is not None else None
        broken = selected == "wrong" and self.candidate.trajectory.failure is not None
        labels: list[str] = ["broken" if broken else selected or "unscored"]
        if self.repair is not None:
            labels.append("repaired" if self.repair.accepted else "hard")
        return labels


class Head(msgspec.Struct, frozen=True):
    """What choosing needs of a trajectory: its tokens and texts are skipped."""

    id: str
    task_id: str
    provenance: Provenance = Provenance()


def read_examples(run: Run, count: int, settings: TurnCredit, call_weight: float = 1.0) -> list[Example]:
    """At most `count` candidates in file order, of every kind (kept, low, wrong, repaired, hard) as evenly as possible.

    `settings` and `call_weight` say how credit is computed. Raises InputError for files that cannot be read and for an
    estimator that is not known.
    """
    chosen = _choose(run, count)
    wanted = {head.id: head.task_id for head in heads(run.trajectories.path) if head.id in chosen}
    repairs = {one.original_id: one for one in run.repairs if one.original_id in wanted}
    wanted_repairs = {one.repaired_id for one in repairs.values()}
    task_ids = set(wanted.values())
    tasks = {task.id: task for task in run.tasks if task.id in task_ids}
    golds = {key: list(task.gold.calls) for key, task in tasks.items() if task.gold.calls is not None}
    groups: dict[str, list[Stored]] = {}
    whole: dict[str, Trajectory] = {}
    for one in run.trajectories:
        if one.id in wanted or one.id in wanted_repairs:
            whole[one.id] = one
        # A trajectory that an engine or a tool server broke is in no group, as in RL.
        if one.provenance.parent is None and one.failure is None and one.task_id in golds:
            groups.setdefault(one.task_id, []).append(stored_of(one, tasks[one.task_id]))
    ids = whole.keys() | {stored.id for group in groups.values() for stored in group}
    verdicts = {one.trajectory_id: one for one in run.verdicts if one.trajectory_id in ids}
    qualities = {one.trajectory_id: one for one in run.qualities if one.trajectory_id in wanted}
    outcomes = {key: verdict.outcome for key, verdict in verdicts.items()}
    credited = {
        one.stored.id: one
        for group in groups.values()
        for one in credited_group(group, outcomes, settings, call_weight)
    }
    for key in wanted_repairs & whole.keys():
        trajectory = whole[str(key)]
        if trajectory.task_id in golds and trajectory.failure is None:
            alone = [stored_of(trajectory, tasks[trajectory.task_id])]
            credited |= {one.stored.id: one for one in credited_group(alone, outcomes, settings, call_weight)}

    def attempt(key: str | None) -> Attempt | None:
        trajectory = whole.get(key or "")
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
    """Ids of the candidates to show: the first ones of each kind in turn, until `count` are found."""
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
    for place in range(max(map(len, kinds.values()))):
        for ids in kinds.values():
            if place < len(ids) and len(chosen) < count:
                chosen.add(ids[place])
    return chosen


def heads(path: Path) -> Iterator[Head]:
    """The heads of a file of trajectories; none where there is no file."""
    if path.exists():
        yield from (head for _, head in read_jsonl(path, Head))


def stored_of(trajectory: Trajectory, task: Task) -> Stored:
    """A trajectory of a task, as credit is computed from it."""
    return Stored(
        id=trajectory.id,
        group=trajectory.task_id,
        turns=[list(turn.calls) for turn in trajectory.turns],
        texts=[" ".join(part.strip() for part in split_thought(turn.opening + turn.text)) for turn in trajectory.turns],
        prompt=prompt_text(list(task.messages)),
        golds=list(task.gold.calls or ()),
    )


def credited_group(
    group: Sequence[Stored], outcomes: dict[str, float], settings: TurnCredit, call_weight: float
) -> list[Credited]:
    """The credit of one group; a trajectory without turns has none."""
    known = [
        Stored(one.id, one.group, one.turns, one.texts, one.prompt, one.golds, outcomes.get(one.id))
        for one in group
        if one.turns
    ]
    try:
        return credit(known, settings=settings, call_weight=call_weight)
    except ValueError as problem:
        raise problem if isinstance(problem, InputError) else InputError(str(problem)) from None
