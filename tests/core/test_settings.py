"""Bounds beside the fields: what a constructor, a file and the derived JSON Schema say of the same number."""

from __future__ import annotations

import ast
import inspect as python_inspect
import math
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated

import msgspec
import pytest
from msgspec import inspect

from rewright.core.registry import find, known
from rewright.core.settings import Fraction, PositiveInt, Settings, convert
from rewright.credit.settings import TurnCredit
from rewright.engines.embedded import HFSettings
from rewright.engines.served import OpenAISettings
from rewright.recipe.schema import Recipe
from rewright.repair.settings import Dimension
from rewright.rollout.settings import Limits, SynthSettings
from rewright.training.settings import RLSettings


class Toy(Settings, frozen=True):
    """Settings as another package would write them."""

    shares: tuple[Fraction, ...] = ()
    by_name: dict[str, PositiveInt] = msgspec.field(default_factory=dict)
    free: float = 0.0
    below: Annotated[float, msgspec.Meta(gt=-2, lt=2)] = 0.0


class Outer(Settings, frozen=True):
    """Settings that hold others."""

    toy: Toy = Toy()
    toys: tuple[Toy, ...] = ()


CONSTRUCTED = [
    (lambda: SynthSettings(n=0), "n must be at least 1, got 0"),
    (lambda: SynthSettings(n=10**10), "n must be at most 1000000000, got 10000000000"),
    (lambda: SynthSettings(top_p=0), "top_p must be positive, got 0"),
    (lambda: SynthSettings(top_p=1.5), "top_p must be at most 1, got 1.5"),
    (lambda: SynthSettings(temperature=-0.5), "temperature must not be negative, got -0.5"),
    (lambda: Limits(tool_seconds=math.nan), "tool_seconds must be a finite number, got nan"),
    (lambda: Limits(turns=0), "turns must be at least 1, got 0"),
    (lambda: RLSettings(generations=1), "generations must be at least 2, got 1"),
    (lambda: RLSettings(entropy=-math.inf), "entropy must be a finite number, got -inf"),
    (lambda: TurnCredit(weights=(1.0, math.nan, 1.0)), r"weights\[1\] must be a finite number, got nan"),
    (lambda: TurnCredit(gamma=2), "gamma must be at most 1, got 2"),
    (lambda: Recipe(seed=2**32), "seed must be at most 4294967295, got 4294967296"),
    (lambda: Dimension("a", "b:c", -1), "weight must not be negative, got -1"),
    (lambda: HFSettings(slots=0), "slots must be at least 1, got 0"),
    (lambda: OpenAISettings(timeout_seconds=1e300), "timeout_seconds must be at most 1000000000, got 1e[+]300"),
    (lambda: Toy(shares=(0.5, 2.0)), r"shares\[1\] must be at most 1, got 2.0"),
    (lambda: Toy(by_name={"a": 1, "b": 0}), "by_name.b must be at least 1, got 0"),
    (lambda: Toy(free=math.inf), "free must be a finite number, got inf"),
    (lambda: Toy(below=2), "below must be less than 2, got 2"),
    (lambda: Toy(below=-2), "below must be more than -2, got -2"),
]


@pytest.mark.parametrize(("make", "message"), CONSTRUCTED, ids=[message for _, message in CONSTRUCTED])
def test_a_program_is_told_which_number_is_out_of_bounds(make, message):
    with pytest.raises(ValueError, match=message):
        make()


CONVERTED = [
    ({"toy": {"shares": [0.5, -1]}}, "shares[1] must not be negative, got -1 - at `$.toy`"),
    ({"toys": [{}, {"by_name": {"ab": 0}}]}, "ab must be at least 1, got 0 - at `$.toys[1].by_name`"),
    ({"toy": {"below": 5}}, "below must be less than 2, got 5 - at `$.toy`"),
    ({"toy": {"free": math.nan}}, "free must be a finite number, got nan - at `$.toy`"),
    ({"toy": {"shares": 1}}, "Expected `array`, got `int` - at `$.toy.shares`"),
]


@pytest.mark.parametrize(("data", "message"), CONVERTED, ids=[message for _, message in CONVERTED])
def test_values_of_a_file_are_told_in_the_same_words(data, message):
    with pytest.raises(msgspec.ValidationError) as caught:
        convert(data, Outer)
    assert str(caught.value) == message


def test_what_is_within_its_bounds_is_taken():
    assert Toy(shares=(0, 1), by_name={"a": 1}, free=-5.0, below=1.9).free == -5.0
    assert RLSettings(entropy=-0.1, generations=2).entropy == -0.1
    assert Limits(turns=None, tool_calls=1).turns is None
    assert convert({"toy": {"below": -1}}, Outer).toy.below == -1


def numbers(kind: inspect.Type, name: str) -> Iterator[tuple[str, inspect.IntType | inspect.FloatType]]:
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        yield name, kind
    elif isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield from numbers(field.type, f"{name}.{field.name}")
    elif isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from numbers(one, name)
    elif isinstance(kind, inspect.TupleType):
        for one in kind.item_types:
            yield from numbers(one, name)
    elif isinstance(kind, inspect.VarTupleType):
        yield from numbers(kind.item_type, name)
    elif isinstance(kind, inspect.DictType):
        yield from numbers(kind.value_type, name)


def test_every_number_of_a_recipe_has_its_bounds_beside_its_field():
    kinds = {"recipe": Recipe, **{f"model ({name})": find("engine", name) for name in known("engine")}}
    found = [pair for name, kind in kinds.items() for pair in numbers(inspect.type_info(kind), name)]
    assert len(found) > 70
    unbounded = [name for name, kind in found if kind.le is kind.lt is None or kind.ge is kind.gt is None]
    assert unbounded == []


def structs(kind: inspect.Type) -> Iterator[type[msgspec.Struct]]:
    if isinstance(kind, inspect.StructType):
        yield kind.cls
        for field in kind.fields:
            yield from structs(field.type)
    elif isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from structs(one)
    elif isinstance(kind, inspect.VarTupleType):
        yield from structs(kind.item_type)
    elif isinstance(kind, inspect.DictType):
        yield from structs(kind.value_type)


def documented(kind: type) -> set[str]:
    """The fields with a docstring, those of base classes included."""
    found: set[str] = set()
    for one in kind.__mro__[: kind.__mro__.index(Settings)]:
        (definition,) = ast.parse(textwrap.dedent(python_inspect.getsource(one))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found.add(ast.unparse(field.target))
    return found


def test_every_setting_of_a_recipe_is_documented_beside_its_field() -> None:
    kinds = {Recipe, *(find("engine", name) for name in known("engine"))}
    kinds = {one for kind in kinds for one in structs(inspect.type_info(kind))}
    assert len(kinds) >= 17
    missing = [f"{kind.__name__}.{name}" for kind in kinds for name in {*kind.__struct_fields__} - documented(kind)]
    assert sorted(missing) == []


def test_the_json_schema_holds_the_bounds():
    schema = msgspec.json.schema(SynthSettings)["$defs"]["SynthSettings"]["properties"]
    assert (schema["n"]["minimum"], schema["n"]["maximum"]) == (1, 10**9)
    assert (schema["top_p"]["exclusiveMinimum"], schema["top_p"]["maximum"]) == (0, 1)
