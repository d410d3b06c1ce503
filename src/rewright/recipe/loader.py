"""Recipes: a YAML file plus dotted overrides, checked into one frozen settings object.

Every mistake is an `InputError` in one line with file, line and key, and names the nearest valid key. Nothing here runs
anything. What can be set is in `rewright.recipe.schema`.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import yaml

from rewright.core.errors import InputError
from rewright.core.storage import read_bounded
from rewright.engines.settings import ModelSettings
from rewright.recipe.consent import check_recipe_code, imported_code
from rewright.recipe.cross_checks import check_addresses, settle
from rewright.recipe.schema import Recipe
from rewright.tasks.settings import TaskSettings

__all__ = ["load_recipe", "recipe_hash"]

SHORT_FORMS = {"tasks": "path", "model": "path", "sandbox": "level"}
"""Sections that may be given as one string, and the key that the string then is."""

MAX_YAML_NODES = 10_000
"""In a recipe file: aliases of aliases would be more than any memory holds."""

_TAG_ERRORS = (KeyError, AttributeError)
"""What PyYAML raises for a value that does not fit its tag, as in `!!bool maybe`."""


def load_recipe(
    path: Path | None, overrides: Sequence[str] = (), *, stored: bool = False, trusted: Sequence[str] | None = ()
) -> Recipe:
    """Read a recipe file (None: all defaults) and apply `section.key=value` overrides.

    `stored`: the file is a run's own copy. A key that has no effect under its reward was refused or dropped when the
    run was started, and one that an older version let pass is no reason not to read the run. Reading it imports no
    code but that of `trusted` (None: any; the user has given the recipe).

    Raises InputError, also for a file that says nothing: a run of nothing but defaults was not asked for.
    """
    data: Any = {}
    places: dict[str, str] = {}
    where = str(path) if path is not None else "recipe"
    empty = False
    if path is not None:
        data, places = _read_yaml(path)
        empty = not data
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise InputError(f"override {override!r}: expected section.key=value")
        try:
            value = yaml.load(text, _Loader)
        except (yaml.YAMLError, ValueError, RecursionError, *_TAG_ERRORS):
            value = text
        _set(data, key.split("."), value, override)
        places[key] = f"override {override!r}"
        while "." in key:
            key = key.rpartition(".")[0]
            places.setdefault(key, f"override {override!r}")
    if stored and trusted is not None:
        check_recipe_code(imported_code(data), trusted, where)
    _check_numbers(data, "", where, places)
    settle(data, places, _standard(), where, stored=stored)
    data = _expand(data, Recipe, Recipe())
    _check_keys(data, Recipe, "", where, places)
    try:
        recipe = msgspec.convert(
            _with_engines(data, Recipe, "", where, places), Recipe, strict=True, dec_hook=_as_built
        )
        msgspec.json.encode(recipe)  # as its hash and its copy in the run need it
    except msgspec.ValidationError as problem:
        raise InputError(_located(str(problem), where, places)) from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: not a recipe: a text holds bytes that are not UTF-8") from None
    if empty:
        raise InputError(f"{where}: is empty: expected a recipe with at least one key, such as name: mine")
    check_addresses(recipe, lambda name: _nearest(name, where, places))
    return recipe


def recipe_hash(recipe: Recipe, sections: Iterable[str]) -> str:
    """Eight hexadecimal digits of the named sections: part of every id that depends on them."""
    parts = {name: getattr(recipe, name) for name in sections}
    return hashlib.blake2b(msgspec.json.encode(parts, order="sorted"), digest_size=4).hexdigest()


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


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
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
        raise InputError(f"{path}{line}: not valid YAML: {_one_line(reason)}") from None
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
                raise InputError(f"{place}: {_one_line(name)} is given twice: it stands in line {first} already")
            places[name] = place
            _collect_places(value, name, path, places, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            places[f"{prefix}[{number}]"] = f"{path}:{item.start_mark.line + 1}"
            _collect_places(item, f"{prefix}[{number}]", path, places, depth + 1)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _set(data: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for depth, key in enumerate(keys[:-1]):
        below = data.setdefault(key, {})
        if isinstance(below, str) and key in SHORT_FORMS:
            below = data[key] = {SHORT_FORMS[key]: below}
        if below is None:
            below = data[key] = {}
        if not isinstance(below, dict):
            raise InputError(f"override {override!r}: {'.'.join(keys[: depth + 1])} is not a section")
        data = below
    last = keys[-1]
    if last in SHORT_FORMS and isinstance(value, str) and isinstance(data.get(last), dict):
        data[last][SHORT_FORMS[last]] = value
    else:
        data[last] = value


def _expand(data: Any, kind: Any, standard: Any) -> Any:
    """`data` with its short forms written out. What a section leaves out is as in `standard`, its default.

    (`eval.tasks` has other defaults than `tasks`: giving one of its keys must not change the others.)
    """
    struct = _struct_of(kind, data)
    if struct is None or not isinstance(data, dict):
        return data
    fields = typing.get_type_hints(struct)
    expanded: dict[str, Any] = {}
    for key, value in data.items():
        below = fields.get(key)
        section = _struct_of(below, value)
        default = getattr(standard, key, None) if isinstance(key, str) else None
        if section is None:
            expanded[key] = value
            continue
        if value is None and isinstance(below, type):
            given: Any = {}  # a section whose keys are all commented out
        elif isinstance(value, str) and key in SHORT_FORMS:
            given = {SHORT_FORMS[key]: value}
        else:
            given = _expand(value, below, default)
        expanded[key] = _own_defaults(default) | given if isinstance(given, dict) else given
    return expanded


def _standard() -> dict[str, Any]:
    """The defaults of every section, those included that are None unless given."""
    standard: dict[str, Any] = msgspec.to_builtins(Recipe())
    standard["rl"]["tasks"] = msgspec.to_builtins(TaskSettings())
    return standard


def _own_defaults(standard: Any) -> dict[str, Any]:
    """The fields in which a section's default differs from the default of its type."""
    if not isinstance(standard, msgspec.Struct):
        return {}
    usual = type(standard)()
    names = [name for name in standard.__struct_fields__ if getattr(standard, name) != getattr(usual, name)]
    return {name: msgspec.to_builtins(getattr(standard, name)) for name in names}


def _struct_of(kind: Any, data: Any = None) -> type[msgspec.Struct] | None:
    """The section type in `X` or `X | None`. That of a model is its engine's, which `data` names."""
    if get_origin(kind) in (typing.Union, types.UnionType):
        found = [struct for part in get_args(kind) if (struct := _struct_of(part, data)) is not None]
        return found[0] if found else None
    if kind is ModelSettings:
        return ModelSettings.kind(data if isinstance(data, dict) else {})
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def _with_engines(data: Any, kind: Any, prefix: str, where: str, places: dict[str, str]) -> Any:
    """`data` with the sections of models made into the settings of their engines, which msgspec cannot choose."""
    struct = _struct_of(kind, data)
    if struct is None or not isinstance(data, dict):
        return data
    if issubclass(struct, ModelSettings):
        try:
            return msgspec.convert(data, struct, strict=True)
        except msgspec.ValidationError as problem:
            reason, _, path = str(problem).partition(" - at `$")
            raise InputError(_located(f"{reason} - at `$.{prefix}{path or '`'}", where, places)) from None
    fields = typing.get_type_hints(struct)
    return {
        key: _with_engines(value, fields.get(key), f"{prefix}.{key}".lstrip("."), where, places)
        for key, value in data.items()
    }


def _as_built(kind: type, value: Any) -> Any:
    """msgspec's hook for what `_with_engines` has made."""
    if isinstance(value, kind):
        return value
    raise ValueError(f"Expected `object`, got `{type(value).__name__}`")


def _check_keys(data: Any, kind: Any, prefix: str, where: str, places: dict[str, str]) -> None:
    struct = _struct_of(kind, data)
    if not isinstance(data, dict):
        return
    if struct is None:
        _check_free(data, prefix, where, places)
        return
    fields = typing.get_type_hints(struct)
    for key, value in data.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(fields))}"
            raise InputError(f"{places.get(name, where)}: unknown key {_one_line(name)}: {hint}")
        _check_keys(value, fields[key], name, where, places)


def _check_free(data: Any, name: str, where: str, places: dict[str, str]) -> None:
    """Refuse what JSON has no word for, in a section of free keys: it could be neither stored nor sent as it is."""
    if isinstance(data, dict):
        for key, value in data.items():
            below = f"{name}.{key}"
            if not isinstance(key, str):
                place, kind = _nearest(below, where, places), type(key).__name__
                raise InputError(f"{place}: {_one_line(below)}: expected a text as key, got `{kind}`: write '{key}'")
            _check_free(value, below, where, places)
    elif isinstance(data, list):
        for number, item in enumerate(data):
            _check_free(item, f"{name}[{number}]", where, places)
    elif isinstance(data, float) and not math.isfinite(data):
        place = _nearest(name, where, places)
        raise InputError(f"{place}: {_one_line(name)}: expected a finite number, got {data}")
    elif not isinstance(data, str | int | float | None):
        place, kind = _nearest(name, where, places), type(data).__name__
        raise InputError(f"{place}: {_one_line(name)}: expected a text, a number, a list or a section, got `{kind}`")


def _check_numbers(data: Any, name: str, where: str, places: dict[str, str]) -> None:
    """Refuse a whole number beyond 64 bits, as key or value: most of what reads a recipe can hold none."""
    if isinstance(data, dict):
        for key, value in data.items():
            _check_numbers(key, name, where, places)
            _check_numbers(value, f"{name}.{key}".lstrip("."), where, places)
    elif isinstance(data, list):
        for number, item in enumerate(data):
            _check_numbers(item, f"{name}[{number}]", where, places)
    elif isinstance(data, int) and not -(2**63) <= data < 2**63:
        raise InputError(f"{_nearest(name, where, places)}: {_one_line(name) or 'recipe'}: a number beyond 64 bits")


def _nearest(name: str, where: str, places: dict[str, str]) -> str:
    """The place of a key, or of what it stands in: nothing inside a list or an override has a place of its own."""
    while name and name not in places:
        name = name.rpartition(".")[0]
    return places.get(name, where)


def _choices(name: str) -> str:
    """The words that the key `name` may be, or an empty string."""
    kind: Any = Recipe
    for key in re.sub(r"\[[^\]]*\]", "", name).split("."):
        struct = _struct_of(kind)
        kind = None if struct is None else typing.get_type_hints(struct).get(key)
    words = [str(word) for word in get_args(kind)] if get_origin(kind) is Literal else []
    if get_origin(kind) is tuple:
        words = [str(word) for word in get_args(get_args(kind)[0])]
    return f": expected one of {', '.join(words)}" if words else ""


def _located(problem: str, where: str, places: dict[str, str]) -> str:
    """A msgspec message ("Expected `int`, got `str` - at `$.synth.n`") with file, line and key in front."""
    reason, _, path = problem.partition(" - at `$")
    name = path.rstrip("`").lstrip(".")
    # The check of a whole section names its key in the message, not in the path.
    if " must " in reason:
        key, _, reason = reason.partition(" ")
        name = f"{name}.{key}".lstrip(".")
    plain = re.sub(r"\[[^\]]*\]", "", name)
    choices = _choices(name) if "enum" in reason else ""
    reason = f"{reason[:1].lower()}{reason[1:]}".replace("`object`", "a section").replace("`array`", "a list")
    said = f"{plain}.{reason.partition(' ')[0]}"  # a check of a whole section, which names the key in its words
    if said in places:
        plain = said
    return _one_line(f"{_nearest(plain, where, places)}: {name or 'recipe'}: {reason}{choices}")
