"""JSON Schemas (draft 2020-12) of settings and stored records, generated from the classes.

Types and bounds are those that msgspec checks when it reads a file. Descriptions are the docstrings of the classes and
of their fields. Unknown keys are refused, as by the readers of files of other programs.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

__all__ = ["Schema", "document", "field_docs", "record_schema", "struct_schemas"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE: Final = "#/$defs/{name}"

Schema = dict[str, Any]


def record_schema(kind: type[msgspec.Struct]) -> Schema:
    """The schema of a stored record, such as `Trajectory`."""
    names, definitions = struct_schemas([kind])
    return document(kind.__name__, names[kind], definitions)


def document(title: str, name: str, definitions: dict[str, Schema]) -> Schema:
    """A schema document whose values are of the definition `name`."""
    head = {"$schema": DIALECT, "title": title, "description": definitions[name].get("description", "")}
    return {**head, "$ref": _REFERENCE.format(name=name), "$defs": definitions}


def struct_schemas(
    kinds: Sequence[type[msgspec.Struct]], hook: Callable[[type], Schema] | None = None
) -> tuple[dict[type, str], dict[str, Schema]]:
    """Return the definitions of all structs that `kinds` contain, and the name of each struct's definition.

    `hook(type)` returns the schema of a type that msgspec does not know.
    """
    structs = list(dict.fromkeys(one for kind in kinds for one in _structs(msgspec.inspect.type_info(kind), set())))
    references, definitions = msgspec.json.schema_components(structs, schema_hook=hook, ref_template=_REFERENCE)
    names = {kind: str(one["$ref"]).rpartition("/")[2] for kind, one in zip(structs, references, strict=True)}
    for kind, name in names.items():
        definition, docs = definitions[name], field_docs(kind)
        definition["additionalProperties"] = False
        if kind.__doc__:
            definition["description"] = inspect.cleandoc(kind.__doc__)
        for key, value in definition["properties"].items():
            if key in docs:
                value["description"] = docs[key]
    return names, definitions


@lru_cache(maxsize=256)
def field_docs(kind: type) -> dict[str, str]:
    """The docstrings of the fields of a class and its bases. Empty where the source is not available."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not issubclass(base, msgspec.Struct):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for field, after in itertools.pairwise(body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found[field.target.id] = " ".join(str(after.value.value).split())
    return found


def _structs(info: msgspec.inspect.Type, seen: set[type]) -> Iterator[type[msgspec.Struct]]:
    """Yield the struct classes that a type contains, itself first."""
    if isinstance(info, msgspec.inspect.StructType):
        if info.cls in seen:
            return
        seen.add(info.cls)
        yield info.cls
        for field in info.fields:
            yield from _structs(field.type, seen)
    for name in ("types", "item_types"):
        for below in getattr(info, name, ()):
            yield from _structs(below, seen)
    for name in ("item_type", "value_type"):
        if (one := getattr(info, name, None)) is not None:
            yield from _structs(one, seen)
