"""Append-only JSON Lines files of records, with atomic appends.

Every record is one write of one line. An incomplete last line, left by a killed process or a full disk, is truncated
before the next append and ignored when reading. A corrupt line anywhere else raises an `InputError` with file and line.
Reading streams, so memory does not grow with the file. A lone surrogate (which models write and UTF-8 cannot encode)
is stored as U+FFFD.
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
    (b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"PK\x03\x04", "zip"), (b"BZh", "bzip2"),
)  # fmt: skip
"""Magic bytes of compressed files."""

MAX_SMALL_FILE_BYTES: Final = 10_000_000
"""Maximum size of a file that is read at once: a recipe, a state file, the metadata of an index."""

MAX_LINE_BYTES: Final = 256 * 2**20
"""Maximum length of a line. Guards memory against files without line breaks (sparse files, decompression bombs)."""

_encoder = msgspec.json.Encoder()


def encode_line(value: Any) -> bytes:
    """Encode one record as a line of JSON, newline included."""
    try:
        return _encoder.encode(value) + b"\n"
    except UnicodeEncodeError:
        return _encoder.encode(without_surrogates(msgspec.to_builtins(value))) + b"\n"


def without_surrogates(value: Any) -> Any:
    """Replace every lone surrogate in `value` (strings, dicts, lists) by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_surrogates(part) for part in value]
    return value


def write_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """Replace the contents of `path` by the chunks atomically.

    Raises StorageError if it cannot be written (the file is then unchanged), and InputError for a device or a pipe.
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
            except BaseException:  # Ctrl-C, or an error in the generator of the chunks
                temporary.unlink(missing_ok=True)
                raise
        temporary.replace(path)
    except OSError as problem:
        raise StorageError(f"cannot write {path}: {problem.strerror or problem}") from problem


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises OSError, and InputError for a device or a pipe, which may never end."""
    refuse_special(path)
    return path.open("rb")


def refuse_special(path: Path) -> None:
    """Raise InputError for a device, a pipe or a socket."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # opening the file raises the error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: is a {special_file_kind(mode)}: expected a file")


def special_file_kind(mode: int) -> str:
    """Name the type of a special file by its `st_mode`: "pipe", "socket" or "device"."""
    return "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"


def read_bounded(path: Path, max_bytes: int = MAX_SMALL_FILE_BYTES) -> bytes:
    """Read a file of at most `most` bytes. Raises OSError, and InputError for a larger or a special file."""
    with open_file(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InputError(f"{path}: is larger than {max_bytes:,} bytes")
    return data


def bounded_lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """Yield the lines of a file. Raises InputError for a line of more than `MAX_LINE_BYTES`."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise InputError(
                f"{path}:{number}: a line of more than {MAX_LINE_BYTES:,} bytes: expected one record per line"
            )
        yield line


def read_jsonl(path: Path, kind: type[T]) -> Iterator[tuple[int, T]]:
    """Yield (line number, decoded record) for every complete line; an incomplete last line is dropped.

    Raises InputError (file, line, what was expected) for a missing file or a corrupt line.
    """
    for line in _lines(path, kind):
        yield line.number, line.record


def read_strict(path: Path, kind: type[T]) -> Iterator[tuple[int, T]]:
    """Same as `read_jsonl`, for files of other programs: an unknown key raises InputError instead of being ignored.

    A turn whose calls are stored under another key would otherwise be read as a turn without calls.
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
    """Return the first key of `given` that is missing in `kept`: its path, the key, and the known keys; or None."""
    pending = [("", given, kept)]
    while pending:
        path, given_part, kept_part = pending.pop()
        if isinstance(given_part, dict) and isinstance(kept_part, dict):
            for key, value in given_part.items():
                if key not in kept_part:
                    return path, str(key), list(kept_part)
                pending.append((f"{path}{key}.", value, kept_part[key]))
        elif isinstance(given_part, list) and isinstance(kept_part, list | tuple):
            pending += [
                (f"{path}{index}.", *pair) for index, pair in enumerate(zip(given_part, kept_part, strict=False))
            ]
    return None


def read_checked(path: Path, kind: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, row) of a file that users may edit; a row has the fields of `kind`, and may have others.

    Yields nothing if the file does not exist. Raises InputError (file, line, what was expected).
    """
    for number, row in read_jsonl(path, dict[str, Any]) if path.exists() else ():
        try:
            msgspec.convert(row, kind)
        except msgspec.ValidationError as problem:
            raise InputError(f"{path}:{number}: not a row of this file: {problem}") from None
        yield number, row


class _Line(NamedTuple, Generic[T]):
    """One complete line of a file: its number (from 1), its offset and length in bytes, and its record."""

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
                        compression = next((word for magic, word in COMPRESSION_MAGIC if line.startswith(magic)), None)
                        if number == 1 and compression is not None:
                            raise InputError(f"{path}: is compressed ({compression}): decompress it first") from None
                        if not line.endswith(b"\n") and not isinstance(problem, msgspec.ValidationError):
                            return  # an incomplete append of a killed process
                        raise InputError(f"{path}:{number}: not a valid record: {problem}") from None
                offset += len(line)
        except OSError as problem:
            raise InputError(f"cannot read {path}: {problem.strerror or problem}") from None


class RecordFile(Generic[T]):
    """A file of records of one type. One writer at a time (ensured by the lock of the run directory)."""

    def __init__(
        self, path: Path, kind: type[T], key: Callable[[T], str], upgrade: Callable[[T], T] | None = None
    ) -> None:
        """Open the file on first use.

        Args:
            path: the file; it may not exist yet.
            kind: type of the records.
            key: identifies a record.
            upgrade: converts a record of an older format version when it is read.
        """
        self.path, self.kind, self.key, self.upgrade = path, kind, key, upgrade
        self._descriptor: int | None = None

    def __iter__(self) -> Iterator[T]:
        """Yield every complete record, in file order; nothing if the file does not exist."""
        if self.path.exists():
            records = (record for _, record in read_jsonl(self.path, self.kind))
            yield from records if self.upgrade is None else map(self.upgrade, records)

    def keys(self) -> set[str]:
        """Return the keys of all records."""
        return {self.key(record) for record in self}

    def keys_in_order(self) -> list[str]:
        """Return the keys of all records, in file order."""
        return [self.key(record) for record in self]

    def groups(self, key: Callable[[T], str | None]) -> Groups[T]:
        """Group the records by `key`; records whose key is None are left out."""
        return Groups(self, key)

    def append(self, record: T) -> None:
        """Append one record. Raises StorageError if it cannot be written; the file is then unchanged."""
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
        """Replace stored records by those with the same keys, atomically. Records with other keys are ignored."""
        new = {self.key(record): encode_line(record) for record in records}
        if not new or not self.path.exists():
            return
        self._open()  # so that every line is complete
        self.close()
        with self.path.open("rb") as file:

            def lines() -> Iterator[bytes]:
                for line in _lines(self.path, self.kind):
                    file.seek(line.offset)
                    yield new.get(self.key(line.record), file.read(line.length))

            write_atomically(self.path, lines())

    def reorder(self, order: Iterable[str]) -> None:
        """Sort the records by `order` (keys), atomically; records with other keys go last.

        Records are appended in order of completion; a finished file must not depend on that order.
        """
        if not self.path.exists():
            return
        self._open()  # so that every line is complete
        self.close()
        positions = {self.key(line.record): (line.offset, line.length) for line in _lines(self.path, self.kind)}
        ordered = [key for key in dict.fromkeys(order) if key in positions]
        known = set(ordered)
        ordered += [key for key in positions if key not in known]
        if ordered == list(positions):
            return
        with self.path.open("rb") as file:

            def lines() -> Iterator[bytes]:
                for key in ordered:
                    start, length = positions[key]
                    file.seek(start)
                    yield file.read(length)

            write_atomically(self.path, lines())

    def rewrite(self, records: Iterable[T]) -> None:
        """Replace the file by these records, atomically. Raises StorageError if it cannot be written."""
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
        """Truncate an incomplete last line. A valid record that only lacks its newline gets it."""
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
    """Records grouped by key, in order of first appearance. `records`: the number of records in all groups.

    Only one group and the offsets of the records are in memory, since a group may be scattered over the file.
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


def _start_of_last_line(descriptor: int, size: int) -> int:
    """Return the offset of an unterminated last line; `size` if every line is terminated."""
    position = size
    while position > 0:
        start = max(0, position - 65536)
        newline = os.pread(descriptor, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0
