"""The samples of inspect_ai's `.eval` files: a zip archive with one JSON file per sample, without inspect_ai.

Recent versions compress with Zstandard, which `zipfile` knows from Python 3.14 on. Before that the entries are
decompressed by pyarrow (which also reads parquet files), where it is installed.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.strict_json import TOLERANT, json_problem
from rewright.tasks.rows import MAX_JSON_BYTES, Row

__all__ = ["read_eval_file"]

ZSTANDARD: Final = 93
"""Zstandard's number in zip archives."""
_LOCAL_HEADER: Final = struct.Struct("<26xHH")
"""Lengths of the name and of the extra field, at the end of an entry's local header."""


def read_eval_file(path: Path) -> Iterator[Row]:
    """Yield the samples of a file as rows.

    Raises InputError for a file that is no such archive or has no samples, for an entry that cannot be decompressed
    here, and for one that is too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # A file that a crash left open can have an entry twice: the last one counts.
            entries = {one.filename: one for one in archive.infolist() if _is_sample(one.filename)}
            if not entries:
                raise InputError(f"{path}: has no samples: expected a log of inspect_ai with samples/*.json in it")
            for index, (name, entry) in enumerate(sorted(entries.items())):
                place = f"{path}: {name}"
                yield Row(index, place, _sample(archive, entry, path, place))
    except zipfile.BadZipFile as problem:
        raise InputError(f"{path}: not a log of inspect_ai: {problem}: expected a zip archive (.eval)") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror or problem}") from None


def _is_sample(name: str) -> bool:
    return name.startswith("samples/") and name.endswith(".json")


def _sample(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, place: str) -> dict[str, Any]:
    if entry.file_size > MAX_JSON_BYTES:
        raise InputError(f"{place}: holds more than {MAX_JSON_BYTES:,} bytes of JSON")
    try:
        data = _content(archive, entry, path)
        value = TOLERANT.decode(data.decode("utf-8"))
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error) as problem:
        raise InputError(f"{place}: cannot be decompressed: {problem}") from None
    except NotImplementedError as problem:
        raise InputError(f"{place}: cannot be read here: {problem}") from None
    except InputError:
        raise
    except ValueError as problem:
        raise InputError(f"{place}: not JSON: {json_problem(problem)}") from None
    if not isinstance(value, dict):
        raise InputError(f"{place}: is not an object: expected a sample")
    return value


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> bytes:
    try:
        with archive.open(entry) as opened:
            return opened.read()
    except NotImplementedError:
        if entry.compress_type != ZSTANDARD:
            raise
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        file.seek(entry.header_offset + _LOCAL_HEADER.size + name + extra)
        packed = file.read(entry.compress_size)
    try:
        from pyarrow import ArrowException, BufferReader, CompressedInputStream
    except ImportError:
        raise InputError(
            f"{path}: is compressed with Zstandard, which needs pyarrow: pip install 'rewright[bench]' (or Python "
            "3.14), or write it again with `inspect log convert --to json`"
        ) from None
    try:
        with CompressedInputStream(BufferReader(packed), "zstd") as stream:
            data = bytes(stream.read(entry.file_size + 1))
    except (ArrowException, OSError) as problem:
        raise zipfile.BadZipFile(str(problem).splitlines()[0]) from None
    if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
        raise zipfile.BadZipFile("its size or checksum is not the one that the archive says")
    return data
