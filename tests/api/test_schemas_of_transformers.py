"""The schema of a function says what transformers' `get_json_schema` reads in it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Literal

import pytest
from transformers.utils import get_json_schema

import rewright as rw


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def plain(text: str, number: int, ratio: float, flag: bool = True):
    """Do something plain.

    Args:
        text: A text
            on two lines
        number: A number: whole
        ratio: A ratio
        flag: A flag
    """


def nested(names: list[str], table: dict[str, list[int]], both: str | int, anything: Any):
    """
    Takes nested values.

    It has a second paragraph.

    Args:
        names: The names
        table: The table
        both: Either
        anything: What you like

    Returns:
        Nothing.

    Raises:
        ValueError: never
    """


def chosen(size: Literal["large", "small"], colour: Colour, drink: str):
    """Choose.

    Args:
        size: The size
        colour: The colour
        drink: The drink (choices: ["coffee", "tea"])
    """


def lone():
    """Takes nothing."""


@pytest.mark.parametrize("function", [plain, nested, chosen, lone])
def test_the_same_schema(function: Callable[..., Any]) -> None:
    ours, theirs = rw.tool(function).schema, get_json_schema(function)
    if function is chosen and "enum" not in theirs["function"]["parameters"]["properties"]["colour"]:
        pytest.skip("this version of transformers does not read the members of an Enum")
    assert _comparable(ours) == _comparable(theirs)


def _comparable(value: Any) -> Any:
    """The order of choices and of alternatives means nothing; a default is not in theirs."""
    if isinstance(value, dict):
        found = {key: _comparable(item) for key, item in value.items() if key != "default"}
        if isinstance(found.get("type"), list):  # theirs, for ours: anyOf
            found["anyOf"] = sorted(({"type": name} for name in found.pop("type")), key=str)
        if "anyOf" in found:
            found["anyOf"] = sorted(found["anyOf"], key=str)
        if "enum" in found:
            found["enum"] = sorted(found["enum"])
        return found
    return value
