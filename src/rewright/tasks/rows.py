"""Read rows of a JSON Lines, JSON or parquet file, each with its location for error messages.

A location is `file.jsonl:3` (line 3, counted from 1) or `file.parquet: row 2` (counted from 0). Each error in a file is
a one-line `InputError` with the location and the expected value.
"""

from __future__ import annotations

import gzip
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from rewright.core.errors import InputError
from rewright.core.storage import bounded_lines, special_file_kind, without_surrogates
from rewright.core.strict_json import TOLERANT, NestingError, json_problem

__all__ = ["LeftOutError", "Row", "function_schema", "read_rows"]

MAX_JSON_BYTES = 2**30
"""Maximum decompressed size of a .json file, which is read into memory. Guards against decompression bombs."""
_LIST_KEYS = ("data", "rows", "examples", "tasks")


class LeftOutError(InputError):
    """A row that is in the shape of its set, but of which no task can be made. Loading counts and leaves it out.

    `reason` is the same text for all rows with the same fault; the message has the place and the details.
    """

    def __init__(self, place: str, reason: str, details: str) -> None:
        super().__init__(f"{place}: left out: {reason}: {details}")
        self.reason = reason


class Row(msgspec.Struct, frozen=True):
    """One record of a file. `index` counts from 0; `place` is the location for messages.

    `problem` is set if the row is not a valid record; `values` is then empty.
    """

    index: int
    place: str
    values: dict[str, Any]
    problem: str | None = None
    items: list[Any] | None = None
    """The record, if it is a list (which is a `problem` unless the reader is asked for lists)."""

    def fail(self, message: str) -> InputError:
        """Return an error for this row, for the caller to raise."""
        return InputError(f"{self.place}: {message}")

    def get(self, *keys: str) -> Any:
        """Return the value of the first of `keys` that is present and not None, else None."""
        return next((self.values[key] for key in keys if self.values.get(key) is not None), None)

    def text(self, *keys: str) -> str:
        """Return the non-empty text of the first present key; numbers are converted. Raises InputError otherwise."""
        value = self.get(*keys)
        named = " or ".join(repr(key) for key in keys)
        if value is None:
            raise self.fail(f"no key {named}; it has {', '.join(map(repr, self.values)) or 'none'}")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise self.fail(f"{named} is {_kind(value)}, expected text")
        if not value.strip():
            raise self.fail(f"{named} is empty, expected text")
        return value

    def optional_text(self, *keys: str) -> str | None:
        """Like `text`, but return None if no key is present or the text is empty."""
        value = self.get(*keys)
        return None if value is None or value == "" else self.text(*keys)

    def texts(self, *keys: str) -> list[str]:
        """Return the list of texts of the first present key, or [] if there is none. A single text becomes a list."""
        value = self.get(*keys)
        if value is None:
            return []
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fail(f"{keys[0]!r} is {_kind(value)}, expected a list of texts")
        return value

    def decoded(self, key: str, kind: type) -> Any:
        """Return the list or dict under `key`, decoding JSON text, which parquet files often contain."""
        if self.values.get(key) is None:
            raise self.fail(f"no key {key!r}; it has {', '.join(map(repr, self.values)) or 'none'}")
        value = self.values[key]
        if isinstance(value, str):
            try:
                value = _value_of(value)
            except NestingError as problem:
                raise self.fail(f"{key!r} is {problem}") from None
            except ValueError as problem:
                raise self.fail(f"{key!r} is not JSON: {problem}") from None
        if not isinstance(value, kind):
            raise self.fail(f"{key!r} is {_kind(value)}, expected {'a list' if kind is list else 'an object'}")
        return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def function_schema(row: Row, place: str, value: Any) -> dict[str, Any]:
    """Return an OpenAI function schema. A plain `{name, description, parameters}` is wrapped."""
    if isinstance(value, dict) and "function" not in value and isinstance(value.get("name"), str):
        value = {"type": "function", "function": value}
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise row.fail(f"{place} is not a function schema, expected an object with function.name")
    return dict(value)


def read_rows(path: Path | str, columns: tuple[str, ...] = (), *, lists: str | None = None) -> Iterator[Row]:
    """Yield the rows of `path`, streaming if the format allows it. `.gz` files are decompressed.

    `columns` are required of a parquet file. `lists` is a key: a row that is a list becomes an object with the list
    under that key. Raises InputError for a file that is missing, a directory, empty,
    unreadable or of an unknown type. A line or item that is not an object yields a row with a `problem`.
    """
    path = Path(path)
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as problem:  # ValueError: an invalid path, such as one with a null byte
        raise InputError(f"{path}: cannot be read: {getattr(problem, 'strerror', None) or problem}") from None
    if stat.S_ISDIR(kind):
        raise InputError(f"{path}: is a directory, expected a .jsonl, .json or .parquet file")
    if not stat.S_ISREG(kind):
        raise InputError(f"{path}: is a {special_file_kind(kind)}, expected a .jsonl, .json or .parquet file")
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    suffix = suffixes[0] if suffixes and suffixes[-1] == ".gz" and len(suffixes) == 2 else (suffixes or [""])[-1]
    readers = {".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json}
    if suffix not in (*readers, ".parquet"):
        hint = "; decompress it first" if suffix in (".zst", ".zip", ".bz2", ".xz") else ""
        if suffix in (".yaml", ".yml"):
            hint = f" (a recipe is checked by: rewright run {path} --dry-run)"
        raise InputError(f"{path}: unknown kind of file, expected .jsonl, .json (both also as .gz) or .parquet{hint}")
    count = 0
    try:
        if suffix == ".parquet":
            rows = _parquet(path, columns)
        else:
            opener: Any = gzip.open if suffixes[-1] == ".gz" else Path.open
            rows = readers[suffix](path, opener(path, "rb"))
        for row in rows:
            count += 1
            if lists is not None and row.items is not None:
                row = Row(row.index, row.place, {lists: row.items})  # noqa: PLW2901
            yield row
    except (gzip.BadGzipFile, zlib.error, EOFError) as problem:
        raise InputError(f"{path}: not a whole gzip file: {problem}") from None
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    if count == 0:
        raise InputError(f"{path}: has no rows")


def _row(index: int, place: str, value: Any) -> Row:
    if not isinstance(value, dict):
        items = value if isinstance(value, list) else None
        return Row(index, place, {}, f"{place}: is {_kind(value)}, expected an object", items)
    return Row(index, place, value)


def _json_lines(path: Path, file: IO[bytes]) -> Iterator[Row]:
    index = 0
    with file:
        for number, line in enumerate(bounded_lines(file, path), 1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                row = _row(index, place, _decode(line, place))
            except InputError as problem:
                row = Row(index, place, {}, str(problem))
            yield row
            index += 1


def _json(path: Path, file: IO[bytes]) -> Iterator[Row]:
    with file:
        text = file.read(MAX_JSON_BYTES + 1)
    if len(text) > MAX_JSON_BYTES:
        raise InputError(f"{path}: holds more than {MAX_JSON_BYTES:,} bytes of JSON: expected JSON Lines, as .jsonl")
    if not text.strip():
        return
    try:
        value = _decode(text, str(path))
    except InputError:
        lines = text.split(b"\n", 2)
        if not (len(lines) > 1 and lines[0].rstrip().endswith(b"}") and lines[1].startswith(b"{")):
            raise
        # Several published data sets are JSON Lines with the extension .json.
        yield from _json_lines(path, _lines(text))
        return
    if isinstance(value, dict):
        value = next((value[key] for key in _LIST_KEYS if isinstance(value.get(key), list)), [value])
    if not isinstance(value, list):
        raise InputError(f"{path}: is {_kind(value)}, expected a list of objects")
    for index, item in enumerate(value):
        yield _row(index, f"{path}: row {index}", item)


def _lines(text: bytes) -> IO[bytes]:
    import io

    return io.BytesIO(text)


def _value_of(text: str) -> Any:
    """Decode JSON text. Lone surrogates, which UTF-8 can't encode, are replaced."""
    value = TOLERANT.decode(text)
    return without_surrogates(value) if "\\ud" in text or "\\uD" in text else value


def _decode(line: bytes, place: str) -> Any:
    try:
        return _value_of(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{place}: not UTF-8 text, expected a file in UTF-8") from None
    except NestingError as problem:
        raise InputError(f"{place}: JSON {problem}") from None
    except ValueError as problem:
        lines = b"\n" in line.strip()
        raise InputError(f"{place}: not JSON: {json_problem(problem, lines=lines)}") from None


def _parquet(path: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InputError(f"{path}: reading parquet needs pyarrow: pip install 'rewright[bench]'") from None
    try:
        with ParquetFile(path) as file:
            present = file.schema_arrow.names
            missing = [column for column in columns if column not in present]
            if missing:
                raise InputError(
                    f"{path}: no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, present))}"
                )
            index = 0
            for batch in file.iter_batches(batch_size=256):
                for values in batch.to_pylist():
                    yield Row(index, f"{path}: row {index}", values)
                    index += 1
    except ArrowException as problem:
        raise InputError(f"{path}: not a parquet file: {str(problem).splitlines()[0]}") from None
