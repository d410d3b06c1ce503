"""The Python tool: what the model sees of a program, the limits on it, and the state between calls."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rewright.core.errors import InputError
from rewright.core.records import ToolCall
from rewright.sandbox import error_kind
from rewright.sandbox.capabilities import capabilities
from rewright.tools import CombinedTools, FunctionTools, PythonTool

OFFERED = capabilities()
LEVEL = "strict" if OFFERED.strict else "process"


def call(code: str) -> ToolCall:
    return ToolCall("python", {"code": code})


@pytest.fixture
async def tool() -> AsyncIterator[PythonTool]:
    tool = PythonTool(level=LEVEL, wall_seconds=60.0)
    yield tool
    await tool.close()


async def test_what_a_program_shows(tool: PythonTool) -> None:
    shown = {
        "print(np.arange(3).sum(), sympy.sqrt(8), math.pi)": "3 2*sqrt(2) 3.141592653589793",
        "x = 6\nx * 7": "42",
        "print('a')\n'b'": "a\nb",
        "x = 1": "",
        "None": "",
        "np.float64(0.5)": "0.5",
        "1 / 0": "ZeroDivisionError: division by zero",
        "print('before')\n1 / 0": "ZeroDivisionError: division by zero",
        "raise ValueError('no')": "ValueError: no",
        "x = = 1": "SyntaxError: invalid syntax (<program>, line 1)",
        "undefined": "NameError: name 'undefined' is not defined",
        "import sys; print('warned', file=sys.stderr)": "warned",
        "if __name__ == '__main__':\n    print('main')": "main",
        "def f(n): return 1 if n < 2 else n * f(n - 1)\nf(5)": "120",
        "```python\nprint(1)\n```": "1",
    }
    async with tool.open([PythonTool.spec()]) as tools:
        assert {code: (await tools.call(call(code))).content for code in shown} == shown


async def test_long_output_keeps_its_first_and_last_200_characters(tool: PythonTool) -> None:
    async with tool.open([PythonTool.spec()]) as tools:
        assert (await tools.call(call("print('a' * 200 + 'b' * 200)"))).content == "a" * 200 + "b" * 200
        cut = await tools.call(call("print('a' * 300 + 'b' * 10**6 + 'c' * 300)"))
        assert cut.content == "a" * 200 + "..." + "c" * 200
        assert cut.error is None
        cut = await tools.call(call("raise ValueError('x' * 1000)"))
        assert len(cut.content) == 403


async def test_errors_are_typed(tool: PythonTool) -> None:
    async with tool.open([PythonTool.spec()]) as tools:
        late = await tools.call(call("print('begun')\nwhile True: pass"), wall_seconds=0.3)
        assert (error_kind(late), late.content) == ("timeout", "TimeoutError: no result after 0.3 s")
        assert error_kind(await tools.call(call("x = bytearray(10**10)"))) == "memory"
        assert error_kind(await tools.call(ToolCall("python", {"code": 1}))) == "arguments"
        assert error_kind(await tools.call(ToolCall("python", {}))) == "arguments"
        assert error_kind(await tools.call(ToolCall("bash", {"code": "ls"}))) == "unknown_tool"
        assert error_kind(await tools.call(ToolCall("", {}, error="not JSON"))) == "malformed"
        assert (await tools.call(ToolCall("python", {"program": "6 * 7"}))).content == "42"


async def test_state_per_call_and_per_trajectory() -> None:
    for state, expected in (("call", "NameError: name 'x' is not defined"), ("trajectory", "2")):
        tool = PythonTool(level=LEVEL, state=state, wall_seconds=60.0, preload=("math",))  # type: ignore[arg-type]
        async with tool.open([PythonTool.spec()]) as tools:
            await tools.call(call("x = 1; math.tau = 0"))
            assert (await tools.call(call("x + 1"))).content == expected
        async with tool.open([PythonTool.spec()]) as tools:
            assert (await tools.call(call("math.tau > 6"))).content == "True"
        await tool.close()
    with pytest.raises(InputError, match="unknown state 'task'; expected call or trajectory"):
        PythonTool(state="task")  # type: ignore[arg-type]


async def test_kinds_of_tools_side_by_side(tool: PythonTool) -> None:
    functions = FunctionTools(level=LEVEL, wall_seconds=60.0)
    combined = CombinedTools({"python": tool, "function": functions})
    add = PythonTool.spec("add")
    add = type(add)(schema=add.schema, source="def add(a, b): return a + b")
    async with combined.open([PythonTool.spec(), add]) as tools:
        assert (await tools.call(call("1 + 1"))).content == "2"
        assert (await tools.call(ToolCall("add", {"a": 1, "b": 2}))).content == "3"
        unknown = await tools.call(ToolCall("search", {}))
        assert unknown.content == "Error: unknown tool 'search'; available: python, add"
        assert error_kind(await tools.call(ToolCall("add", {}, error="broken"))) == "malformed"
    with pytest.raises(InputError, match="tool web: no executor for kind 'search'; configured: python, function"):
        combined.open([type(add)(schema=PythonTool.spec("web").schema, kind="search")])
    await functions.close()
