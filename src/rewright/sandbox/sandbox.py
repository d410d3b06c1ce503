"""Execute untrusted Python code outside the trainer process, with limits.

Levels: `strict` uses kernel isolation (namespaces, seccomp), `process` is a separate process with resource limits, and
`unsafe` is a separate process with a time limit only. docs/security.md describes what each level protects from.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, get_args

from rewright.core.errors import InputError, SandboxError
from rewright.sandbox.connection import Connection
from rewright.sandbox.executor import Executor, SessionSetup
from rewright.sandbox.forkserver import ForkServer
from rewright.sandbox.session import Session, SessionLimits

__all__ = ["Level", "Sandbox"]

Level = Literal["strict", "process", "unsafe"]

MEGABYTE = 1024 * 1024
MAX_LIMIT = 1e9  # above any machine's resources, within the range of the kernel's integers


class Sandbox(Executor):
    """A fork server with preloaded imports, and the sessions forked from it. Belongs to one event loop at a time.

    Args:
        level: isolation level.
        wall_seconds: wall-clock limit of one call.
        cpu_seconds: CPU time limit of a session.
        memory_mb: memory limit of a session in MiB, in addition to the memory of the preloaded modules.
        disk_mb: disk limit of a session in MiB.
        open_files: maximum number of open files of a session.
        processes: maximum number of processes of a session; 1: it cannot start any.
        network: allow the host's network.
        output_chars: maximum length of a result; longer output is truncated.
        sessions: maximum number of concurrent sessions; further ones wait.
        max_concurrent_calls: maximum number of concurrent calls. If many calls shared a CPU core, they would exceed
            their wall-clock limits. Default: two per core, at least 4; no limit for `trusted` code, which may wait for
            servers.
        prefork: number of children that are forked in advance.
        preload: modules that a program finds imported, such as "numpy as np".
        visible: further paths that sandboxed code can read.
        trusted: the code is the user's own; level `process` then only applies resource limits.
        paths: appended to `sys.path`.

    Raises InputError for an unknown level and for limits out of range.
    """

    def __init__(
        self,
        level: Level = "strict",
        *,
        wall_seconds: float = 5.0,
        cpu_seconds: float = 300.0,
        memory_mb: int = 512,
        disk_mb: int = 64,
        open_files: int = 64,
        processes: int = 1,
        network: bool = False,
        output_chars: int = 100_000,
        sessions: int = 256,
        max_concurrent_calls: int | None = None,
        prefork: int = 1,
        preload: Sequence[str] = ("math", "json", "re", "datetime"),
        visible: Sequence[str] = (),
        trusted: bool = False,
        paths: Sequence[str] = (),
    ) -> None:
        if level not in get_args(Level):
            raise InputError(f"sandbox: unknown level {level!r}; expected one of {', '.join(get_args(Level))}")
        for name, value in (
            *(("wall_seconds", wall_seconds), ("cpu_seconds", cpu_seconds), ("memory_mb", memory_mb)),
            *(("disk_mb", disk_mb), ("open_files", open_files), ("processes", processes)),
            *(
                ("output_chars", output_chars),
                ("sessions", sessions),
                ("max_concurrent_calls", 1 if max_concurrent_calls is None else max_concurrent_calls),
            ),
        ):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_LIMIT:
                raise InputError(
                    f"sandbox: {name} must be positive, not {value}: expected a number up to {MAX_LIMIT:g}"
                )
        self.level: Level = level
        self._max_concurrent_calls = max_concurrent_calls or (
            sessions if trusted else max(4, 2 * len(os.sched_getaffinity(0)))
        )
        self._executing = asyncio.Semaphore(self._max_concurrent_calls)
        self._limits = SessionLimits(wall_seconds, output_chars, 16 * MEGABYTE)
        self._sessions = sessions
        self._configuration: dict[str, Any] = {
            "level": level,
            "trusted": trusted,
            "network": network,
            "visible": list(visible),
            "paths": list(paths),
            "preload": [_module_and_name(text) for text in preload],
            "limits": {
                "level": level,
                "cpu_seconds": cpu_seconds,
                "memory_bytes": memory_mb * MEGABYTE,
                "disk_bytes": disk_mb * MEGABYTE,
                "open_files": open_files,
                "processes": processes,
                "output_chars": output_chars,
            },
        }
        self._server: ForkServer | None = None
        self._closed = False
        self._starting: asyncio.Lock | None = None
        self._slots: asyncio.Semaphore | None = None
        self._prefork = prefork
        self._preforked: deque[asyncio.Task[Connection]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.restarts = 0
        """Number of times the fork server was restarted after it had died."""

    @property
    def executing(self) -> asyncio.Semaphore:
        """Limits the number of concurrent calls; held while a call is executed."""
        return self._executing

    @property
    def process_id(self) -> int | None:
        """The process id of the fork server while it runs."""
        return self._server.process_id if self._server is not None else None

    async def start(self) -> None:
        """Start the fork server if it is not running. Raises `SandboxError` for an unsupported level."""
        await self._running()

    async def close(self) -> None:
        """Stop the fork server and all children. The sandbox cannot be used again."""
        server, self._server = self._server, None
        self._closed = True
        self._drop_preforked()
        if server is not None:
            server.stop()

    def open(self, setup: SessionSetup) -> Session:
        """Create a session. Its child is acquired at the first call."""
        return Session(self, setup, self._limits)

    async def acquire(self, modules: Sequence[str] = ()) -> Connection:
        """Acquire a confined child for exclusive use, as soon as there is a free slot. Raises `SandboxError`."""
        try:
            return await self._acquire(modules)
        except SandboxError:
            if self._closed or (self._server is not None and self._server.alive):
                raise
        return await self._acquire(modules)  # the fork server died meanwhile: retry with a new one

    async def _acquire(self, modules: Sequence[str]) -> Connection:
        server = await self._running()
        preforked, slots = self._preforked, self._slots
        assert slots is not None
        while True:
            # One for the caller and `prefork` for later callers, who then need not wait for the fork.
            while not preforked or (len(preforked) <= self._prefork and not slots.locked()):
                task = asyncio.get_running_loop().create_task(self._open(server, slots, modules))
                task.add_done_callback(_mark_retrieved)
                preforked.append(task)
            task = preforked.popleft()
            try:
                connection = await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.cancelled():
                    raise SandboxError("the sandbox was closed") from None
                preforked.appendleft(task)
                raise
            if not connection.child.ended.done():
                return connection

    def _drop_preforked(self) -> None:
        preforked, self._preforked = self._preforked, deque()
        for task in preforked:
            if task.done():
                if not task.cancelled() and task.exception() is None:
                    task.result().abandon()
            elif not task.get_loop().is_closed():
                task.cancel()

    async def _open(self, server: ForkServer, slots: asyncio.Semaphore, modules: Sequence[str]) -> Connection:
        await slots.acquire()
        try:
            cpu = self._configuration["limits"]["cpu_seconds"]
            frame = 12 * self._limits.output_chars + 4096  # at most 12 bytes per character (escaped surrogate pairs)
            connection = await Connection.open(server, modules, frame_bytes=frame, cpu_seconds=cpu)
        except BaseException:
            slots.release()
            raise
        connection.child.ended.add_done_callback(lambda _: slots.release())
        return connection

    async def _running(self) -> ForkServer:
        """Return the fork server; start one if there is none, if it died, or if it belongs to another event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._starting is None:
            self._loop, self._starting = loop, asyncio.Lock()
            self._slots = asyncio.Semaphore(self._sessions + self._prefork)
            self._executing = asyncio.Semaphore(self._max_concurrent_calls)
            self._drop_preforked()
        async with self._starting:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            if sys.platform != "linux":
                raise SandboxError("tools are executed in worker processes, which require Linux")
            if self._server is not None and self._server.alive:
                return self._server
            if self._server is not None:
                self.restarts += 1
                self._server.stop()
                self._drop_preforked()
            self._server = server = ForkServer(self._configuration)  # set before `start`, so that `close` stops it
            try:
                await server.start()
            except BaseException:
                self._server = None
                raise
            return server


def _mark_retrieved(task: asyncio.Task[Connection]) -> None:
    """Retrieve the exception of a preforked child, which may never be acquired, so that asyncio does not warn."""
    if not task.cancelled():
        task.exception()


def _module_and_name(text: str) -> tuple[str, str]:
    """Parse `"numpy as np"` to ("numpy", "np"), and `"numpy"` to ("numpy", "numpy")."""
    module, _, name = text.partition(" as ")
    return module.strip(), (name or module.partition(".")[0]).strip()
