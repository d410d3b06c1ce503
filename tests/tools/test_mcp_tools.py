"""Tools of MCP servers: real servers over stdio and HTTP, each a process of its own, and in this process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rewright.core.errors import InputError, ServerError, ToolError
from rewright.core.records import Task, ToolCall, ToolResult, ToolSpec, Trajectory
from rewright.dialects import get_dialect
from rewright.rollout.loop import Plan, Rollout
from rewright.sandbox import error_kind
from rewright.tools.mcp.listing import list_tools, offered_tools
from rewright.tools.mcp.results import as_result
from rewright.tools.mcp.settings import MCPServerSettings
from rewright.tools.mcp.toolset import MCPTools, MCPToolset
from support.in_process import rewright
from support.mcp_shop import TOOLS
from support.scripted_engine import ScriptedEngine
from support.shop_server import SHOP, http_server

SLOW = {"start_seconds": 300.0, "call_seconds": 300.0}
"""Limits that a busy machine keeps."""
ORDER = {"item": "desk", "count": 1}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with http_server() as (url, _):
        yield url


def stdio(**changes: Any) -> MCPServerSettings:
    values = {"command": (sys.executable, str(SHOP), "stdio"), "env": ("SHOP_FAULTS",), **SLOW, **changes}
    return MCPServerSettings(**values)


def own(**changes: Any) -> MCPServerSettings:
    return MCPServerSettings(**{"server": "support.mcp_shop:make", **SLOW, **changes})


@pytest.fixture(autouse=True)
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_FAULTS", "1")


@pytest.fixture(scope="module")
def specs() -> list[ToolSpec]:
    """The tools of every shop, listed in this process, which starts none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_FAULTS", "1")
        return tools_of(own())


def tools_of(settings: MCPServerSettings) -> list[ToolSpec]:
    return offered_tools({"shop": settings}, list_tools({"shop": settings}))


Call = Callable[..., Any]


def caller(toolset: MCPToolset) -> Call:
    async def call(tool: str, /, **arguments: Any) -> ToolResult:
        return await toolset.call(ToolCall(name=tool, arguments=arguments))

    return call


def test_servers_are_listed_and_called_with_a_state_for_each_trajectory(address: str) -> None:
    async def shop(settings: MCPServerSettings, specs: list[ToolSpec]) -> None:
        tools = MCPTools({"shop": settings})
        async with tools.open(specs) as first, tools.open(specs) as second:
            a, b = caller(first), caller(second)
            assert (await a("search_items", text="a")).content == "lamp\nchair"
            assert (await a("place_order", **ORDER)).content == "o1"
            assert json.loads((await a("get_stock", item="desk")).content) == {"item": "desk", "stock": 0, "price": 120}
            refused = await a("place_order", **ORDER)
            assert error_kind(refused) == "exception"
            assert "only 0 of desk left" in refused.content
            assert (await b("place_order", **ORDER)).content == "o1"  # an order of the other trajectory is not seen
            assert error_kind(await a("place_order", item="desk")) == "exception"  # the server's words on arguments
            assert error_kind(await a("sell")) == "unknown_tool"
            assert json.loads((await a("get_stock", item="\ud800")).content)["stock"] == 0
            assert error_kind(await a("get_stock", item=float("nan"))) == "arguments"
        await tools.close()

    for settings in (stdio(), own(), MCPServerSettings(url=address, **SLOW)):
        specs = tools_of(settings)
        assert [spec.name for spec in specs][:5] == TOOLS
        order = specs[2]
        assert order.kind == "mcp"
        assert order.schema["function"]["description"] == "Order an item, and return the number of the order."
        assert order.schema["function"]["parameters"]["required"] == ["item", "count"]
        asyncio.run(shop(settings, specs))


def test_a_shared_server_has_one_state(address: str, specs: list[ToolSpec]) -> None:
    async def shop(settings: MCPServerSettings) -> str:
        tools = MCPTools({"shop": settings})
        async with tools.open(specs) as first:
            await caller(first)("place_order", item="lamp", count=1)
        async with tools.open(specs) as second:
            orders = await caller(second)("list_orders")
        await tools.close()
        return str(orders.content)

    for settings in (own(session="shared"), MCPServerSettings(url=address, session="shared", **SLOW)):
        assert json.loads(asyncio.run(shop(settings)))["o1"]["item"] == "lamp"


def test_a_process_that_ends_is_started_again(capfd: pytest.CaptureFixture[str], specs: list[ToolSpec]) -> None:
    async def shop(session: Any) -> list[ToolResult]:
        tools = MCPTools({"shop": stdio(session=session)})
        async with tools.open(specs) as toolset:
            call = caller(toolset)
            found = [await call("place_order", **ORDER), await call("die"), await call("list_orders")]
        await tools.close()
        return found

    for session in ("trajectory", "shared"):
        placed, died, orders = asyncio.run(shop(session))
        assert placed.content == "o1"
        assert error_kind(died) == "crashed"
        assert orders.content == "{}"  # a new server, with a new state
        said = [line for line in capfd.readouterr().err.splitlines() if "ended" in line]
        assert len(said) == 1
        assert said[0].startswith("tools.mcp.shop: ")


def test_a_call_has_a_deadline_and_a_process_that_hangs_is_ended(specs: list[ToolSpec]) -> None:
    async def shop() -> tuple[ToolResult, ToolResult]:
        tools = MCPTools({"shop": stdio(call_seconds=None)})
        async with tools.open(specs) as toolset:
            late = await toolset.call(ToolCall(name="hang", arguments={}), wall_seconds=0.2)
            after = await toolset.call(ToolCall(name="list_orders", arguments={}), wall_seconds=300)
        await tools.close()
        return late, after

    late, after = asyncio.run(shop())
    assert error_kind(late) == "timeout"
    assert "its state is lost" in late.content
    assert after.content == "{}"


def test_a_server_at_an_address_that_comes_back_is_connected_to_again(specs: list[ToolSpec]) -> None:
    with http_server() as (url, process):
        port = int(url.split(":")[2].split("/")[0])

        async def shop() -> None:
            tools = MCPTools({"shop": MCPServerSettings(url=url, **SLOW)})
            async with tools.open(specs) as toolset:
                call = caller(toolset)
                assert (await call("place_order", **ORDER)).error is None
                os.kill(process, signal.SIGKILL)
                assert error_kind(await call("list_orders")) == "crashed"
                with http_server(port):
                    assert (await call("list_orders")).content == "{}"
                assert error_kind(await call("list_orders")) == "crashed"
                with pytest.raises(ServerError, match=r"tools\.mcp\.shop: http.*after 4 attempts"):
                    await call("list_orders")
            await tools.close()

        asyncio.run(shop())


def test_a_process_that_cannot_be_started_ends_its_trajectory_alone(tmp_path: Path, specs: list[ToolSpec]) -> None:
    program = tmp_path / "once.py"
    program.write_text("raise SystemExit('no licence')")

    async def shop() -> None:
        tools = MCPTools({"shop": stdio(command=(sys.executable, str(program)))})
        async with tools.open(specs) as toolset:
            await caller(toolset)("list_orders")

    with pytest.raises(ToolError, match="its standard error: no licence"):
        asyncio.run(shop())


def rollouts(specs: list[ToolSpec], settings: MCPServerSettings, count: int, script: list[str]) -> list[Trajectory]:
    """Run `count` rollouts at once."""
    tools = MCPTools({"shop": settings})
    question = {"role": "user", "content": "Order a lamp."}
    task = Task(id="t", messages=(question,), tools=tuple(specs))

    async def run() -> list[Trajectory]:
        rollout = Rollout(ScriptedEngine(script), get_dialect("hermes"), tools)
        plans = [Plan(str(index), task, "synth", index, index) for index in range(count)]
        found = [one async for one in rollout.run_many(plans, concurrency=count)]
        await tools.close()
        return found

    return asyncio.run(run())


def written(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


ANSWER = "<answer>done</answer>"
VISIT = [written("place_order", item="desk", count=1), written("list_orders"), ANSWER]
ORDERS = {"o1": {"item": "desk", "count": 1}}


def all_ordered(trajectories: list[Trajectory]) -> bool:
    results = [[result for turn in one.turns for result in turn.results] for one in trajectories]
    return all(
        one.failure is None and placed.content == "o1" and json.loads(orders.content) == ORDERS
        for one, (placed, orders) in zip(trajectories, results, strict=True)
    )


def test_512_rollouts_at_once_share_a_server_and_lose_nothing(address: str, specs: list[ToolSpec]) -> None:
    shared = MCPServerSettings(url=address, session="shared", **SLOW)
    found = rollouts(specs, shared, 512, [written("search_items", text="amp"), ANSWER])
    assert len(found) == 512
    assert {one.turns[0].results[0].content for one in found} == {"lamp"}
    assert {(one.failure, one.answer) for one in found} == {(None, "done")}


def test_many_sessions_at_once_keep_their_states_apart(address: str, specs: list[ToolSpec]) -> None:
    assert all_ordered(rollouts(specs, MCPServerSettings(url=address, sessions=32, **SLOW), 48, VISIT))


@pytest.mark.slow
def test_512_sessions_at_once_keep_their_states_apart(address: str, specs: list[ToolSpec]) -> None:
    assert all_ordered(rollouts(specs, MCPServerSettings(url=address, **SLOW), 512, VISIT))


def test_processes_are_no_more_than_sessions_and_each_has_its_state(specs: list[ToolSpec]) -> None:
    assert all_ordered(rollouts(specs, stdio(sessions=2, env=()), 4, VISIT))


def test_a_command_gets_only_the_variables_that_are_named(
    monkeypatch: pytest.MonkeyPatch, specs: list[ToolSpec]
) -> None:
    monkeypatch.setenv("SECRET", "s3cret")

    async def read(settings: MCPServerSettings) -> str:
        tools = MCPTools({"shop": settings})
        async with tools.open(specs) as toolset:
            found = await caller(toolset)("read_variable", name="SECRET")
        await tools.close()
        return str(found.content)

    assert asyncio.run(read(stdio())) == "not set"
    assert asyncio.run(read(stdio(env=("SHOP_FAULTS", "SECRET")))) == "s3cret"


def test_results_that_are_no_text_and_long_ones_are_errors_of_data(specs: list[ToolSpec]) -> None:
    async def shop() -> tuple[ToolResult, ToolResult]:
        tools = MCPTools({"shop": own()})
        async with tools.open(specs) as toolset:
            call = caller(toolset)
            found = await call("picture"), await call("repeat", text="ab", count=100_000)
        await tools.close()
        return found

    picture, long = asyncio.run(shop())
    assert error_kind(picture) == error_kind(long) == "output"
    assert picture.content == "a lamp\n[content of type image (image/png), not shown]"
    assert len(long.content) < 100_100


CONTENTS: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "texts": ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\nb", None),
    "structured": ({"content": [], "structuredContent": {"x": "ü"}}, '{"x": "ü"}', None),
    "both": ({"content": [{"type": "text", "text": "t"}], "structuredContent": {"x": 1}}, "t", None),
    "nothing": ({"content": []}, "", None),
    "an error": ({"content": [{"type": "text", "text": "no"}], "isError": True}, "no", "exception"),
    "an error without text": (
        {"content": [], "isError": True}, "Error: the tool reports an error without a text", "exception",
    ),
    "a text file": ({"content": [{"type": "resource", "resource": {"uri": "f", "text": "t"}}]}, "t", None),
    "a file": (
        {"content": [{"type": "resource", "resource": {"uri": "f", "blob": "eA==", "mimeType": "x/y"}}]},
        "[a resource (x/y), not shown]", "output",
    ),
    "a link": ({"content": [{"type": "resource_link", "name": "n", "uri": "u"}]}, "[resource n at u]", None),
    "sound": (
        {"content": [{"type": "audio", "data": ""}]}, "[content of type audio (of unknown type), not shown]", "output",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("result", "shown", "kind"), CONTENTS.values(), ids=CONTENTS)
def test_what_a_model_is_shown(result: dict[str, Any], shown: str, kind: str | None) -> None:
    found = as_result(result)
    assert (found.content, error_kind(found)) == (shown, kind)


def test_names_of_two_servers_that_clash_are_refused_unless_one_has_a_prefix() -> None:
    with pytest.raises(InputError, match="the servers a and b both have a tool 'search_items': expected a prefix"):
        list_tools({"a": own(), "b": own()})
    servers = {"a": own(tools=("get_stock",)), "b": own(prefix="b_", tools=())}
    assert [tool.name for tool in offered_tools(servers, list_tools(servers))] == ["get_stock"]
    with pytest.raises(
        InputError, match=r"tools\.mcp\.a\.tools: the server has no tool 'sell': expected one of search"
    ):
        list_tools({"a": own(tools=("sell",))})


def named(server: str, **changes: Any) -> MCPServerSettings:
    return MCPServerSettings(**{"server": f"support.mcp_names:{server}", **SLOW, **changes})


def offered(servers: dict[str, MCPServerSettings]) -> dict[str, ToolSpec]:
    return {tool.name: tool for tool in offered_tools(servers, list_tools(servers))}


def test_names_of_one_server_that_become_equal_or_are_too_long_are_made_unique() -> None:
    servers = {"files": named("files")}
    specs = offered(servers)
    long = "find_" + "x" * 59
    assert {name: spec.data["tool"] for name, spec in specs.items()} == {
        "files_read_2": "files.read",
        "files_read": "files_read",
        "read": "read",
        "_stat": "_stat",
        long: "find_" + "x" * 120,
        f"{long[:60]}_2": "find_" + "x" * 119 + "y",
    }

    async def called() -> list[str]:
        tools = MCPTools(servers)
        async with tools.open(list(specs.values())) as toolset:
            found = [(await caller(toolset)(name)).content for name in specs]
        await tools.close()
        return found

    assert asyncio.run(called()) == [spec.data["tool"] for spec in specs.values()]
    prefixed = offered({"files": named("files", prefix="server_of_files_")})
    assert max(map(len, prefixed)) == 64
    assert len(prefixed) == 6
    alone = offered({"files": named("files", tools=("files.read",))})
    assert {name: spec.data["tool"] for name, spec in alone.items()} == {"files_read": "files.read"}


def test_two_servers_clash_only_with_tools_that_are_added_to_tasks(tmp_path: Path) -> None:
    recipe = "model: pico\nstages: [synth, judge]\ntasks: {format: town, count: 1}\ntools: {mcp: {a: {server: "
    recipe += "'support.mcp_names:files', tools: [read]}, b: {server: 'support.mcp_names:notes', tools: [write]}}}\n"
    (tmp_path / "r.yaml").write_text(recipe)
    shown = rewright(tmp_path, "run", "r.yaml", "--dry-run")
    assert shown.code == 0, shown.errors
    assert "tools.mcp.b: read, write" in shown.output
    rewright(tmp_path, "run", "r.yaml", "--dry-run", "tools.mcp.b.tools=null").refused(
        "tools.mcp: the servers a and b both have a tool 'read': expected a prefix, such as tools.mcp.b.prefix=b_"
    )
