"""A YAML file, or a value of the command line, as data; and where each of its keys stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from rewright.core.errors import InputError
from rewright.core.storage import read_bounded

__all__ = ["nearest", "one_line", "parse_value", "read_yaml"]

MAX_YAML_NODES = 10_000
"""In a recipe file: aliases of aliases would be more than any memory holds."""

_TAG_ERRORS = (KeyError, AttributeError)
"""What PyYAML raises for a value that does not fit its tag, as in `!!bool maybe`."""


class _Loader(yaml.SafeLoader):
    """YAML as people expect it (1.2): `1e-5` is a number, `off` is a word."""


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
    """(data, dotted key -> "file:line") of a YAML file. Raises InputError for one that is no mapping in plain YAML."""
    places: dict[str, str] = {}
    try:
        text = read_bounded(path).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file: expected a recipe in YAML") from None
    except OSError as problem:
        raise InputError(f"cannot read recipe {path}: {problem.strerror or problem}") from None
    try:
        _collect_places(yaml.compose(text, Loader=_Loader), "", str(path), places)  # first: it bounds the size
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
    """Where every key stands: dotted name -> "file:line". Raises InputError for a key that is given twice."""
    if depth > 20 or len(places) > MAX_YAML_NODES:
        raise InputError(f"{path}: not a recipe: nested too deeply, or more than {MAX_YAML_NODES} values")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}.{key.value}" if prefix else str(key.value)
            place = f"{path}:{key.start_mark.line + 1}"
            if name in places:
                first = places[name].rpartition(":")[2]
                raise InputError(f"{place}: {one_line(name)} is given twice: it stands in line {first} already")
            places[name] = place
            _collect_places(value, name, path, places, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            places[f"{prefix}[{number}]"] = f"{path}:{item.start_mark.line + 1}"
            _collect_places(item, f"{prefix}[{number}]", path, places, depth + 1)


def parse_value(text: str) -> Any:
    """The value that a text on the command line says in YAML; the text itself where it is no YAML."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError, *_TAG_ERRORS):
        return text


def one_line(text: object) -> str:
    """A text without line breaks."""
    return " ".join(str(text).split())


def nearest(name: str, where: str, places: dict[str, str]) -> str:
    """The place of a key, or of what it stands in: nothing inside a list or an override has a place of its own."""
    while name and name not in places:
        name = name.rpartition(".")[0]
    return places.get(name, where)
