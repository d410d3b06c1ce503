"""Function tools as the rollout loop uses them: a toolset per trajectory, every failure a result that helps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rewright.core.errors import InputError
from rewright.core.records import ToolCall, ToolSpec
from rewright.core.trust import builtin_targets
from rewright.sandbox import error_kind
from rewright.sandbox.capabilities import capabilities
from rewright.tools import FunctionTools


def spec(name: str, source: str | None = None, target: str | None = None, data: Any = None) -> ToolSpec:
    schema = {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    return ToolSpec(schema=schema, source=source, target=target, data=data)


ADD = spec("add", "def add(a, b=1):\n    return {'sum': a + b}")
COUNT = spec("count", "calls = 0\ndef count():\n    global calls\n    calls += 1\n    return calls")


@pytest.fixture(params=["strict", "process"])
async def factory(request: pytest.FixtureRequest) -> AsyncIterator[FunctionTools]:
    if request.param == "strict" and not capabilities().strict:
        pytest.skip("level strict is not offered here")
    factory = FunctionTools(level=request.param, wall_seconds=60.0)
    yield factory
    await factory.close()


async def test_calls_and_state_within_one_trajectory(factory: FunctionTools) -> None:
    async with factory.open([ADD, COUNT]) as tools:
        assert (await tools.call(ToolCall("add", {"a": 2}))).content == '{"sum": 3}'
        assert (await tools.call(ToolCall("count", {}))).content == "1"
        assert (await tools.call(ToolCall("count", {}))).content == "2"
    async with factory.open([ADD, COUNT]) as tools:
        assert (await tools.call(ToolCall("count", {}))).content == "1"


async def test_failures_help_the_model_to_correct_itself(factory: FunctionTools) -> None:
    async with factory.open([ADD, COUNT]) as tools:
        unknown = await tools.call(ToolCall("ad", {}))
        assert unknown.content == "Error: unknown tool 'ad'; available: add, count"
        malformed = await tools.call(ToolCall("", {}, raw="{", error="the call is not valid JSON: line 1 column 2"))
        assert malformed.content == "Error: the call is not valid JSON: line 1 column 2"
        missing = await tools.call(ToolCall("add", {"x": 1}))
        assert missing.content == "Error: add(): missing a required argument: 'a'; expected: a, b (optional)"
        kinds = [error_kind(result) for result in (unknown, malformed, missing)]
        assert kinds == ["unknown_tool", "malformed", "arguments"]
        assert (await tools.call(ToolCall("add", {"a": 1, "b": 1}))).content == '{"sum": 2}'


async def test_target_is_called_with_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_tools.py").write_text("def look_up(table, key):\n    return table[key]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    factory = FunctionTools(level="process", trusted=("own_tools",))
    tools = [spec("find", target="own_tools:look_up", data={"Ada": 1815}), ADD]
    async with factory.open(tools) as toolset:
        assert (await toolset.call(ToolCall("find", {"key": "Ada"}))).content == "1815"
        assert (await toolset.call(ToolCall("find", {"key": "Bob"}))).error == "exception: KeyError: 'Bob'"
        wrong = await toolset.call(ToolCall("find", {"name": "Ada"}))
        assert wrong.content == "Error: find(): missing a required argument: 'key'; expected: key"
        assert (await toolset.call(ToolCall("add", {"a": 1}))).content == '{"sum": 2}'
    await factory.close()


async def test_target_without_data_is_called_with_the_arguments_alone(factory: FunctionTools) -> None:
    tools = [
        spec("dumps", target="json:dumps"),
        spec("add", target="operator:concat"),
        spec("leap", target="calendar:isleap"),
    ]
    async with factory.open(tools) as toolset:
        assert (await toolset.call(ToolCall("dumps", {"obj": {"a": 1}, "indent": 0}))).content == '{\n"a": 1\n}'
        assert (await toolset.call(ToolCall("leap", {"year": 2000}))).content == "true"
        wrong = await toolset.call(ToolCall("leap", {}))
        assert wrong.content == "Error: leap(): missing a required argument: 'year'; expected: year"


async def test_target_that_does_not_exist_is_an_error_of_the_call(factory: FunctionTools) -> None:
    async with factory.open([spec("find", target="nonsuch:look_up")]) as tools:
        result = await tools.call(ToolCall("find", {}))
        assert result.error == "exception: ModuleNotFoundError: No module named 'nonsuch'"


def test_tool_without_executor_is_refused() -> None:
    with pytest.raises(InputError, match="tool find has neither source nor target: expected exactly one"):
        FunctionTools().open([spec("find")])
    with pytest.raises(InputError, match=r"not of the form package\.module:function"):
        FunctionTools().open([spec("find", target="os.system")])


def test_only_named_packages_are_trusted() -> None:
    factory = FunctionTools(trusted=("mine", "theirs:dig"))
    assert factory.is_trusted(spec("a", target="mine:look_up"))
    assert factory.is_trusted(spec("a", target="mine.below:look_up"))
    assert factory.is_trusted(spec("a", target="theirs:dig"))
    assert not factory.is_trusted(spec("a", target="theirs:dig.__init__"))
    assert not factory.is_trusted(spec("a", target="os:system"))
    assert not factory.is_trusted(spec("a", target="miner:dig"))
    assert not factory.is_trusted(ADD)


async def test_a_path_through_a_trusted_package_leads_to_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_tools.py").write_text(
        "import os\nfrom os import system\nclass Shop:\n  @staticmethod\n  def open(data): return 'open'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    mark = tmp_path / "pwned"
    factory = FunctionTools(level="process", trusted=("own_tools",), wall_seconds=60.0)
    targets = ["own_tools:os.system", "own_tools:system", "own_tools:__loader__.get_data", "own_tools:Shop.open"]
    tools = [spec(f"f{number}", target=target, data=f"touch {mark}") for number, target in enumerate(targets)]
    async with factory.open(tools) as toolset:
        results = [await toolset.call(ToolCall(f"f{number}", {})) for number in range(len(targets))]
    await factory.close()
    assert [error_kind(result) for result in results] == ["source"] * 3 + [None]
    assert results[-1].content == "open"
    assert not mark.exists()


def test_of_rewright_itself_only_the_tools_of_its_worlds_are_trusted() -> None:
    factory = FunctionTools()
    assert factory.is_trusted(spec("a", target="rewright.tasks.worlds.town:look_up"))
    for target in (
        "rewright.core.storage:os.system",
        "rewright.core.storage:write_atomically",
        "rewright.tasks.worlds.town:json.loads",
    ):
        assert not factory.is_trusted(spec("a", target=target))
        with pytest.raises(InputError, match="is a function of Rewright"):
            factory.open([spec("a", target=target)])
    with pytest.raises(InputError, match="trusted names 'rewright': expected packages of your own"):
        FunctionTools(trusted=("rewright",))
    from rewright.tasks.worlds.town import generate

    tools = {tool.target for task in generate("train", 20, seed=0) for tool in task.tools}
    assert tools <= set(builtin_targets())


async def test_target_of_nobody_trusted_runs_in_the_sandbox() -> None:
    if not capabilities().strict:
        pytest.skip("level strict is not offered here")
    factory = FunctionTools(wall_seconds=60.0)
    async with factory.open(
        [spec("run", target="os:listdir", data="/"), spec("shell", target="os:system", data="id")]
    ) as tools:
        assert "root" not in (await tools.call(ToolCall("shell", {}))).content
        assert "proc" not in (await tools.call(ToolCall("run", {}))).content
    await factory.close()
