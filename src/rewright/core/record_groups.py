"""Records of a file in groups, and records of one file that belong to those of another, in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import msgspec

from rewright.core.storage import RecordFile, lines_of

__all__ = ["Groups", "Lookup", "RecordReader"]

T = TypeVar("T")
V = TypeVar("V")


class Groups(Generic[T]):
    """Records grouped by key, in order of first appearance. `records`: the number of records in all groups.

    Only one group and the offsets of the records are in memory, since a group may be scattered over the file.
    """

    def __init__(self, file: RecordFile[T], key: Callable[[T], str | None]) -> None:
        self._file = file
        self._offsets: dict[str, array[int]] = {}
        for line in lines_of(file.path, file.kind) if file.path.exists() else ():
            name = key(line.record)
            if name is not None:
                self._offsets.setdefault(name, array("q")).append(line.offset)
        self.records = sum(map(len, self._offsets.values()))

    def __iter__(self) -> Iterator[list[T]]:
        """Yield the groups. The file must not be reordered meanwhile."""
        if not self._offsets:
            return
        decoder = msgspec.json.Decoder(self._file.kind)
        with self._file.path.open("rb") as file:

            def record(offset: int) -> T:
                file.seek(offset)
                return decoder.decode(file.readline())

            for offsets in self._offsets.values():
                yield [record(offset) for offset in offsets]


class Lookup(Generic[V]):
    """Looks up values by key. Takes no memory while keys are asked for in the order of the entries.

    `entries` returns an iterator of (key, value) each time that it is called; keys are unique. Entries that are passed
    over are kept in memory.
    """

    def __init__(self, entries: Callable[[], Iterable[tuple[str, V]]]) -> None:
        self._entries = entries
        self._ahead: Iterator[tuple[str, V]] | None = iter(entries())
        self._passed: dict[str, V] = {}

    def find(self, key: str) -> V | None:
        """The value of a key; None for an unknown one."""
        if key in self._passed:
            return self._passed[key]
        for name, value in self._ahead or ():
            if name == key:
                return value
            self._passed[name] = value
        if self._ahead is not None:  # asked for twice, or unknown
            self._ahead, self._passed = None, dict(self._entries())
        return self._passed.get(key)

    def finish(self) -> None:
        """Read the remaining entries, whose errors are raised."""
        for _ in self._ahead or ():
            pass


class RecordReader(Generic[T]):
    """Reads records of a file by their offsets."""

    def __init__(self, file: RecordFile[T]) -> None:
        self._file = file.path.open("rb")
        self._decoder = msgspec.json.Decoder(file.kind)

    def at(self, offset: int) -> T:
        """The record whose line begins at the offset."""
        self._file.seek(offset)
        return self._decoder.decode(self._file.readline())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
