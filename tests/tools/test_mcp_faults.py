"""MCP servers over stdio that answer with errors or what is no answer, and commands that need a task."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rewright.core.records import ToolCall, ToolResult
from rewright.sandbox import error_kind
from rewright.tools.mcp.listing import list_tools, offered_tools
from rewright.tools.mcp.settings import MCPServerSettings
from rewright.tools.mcp.toolset import MCPTools
from support.in_process import rewright

SERVER = """
import json, os, sys

TOOLS = "pay", "number", "surrogate", "empty"

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
        answer = {"result": {"tools": [{"name": one, "inputSchema": {"type": "object"}} for one in TOOLS]}}
    elif asked["params"]["name"] == "pay":
        answer = {"error": {"code": -32600, "message": "Your shopping session has no basket"}}
    elif asked["params"]["name"] == "surrogate":
        answer = {"result": {"content": [{"type": "text", "text": "a" + chr(0xD800)}]}}
    elif asked["params"]["name"] == "empty":
        answer = {}
    else:
        print("{not an answer}", json.dumps({"jsonrpc": 5}), 7, "{}", sep="\\n", flush=True)
        answer = {"result": {"content": [{"type": "text", "text": str(os.getpid())}]}}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **answer}), flush=True)
"""


@pytest.mark.parametrize("session", ["trajectory", "shared"])
def test_errors_and_answers_that_cannot_be_read_do_not_end_a_process(tmp_path: Path, session: Any) -> None:
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    command = (sys.executable, str(program))
    settings = MCPServerSettings(command=command, session=session, start_seconds=300.0, call_seconds=300.0)

    async def visit() -> list[ToolResult]:
        tools = MCPTools({"shop": settings})
        async with tools.open(offered_tools({"shop": settings}, list_tools({"shop": settings}))) as toolset:
            names = ("number", "pay", "surrogate", "empty", "number")
            found = [await toolset.call(ToolCall(name=name, arguments={})) for name in names]
        await tools.close()
        return found

    before, paid, *unread, after = asyncio.run(visit())
    assert (error_kind(paid), paid.content) == ("exception", "Error: Your shopping session has no basket")
    assert {(error_kind(one), one.content) for one in unread} == {
        ("exception", "Error: the server's answer is not valid JSON-RPC")
    }
    assert before.content == after.content  # the same process


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
