"""Append-only files of records: one JSON object a line, whole or not at all.

Writing: every record is one write of one line. A torn last line, left by a kill or a full disk, is cut off before the
next append and ignored when reading. A corrupt line anywhere else is an `InputError` that names file and line.
Reading is streaming: memory does not grow with the file. A lone surrogate (half of an escaped pair, which models write
and UTF-8 cannot hold) is stored as U+FFFD.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, Generic, NamedTuple, TypeVar

import msgspec

from rewright.core.errors import InputError, StorageError

__all__ = [
    "Groups",
    "RecordFile",
    "bounded_lines",
    "encode_line",
    "open_file",
    "read_bounded",
    "read_checked",
    "read_jsonl",
    "read_strict",
    "refuse_special",
    "special_file_kind",
    "without_surrogates",
    "write_atomically",
]

T = TypeVar("T")

COMPRESSION_MAGIC: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"BZh", "bzip2"),
)
"""How packed files begin."""

MAX_SMALL_FILE_BYTES: Final = 10_000_000
"""Of a file that is read at once: a recipe, a state, the head of an index."""

MAX_LINE_BYTES: Final = 256 * 2**20
"""A file without line ends (a sparse one, a packed bomb) must not fill the memory."""

_encoder = msgspec.json.Encoder()


def encode_line(value: Any) -> bytes:
    """One record as a line of JSON, its end included."""
    try:
        return _encoder.encode(value) + b"\n"
    except UnicodeEncodeError:
        return _encoder.encode(without_surrogates(msgspec.to_builtins(value))) + b"\n"


def without_surrogates(value: Any) -> Any:
    """`value` (texts, dicts, lists) with U+FFFD for every half of a character, which UTF-8 cannot hold."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_surrogates(part) for part in value]
    return value


def write_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """Replace `path` by the joined chunks, or leave it as it was.

    Raises StorageError if it cannot be written, and InputError for a device or a pipe, which a file must not replace.
    """
    refuse_special(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            try:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:  # Ctrl-C, or a mistake in what the chunks are made from
                temporary.unlink(missing_ok=True)
                raise
        temporary.replace(path)
    except OSError as problem:
        raise StorageError(f"cannot write {path}: {problem.strerror or problem}") from problem


def open_file(path: Path) -> BinaryIO:
    """A regular file, open for reading. Raises OSError, and InputError for a device or a pipe, which may never end."""
    refuse_special(path)
    return path.open("rb")


def refuse_special(path: Path) -> None:
    """Raise InputError for a device, a pipe or a socket: it is neither read to its end nor written over."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # whoever opens it says what is wrong
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: is a {special_file_kind(mode)}: expected a file")


def special_file_kind(mode: int) -> str:
    """What a file is that is neither a regular one nor a folder, by its `st_mode`."""
    return "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"


def read_bounded(path: Path, most: int = MAX_SMALL_FILE_BYTES) -> bytes:
    """A whole file of at most `most` bytes. Raises OSError, and InputError for a larger one and for what is no file."""
    with open_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise InputError(f"{path}: is larger than {most:,} bytes")
    return data


def bounded_lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """The lines of a file. Raises InputError for one that is longer than any record of ours or of a data set."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise InputError(
                f"{path}:{number}: a line of more than {MAX_LINE_BYTES:,} bytes: expected one record per line"
            )
        yield line


def read_jsonl(path: Path, kind: type[T]) -> Iterator[tuple[int, T]]:
    """(line number, decoded record) for every whole line; a torn last line is dropped.

    Raises InputError (file, line, what was expected) for a missing file or a corrupt line.
    """
    for line in _lines(path, kind):
        yield line.number, line.record


def read_strict(path: Path, kind: type[T]) -> Iterator[tuple[int, T]]:
    """`read_jsonl` of records that somebody else has written: a key that the record does not have is an InputError.

    Dropped, it would stay unseen: a turn whose calls stand under another key would look like one without calls.
    """
    for number, given in read_jsonl(path, dict[str, Any]):
        try:
            record = msgspec.convert(given, kind)
            dropped = _dropped(given, msgspec.to_builtins(record))
        except (msgspec.ValidationError, RecursionError) as problem:
            raise InputError(f"{path}:{number}: not a valid record: {problem}") from None
        if dropped is not None:
            where, key, known = dropped
            raise InputError(f"{path}:{number}: unknown key {where + key!r}: expected one of {', '.join(known)}")
        yield number, record


def _dropped(given: Any, kept: Any) -> tuple[str, str, list[str]] | None:
    """The first key of `given` that `kept`, made of it, does not have: the path to it, the key, the keys there are."""
    pending = [("", given, kept)]
    while pending:
        path, one, other = pending.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            for key, value in one.items():
                if key not in other:
                    return path, str(key), list(other)
                pending.append((f"{path}{key}.", value, other[key]))
        elif isinstance(one, list) and isinstance(other, list | tuple):
            pending += [(f"{path}{place}.", *pair) for place, pair in enumerate(zip(one, other, strict=False))]
    return None


def read_checked(path: Path, kind: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of a file that people may edit; `kind`: what must hold of a row, whatever else is in it.

    Nothing where there is no file. Raises InputError (file, line, what was expected).
    """
    for number, row in read_jsonl(path, dict[str, Any]) if path.exists() else ():
        try:
            msgspec.convert(row, kind)
        except msgspec.ValidationError as problem:
            raise InputError(f"{path}:{number}: not a row of this file: {problem}") from None
        yield number, row


class _Line(NamedTuple, Generic[T]):
    """One whole line of a file: its number (from 1), where it starts and how long it is in bytes, its record."""

    number: int
    offset: int
    length: int
    record: T


def _lines(path: Path, kind: type[T]) -> Iterator[_Line[T]]:
    decoder = msgspec.json.Decoder(kind)
    try:
        file = open_file(path)
    except OSError as problem:
        raise InputError(f"cannot read {path}: {problem.strerror or problem}") from None
    offset = 0
    with file:
        try:
            for number, line in enumerate(bounded_lines(file, path), 1):
                if line.strip():
                    try:
                        yield _Line(number, offset, len(line), decoder.decode(line))
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
                        packed = next((word for magic, word in COMPRESSION_MAGIC if line.startswith(magic)), None)
                        if number == 1 and packed is not None:
                            raise InputError(f"{path}: is compressed ({packed}): decompress it first") from None
                        if not line.endswith(b"\n") and not isinstance(problem, msgspec.ValidationError):
                            return  # torn by a kill: the record was never whole
                        raise InputError(f"{path}:{number}: not a valid record: {problem}") from None
                offset += len(line)
        except OSError as problem:
            raise InputError(f"cannot read {path}: {problem.strerror or problem}") from None


class RecordFile(Generic[T]):
    """The records of one kind in one file. One writer at a time (the run directory's lock sees to that)."""

    def __init__(
        self, path: Path, kind: type[T], key: Callable[[T], str], upgrade: Callable[[T], T] | None = None
    ) -> None:
        """`upgrade` makes a record of an older version into one of today, as it is read."""
        self.path, self.kind, self.key, self.upgrade = path, kind, key, upgrade
        self._descriptor: int | None = None

    def __iter__(self) -> Iterator[T]:
        """Every whole record, in file order. A file that does not exist has none."""
        if self.path.exists():
            records = (record for _, record in read_jsonl(self.path, self.kind))
            yield from records if self.upgrade is None else map(self.upgrade, records)

    def keys(self) -> set[str]:
        """The keys of all whole records."""
        return {self.key(record) for record in self}

    def keys_in_order(self) -> list[str]:
        """The keys of all whole records, in file order."""
        return [self.key(record) for record in self]

    def groups(self, key: Callable[[T], str | None]) -> Groups[T]:
        """The records that share a `key`; those whose key is None are left out."""
        return Groups(self, key)

    def append(self, record: T) -> None:
        """Write one record. Raises StorageError where it could not be written whole; the file is then as before."""
        data = encode_line(record)
        descriptor = self._open()
        before = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, data)
            if written != len(data):
                raise OSError(28, "No space left on device")
        except OSError as problem:
            os.ftruncate(descriptor, before)
            raise StorageError(f"cannot write {self.path}: {problem.strerror or problem}") from problem

    def replace(self, records: Iterable[T]) -> None:
        """Put records in the place of those of the same keys, atomically. Those whose keys are not there are left out.

        Nothing is written where there are none.
        """
        new = {self.key(record): encode_line(record) for record in records}
        if not new or not self.path.exists():
            return
        self._open()  # so that every line is whole
        self.close()
        with self.path.open("rb") as file:

            def lines() -> Iterator[bytes]:
                for line in _lines(self.path, self.kind):
                    file.seek(line.offset)
                    yield new.get(self.key(line.record), file.read(line.length))

            write_atomically(self.path, lines())

    def reorder(self, order: Iterable[str]) -> None:
        """Bring the records into the order of `order` (keys), if they are not, atomically; other records go last.

        Records are appended in the order in which they become ready; a finished file must not depend on that.
        """
        if not self.path.exists():
            return
        self._open()  # so that every line is whole
        self.close()
        places = {self.key(line.record): (line.offset, line.length) for line in _lines(self.path, self.kind)}
        wanted = [key for key in dict.fromkeys(order) if key in places]
        known = set(wanted)
        wanted += [key for key in places if key not in known]
        if wanted == list(places):
            return
        with self.path.open("rb") as file:

            def lines() -> Iterator[bytes]:
                for key in wanted:
                    start, length = places[key]
                    file.seek(start)
                    yield file.read(length)

            write_atomically(self.path, lines())

    def rewrite(self, records: Iterable[T]) -> None:
        """Replace the file by these records, or leave it as it was. Raises StorageError if it cannot be written."""
        self.close()
        write_atomically(self.path, (encode_line(record) for record in records))

    def clear(self) -> None:
        """Remove the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Flush to disk and close."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
                try:
                    self._fix_last_line(descriptor)
                except OSError:
                    os.close(descriptor)
                    raise
            except OSError as problem:
                raise StorageError(f"cannot write {self.path}: {problem.strerror or problem}") from problem
            self._descriptor = descriptor
        return self._descriptor

    def _fix_last_line(self, descriptor: int) -> None:
        """Cut a torn last line off. One that lacks nothing but its end gets it: it was read as a record."""
        size = os.fstat(descriptor).st_size
        start = _start_of_last_line(descriptor, size)
        if start == size:
            return
        try:
            msgspec.json.decode(os.pread(descriptor, size - start, start), type=self.kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            os.ftruncate(descriptor, start)
        else:
            os.write(descriptor, b"\n")


class Groups(Generic[T]):
    """Lists of the records that share a key, in order of first appearance. `records`: how many records they hold.

    In memory are one group and the places of the records, never the file: groups may be spread over it.
    """

    def __init__(self, file: RecordFile[T], key: Callable[[T], str | None]) -> None:
        self._file = file
        self._offsets: dict[str, array[int]] = {}
        for line in _lines(file.path, file.kind) if file.path.exists() else ():
            name = key(line.record)
            if name is not None:
                self._offsets.setdefault(name, array("q")).append(line.offset)
        self.records = sum(map(len, self._offsets.values()))

    def __iter__(self) -> Iterator[list[T]]:
        """One group after another. The records must not be arranged anew meanwhile."""
        if not self._offsets:
            return
        decoder = msgspec.json.Decoder(self._file.kind)
        with self._file.path.open("rb") as file:

            def record(offset: int) -> T:
                file.seek(offset)
                return decoder.decode(file.readline())

            for offsets in self._offsets.values():
                yield [record(offset) for offset in offsets]


def _start_of_last_line(descriptor: int, size: int) -> int:
    """Where the last line without an end starts: `size` if every line has one."""
    position = size
    while position > 0:
        start = max(0, position - 65536)
        newline = os.pread(descriptor, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0
