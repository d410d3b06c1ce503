"""One streaming pass over a JSON Lines file: a row of numbers for each record, and its byte range.

A scan is extended when its file grows, and made again when the file was replaced. Only the numbers, the ids and a short
text of each record are in memory. The records are read from the file when they are shown.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from rewright.core.errors import InputError
from rewright.core.storage import Span, lines_of, open_file

__all__ = ["MISSING", "Names", "Scan", "ScanState"]

MISSING: Final = -1
"""The code of a name that is not there."""

_PROBES, _PROBE_BYTES = 32, 256


class Names:
    """Strings that occur many times, and their codes."""

    def __init__(self, known: Sequence[str] = ()) -> None:
        self.known = list(known)
        self._codes = {name: code for code, name in enumerate(self.known)}

    def code(self, name: str) -> int:
        """Return the code of a name, a new one if it has none yet."""
        found = self._codes.get(name)
        if found is None:
            found = self._codes[name] = len(self.known)
            self.known.append(name)
        return found

    def find(self, name: str) -> int:
        """Return the code of a name; `MISSING` if it has none."""
        return self._codes.get(name, MISSING)


class ScanState(msgspec.Struct):
    """What is stored of a scan. `size` bytes of the file were read; `digest` samples them."""

    inode: int = 0
    size: int = 0
    modified: int = 0
    digest: bytes = b""
    line: int = 0
    ids: list[str] = []
    texts: list[str] = []
    rows: bytes = b""


class Scan:
    """The rows of one file. `rows` is a structured array; `ids` and `texts` have the same length."""

    def __init__(
        self,
        path: Path,
        kind: type[Any],
        columns: Sequence[tuple[str, str]],
        row: Callable[[Any], tuple[str, str, tuple[float, ...]]],
    ) -> None:
        """Nothing is read yet.

        Args:
            path: the file; it may not exist.
            kind: a struct with the fields that the rows need.
            columns: names and dtypes, in addition to `offset` and `length`.
            row: makes the id, the text and the values of the columns of a record.
        """
        self.path, self._kind, self._row = path, kind, row
        self.dtype = np.dtype([("offset", "<i8"), ("length", "<i8"), *columns])
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.rows: NDArray[Any] = np.empty(0, self.dtype)
        self.changes = 0
        """Raised whenever rows were added or made again."""
        self._state = ScanState()
        self._seen: tuple[int, int, int] | None = None

    def refresh(self) -> bool:
        """Read what was appended, or everything if the file was replaced. Returns whether anything has changed.

        Raises InputError for a record that is invalid.
        """
        try:
            about = self.path.stat()
        except OSError:
            had = bool(self.ids)
            self._clear()
            self._seen = None
            self.changes += had
            return had
        seen = (about.st_ino, about.st_size, about.st_mtime_ns)
        if seen == self._seen:
            return False
        if about.st_ino != self._state.inode or about.st_size <= self._state.size or not self._is_same():
            self._clear()
        before = len(self.ids), self._state.inode
        self._read(about.st_size)
        self._state.inode, self._state.modified = about.st_ino, about.st_mtime_ns
        self._state.digest = self._digest(self._state.size)
        self._seen = seen
        changed = before != (len(self.ids), self._state.inode)
        self.changes += changed
        return changed

    @property
    def size(self) -> int:
        """The bytes that were read."""
        return self._state.size

    def restore(self, state: ScanState) -> bool:
        """Take over a stored scan, if it belongs to this file as it is now. Returns whether it does."""
        count = len(state.ids)
        if len(state.rows) != count * self.dtype.itemsize or len(state.texts) != count:
            return False
        try:
            about = self.path.stat()
        except OSError:
            return False
        if about.st_ino != state.inode or about.st_size < state.size:
            return False
        unchanged = about.st_mtime_ns == state.modified
        if not unchanged and (about.st_size == state.size or self._digest(state.size) != state.digest):
            return False
        rows = np.frombuffer(state.rows, self.dtype).copy()
        if count and ((rows["offset"] < 0).any() or (rows["offset"] + rows["length"] > state.size).any()):
            return False
        self.ids, self.texts, self.rows = state.ids, state.texts, rows
        self._state = msgspec.structs.replace(state, ids=[], texts=[], rows=b"")
        self._seen = (about.st_ino, about.st_size, about.st_mtime_ns) if unchanged else None
        return True

    def state(self) -> ScanState:
        """Return what `restore` takes."""
        return msgspec.structs.replace(self._state, ids=self.ids, texts=self.texts, rows=self.rows.tobytes())

    def line(self, number: int) -> bytes:
        """Read the line of a row. Raises InputError if it cannot be read."""
        row = self.rows[number]
        try:
            with open_file(self.path) as file:
                return os.pread(file.fileno(), int(row["length"]), int(row["offset"]))
        except OSError as problem:
            raise InputError(f"cannot read {self.path}: {problem.strerror or problem}") from None

    def record(self, number: int, kind: type[Any]) -> Any:
        """Read and decode the record of a row. Raises InputError if it cannot be read."""
        try:
            return msgspec.json.decode(self.line(number), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            raise InputError(f"{self.path}: the record of {self.ids[number]} cannot be read: {problem}") from None

    def _clear(self) -> None:
        self.ids, self.texts, self.rows = [], [], np.empty(0, self.dtype)
        self._state = ScanState()

    def _is_same(self) -> bool:
        return self._state.size == 0 or self._digest(self._state.size) == self._state.digest

    def _read(self, size: int) -> None:
        start = self._state.size
        if size <= start:
            return
        ids, texts, values = self.ids, self.texts, []
        places = array("q")
        for line in lines_of(self.path, self._kind, Span(start, size - start, self._state.line + 1)):
            identity, text, row = self._row(line.record)
            ids.append(identity)
            texts.append(text)
            values.append((line.offset, line.length, *row))
            places = array("q", (line.number, line.offset + line.length))
        if values:
            self.rows = np.concatenate([self.rows, np.array(values, self.dtype)])
            self._state.line, self._state.size = places

    def _digest(self, size: int) -> bytes:
        """Sample the first `size` bytes of the file."""
        found = hashlib.blake2b(str(size).encode(), digest_size=16)
        step = max(size - _PROBE_BYTES, 0) / (_PROBES - 1)
        try:
            with open_file(self.path) as file:
                for probe in range(_PROBES):
                    start = round(probe * step)
                    found.update(os.pread(file.fileno(), min(_PROBE_BYTES, size - start), start))
        except OSError:
            return b""
        return found.digest()
