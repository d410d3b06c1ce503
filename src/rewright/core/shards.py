"""Folders of shards: records of one type in many files, JSONL or parquet, each of which is read and written as a whole.

A parquet shard has a column for each field of the records. Text and numbers are columns of their own type; fields that
hold lists or objects are text with JSON in it. (Nested columns of arrow would add the keys of all rows to the arguments
of every call.) Results have the name and the format of the shard that they belong to.

pyarrow is imported on first use.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from rewright.core.errors import InputError, StorageError
from rewright.core.storage import write_atomically

__all__ = ["copy_as_lines", "is_newer", "is_sharded", "shards_of", "write_shard"]

SUFFIXES: Final = (".jsonl", ".parquet")
_BATCH: Final = 256
_NEEDED: Final = "parquet needs pyarrow: pip install 'rewright[bench]'"


def is_sharded(folder: Path) -> bool:
    """Return True for a folder with shards."""
    return folder.is_dir() and any(path.suffix in SUFFIXES for path in folder.iterdir())


def shards_of(folder: Path) -> list[Path]:
    """Return the shards of a folder, by name. Files whose names start with `_` or `.` are no shards.

    Raises InputError for a file of another kind, for an empty folder, and if there is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder: expected one with .jsonl or .parquet shards")
    found = sorted(path for path in folder.iterdir() if path.name[0] not in "_." and path.suffix != ".tmp")
    other = next((path for path in found if path.suffix not in SUFFIXES or path.is_dir()), None)
    if other is not None:
        raise InputError(f"{other}: expected only shards in this folder, .jsonl or .parquet files")
    if not found:
        raise InputError(f"{folder}: there is no shard: expected .jsonl or .parquet files")
    return found


def copy_as_lines(shard: Path, kind: type[Any], target: Path) -> None:
    """Write the records of a shard to `target` as lines of JSON; the number of a line is that of its row.

    `kind`: type of the records. Nothing is checked but the form of the file. Raises InputError.
    """
    try:
        if shard.suffix == ".parquet":
            with target.open("wb") as file:
                file.writelines(_parquet_lines(shard, kind))
        else:
            shutil.copyfile(shard, target)
    except FileNotFoundError:
        raise InputError(f"{shard}: there is no such file") from None
    except OSError as problem:
        raise StorageError(f"cannot read {shard}: {problem.strerror or problem}") from problem


def write_shard(shard: Path, lines: Iterable[bytes]) -> None:
    """Write a shard, given its records as lines of JSON, atomically. Raises StorageError, InputError."""
    write_atomically(shard, lines if shard.suffix != ".parquet" else [_parquet_bytes(lines)])


def _parquet_lines(shard: Path, kind: type[Any]) -> Iterator[bytes]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InputError(f"{shard}: {_NEEDED}") from None
    texts = {field.encode_name for field in msgspec.structs.fields(kind) if _takes_text(field.type)}
    required = {field.encode_name for field in msgspec.structs.fields(kind) if field.required}
    try:
        with ParquetFile(shard) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    # A column is there for all rows: no value means that the field is not given.
                    cells = {key: value for key, value in row.items() if value is not None or key in required}
                    yield _line(
                        {key: _cell(key, value, key in texts, f"{shard}:{number}") for key, value in cells.items()}
                    )
    except ArrowException as problem:
        raise InputError(f"{shard}: not a parquet file: {str(problem).splitlines()[0]}") from None


def _line(cells: dict[str, Any]) -> bytes:
    return msgspec.json.encode(cells) + b"\n"


def _cell(key: str, value: Any, text: bool, place: str) -> Any:
    if isinstance(value, list | dict):
        raise InputError(f"{place}: the column {key} is nested: expected text with JSON in it")
    if text or not isinstance(value, str):
        return value
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as problem:
        raise InputError(f"{place}: the column {key} is not JSON: {problem}") from None
    return msgspec.Raw(value.encode())


def _takes_text(kind: Any) -> bool:
    info = msgspec.inspect.type_info(kind)
    kinds = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    return any(
        isinstance(one, msgspec.inspect.StrType)
        or (isinstance(one, msgspec.inspect.LiteralType) and isinstance(one.values[0], str))
        for one in kinds
    )


def _parquet_bytes(lines: Iterable[bytes]) -> bytes:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(_NEEDED) from None
    rows = [msgspec.json.decode(line) for line in lines]
    columns: dict[str, list[Any]] = {key: [] for row in rows for key in row}
    for row in rows:
        for key, column in columns.items():
            value = row.get(key)
            column.append(msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value)
    written = io.BytesIO()
    pq.write_table(pa.table(columns), written)
    return written.getvalue()


def is_newer(shard: Path, *inputs: Path) -> bool:
    """Return True if a shard exists and was written after all of its inputs."""
    try:
        written = shard.stat().st_mtime_ns
        return all(path.stat().st_mtime_ns <= written for path in inputs)
    except FileNotFoundError:
        return False
