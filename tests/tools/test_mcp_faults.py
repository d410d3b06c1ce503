"""MCP servers over stdio that answer with errors or what is no answer, and commands that need a task."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rewright.core.records import ToolCall, ToolResult
from rewright.sandbox import error_kind
from rewright.tools.mcp.listing import list_tools, offered_tools
from rewright.tools.mcp.settings import MCPServerSettings
from rewright.tools.mcp.toolset import MCPTools
from support.in_process import rewright
from support.served import served

SERVER = """
import json, os, sys

TOOLS = "pay", "number", "surrogate", "empty", "closed", "latin"

for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    answer = {"result": {}}
    if asked["method"] == "initialize":
        about = {"name": "raw", "version": "1"}
        version = asked["params"]["protocolVersion"]
        answer = {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}}
    elif asked["method"] == "tools/list":
        schema = {"type": "object", "properties": None, "required": None}
        answer = {"result": {"tools": [{"name": one, "inputSchema": schema} for one in TOOLS]}}
    elif asked["params"]["name"] == "pay":
        answer = {"error": {"code": -32600, "message": "Your shopping session has no basket"}}
    elif asked["params"]["name"] == "closed":
        answer = {"error": {"code": -32000, "message": "The database is closed"}}
    elif asked["params"]["name"] == "latin":
        text = {"content": [{"type": "text", "text": "caf#"}]}
        line = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": text}).encode()
        sys.stdout.buffer.write(line.replace(b"#", bytes([233])) + b"\\n")
        sys.stdout.buffer.flush()
        continue
    elif asked["params"]["name"] == "surrogate":
        answer = {"result": {"content": [{"type": "text", "text": "a" + chr(0xD800)}]}}
    elif asked["params"]["name"] == "empty":
        answer = {}
    else:
        print("{not an answer}", json.dumps({"jsonrpc": 5}), 7, "{}", sep="\\n", flush=True)
        answer = {"result": {"content": [{"type": "text", "text": str(os.getpid())}]}}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **answer}), flush=True)
"""

EMPTY = '{"type": "object", "properties": {}}'


@pytest.mark.parametrize("session", ["trajectory", "shared"])
def test_errors_and_answers_that_cannot_be_read_do_not_end_a_process(tmp_path: Path, session: Any) -> None:
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    command = (sys.executable, str(program))
    settings = MCPServerSettings(command=command, session=session, start_seconds=300.0, call_seconds=300.0)

    async def visit() -> list[ToolResult]:
        tools = MCPTools({"shop": settings})
        specs = offered_tools({"shop": settings}, list_tools({"shop": settings}))
        assert {json.dumps(spec.schema["function"]["parameters"]) for spec in specs} == {EMPTY}
        async with tools.open(specs) as toolset:
            names = ("number", "pay", "closed", "latin", "surrogate", "empty", "number")
            found = [await toolset.call(ToolCall(name=name, arguments={})) for name in names]
        await tools.close()
        return found

    before, paid, closed, latin, *unread, after = asyncio.run(visit())
    assert (error_kind(paid), paid.content) == ("exception", "Error: Your shopping session has no basket")
    assert (error_kind(closed), closed.content) == ("exception", "Error: The database is closed")
    assert (latin.error, latin.content) == (None, "caf\N{REPLACEMENT CHARACTER}")
    assert {(error_kind(one), one.content) for one in unread} == {
        ("exception", "Error: the server's answer is not valid JSON-RPC")
    }
    assert before.content == after.content  # the same process


STUBBORN = """
import os, sys, time
from pathlib import Path

(Path(sys.argv[1]) / str(os.getpid())).touch()
"""


def test_an_interrupted_run_leaves_no_process_that_does_not_heed_the_end_of_its_input(tmp_path: Path) -> None:
    """SIGTERM cancels all tasks of the run, and the loop of its rollouts cancels those once more."""
    started = tmp_path / "started"
    started.mkdir()
    program = tmp_path / "server.py"
    program.write_text(f"{STUBBORN}{SERVER}time.sleep(3600)\n")
    settings = MCPServerSettings(
        command=(sys.executable, str(program), str(started)), start_seconds=300.0, call_seconds=300.0
    )
    specs = offered_tools({"shop": settings}, list_tools({"shop": settings}))
    listing = {path.name for path in started.iterdir()}

    async def visit(tools: MCPTools, ready: asyncio.Event) -> None:
        async with tools.open(specs) as toolset:
            await toolset.call(ToolCall(name="number", arguments={}))
            ready.set()
            await asyncio.Event().wait()

    async def run() -> None:
        tools = MCPTools({"shop": settings})
        ready = [asyncio.Event() for _ in range(3)]
        visits = [asyncio.ensure_future(visit(tools, one)) for one in ready]
        for one in ready:
            await one.wait()
        for _ in range(2):
            for one_visit in visits:
                one_visit.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*visits, return_exceptions=True)
        await tools.close()

    asyncio.run(run())
    processes = {path.name for path in started.iterdir()} - listing
    assert len(processes) == 3
    assert not [one for one in processes if Path(f"/proc/{one}").exists()]


UNKNOWN = {
    "as servers of TypeScript and C#": (404, -32001, "Session not found"),
    "without a word of it": (404, -32001, "Unknown client"),
    "as their examples": (400, -32000, "Bad Request: No valid session ID provided"),
}


def forgetful_server(status: int, code: int, message: str) -> web.Application:
    """Forgets its sessions with every second call, as a server that is started again. `code`: as it then says so."""
    sessions: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked = await request.json() if request.method == "POST" else {}
        if asked.get("method") == "initialize":
            sessions.append(f"session{len(sessions)}")
            about = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}}}
            result = {**about, "serverInfo": {"name": "raw", "version": "1"}}
            headers = {"Mcp-Session-Id": sessions[-1]}
            return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": result}, headers=headers)
        if request.headers.get("Mcp-Session-Id") not in sessions:
            error = {"code": code, "message": message}
            return web.json_response({"jsonrpc": "2.0", "id": None, "error": error}, status=status)
        if "id" not in asked:
            return web.Response(status=202)
        if asked["method"] == "tools/list":
            return found(asked, {"tools": [{"name": "visit", "inputSchema": {"type": "object"}}]})
        if "forget" in asked["params"]["arguments"]:
            sessions[:] = ["forgotten"] * len(sessions)
        return found(asked, {"content": [{"type": "text", "text": request.headers["Mcp-Session-Id"]}]})

    def found(asked: dict[str, Any], result: dict[str, Any]) -> web.Response:
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": result})

    application = web.Application()
    application.router.add_route("*", "/mcp", answer)
    return application


@pytest.mark.parametrize("session", ["trajectory", "shared"])
@pytest.mark.parametrize(("status", "code", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_server_that_has_forgotten_a_session_is_connected_to_again(
    status: int, code: int, message: str, session: Any
) -> None:
    async def visit(url: str) -> list[ToolResult]:
        settings = MCPServerSettings(url=url, session=session, start_seconds=300.0, call_seconds=300.0)
        tools = MCPTools({"shop": settings})
        async with tools.open(offered_tools({"shop": settings}, list_tools({"shop": settings}))) as toolset:
            arguments: tuple[dict[str, Any], ...] = ({}, {"forget": True}, {}, {})
            results = [await toolset.call(ToolCall(name="visit", arguments=one)) for one in arguments]
        await tools.close()
        return results

    with served(lambda: forgetful_server(status, code, message)) as url:
        first, second, lost, again = asyncio.run(visit(f"{url}/mcp"))
    assert [error_kind(one) for one in (first, second, lost, again)] == [None, None, "crashed", None]
    assert first.content == second.content != again.content


def busy_server(status: int) -> web.Application:
    """Refuses every other request with `status`, and counts those that it answers."""
    count = {"asked": 0, "answered": 0}

    async def answer(request: web.Request) -> web.Response:
        count["asked"] += 1
        if count["asked"] % 2:
            return web.Response(status=status, headers={"Retry-After": "0"}, text="too many requests")
        asked = await request.json() if request.method == "POST" else {}
        if "id" not in asked:
            return web.Response(status=202)
        result: dict[str, Any] = {"content": [{"type": "text", "text": str(count["answered"])}]}
        if asked["method"] == "initialize":
            about = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}}}
            result = {**about, "serverInfo": {"name": "raw", "version": "1"}}
        elif asked["method"] == "tools/list":
            result = {"tools": [{"name": "count", "inputSchema": {"type": "object"}}]}
        else:
            count["answered"] += 1
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": result})

    application = web.Application()
    application.router.add_route("*", "/mcp", answer)
    return application


@pytest.mark.parametrize("status", [429, 503])
def test_requests_that_a_busy_server_refuses_are_sent_again(status: int) -> None:
    async def counted(url: str) -> list[ToolResult]:
        settings = MCPServerSettings(url=url, start_seconds=300.0, call_seconds=300.0)
        tools = MCPTools({"shop": settings})
        async with tools.open(offered_tools({"shop": settings}, list_tools({"shop": settings}))) as toolset:
            results = [await toolset.call(ToolCall(name="count", arguments={})) for _ in range(3)]
        await tools.close()
        return results

    with served(lambda: busy_server(status)) as url:
        results = asyncio.run(counted(f"{url}/mcp"))
    assert [(one.error, one.content) for one in results] == [(None, "0"), (None, "1"), (None, "2")]


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("./server-{task}.sh", "./server-{task}.sh"),
        ("{task}", "{task}"),
        ("{python} server-{task}.py", "server-{task}.py"),
        ("{python} -u server-{task}.py --port 1", "server-{task}.py"),
        ("{python} -m servers.{task}", "servers.{task}"),
    ],
)
def test_a_command_that_lists_no_tools_without_a_task_is_refused(tmp_path: Path, command: str, word: str) -> None:
    recipe = {
        "model": "pico",
        "stages": ["synth", "judge"],
        "tasks": {"format": "town", "count": 1},
        "tools": {"mcp": {"shop": {"command": command.replace("{python}", sys.executable)}}},
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    rewright(tmp_path, "run", "r.yaml", "--dry-run").refused(
        f"tools.mcp.shop: command needs the word '{word}' to list the server's tools, and words with {{task}} are left "
        "out there: expected {task} in an option, such as --task={task}"
    )


@pytest.mark.parametrize("command", ["shop --task={task}", "python server.py {task}", "python -m shop --id {task}"])
def test_a_command_with_the_task_in_later_words_is_kept(command: str) -> None:
    listed = MCPServerSettings(command=command).for_task("")
    assert listed.shown == command[: command.index(" {task}") if " {task}" in command else command.index(" --task")]
