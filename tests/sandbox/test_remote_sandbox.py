"""The remote sandbox against a real HTTP server that executes real programs, in SandboxFusion's protocol."""

from __future__ import annotations

from typing import Any

import pytest

from rewright.core.errors import InputError, SandboxError
from rewright.core.records import ToolCall, ToolSpec
from rewright.sandbox import RemoteSandbox, error_kind
from rewright.tools import FunctionTools, PythonTool
from support.run_code_server import RunCodeServer, run_code_server

server = pytest.fixture(run_code_server)


def remote(url: str, **settings: Any) -> RemoteSandbox:
    return RemoteSandbox(url, wall_seconds=60.0, first_wait_seconds=0.001, **settings)


async def test_programs_and_calls(server: tuple[RunCodeServer, str]) -> None:
    async with remote(server[1]) as box:
        assert (await box.run("x = 6\nprint('a')\nx * math.floor(7.5)")).content == "a\n42"
        failed = await box.run("print('a')\n1 / 0")
        assert failed.content == "a\nZeroDivisionError: division by zero"
        assert error_kind(failed) == "exception"
        source = "def f(x, y=None):\n    print('noise')\n    return {'ö': x, 'y': y}"
        assert (await box.call(source, "f", {"x": "'\"\\n{}"})).content == '{"ö": "\'\\"\\\\n{}", "y": null}'
        wrong = await box.call(source, "f", {"z": 1})
        assert wrong.content.startswith("Error: TypeError: f() got an unexpected keyword argument 'z'")
        assert error_kind(await box.call("import os\ndef f(): os._exit(0)", "f", {})) == "exited"
    assert server[0].requests[0]["language"] == "python"
    assert server[0].requests[0]["run_timeout"] == 60.0


async def test_time_limit_is_typed(server: tuple[RunCodeServer, str]) -> None:
    async with remote(server[1]) as box:
        late = await box.run("while True: pass", wall_seconds=0.2)
        assert (error_kind(late), late.content) == ("timeout", "Error: no result after 0.2 s")


async def test_faults_of_the_server_are_tried_again(server: tuple[RunCodeServer, str]) -> None:
    handler, url = server
    handler.faults = [503, {"status": "SandboxError", "message": "no pod", "run_result": None}, 429]
    async with remote(url) as box:
        assert (await box.run("1 + 1")).content == "2"
        handler.faults = [500] * 10
        lost = await box.run("1 + 1")
        assert error_kind(lost) == "sandbox"
        assert "HTTP 500" in lost.content
        assert "(5 attempts" in lost.content


@pytest.mark.parametrize(
    "strange",
    [
        {"execution_time": "soon", "return_code": 0, "stdout": "2", "status": "Finished"},
        {"execution_time": float("nan"), "return_code": 0, "stdout": "2", "status": "Finished"},
        {"execution_time": [1], "return_code": "1", "stdout": "2", "stderr": 7, "status": "Finished"},
        {"execution_time": -1, "stdout": ["2"], "status": "Error"},
        {},
    ],
)
async def test_whatever_the_server_says_is_a_result_with_a_time(
    server: tuple[RunCodeServer, str], strange: dict[str, Any]
) -> None:
    handler, url = server
    async with remote(url, attempts=2) as box:
        for call in (box.run("1 + 1"), box.call("def f(): return 2", "f", {})):
            handler.faults = [{"status": "Success", "run_result": strange}] * 2
            result = await call
            assert 0 <= result.seconds < 1000
            assert result.error is None or error_kind(result) in ("exception", "exited", "sandbox")
    assert strange.get("status") != "Error" or result.error is not None


async def test_unreachable_server_is_an_error_at_the_start() -> None:
    with pytest.raises(InputError, match="expected an address such as"):
        remote("localhost:8080")
    tool = PythonTool(sandbox=remote("http://127.0.0.1:1/run_code", attempts=2))
    with pytest.raises(SandboxError, match="the remote sandbox does not answer: POST http://127"):
        async with tool.open([PythonTool.spec()]):
            pass


async def test_tools_on_a_remote_sandbox(server: tuple[RunCodeServer, str]) -> None:
    box = remote(server[1])
    python, functions = PythonTool(sandbox=box), FunctionTools(sandbox=box)
    async with python.open([PythonTool.spec()]) as tools:
        assert (
            await tools.call(ToolCall("python", {"code": "print('x' * 500)"}))
        ).content == "x" * 200 + "..." + "x" * 200
    add = ToolSpec(schema={"function": {"name": "add"}}, source="def add(a, b): return a + b")
    async with functions.open([add]) as tools:
        assert (await tools.call(ToolCall("add", {"a": 1, "b": 2}))).content == "3"
    target = ToolSpec(schema={"function": {"name": "f"}}, target="somewhere:f")
    with pytest.raises(InputError, match="cannot import the target of a tool"):
        async with functions.open([target]):
            pass
    await python.close()
    await functions.close()
