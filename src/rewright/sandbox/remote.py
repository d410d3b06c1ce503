"""Remote sandbox: any server with SandboxFusion's protocol (`POST /run_code`).

Request: {"code", "language": "python", "run_timeout", "memory_limit_MB"}. Reply: {"status": "Success" | "Failed" |
"SandboxError", "message", "run_result": {"status": "Finished" | "Error" | "TimeLimitExceeded", "return_code", "stdout",
"stderr", "execution_time"}}. Every call runs as a separate program: no state is kept between calls.

Isolation is provided by the server. Replies are parsed as data; the executed code controls the printed output.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from rewright.core.errors import InputError, SandboxError
from rewright.core.records import ToolResult
from rewright.net.endpoint import Endpoint, EndpointError, Fault
from rewright.net.urls import server_address
from rewright.sandbox.errors import error_result
from rewright.sandbox.executor import Executor, ExecutorSession, SessionSetup
from rewright.sandbox.session import clean, truncate_middle
from rewright.sandbox.worker import harness

__all__ = ["RemoteSandbox"]

PROGRAM = """import ast
{imports}
{run_program}
_scope = {{"__name__": "__main__", **{{name: globals()[name] for name in {names!r}}}}}
_value = run_program({source!r}, _scope)
if _value is not None:
    print(_value)
"""

CALL = """import json
{as_text}
_module = {{"__name__": "tool"}}
exec(compile({source!r}, "<tool>", "exec"), _module)
_value = as_text(_module[{name!r}](**json.loads({arguments!r})))
print("\\n{mark}" + json.dumps(_value))
"""


class RemoteSandbox(Executor):
    """An executor on another machine.

    Args:
        url: address of the server.
        wall_seconds, memory_mb: limits of one call, enforced by the server.
        output_chars: maximum length of a result; longer output is truncated.
        concurrency, attempts, first_wait_seconds: concurrent requests, attempts per request, first retry wait.
        preload: modules that a program finds imported, as for `Sandbox`.
        headers: added to every request.

    Raises InputError for an invalid address.
    """

    def __init__(
        self,
        url: str,
        *,
        wall_seconds: float = 5.0,
        memory_mb: int = 512,
        output_chars: int = 100_000,
        concurrency: int = 64,
        attempts: int = 5,
        preload: Sequence[str] = ("math",),
        headers: Mapping[str, str] | None = None,
        first_wait_seconds: float = 0.5,
    ) -> None:
        self.url = server_address(url, "remote sandbox", "/run_code")
        self.wall_seconds = wall_seconds
        self.output_chars = output_chars
        self.preload = list(preload)
        self._memory_mb = memory_mb
        self._settings: dict[str, Any] = {
            "headers": headers,
            "concurrency": concurrency,
            "timeout_seconds": wall_seconds + 30.0,  # allows for queueing; the server enforces the limit of the code
            "attempts": attempts,
            "first_wait_seconds": first_wait_seconds,
            "max_wait_seconds": 20.0,
        }
        self._endpoint: Endpoint | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._answered = False

    async def start(self) -> None:
        """Execute a test program. Raises `SandboxError` if the server does not run it, after the retries."""
        if not self._answered:
            try:
                reply = await self._post("print(6 * 7)", self.wall_seconds)
            except EndpointError as error:
                raise SandboxError(f"the remote sandbox does not answer: {error}") from error
            if reply["stdout"].strip() != "42":
                raise SandboxError(f"the remote sandbox at {self.url} does not run Python: {reply['stderr'][-300:]}")
            self._answered = True

    async def close(self) -> None:
        """Close the connections."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()

    def open(self, setup: SessionSetup) -> RemoteSession:
        """Create a stateless session: each call and each program starts fresh. Raises InputError for `targets`."""
        if setup.targets:
            raise InputError("a remote sandbox cannot import the target of a tool: give its source")
        return RemoteSession(self, setup.sources)

    async def execute(self, program: str, wall_seconds: float | None) -> tuple[dict[str, Any], ToolResult | None]:
        """Run a program. Returns the server's run result, and an error result if the run failed (else None)."""
        limit = self.wall_seconds if wall_seconds is None else min(wall_seconds, self.wall_seconds)
        try:
            reply = await self._post(program, limit)
        except EndpointError as error:
            return {}, error_result("sandbox", str(error))
        seconds, printed = reply["execution_time"], reply["stdout"]
        if reply["status"] == "TimeLimitExceeded":
            message = f"no result after {limit:g} s"
            content = truncate_middle(f"{printed}Error: {message}", self.output_chars)
            return reply, error_result("timeout", message, content=content, seconds=seconds)
        if reply["return_code"] != 0 or reply["status"] == "Error":
            last = reply["stderr"].strip().rpartition("\n")[2] or f"the code ended with status {reply['return_code']}"
            content = truncate_middle(printed + last, self.output_chars)
            return reply, error_result("exception", last, content=content, seconds=seconds)
        return reply, None

    async def _post(self, program: str, limit: float) -> dict[str, Any]:
        body = {
            "code": program,
            "language": "python",
            "run_timeout": limit,
            "memory_limit_MB": self._memory_mb,
        }
        return await self._connected().post("/run_code", body, read_reply)

    def _connected(self) -> Endpoint:
        """Return the endpoint of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._endpoint is None or self._loop is not loop:
            self._loop = loop
            self._endpoint = Endpoint(self.url, **self._settings)
        return self._endpoint


class RemoteSession(ExecutorSession):
    """Calls of one trajectory in a remote sandbox; each is independent."""

    def __init__(self, sandbox: RemoteSandbox, sources: Mapping[str, str]) -> None:
        self._sandbox = sandbox
        self._sources = sources

    async def call(self, name: str, arguments: Mapping[str, Any], *, wall_seconds: float | None = None) -> ToolResult:
        """Call the function `name` with keyword arguments. The content is its return value as text."""
        source = self._sources.get(name)
        if source is None:
            return error_result("unknown_tool", f"unknown tool '{name}'; available: {', '.join(self._sources)}")
        try:
            encoded = json.dumps(dict(arguments))
        except (TypeError, ValueError, RecursionError) as error:
            return error_result("arguments", f"the arguments are not JSON: {error}")
        mark = secrets.token_hex(8)  # separates the value from the output of the code
        as_text = inspect.getsource(harness.as_text).replace("value: Any", "value")
        program = CALL.format(as_text=as_text, source=source, name=name, arguments=encoded, mark=mark)
        reply, problem = await self._sandbox.execute(program, wall_seconds)
        if problem is not None:
            message = (problem.error or "").partition(": ")[2]
            return ToolResult(f"Error: {message}", problem.error, problem.seconds)
        try:
            value = clean(json.loads(reply["stdout"].rpartition(mark)[2]))
        except (ValueError, RecursionError):
            return error_result("exited", "the code ended before the function returned")
        seconds, limit = reply["execution_time"], self._sandbox.output_chars
        if len(value) > limit:
            message = f"the result has {len(value)} characters; the limit is {limit}"
            return error_result("output", message, content=truncate_middle(value, limit), seconds=seconds)
        return ToolResult(value, seconds=seconds)

    async def run(self, source: str, *, keep: bool = False, wall_seconds: float | None = None) -> ToolResult:
        """Run a program. The content is its output, then the value of its last expression. `keep` is ignored."""
        imports = "\n".join(f"import {module}" for module in self._sandbox.preload)
        names = [text.rpartition(" as ")[2].partition(".")[0].strip() for text in self._sandbox.preload]
        run_program = inspect.getsource(harness.run_program).replace("dict[str, Any]", "dict")
        program = PROGRAM.format(imports=imports, run_program=run_program, names=names, source=source)
        reply, problem = await self._sandbox.execute(program, wall_seconds)
        if problem is not None:
            return problem
        text = clean(reply["stdout"]).removesuffix("\n")
        return ToolResult(truncate_middle(text, self._sandbox.output_chars), seconds=reply["execution_time"])

    async def close(self) -> None:
        """Does nothing: the session holds no resources."""


def read_reply(reply: Any) -> dict[str, Any]:
    """Parse the run result of a reply. Raises `Fault`, retryable if the server reports an internal error."""
    if not isinstance(reply, dict):
        raise Fault("reply", "the reply is not a JSON object", retry=False)
    result = reply.get("run_result")
    if reply.get("status") == "SandboxError" or not isinstance(result, dict):
        raise Fault("reply", f"the sandbox reports an internal error: {str(reply.get('message'))[:200]}", retry=True)
    seconds = result.get("execution_time")
    return {
        "status": str(result.get("status")),
        "return_code": result.get("return_code") or 0,
        "stdout": clean(result.get("stdout")),
        "stderr": clean(result.get("stderr")),
        "execution_time": float(seconds) if isinstance(seconds, int | float) and 0 <= seconds <= 1e9 else 0.0,
    }
