"""A real HTTP server that executes real programs, in SandboxFusion's protocol."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

__all__ = ["RunCodeServer", "run_code_server"]


class RunCodeServer:
    """Executes each program with a fresh interpreter. `faults` are answered first: a status code, or a reply."""

    def __init__(self) -> None:
        self.faults: list[int | dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []

    async def run_code(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        if self.faults:
            fault = self.faults.pop(0)
            return web.Response(status=fault) if isinstance(fault, int) else web.json_response(fault)
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", body["code"], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        status = "Finished"
        try:
            stdout, stderr = await asyncio.wait_for(process.communicate(), body["run_timeout"])
        except TimeoutError:
            process.kill()
            await process.communicate()
            stdout, stderr, status = b"", b"", "TimeLimitExceeded"
        result = {
            "status": status,
            "execution_time": time.perf_counter() - started,
            "return_code": await process.wait() if status == "Finished" else None,
            "stdout": stdout.decode(),
            "stderr": stderr.decode(),
        }
        good = status == "Finished" and result["return_code"] == 0
        return web.json_response({"status": "Success" if good else "Failed", "message": "", "run_result": result})


async def run_code_server() -> AsyncIterator[tuple[RunCodeServer, str]]:
    """A fixture: the server, and its address."""
    handler = RunCodeServer()
    application = web.Application()
    application.router.add_post("/run_code", handler.run_code)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield handler, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()
