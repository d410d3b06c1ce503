"""Server objects in this process whose tools exit, block, or never return."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rewright.core.records import ToolCall, ToolResult
from rewright.sandbox import error_kind
from rewright.tools.mcp.given import ask_server
from rewright.tools.mcp.listing import list_tools, offered_tools
from rewright.tools.mcp.settings import MCPServerSettings
from rewright.tools.mcp.toolset import MCPTools, MCPToolset
from support import mcp_blocks
from support.in_process import rewright

MAX_SECONDS = 300.0
"""What a busy machine keeps; a run that hangs takes longer."""


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    """Let the tools that block return at the end of a test."""
    mcp_blocks.entered, mcp_blocks.release = threading.Event(), threading.Event()
    yield
    mcp_blocks.release.set()


class Shared:
    """One server object, and toolsets of trajectories that use it."""

    def __init__(self, given: bool = True, **changes: Any) -> None:
        if given:
            one = ask_server(mcp_blocks.make())
            name, settings, self.specs = one.name, one.settings, list(one.specs)
            objects = {name: one.server}
        else:
            name, settings, objects = "blocks", MCPServerSettings(server="support.mcp_blocks:make", **changes), {}
            self.specs = offered_tools({name: settings}, list_tools({name: settings}))
        self.tools = MCPTools({name: settings}, given=objects)

    def open(self) -> MCPToolset:
        return self.tools.open(self.specs)


async def called(toolset: MCPToolset, tool: str, seconds: float = MAX_SECONDS, **arguments: Any) -> ToolResult:
    call = toolset.call(ToolCall(name=tool, arguments=arguments), wall_seconds=seconds)
    return await asyncio.wait_for(call, MAX_SECONDS + 60)


async def entered() -> None:
    assert await asyncio.to_thread(mcp_blocks.entered.wait, MAX_SECONDS)


REASONS = {"parse": "SystemExit: 2", "leave": "SystemExit: 3", "interrupt": "KeyboardInterrupt"}


@pytest.mark.parametrize("tool", REASONS)
def test_a_tool_that_exits_is_a_crashed_call_and_ends_no_other_session(tool: str) -> None:
    async def visit(shared: Shared) -> tuple[list[str], ToolResult]:
        async with shared.open() as first, shared.open() as second:
            counts = [await called(first, "count"), await called(second, "count")]
            found = await called(first, tool)
            counts += [await called(first, "count"), await called(second, "count")]
        await shared.tools.close()
        return [one.content for one in counts], found

    counts, found = asyncio.run(visit(Shared()))
    assert counts == ["1", "2", "3", "4"]  # the object has its state still
    assert error_kind(found) == "crashed"
    assert f"({REASONS[tool]})" in found.content
    assert "its state is lost" not in found.content
    counts, found = asyncio.run(visit(Shared(given=False)))
    assert counts == ["1", "1", "1", "2"]  # each trajectory has an object of its own
    assert "its state is lost" in found.content


def test_a_tool_that_blocks_is_a_timeout_and_calls_of_other_trajectories_are_sent_again() -> None:
    async def visit(shared: Shared) -> list[ToolResult]:
        async with shared.open() as first, shared.open() as second, shared.open() as third:
            await called(third, "count")
            blocked = asyncio.create_task(called(first, "block", 0.2))
            await entered()
            found = [await called(second, "count"), await blocked, await called(third, "count")]
        await shared.tools.close()
        return found

    count, blocked, after = asyncio.run(visit(Shared()))
    assert (count.error, after.error) == (None, None)
    assert {count.content, after.content} == {"2", "3"}
    assert error_kind(blocked) == "timeout"
    assert "the tool blocked the MCP server, which was given up" in blocked.content


def test_a_tool_that_blocks_in_an_object_of_its_own_delays_nobody() -> None:
    async def visit(shared: Shared) -> list[ToolResult]:
        async with shared.open() as first, shared.open() as second:
            blocked = asyncio.create_task(called(first, "block"))
            await entered()
            found = [await called(second, "count")]
            mcp_blocks.release.set()
            found.append(await blocked)
        await shared.tools.close()
        return found

    assert [one.content for one in asyncio.run(visit(Shared(given=False)))] == ["1", "released"]


def test_a_blocked_call_whose_trajectory_is_cancelled_does_not_stop_the_others() -> None:
    async def visit(shared: Shared) -> ToolResult:
        async with shared.open() as first, shared.open() as second:
            blocked = asyncio.create_task(called(first, "block", 0.2))
            await entered()
            blocked.cancel()
            await asyncio.wait({blocked})
            found = await called(second, "count")
        await shared.tools.close()
        return found

    assert asyncio.run(visit(Shared())).content == "1"


def test_calls_that_wait_run_at_once() -> None:
    """Each of the two returns when the other one has begun."""

    async def visit(shared: Shared) -> list[ToolResult]:
        async with shared.open() as first, shared.open() as second:
            found = await asyncio.gather(called(first, "meet"), called(second, "meet"))
        await shared.tools.close()
        return list(found)

    assert [one.content for one in asyncio.run(visit(Shared()))] == ["met", "met"]


@pytest.mark.parametrize("tool", ["block", "hold", "thread"])
def test_a_tool_that_never_returns_does_not_keep_the_process(tool: str) -> None:
    program = f"""
import asyncio
from rewright.core.records import ToolCall
from rewright.tools.mcp.given import ask_server
from rewright.tools.mcp.toolset import MCPTools
from support.mcp_blocks import make

async def main():
    one = ask_server(make())
    tools = MCPTools({{one.name: one.settings}}, given={{one.name: one.server}})
    async with tools.open(one.specs) as toolset:
        print((await toolset.call(ToolCall(name={tool!r}, arguments={{}}), wall_seconds=0.2)).error)
    await tools.close()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=MAX_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("timeout: no result after 0.2 s")


def test_a_server_that_exits_while_it_is_made_is_refused(tmp_path: Path) -> None:
    recipe = {
        "model": "pico",
        "stages": ["synth", "judge"],
        "tasks": {"format": "town", "count": 1},
        "tools": {"mcp": {"gone": {"server": "support.mcp_blocks:exits"}}},
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    rewright(tmp_path, "run", "r.yaml", "--dry-run").refused(
        "tools.mcp.gone: support.mcp_blocks:exits: SystemExit: no licence: expected an MCP server that lists its tools"
    )
