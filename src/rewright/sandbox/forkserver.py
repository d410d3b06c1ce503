"""Client of one fork server process: start it, fork children, kill them.

The requests to a child are in `session.py`, the limits in `sandbox.py`. The fork server is started with `exec` and
never forked from the trainer, whose threads (torch, BLAS) do not survive a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rewright.core.errors import InputError, SandboxError
from rewright.sandbox.worker.files import remove_tree

__all__ = ["Child", "ExitStatus", "ForkServer"]

WORKER = Path(__file__).parent / "worker"

BOOTSTRAP = """
import sys, types
package = types.ModuleType("rewright_worker")
package.__path__ = [sys.argv[1]]
sys.modules["rewright_worker"] = package
import json
from rewright_worker import zygote
zygote.main(int(sys.argv[2]), json.loads(sys.argv[3]))
"""

# All variables that the worker inherits. The OPENBLAS variables select a kernel for the processor.
INHERITED_VARIABLES = ("LD_LIBRARY_PATH", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

START_SECONDS = 120.0


class ExitStatus(NamedTuple):
    """How a child ended: exit code, or minus the signal number; and its CPU time."""

    code: int
    cpu_seconds: float


class Child:
    """A forked child: its number, and a future of its exit status."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ended: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()


class ForkServer:
    """One fork server process. It belongs to one event loop."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self._configuration = configuration
        self._children: dict[int, Child] = {}
        self._count = 0
        self._home = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._ready: asyncio.Future[None] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.missing: dict[str, str] = {}
        """Modules whose preload failed, with the error."""

    @property
    def alive(self) -> bool:
        """True while the process runs and belongs to the running event loop."""
        return self._control is not None and self.loop is asyncio.get_running_loop()

    @property
    def process_id(self) -> int | None:
        """The process id of the fork server."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the process and wait for its imports. Raises `SandboxError`, and `InputError` for a failed preload."""
        self.loop = asyncio.get_running_loop()
        self._ready = self.loop.create_future()
        if self._configuration["level"] != "strict":
            self._home = tempfile.mkdtemp(prefix="rewright-")
        parent_socket, child_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with child_socket:
            environment = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
            environment |= {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC", "HOME": "/", "PYTHONHASHSEED": "0"}
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            command = [sys.executable, "-P", "-s", "-B", "-c", BOOTSTRAP]
            arguments = [
                str(WORKER),
                str(child_socket.fileno()),
                json.dumps({**self._configuration, "home": self._home}),
            ]
            self._errors = os.memfd_create("errors")
            try:
                # Blocks until the new process has called exec: milliseconds, once per run.
                self._process = subprocess.Popen(  # noqa: ASYNC220
                    command + arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    pass_fds=[child_socket.fileno()],
                    env=environment,
                    cwd="/",
                    start_new_session=True,  # Ctrl-C at the terminal only reaches the trainer
                )
            except OSError as error:
                parent_socket.close()
                os.close(self._errors)
                self.stop()
                raise SandboxError(f"the sandbox's worker process could not be started: {error}") from error
        parent_socket.setblocking(False)
        self._control = parent_socket
        self.loop.add_reader(parent_socket, self._receive)
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), START_SECONDS)
        except TimeoutError as error:
            self.stop()
            raise SandboxError(f"the sandbox's worker process was not ready after {START_SECONDS:.0f} s") from error
        except BaseException:
            self.stop()
            raise
        if self.missing:
            self.stop()
            problems = "; ".join(f"{module}: {message}" for module, message in self.missing.items())
            raise InputError(f"sandbox: a module to preload cannot be imported: {problems}")

    async def spawn(self, descriptors: Sequence[int], modules: Sequence[str] = ()) -> Child:
        """Fork a child that inherits `descriptors` (its connection first). Raises `SandboxError`."""
        if self._control is None:
            raise SandboxError("the sandbox's worker process has ended")
        self._count += 1
        child = Child(self._count)
        self._children[child.number] = child
        try:
            await self._send({"op": "spawn", "id": child.number, "modules": list(modules)}, descriptors)
        except BaseException:
            self._children.pop(child.number, None)
            raise
        return child

    async def kill(self, child: Child) -> None:
        """Kill a child and its descendants. Does not wait until it has ended (`child.ended`)."""
        if not child.ended.done() and self._control is not None:
            with contextlib.suppress(SandboxError):
                await self._send({"op": "kill", "id": child.number})

    def stop(self) -> None:
        """Stop the process and its children. May be called twice and after the loop was closed."""
        control, process = self._control, self._process
        self._control = None
        if self._ready is not None and not self._ready.done() and not self._ready.get_loop().is_closed():
            self._ready.set_exception(SandboxError("the sandbox was closed while it started"))
            self._ready.exception()  # mark as retrieved: the caller of `start` may have been cancelled
        if control is not None:
            if self.loop is not None and not self.loop.is_closed():
                self.loop.remove_reader(control)
            control.close()  # at the end of the stream, the fork server kills its children and exits
        if process is not None:
            try:
                process.wait(2.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(self._errors)
            self._process = None
        if self._home:  # the fork server also removes it, in case the trainer ends first
            remove_tree(self._home)
            self._home = ""
        for child in self._children.values():
            if not child.ended.done() and not child.ended.get_loop().is_closed():
                child.ended.set_result(ExitStatus(-9, 0.0))
        self._children.clear()

    async def _send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        packet = json.dumps(message).encode()
        while self._control is not None:
            try:
                socket.send_fds(self._control, [packet], list(descriptors))
                return
            except BlockingIOError:
                await self._writable(self._control)
            except OSError as error:
                self._lost()
                raise SandboxError(f"the sandbox's worker process has ended: {error}") from error
        raise SandboxError("the sandbox's worker process has ended")

    async def _writable(self, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        # Duplicated, because the loop has one writer per descriptor, and several senders may wait.
        with socket.socket(fileno=os.dup(control.fileno())) as copy:
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_writer(copy, _resolve, ready)
            try:
                await ready
            finally:
                loop.remove_writer(copy)

    def _receive(self) -> None:
        while self._control is not None:
            try:
                packet = self._control.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._lost()
                return
            self._handle(json.loads(packet))

    def _handle(self, message: dict[str, Any]) -> None:
        if message["op"] == "ready" and self._ready is not None:
            self._ready.set_result(None)
        elif message["op"] == "missing":
            self.missing[message["module"]] = message["message"]
        elif message["op"] == "refused" and self._ready is not None:
            self._ready.set_exception(SandboxError(message["message"]))
        elif (child := self._children.pop(message.get("id", 0), None)) is not None and not child.ended.done():
            if message["op"] == "failed":
                child.ended.set_exception(SandboxError(f"no worker could be forked: {message['message']}"))
                child.ended.exception()  # mark as retrieved, to avoid a warning if no task awaits it
            else:
                child.ended.set_result(ExitStatus(message["code"], message["cpu"]))

    def _lost(self) -> None:
        """The process has ended: fail all pending requests."""
        if self._ready is not None and not self._ready.done():
            text = ""
            if self._process is not None:
                text = os.pread(self._errors, 65536, 0).decode(errors="replace").strip().rpartition("\n")[2]
            self._ready.set_exception(SandboxError(f"the sandbox's worker process ended while starting: {text}"))
        self.stop()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
