"""The tools that a recipe gives to every task: told to the model, and executed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rewright.core.errors import InputError
from rewright.core.records import Task, ToolCall, ToolSpec
from rewright.dialects import get_dialect
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe
from rewright.rollout.toolsets import open_toolsets, with_recipe_tools
from rewright.tools import PythonTool
from rewright.tools.search_index import Document, build_index
from support.run_code_server import RunCodeServer, run_code_server

server = pytest.fixture(run_code_server)

QUESTION = ({"role": "user", "content": "How old is Kalo?"},)


def recipe(*settings: str) -> Recipe:
    return load_recipe(None, ["sandbox.level=process", "sandbox.wall_seconds=60", *settings])


def test_every_task_gets_the_tools_that_it_lacks() -> None:
    own = PythonTool.spec()
    source = ToolSpec({"type": "function", "function": {"name": "age", "parameters": {}}}, source="def age(): pass")
    tasks = [Task(id="1", messages=QUESTION), Task(id="2", messages=QUESTION, tools=(source, own))]
    settings = recipe("tools.python=true", "tools.search=index").tools
    found = with_recipe_tools(tasks, settings, get_dialect("hermes"))
    assert [[tool.name for tool in task.tools] for task in found] == [["python", "search"], ["age", "python", "search"]]
    assert found[1].tools[1] is own
    assert with_recipe_tools(tasks, recipe().tools, get_dialect("hermes")) == tasks


def test_a_tool_that_the_dialect_cannot_call_is_a_mistake() -> None:
    source = ToolSpec({"type": "function", "function": {"name": "age", "parameters": {}}}, source="def age(): pass")
    task = Task(id="7", messages=QUESTION, tools=(source,))
    with pytest.raises(
        InputError, match="task 7: dialect tags has no way to call the tool 'age': expected python or sea"
    ):
        with_recipe_tools([task], recipe("tools.python=true").tools, get_dialect("tags"))


async def test_tools_of_all_kinds_run_side_by_side(tmp_path: Path) -> None:
    build_index([Document("1", "Kalo is 36."), Document("2", "Boru sells bread.")], tmp_path / "index")
    source = ToolSpec(
        {"type": "function", "function": {"name": "age", "parameters": {}}}, source="def age():\n    return 36"
    )
    asked = recipe("tools.python=true", f"tools.search={tmp_path / 'index'}", "tools.output_characters=10",
                   "tools.python_state=trajectory", "tools.passages=2")  # fmt: skip
    (task,) = with_recipe_tools([Task(id="1", messages=QUESTION, tools=(source,))], asked.tools, get_dialect("hermes"))
    tools = open_toolsets(asked.tools, asked.sandbox)
    try:
        async with tools.open(task.tools) as toolset:
            results = [
                await toolset.call(ToolCall(name, arguments))
                for name, arguments in (
                    ("age", {}), ("search", {"query": "Kalo"}), ("python", {"code": "x = np.arange(3).sum()"}),
                    ("python", {"code": "print(x, sympy.prime(3))"}), ("python", {"code": "'abcdefghijklmnop'"}),
                )
            ]  # fmt: skip
    finally:
        await tools.close()
    assert [result.error for result in results] == [None] * 5
    contents = ["36", "[1] Kalo is 36.", "", "3 5", "abcde...lmnop"]
    assert [result.content for result in results] == contents


async def test_a_recipe_sends_sources_and_programs_to_a_sandbox_elsewhere(
    server: tuple[RunCodeServer, str],
) -> None:
    handler, url = server
    source = ToolSpec(
        {"type": "function", "function": {"name": "age", "parameters": {}}}, source="def age():\n    return 36"
    )
    asked = recipe("tools.python=true", f"sandbox.url={url}")
    (task,) = with_recipe_tools([Task(id="1", messages=QUESTION, tools=(source,))], asked.tools, get_dialect("hermes"))
    tools = open_toolsets(asked.tools, asked.sandbox)
    try:
        async with tools.open(task.tools) as toolset:
            assert (await toolset.call(ToolCall("age", {}))).content == "36"
            assert (await toolset.call(ToolCall("python", {"code": "math.floor(6.5)"}))).content == "6"
    finally:
        await tools.close()
    assert {request["memory_limit_MB"] for request in handler.requests} == {512, 1024}
    asked = recipe("tools.python=true", "tools.python_state=trajectory", f"sandbox.url={url}")
    with pytest.raises(InputError, match=r"a sandbox at sandbox\.url keeps no state"):
        open_toolsets(asked.tools, asked.sandbox)
    with pytest.raises(InputError, match="expected an address such as"):
        open_toolsets(recipe("sandbox.url=nowhere").tools, recipe("sandbox.url=nowhere").sandbox)


async def test_a_recipe_allows_the_network() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    code = f"import socket; socket.create_connection(('127.0.0.1', {port})).recv(5).decode()"
    spec = PythonTool.spec()
    for allowed in (True, False):
        asked = recipe("tools.python=true", f"sandbox.network={str(allowed).lower()}")
        tools = open_toolsets(asked.tools, asked.sandbox)
        try:
            async with tools.open([spec]) as toolset:
                result = await toolset.call(ToolCall(spec.name, {"code": code}))
        finally:
            await tools.close()
        assert (result.content == "hello") is allowed, result
    listening.close()


async def test_importable_tools_of_ones_own_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "geo_tools.py").write_text("def twice(a):\n    return 2 * a\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    schema = {"type": "function", "function": {"name": "twice", "parameters": {}}}
    for trusted, content in ("[geo_tools]", "42"), ("[]", "Error: ModuleNotFoundError: No module named 'geo_tools'"):
        asked = recipe(f"sandbox.trusted={trusted}")
        tools = open_toolsets(asked.tools, asked.sandbox)
        async with tools.open([ToolSpec(schema, target="geo_tools:twice")]) as toolset:
            assert (await toolset.call(ToolCall("twice", {"a": 21}))).content == content
        await tools.close()


@pytest.mark.parametrize(("bound", "seconds"), [("null", "0.7 s"), ("0.4", "0.4 s"), ("9", "0.7 s")])
async def test_a_call_has_the_seconds_of_the_limits_unless_the_sandbox_has_less(bound: str, seconds: str) -> None:
    source = ToolSpec(
        {"type": "function", "function": {"name": "hang", "parameters": {}}}, source="def hang():\n    while True: pass"
    )
    asked = recipe(f"sandbox.wall_seconds={bound}", "limits.tool_seconds=0.7")
    tools = open_toolsets(asked.tools, asked.sandbox, tool_seconds=asked.limits.tool_seconds)
    async with tools.open([source]) as toolset:
        result = await toolset.call(ToolCall("hang", {}), wall_seconds=asked.limits.tool_seconds)
    await tools.close()
    assert seconds in result.content


def test_a_folder_without_an_index_is_one_clear_line(tmp_path: Path) -> None:
    asked = recipe(f"tools.search={tmp_path}")
    with pytest.raises(InputError, match="is not a search index"):
        open_toolsets(asked.tools, asked.sandbox)
