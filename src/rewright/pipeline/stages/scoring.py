"""Quality of stored candidates: the groups of a file of trajectories, scored one by one in several processes."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from rewright.core.errors import InputError
from rewright.core.record_groups import Lookup, RecordReader
from rewright.core.records import Trajectory, Verdict
from rewright.core.storage import RecordFile, Span, encode_line, spans
from rewright.core.trust import is_builtin_path
from rewright.repair.quality import model_text, score_group, think_blocks
from rewright.repair.settings import QualitySettings
from rewright.workers.ordered import SPAN_BYTES, in_order

__all__ = [
    "NO_THOUGHTS",
    "Candidates",
    "candidate_of",
    "has_builtin_dimensions",
    "judged_candidates",
    "needs_thoughts",
    "score_candidates",
]

NO_THOUGHTS: Final = (
    "note: no candidate has a think block (<think>), so the confidence of all is 1 and measures nothing; "
    "quality.dimensions can leave it out"
)
_BATCH: Final = 64
"""Candidates that a process scores at once, about."""


class Candidates(NamedTuple):
    """The candidates of each task. A candidate is twice its offset in the file, plus 1 if its verdict is right."""

    groups: list[array[int]]
    contiguous: bool
    """The candidates of every task are consecutive in the file."""

    @property
    def total(self) -> int:
        """Number of candidates."""
        return sum(map(len, self.groups))


def candidate_of(trajectory: Trajectory) -> str | None:
    """The task id of a candidate; None for a repair."""
    return trajectory.task_id if trajectory.provenance.parent is None else None


def needs_thoughts(settings: QualitySettings) -> bool:
    """Return True if a dimension measures the thoughts of the candidates."""
    return any(dimension.name == "confidence" and dimension.weight > 0 for dimension in settings.dimensions)


def has_builtin_dimensions(settings: QualitySettings) -> bool:
    """Return True if all dimensions are Rewright's: those of other packages may keep something between calls."""
    return all(is_builtin_path(dimension.load().__module__) for dimension in settings.dimensions)


def judged_candidates(
    trajectories: RecordFile[Trajectory], verdicts: RecordFile[Verdict], run: Path, processes: int
) -> Candidates:
    """Validate a file of trajectories and find its candidates. Raises InputError for one without a verdict."""

    def candidates(span: Span) -> Iterator[list[tuple[str, str, int]]]:
        yield [
            (key, line.record.id, line.offset)
            for line in trajectories.lines(span)
            if (key := candidate_of(line.record)) is not None
        ]

    found = Lookup(lambda: ((verdict.trajectory_id, verdict.correct) for verdict in verdicts))
    groups: dict[str, array[int]] = {}
    contiguous, last = True, None
    for batch in in_order(candidates, spans(trajectories.path, SPAN_BYTES), processes=processes):
        for key, identity, offset in batch:
            correct = found.find(identity)
            if correct is None:
                raise InputError(f"{run}: no verdict on trajectory {identity}: run rewright judge {run} first")
            contiguous = contiguous and (key == last or key not in groups)
            groups.setdefault(key, array("q")).append(2 * offset + correct)
            last = key
    found.finish()
    return Candidates(list(groups.values()), contiguous)


def score_candidates(
    trajectories: RecordFile[Trajectory],
    candidates: Candidates,
    settings: QualitySettings,
    dialect: str,
    processes: int,
) -> Generator[tuple[bool, list[tuple[str, str, bytes]]]]:
    """Score groups. Yields (one of them has a thought, (id, selection, line of its `Quality`) of each candidate).

    The candidates of one task are in memory at a time.
    """
    groups = candidates.groups

    def scored(batch: tuple[int, int]) -> Iterator[tuple[bool, list[tuple[str, str, bytes]]]]:
        reader = RecordReader(trajectories)
        found = not needs_thoughts(settings)
        for entries in groups[slice(*batch)]:
            group = [reader.at(entry >> 1) for entry in entries]
            found = found or any(think_blocks(model_text(trajectory)) for trajectory in group)
            qualities = score_group(group, [bool(entry & 1) for entry in entries], settings, dialect=dialect)
            yield found, [(one.trajectory_id, str(one.selected), encode_line(one)) for one in qualities]
        reader.close()

    size = max(1, _BATCH * len(groups) // max(1, candidates.total))
    batches = ((first, first + size) for first in range(0, len(groups), size))
    yield from in_order(scored, batches, processes=processes if has_builtin_dimensions(settings) else 1)
