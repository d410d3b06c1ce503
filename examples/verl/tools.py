"""The tools of the example, in verl's own convention: read by `multi_turn.function_tool_path`."""

from verl.tools.function_tool import function_tool

AGES = {"Ada": 36, "Ben": 41, "Cleo": 29, "Dan": 58}


@function_tool
def lookup_age(name: str) -> str:
    """Look up how old a person is.

    Args:
        name: The person's first name.
    """
    return str(AGES[name]) if name in AGES else f"Nobody is called {name}."


@function_tool
def add(a: int, b: int) -> str:
    """Add two whole numbers.

    Args:
        a: The first number.
        b: The second number.
    """
    return str(a + b)
