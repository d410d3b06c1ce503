"""Parse YAML files and command-line values, and record the location of each key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rewright.core.errors import InputError
from rewright.core.storage import read_bounded

__all__ = ["nearest", "one_line", "parse_value", "read_yaml"]

MAX_YAML_NODES = 10_000
"""Maximum number of nodes of a recipe file. Guards against alias bombs (billion laughs)."""

_TAG_ERRORS = (KeyError, AttributeError)
"""Exceptions of PyYAML for a value that does not match its tag, such as `!!bool maybe`."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `1e-5` is a number, `off` is a string."""


_Loader.yaml_implicit_resolvers = {
    letter: [entry for entry in entries if entry[0] not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")]
    for letter, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"),
    "-+0123456789.",
)


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return (data, dotted key -> "file:line") of a YAML file. Raises InputError unless it is a plain mapping."""
    places: dict[str, str] = {}
    try:
        text = read_bounded(path).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file: expected a recipe in YAML") from None
    except OSError as problem:
        inside = path / "recipe.yaml"  # of a run, or of a project
        hint = f": expected {inside}" if inside.is_file() else ""
        raise InputError(f"cannot read recipe {path}: {problem.strerror or problem}{hint}") from None
    try:
        # Before loading, because it enforces MAX_YAML_NODES.
        _collect_places(yaml.compose(text, Loader=_Loader), "", str(path), places)
        data = yaml.load(text, _Loader)
    except _TAG_ERRORS:
        raise InputError(f"{path}: not valid YAML: a value does not fit its tag") from None
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        reason = getattr(problem, "problem", None) or getattr(problem, "reason", None) or problem
        raise InputError(f"{path}{line}: not valid YAML: {one_line(reason)}") from None
    except RecursionError:
        raise InputError(f"{path}: not a recipe: nested too deeply") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of sections, got {type(data).__name__}")
    return data, places


def _collect_places(node: Any, prefix: str, path: str, places: dict[str, str], depth: int = 0) -> None:
    """Add dotted name -> "file:line" of every key to `places`. Raises InputError for a duplicate key."""
    if depth > 20 or len(places) > MAX_YAML_NODES:
        raise InputError(f"{path}: not a recipe: nested too deeply, or more than {MAX_YAML_NODES} values")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}.{key.value}" if prefix else str(key.value)
            place = f"{path}:{key.start_mark.line + 1}"
            if name in places:
                first = places[name].rpartition(":")[2]
                raise InputError(f"{place}: {one_line(name)} is given twice: it is already in line {first}")
            places[name] = place
            _collect_places(value, name, path, places, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            places[f"{prefix}[{number}]"] = f"{path}:{item.start_mark.line + 1}"
            _collect_places(item, f"{prefix}[{number}]", path, places, depth + 1)


def parse_value(text: str) -> Any:
    """Parse a command-line value as YAML.

    Returns the text itself if it is not valid YAML, and for a word with a colon at its end (`hf:`), which YAML reads as
    a key without a value.
    """
    try:
        found = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError, *_TAG_ERRORS):
        return text
    return text if isinstance(found, dict) and found == {text.strip()[:-1]: None} else found


def one_line(text: object) -> str:
    """Return the text without line breaks."""
    return " ".join(str(text).split())


def nearest(name: str, where: str, places: Mapping[str, str]) -> str:
    """Return the location of a key or list item, or of its nearest parent. Overrides have no location below the key."""
    while name and name not in places:
        name = name[: max(name.rfind("."), name.rfind("["), 0)]
    return places.get(name, where)
