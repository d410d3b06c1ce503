"""`rw.tool`: what the model reads of a function, and how its calls run in this process."""

from __future__ import annotations

import asyncio
import enum
import functools
import threading
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

import rewright as rw
from rewright.tasks.schemas import argument_problems, schema_problems


class Unit(enum.Enum):
    CELSIUS = "C"
    FAHRENHEIT = "F"


@dataclass
class Place:
    city: str
    street: str | None = None
    within: Place | None = None


def weather(
    city: str, days: int = 1, unit: Unit = Unit.CELSIUS, near: Place | None = None, kind: str = "short"
) -> dict[str, Any]:
    """The weather.

    As forecast today.

    Args:
        city (str): name of the city,
            in English
        days: number of days
        kind: how long (choices: ["short", "long"])

    Returns:
        dict: the forecast
    """
    return {"city": city, "days": days, "unit": unit.name, "near": repr(near), "kind": kind}


def call(tool: rw.Tool[..., Any], **arguments: Any) -> rw.ToolResult:
    return asyncio.run(tool.run(arguments))


def test_the_schema_says_what_signature_and_docstring_say() -> None:
    tool = rw.tool(weather)
    function = tool.schema["function"]
    assert (function["name"], function["description"]) == ("weather", "The weather.\n\nAs forecast today.")
    properties = function["parameters"]["properties"]
    assert properties["city"] == {"type": "string", "description": "name of the city, in English"}
    assert properties["days"] == {"type": "integer", "description": "number of days", "default": 1}
    assert properties["unit"] == {"type": "string", "enum": ["C", "F"]}
    assert sorted(properties["kind"].pop("enum")) == ["long", "short"]
    assert properties["kind"] == {"type": "string", "description": "how long", "default": "short"}
    assert function["parameters"]["required"] == ["city"]
    assert schema_problems(tool.schema) == []
    inside = {"city": "a", "within": {"city": "b"}}
    assert argument_problems(tool.schema, {"city": "Rome", "near": inside}) == []
    assert argument_problems(tool.schema, {"city": "Rome", "near": {"within": {}}}) != []


def test_arguments_arrive_as_the_types_of_the_signature() -> None:
    result = call(rw.tool(weather), city="Rome", days=3.0, unit="F", near={"city": "Ostia", "within": {"city": "x"}})
    assert result.error is None
    assert '"days": 3, "unit": "FAHRENHEIT"' in result.content
    assert "Place(city='Ostia', street=None, within=Place(city='x'" in result.content


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "missing argument `city`"),
        ({"city": "Rome", "day": 2}, "unknown argument `day`; expected: city, days (optional)"),
        ({"city": 5}, "argument city: Expected `str`, got `int`"),
        ({"city": "Rome", "days": "two"}, "argument days: Expected `int`, got `str`"),
        ({"city": "Rome", "unit": "K"}, "argument unit: "),
        ({"city": "Rome", "kind": "medium"}, "argument kind: "),
        ({"city": "Rome", "near": {}}, "argument near: "),
    ],
)
def test_wrong_arguments_are_a_result_that_says_so(arguments: dict[str, Any], said: str) -> None:
    result = call(rw.tool(weather), **arguments)
    assert (result.error or "").startswith("arguments: weather(): ")
    assert said in result.content


def test_the_tool_is_still_the_function() -> None:
    @rw.tool(name="plus", description="Adds.", timeout=3)
    def add(a: int, b: int = 2) -> int:
        """Add two numbers."""
        return a + b

    assert add(1, b=4) == 5
    assert (add.name, add.__name__, add.__doc__) == ("plus", "add", "Add two numbers.")
    assert add.schema["function"]["description"] == "Adds."


def test_coroutine_functions_methods_partials_and_objects_are_tools() -> None:
    class Shop:
        def price(self, item: str, /) -> float:
            return 2.5 if item == "tea" else 1.0

        async def __call__(self, item: Annotated[str, "what to look up"]) -> str:
            await asyncio.sleep(0)
            return f"{item}: {threading.current_thread() is threading.main_thread()}"

    def scale(value: float, factor: float) -> float:
        return value * factor

    assert call(rw.tool(Shop().price), item="tea").content == "2.5"
    shop = rw.tool(Shop(), name="stock", description="What is there.")
    assert call(shop, item="tea").content == "tea: True"  # a coroutine runs in the loop, not in a thread
    assert shop.schema["function"]["parameters"]["properties"]["item"]["description"] == "what to look up"
    assert call(rw.tool(functools.partial(scale, factor=10.0), name="tenfold"), value=2).content == "20.0"


def test_what_a_function_raises_is_an_error_that_the_model_reads() -> None:
    def refuse(how: str) -> str:
        if how == "exit":
            raise SystemExit(3)
        raise LookupError(f"no {how}")

    async def cancel() -> None:
        raise asyncio.CancelledError

    assert call(rw.tool(refuse), how="such name").content == "Error: LookupError: no such name"
    assert (call(rw.tool(refuse), how="exit").error or "").startswith("exited: ")
    assert (call(rw.tool(cancel)).error or "").startswith("exception: CancelledError")


@pytest.mark.parametrize("kind", ["function", "coroutine function", "coroutine function that ignores its end"])
def test_a_call_that_takes_too_long_is_abandoned(kind: str) -> None:
    never = threading.Event()

    def blocks() -> None:
        never.wait()

    async def waits() -> None:
        await asyncio.Event().wait()

    async def insists() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    chosen: Any = {"function": blocks, "coroutine function": waits}.get(kind, insists)
    result = asyncio.run(_run_and_leave(rw.Tool(chosen, timeout=0.05)))
    never.set()
    assert result.error == "timeout: no result after 0.05 s"


async def _run_and_leave(tool: rw.Tool[..., Any]) -> rw.ToolResult:
    result = await tool.run({})
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()  # the one that ignores its end is told again
    return result


def untyped(a) -> int:  # type: ignore[no-untyped-def]
    return a


def starred(*values: int) -> int:
    return sum(values)


def strange(a: int, b: threading.Thread) -> int:
    return a


def unresolved(a: Missing) -> int:  # type: ignore[name-defined]  # noqa: F821
    return 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (untyped, "tool untyped: the parameter 'a' has no type hint: expected one, such as a: str"),
        (starred, "tool starred: *values has no names that a model could use"),
        (strange, "tool strange: the parameter 'b': type <class 'threading.Thread'> is not supported"),
        (unresolved, "tool unresolved: its type hints cannot be evaluated: name 'Missing' is not defined"),
        (lambda: 1, "tool <lambda>: expected a name of letters"),
        (3, "tool: got a int, expected a function"),
    ],
)
def test_a_function_that_cannot_be_described_is_a_mistake_of_one_line(function: Any, said: str) -> None:
    with pytest.raises(rw.InputError) as raised:
        rw.tool(function)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_a_schema_of_ones_own_is_used_as_it_is() -> None:
    schema = {"name": "untyped", "parameters": {"type": "object", "properties": {"a": {}}, "required": ["a"]}}
    tool = rw.Tool(untyped, schema=schema)
    assert tool.schema == {"type": "function", "function": schema}
    assert call(tool, a=[1]).content == "[1]"
    assert (call(tool, b=1).error or "").startswith("arguments: untyped(): ")
    with pytest.raises(rw.InputError, match="timeout is -1"):
        rw.Tool(untyped, schema=schema, timeout=-1)


def test_choices_of_a_literal() -> None:
    def pick(size: Literal["s", "m"], count: Literal[1, 2] = 1) -> str:
        return size * count

    properties = rw.tool(pick).schema["function"]["parameters"]["properties"]
    assert properties["size"]["enum"] == ["m", "s"]
    assert properties["count"] == {"type": "integer", "enum": [1, 2], "default": 1}
    assert call(rw.tool(pick), size="m", count=2).content == "mm"


NUMPY = """The price.

Parameters
----------
item : str
    Name of the item,
    in English.
a, b : int, optional
    Numbers.

Returns
-------
float
    The price.
"""
SPHINX = """The price.

:param str item: Name of the item,
    in English.
:param a: Numbers.
:param b: Numbers.
:returns: the price
"""


@pytest.mark.parametrize("docstring", [NUMPY, SPHINX])
def test_docstrings_of_numpy_and_sphinx_describe_a_function_too(docstring: str) -> None:
    def price(item: str, a: int = 1, b: int = 2) -> float:
        return 2.5

    price.__doc__ = docstring
    function = rw.tool(price).schema["function"]
    assert function["description"] == "The price."
    described = {key: value["description"] for key, value in function["parameters"]["properties"].items()}
    assert described == {"item": "Name of the item, in English.", "a": "Numbers.", "b": "Numbers."}


def test_a_reference_in_a_docstring_is_no_field() -> None:
    def price(item: str) -> float:
        """The price.

        :func:`weather` is free: always.
        """
        return 2.5

    assert rw.tool(price).schema["function"]["description"] == "The price.\n\n:func:`weather` is free: always."


class Shop:
    """A shop."""

    def price(self, item: str) -> float:
        """The price."""
        return 2.5

    def __call__(self, item: str) -> float:
        """The price, asked for."""
        return 2.5


def test_partial_and_callable_objects_are_described_by_what_is_called() -> None:
    partial = rw.tool(functools.partial(Shop().price, item="tea"))
    assert (partial.name, partial.schema["function"]["description"]) == ("price", "The price.")
    called = rw.tool(Shop())
    assert (called.name, called.schema["function"]["description"]) == ("Shop", "The price, asked for.")
    with pytest.raises(rw.InputError, match=r"tool price: is a method without its object: expected rw.tool\(OBJECT"):
        rw.tool(Shop.price)


def test_a_dataclass_is_returned_as_json() -> None:
    def find(city: str) -> list[Place]:
        return [Place(city, within=Place("Italy"))]

    inside = '{"city": "Italy", "street": null, "within": null}'
    assert call(rw.tool(find), city="Rome").content == f'[{{"city": "Rome", "street": null, "within": {inside}}}]'
    assert call(rw.tool(lambda: Place, name="kind")).content == str(Place)
