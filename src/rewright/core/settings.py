"""The base class of all settings: unknown keys are errors, and every number has its bounds beside its field.

A field is annotated with one of the aliases below, or with `Annotated[int, msgspec.Meta(ge=2, le=MAX_NUMBER)]`. The
same bounds hold for values from a file (`convert`), for values from a program (the constructor), and in the JSON Schema
that msgspec derives from the class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, inspect

__all__ = [
    "MAX_NUMBER",
    "Fraction",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveFraction",
    "PositiveInt",
    "Seed",
    "Settings",
    "SignedFloat",
    "UnusedKey",
    "convert",
]

MAX_NUMBER: Final = 10**9
"""Upper bound of every number that has no smaller bound (seconds and tokens included). Clocks, arrays and servers do
not support much larger numbers."""

PositiveInt = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
NonNegativeInt = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
PositiveFloat = Annotated[float, Meta(gt=0, le=MAX_NUMBER)]
NonNegativeFloat = Annotated[float, Meta(ge=0, le=MAX_NUMBER)]
SignedFloat = Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
PositiveFraction = Annotated[float, Meta(gt=0, le=1)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]  # numpy accepts no larger one

Converted = TypeVar("Converted")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all settings. The constructor raises ValueError for a number outside the bounds of its field."""

    def __post_init__(self) -> None:
        for name, kind in _fields(type(self)).items():
            for path, number, problem in _out_of_bounds(getattr(self, name), kind, name):
                raise ValueError(f"{path} {problem}, got {_format_number(number)}")

    def addresses(self) -> dict[str, str]:
        """Return the server addresses in the settings, by key."""
        return {}


class UnusedKey(NamedTuple):
    """A key that has no effect because of the value of another key. The `unused_keys` functions yield these.

    Attributes:
        key: dotted name of the ignored key, relative to the checked section.
        cause: dotted name of the key whose value makes it ineffective.
        value: the value of `cause`.
        hint: appended to the message.
    """

    key: str
    cause: str
    value: Any
    hint: str = ""


def convert(data: Any, kind: type[Converted], dec_hook: Callable[[type, Any], Any] | None = None) -> Converted:
    """Convert `data` to `kind` as `msgspec.convert` does (strict), with clearer messages for numbers out of bounds.

    The messages are those of the constructor, as in "n must be at least 1, got 0 - at `$.synth`". Raises
    msgspec.ValidationError.
    """
    try:
        return msgspec.convert(data, kind, strict=True, dec_hook=dec_hook)
    except msgspec.ValidationError as problem:
        if re.match(r"Expected `(int|float)` [<>]", str(problem)):
            for path, number, requirement in _out_of_bounds(data, inspect.type_info(kind), ""):
                section, _, name = path.rpartition(".")
                where = f" - at `${section}`" if section else ""
                raise msgspec.ValidationError(f"{name} {requirement}, got {_format_number(number)}{where}") from None
        raise


@lru_cache(maxsize=256)
def _fields(kind: type[msgspec.Struct]) -> dict[str, inspect.Type]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return {field.name: field.type for field in info.fields}


def _out_of_bounds(value: Any, kind: inspect.Type, path: str) -> Iterator[tuple[str, float, str]]:
    """Yield (path, number, requirement) for every number in `value` that violates the bounds of its type.

    Structs are skipped, since their constructors have validated them.
    """
    if isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from _out_of_bounds(value, member, path)
    elif isinstance(kind, inspect.IntType | inspect.FloatType):
        if isinstance(value, int | float) and not isinstance(value, bool):
            requirement = _bound_problem(value, kind)
            if requirement is not None:
                yield path, value, requirement
    elif isinstance(kind, inspect.StructType) and isinstance(value, dict):
        for name, item_type in _fields(kind.cls).items():
            if name in value:
                yield from _out_of_bounds(value[name], item_type, f"{path}.{name}")
    elif isinstance(kind, inspect.DictType) and isinstance(value, dict):
        for key, item in value.items():
            yield from _out_of_bounds(item, kind.value_type, f"{path}.{key}")
    elif isinstance(kind, inspect.VarTupleType | inspect.ListType) and isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _out_of_bounds(item, kind.item_type, f"{path}[{number}]")
    elif isinstance(kind, inspect.TupleType) and isinstance(value, list | tuple):
        for number, (item, item_type) in enumerate(zip(value, kind.item_types, strict=False)):
            yield from _out_of_bounds(item, item_type, f"{path}[{number}]")


def _bound_problem(number: float, kind: inspect.IntType | inspect.FloatType) -> str | None:
    if not math.isfinite(number):
        return "must be a finite number"
    if kind.le is not None and number > kind.le:
        return f"must be at most {kind.le}"
    if kind.gt is not None and number <= kind.gt:
        return "must be positive" if kind.gt == 0 else f"must be more than {kind.gt}"
    if kind.lt is not None and number >= kind.lt:
        return f"must be less than {kind.lt}"
    if kind.ge is not None and number < kind.ge:
        return "must not be negative" if kind.ge == 0 else f"must be at least {kind.ge}"
    return None


def _format_number(number: float) -> str:
    if abs(number) < 10**20 or not math.isfinite(number):
        return str(number)
    return f"{number:.3g}" if isinstance(number, float) else "a much larger number"
