"""Credit of Rewright's own trajectories, however many, for `rewright credit`: one group in memory at a time.

A first pass validates every record and notes its place in the file, its verdict's place and its group: some 30 bytes
for a trajectory. A second pass computes the credit of whole groups, wherever their members are, in several processes.
Results go to a temporary file, and from there in the order of the trajectories, after the last one has been computed:
an error prints nothing.

The results are those of `rewright.reports.stored_credit.credit`, which keeps everything in memory. It is used for logs
of other projects, and for signals of other packages, which may compare any trajectories with each other.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from rewright.core.record_groups import Lookup, RecordReader
from rewright.core.records import Trajectory, Verdict
from rewright.core.registry import find
from rewright.core.storage import RecordFile, Span, spans, strict_lines
from rewright.core.trust import is_builtin_path
from rewright.credit.provided import compares_groups
from rewright.credit.resources import needed
from rewright.importers.gold_files import LazyGold
from rewright.reports.credit_table import (
    TABLE_NAMES,
    Facts,
    GoldFacts,
    Summary,
    credit_as_json,
    golds_as_json,
    table_line,
    table_row,
)
from rewright.reports.run_credit import Source, group_of, run_sources, stored_of
from rewright.reports.stored_credit import Credited, Stored, credited, is_known, with_gold
from rewright.training.settings import RLSettings
from rewright.workers.ordered import SPAN_BYTES, in_order, process_count

__all__ = ["StreamedCredit", "can_stream", "stream_credit", "stream_sources"]

_encoder = msgspec.json.Encoder()
_BATCH = 64
"""Trajectories that a process computes at once, about."""


def can_stream(settings: RLSettings) -> bool:
    """Whether the signals and the estimator are Rewright's own, look at one group at a time and need no model.

    `gdpo` and `outcome_or_calls` with `decay: batch` look at more than one group.
    """
    credit = settings.credit
    parts = [("signal", part.name) for part in credit.signal_parts]
    named = [*parts, ("estimator", credit.estimator_name)]
    if any(":" in name for _, name in named):
        return False
    functions = [find(kind, name) for kind, name in named]  # type: ignore[arg-type]
    if compares_groups(credit):
        return False
    return all(is_builtin_path(function.__module__) and not needed(function) for function in functions)


class _Head(NamedTuple):
    """What the first pass finds of a trajectory. `staged`: a verdict would be enough for credit."""

    id: str
    group: str | None
    offset: int
    known: bool
    staged: bool


class _Places:
    """The places of all trajectories (by number, in file order), and the units that are computed together."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        """Number of the first trajectory of each source."""
        self.offsets = array("q")
        self.verdicts = array("q")
        """Offsets of the verdicts; -1: none."""
        self.units: list[array[int]] = []
        """Numbers of the trajectories of one group, or of consecutive ones without a group."""
        self.any_known = False
        self._by_group: dict[str, array[int]] = {}
        self._alone = False

    def add(self, head: _Head, verdict: int) -> None:
        """Add the next trajectory."""
        number = len(self.offsets)
        self.offsets.append(head.offset)
        self.verdicts.append(verdict)
        self.any_known = self.any_known or head.known or (head.staged and verdict >= 0)
        if head.group is None:
            if not self._alone or len(self.units[-1]) == _BATCH:
                self.units.append(array("q"))
            self.units[-1].append(number)
        else:
            if head.group not in self._by_group:
                self._by_group[head.group] = array("q")
                self.units.append(self._by_group[head.group])
            self._by_group[head.group].append(number)
        self._alone = head.group is None


class StreamedCredit:
    """The results, in a temporary file. `stages`: the stages of all trajectories; `count`: of the chosen ones."""

    def __init__(self, spool: IO[bytes], *, as_json: bool) -> None:
        self.stages: set[str] = set()
        self.summary = Summary()
        self.any_known = False
        """Whether any trajectory has gold calls or values that RL stored."""
        self._spool, self._as_json = spool, as_json
        self._offsets = array("q")
        self._widths = [len(name) for name in TABLE_NAMES[:-1]]

    @property
    def count(self) -> int:
        """The number of results."""
        return self.summary.count

    def lines(self) -> Iterator[str]:
        """Yield the lines of the output."""
        if not self._as_json:
            yield table_line(TABLE_NAMES, self._widths)
        for _, row in self._stored():
            if self._as_json:
                yield row.rstrip(b"\n").decode()
            else:
                yield table_line(msgspec.json.decode(row), self._widths)

    def collect(self, total: int, results: Iterator[tuple[int, str, bytes | None]]) -> None:
        """Store the results of `total` trajectories, which come in any order, and add up what notes say of them."""
        self._offsets = array("q", [-1]) * total
        position = 0
        for number, stage, entry in results:
            if stage:
                self.stages.add(stage)
            if entry is not None:
                self._offsets[number] = position
                position += self._spool.write(entry)
        decoder = msgspec.json.Decoder(tuple[Facts, tuple[int, ...]])
        for line, _ in self._stored():
            facts, widths = decoder.decode(line)
            self.summary.add(facts)
            self._widths = [*map(max, self._widths, widths)] if widths else self._widths

    def _stored(self) -> Iterator[tuple[bytes, bytes]]:
        for offset in self._offsets:
            if offset >= 0:
                self._spool.seek(offset)
                yield self._spool.readline(), self._spool.readline()


def stream_credit(
    path: Path,
    gold: LazyGold | None,
    settings: RLSettings,
    *,
    recompute: bool = False,
    metric: str | None = None,
    stage: str | None = None,
    as_json: bool = False,
) -> StreamedCredit | None:
    """Compute the credit of a run directory or of one of its files.

    Args:
        path: the run directory or file.
        gold: gold calls of trajectories whose tasks have none.
        settings: the `rl` section.
        recompute: compute the values of rollouts, although RL has stored them.
        metric: the verdict metric that is the outcome; None: the outcome.
        stage: keep the results of this stage only.
        as_json: lines of JSON in place of a table.

    Returns None if no trajectory has gold calls, which the signal needs. Raises InputError for invalid records, and
    ValueError as `credit` does.
    """
    recipe, found = run_sources(path)
    sources = list(found)
    processes = process_count(sum(source.file.stat().st_size for source in sources))
    return stream_sources(
        sources,
        recipe.dialect,
        gold,
        settings,
        recompute=recompute,
        metric=metric,
        stage=stage,
        as_json=as_json,
        processes=processes,
    )


def stream_sources(
    sources: Sequence[Source],
    dialect: str,
    gold: LazyGold | None,
    settings: RLSettings,
    *,
    recompute: bool,
    metric: str | None,
    stage: str | None,
    as_json: bool,
    processes: int,
    without_gold: bool = False,
) -> StreamedCredit | None:
    """Same as `stream_credit`, of given files.

    `dialect`: name of the run's. `processes`: as for `in_order`. `without_gold`: compute the credit, even if no
    trajectory has gold calls.
    """
    check_format = settings.trajectory_reward != "matchtir"
    places = _Places()

    def heads(item: tuple[int, Span]) -> Iterator[list[_Head]]:
        source = sources[item[0]]
        yield [
            _head(line.record, line.offset, source, gold, settings)
            for line in strict_lines(source.file, Trajectory, item[1])
        ]

    for number, source in enumerate(sources):
        places.starts.append(len(places.offsets))
        verdicts = Lookup(lambda source=source: _verdict_offsets(source))  # type: ignore[misc]
        parts = ((number, span) for span in spans(source.file, SPAN_BYTES))
        for batch in in_order(heads, parts, processes=processes):
            for head in batch:
                place = verdicts.find(head.id)
                places.add(head, -1 if place is None else place)
        verdicts.finish()
    needs_gold = settings.credit.rewards_matches and not without_gold
    if needs_gold and places.offsets and not places.any_known:
        return None

    def computed(batch: tuple[int, int]) -> Iterator[list[tuple[int, str, bytes | None]]]:
        readers: dict[tuple[int, type[Any]], RecordReader[Any]] = {}

        def read(index: int, kind: type[Any], offset: int) -> Any:
            if (index, kind) not in readers:
                file = sources[index].file if kind is Trajectory else sources[index].verdicts
                assert file is not None
                readers[index, kind] = RecordReader(RecordFile(file, kind, str))
            return readers[index, kind].at(offset)

        numbers = [number for unit in places.units[slice(*batch)] for number in unit]
        filled: list[Stored] = []
        for number in numbers:
            index = bisect_right(places.starts, number) - 1
            source = sources[index]
            trajectory = read(index, Trajectory, places.offsets[number])
            place = places.verdicts[number]
            verdict = source.verdict(trajectory, read(index, Verdict, place) if place >= 0 else None, settings)
            stored = stored_of(
                trajectory,
                source.tasks.get(trajectory.task_id),
                verdict,
                dialect,
                held_out=source.held_out,
                metric=metric,
                texts=False,
                check_format=check_format,
            )
            filled.append(with_gold(stored, gold))
        for reader in readers.values():
            reader.close()
        entry = _Entries(as_json=as_json)
        yield [
            (number, one.stored.stage, entry(one) if stage in (None, one.stored.stage) else None)
            for number, one in zip(numbers, credited(filled, settings, recompute=recompute), strict=True)
        ]

    result = StreamedCredit(tempfile.TemporaryFile(), as_json=as_json)  # noqa: SIM115 - closed with the result
    batches = _batches(places.units)
    together = in_order(computed, batches, processes=processes)
    result.any_known = places.any_known
    result.collect(len(places.offsets), (entry for entries in together for entry in entries))
    return result


def _head(trajectory: Trajectory, offset: int, source: Source, gold: LazyGold | None, settings: RLSettings) -> _Head:
    task = source.tasks.get(trajectory.task_id)
    known = trajectory.credit is not None or (task is not None and task.gold.calls is not None)
    if not known and (gold is not None or source.verdicts is None):
        verdict = source.verdict(trajectory, None, settings)
        stored = stored_of(trajectory, task, verdict, "", held_out=source.held_out, texts=False, check_format=False)
        known = is_known(with_gold(stored, gold))
    group = group_of(trajectory, held_out=source.held_out)
    return _Head(trajectory.id, group, offset, known, bool(trajectory.stage))


def _verdict_offsets(source: Source) -> Iterator[tuple[str, int]]:
    """The id and the offset of every verdict of a source. They are validated as the trajectories are."""
    if source.verdicts is not None and source.verdicts.exists():
        for line in strict_lines(source.verdicts, Verdict):
            yield line.record.trajectory_id, line.offset


def _batches(units: Sequence[array[int]]) -> Iterator[tuple[int, int]]:
    """Ranges of units with about `_BATCH` trajectories each."""
    first = size = 0
    for index, unit in enumerate(units):
        size += len(unit)
        if size >= _BATCH:
            yield first, index + 1
            first, size = index + 1, 0
    if size:
        yield first, len(units)


class _Entries:
    """Two lines for each result: the facts with the widths of the table's cells, and the output."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._golds: dict[int, tuple[Any, GoldFacts, list[dict[str, Any]] | None]] = {}
        """The gold calls by the id of the object, the facts about them and their JSON types. A group shares them."""

    def __call__(self, one: Credited) -> bytes:
        golds = one.stored.golds
        if id(golds) not in self._golds:
            self._golds[id(golds)] = golds, GoldFacts.of(golds), golds_as_json(golds) if self._as_json else None
        _, gold_facts, as_json = self._golds[id(golds)]
        row: tuple[str, ...] = () if self._as_json else table_row(one)
        facts = _encoder.encode((Facts.of(one, gold_facts), tuple(map(len, row[:-1]))))
        line = json.dumps(credit_as_json(one, as_json)).encode() if self._as_json else _encoder.encode(row)
        return facts + b"\n" + line + b"\n"
