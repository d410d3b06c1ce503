"""The tools that a recipe gives to every task: told to the model, and executed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewright.dialects import dialect_named
from rewright.errors import InputError
from rewright.recipe import Recipe, load_recipe
from rewright.records import Task, ToolCall, ToolSpec
from rewright.stages.toolsets import equipped, open_toolsets
from rewright.tools import PythonTool
from rewright.tools.search_index import Document, build_index

QUESTION = ({"role": "user", "content": "How old is Kalo?"},)


def recipe(*settings: str) -> Recipe:
    return load_recipe(None, ["sandbox.level=process", "sandbox.wall_seconds=60", *settings])


def test_every_task_gets_the_tools_that_it_lacks() -> None:
    own = PythonTool.spec()
    source = ToolSpec({"type": "function", "function": {"name": "age", "parameters": {}}}, source="def age(): pass")
    tasks = [Task(id="1", messages=QUESTION), Task(id="2", messages=QUESTION, tools=(source, own))]
    settings = recipe("tools.python=true", "tools.search=index").tools
    found = equipped(tasks, settings, dialect_named("hermes"))
    assert [[tool.name for tool in task.tools] for task in found] == [["python", "search"], ["age", "python", "search"]]
    assert found[1].tools[1] is own
    assert equipped(tasks, recipe().tools, dialect_named("hermes")) == tasks


def test_a_tool_that_the_dialect_cannot_call_is_a_mistake() -> None:
    source = ToolSpec({"type": "function", "function": {"name": "age", "parameters": {}}}, source="def age(): pass")
    task = Task(id="7", messages=QUESTION, tools=(source,))
    with pytest.raises(
        InputError, match="task 7: dialect tags has no way to call the tool 'age': expected python or sea"
    ):
        equipped([task], recipe("tools.python=true").tools, dialect_named("tags"))


async def test_tools_of_all_kinds_run_side_by_side(tmp_path: Path) -> None:
    build_index([Document("1", "Kalo is 36."), Document("2", "Boru sells bread.")], tmp_path / "index")
    source = ToolSpec(
        {"type": "function", "function": {"name": "age", "parameters": {}}}, source="def age():\n    return 36"
    )
    asked = recipe("tools.python=true", f"tools.search={tmp_path / 'index'}", "tools.output_characters=10",
                   "tools.python_state=trajectory", "tools.passages=2")  # fmt: skip
    (task,) = equipped([Task(id="1", messages=QUESTION, tools=(source,))], asked.tools, dialect_named("hermes"))
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


def test_a_folder_without_an_index_is_one_clear_line(tmp_path: Path) -> None:
    asked = recipe(f"tools.search={tmp_path}")
    with pytest.raises(InputError, match="is not a search index"):
        open_toolsets(asked.tools, asked.sandbox)
