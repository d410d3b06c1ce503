"""Generate reasoning-gym entries in a separate process, and encode them as JSON.

`python -m rewright.benchmarks.reasoning_gym.entries` reads one JSON request and writes one JSON reply. It is a separate
process because some data sets use Python's global random state or depend on the iteration order of string sets, which
is only reproducible with a fixed PYTHONHASHSEED, and some print to standard output.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import json
import math
import random
import sys
from typing import Any, Final

__all__ = ["COMPOSITE", "decoded", "encoded", "make_entries"]

COMPOSITE: Final = "composite"
"""Name of the data set that mixes others."""

_MARK: Final = "__gym__"


def encoded(value: Any) -> Any:
    """Encode `value` as JSON types, with markers for types that JSON lacks. `decoded` is the inverse.

    Markers are needed because scorers compare tuples, sets and non-string keys of an entry.
    """
    if isinstance(value, dict):
        if all(isinstance(key, str) and key != _MARK for key in value):
            return {str(key): encoded(part) for key, part in value.items()}
        return {_MARK: "dict", "of": [[encoded(key), encoded(part)] for key, part in value.items()]}
    if isinstance(value, list):
        return [encoded(part) for part in value]
    if isinstance(value, tuple | set | frozenset):
        kind = "tuple" if isinstance(value, tuple) else "set"
        parts = value if kind == "tuple" else sorted(value, key=repr)
        return {_MARK: kind, "of": [encoded(part) for part in parts]}
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else {_MARK: "int", "of": str(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_MARK: "float", "of": str(value)}
    item = getattr(value, "item", None)  # a numpy scalar
    return encoded(item()) if item is not None and getattr(value, "ndim", 1) == 0 else str(value)


def decoded(value: Any) -> Any:
    """Inverse of `encoded`. Values without markers are returned unchanged."""
    if isinstance(value, list):
        return [decoded(part) for part in value]
    if not isinstance(value, dict):
        return value
    if _MARK not in value:
        return {key: decoded(part) for key, part in value.items()}
    kind, inner = value[_MARK], value["of"]
    if kind == "dict":
        return {decoded(key): decoded(part) for key, part in inner}
    if kind in ("int", "float"):
        return int(inner) if kind == "int" else float(inner)
    return tuple(map(decoded, inner)) if kind == "tuple" else {decoded(part) for part in inner}


def make_entries(dataset: str, size: int, seed: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Generate entries, each with its data set and that set's settings. Raises ValueError if that fails."""
    package = importlib.import_module("reasoning_gym")
    known = importlib.import_module("reasoning_gym.factory").DATASETS
    configs: dict[str, dict[str, Any]] = {dataset: settings}
    given = dict(settings)
    if dataset == COMPOSITE:
        parts = [_part(spec) for spec in given.get("datasets") or [name for name in known if name != COMPOSITE]]
        configs = {part["name"]: part["config"] for part in parts}
        specification = importlib.import_module("reasoning_gym.composite").DatasetSpec
        given["datasets"] = [specification(**part) for part in parts]
    for name in (dataset, *configs):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"there is no such set as {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    entries = package.create_dataset(dataset, size=size, seed=seed, **given)
    generated = []
    for number in range(size):
        random.seed(f"{dataset} {seed} {number}")
        entry = entries[number]
        source = entry["metadata"]["source_dataset"] if dataset == COMPOSITE else dataset
        generated.append({"dataset": source, "settings": encoded(configs[source]), "entry": encoded(entry)})
    return generated


def _part(given: Any) -> dict[str, Any]:
    """Return name, weight and settings of one data set of a mixture."""
    if isinstance(given, str):
        return {"name": given, "weight": 1.0, "config": {}}
    if isinstance(given, dict) and isinstance(given.get("name"), str) and set(given) <= {"name", "weight", "config"}:
        return {"weight": 1.0, "config": {}, **given}
    raise ValueError(f"{given!r} is not a data set of a mixture: expected a name, or name, weight and config")


def main() -> None:
    """Reply to the request on standard input with the entries or an error."""
    request = decoded(json.load(sys.stdin))
    with contextlib.redirect_stdout(sys.stderr):
        try:
            reply: dict[str, Any] = {"entries": make_entries(**request)}
        except (TypeError, AssertionError, ValueError) as problem:
            reply = {"problem": str(problem) or type(problem).__name__}
    json.dump(reply, sys.stdout)


if __name__ == "__main__":
    main()
