"""Connection from the trainer to one child process: frames in both directions, and why the child ended.

Everything that the child sends is untrusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Sequence
from typing import Any

from rewright.core.errors import SandboxError
from rewright.sandbox.errors import ErrorKind
from rewright.sandbox.forkserver import Child, ForkServer
from rewright.sandbox.worker import frames

__all__ = ["ChildDied", "Connection"]

START_SECONDS = 60.0
EXIT_NOTICE_SECONDS = 0.2


class ChildDied(Exception):  # noqa: N818 - an event, which becomes a result
    """The child ended, or has to be killed, before it answered."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.message = message


class Connection:
    """Connection to a confined child that waits for requests. `frame_bytes`: maximum size of a frame from it."""

    def __init__(self, server: ForkServer, child: Child, stream: socket.socket, frame_bytes: int, cpu: float) -> None:
        self._server = server
        self._stream = stream
        self._frame_bytes = frame_bytes
        self._cpu_seconds = cpu
        self.child = child

    @classmethod
    async def open(
        cls, server: ForkServer, modules: Sequence[str], *, frame_bytes: int, cpu_seconds: float
    ) -> Connection:
        """Fork a child and wait until it is confined. Raises `SandboxError`."""
        parent_socket, child_socket = socket.socketpair()
        parent_socket.setblocking(False)
        with child_socket:
            try:
                child = await server.spawn([child_socket.fileno()], modules)
            except BaseException:
                parent_socket.close()
                raise
        connection = cls(server, child, parent_socket, frame_bytes, cpu_seconds)
        try:
            async with asyncio.timeout(START_SECONDS):
                greeting = await connection.receive()
        except (TimeoutError, ChildDied) as error:
            await connection.close()
            raise SandboxError(f"a worker did not start: {error or 'no answer'}") from error
        except BaseException:
            await connection.close()
            raise
        if "failed" in greeting:
            await connection.close()
            raise SandboxError(f"a worker could not be confined: {greeting['failed']}")
        return connection

    async def send(self, packet: bytes) -> None:
        """Send a frame. Raises `ChildDied`."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._stream, packet)
        except OSError:
            raise await self._death() from None

    async def send_with_output(self, packet: bytes, output: int) -> None:
        """Send a frame together with the descriptor of the child's output file. Raises `ChildDied`."""
        try:
            sent = socket.send_fds(self._stream, [packet[: frames.HEADER.size]], [output])
        except OSError:
            raise await self._death() from None
        await self.send(packet[sent:])

    async def receive(self) -> dict[str, Any]:
        """Receive the next frame. Raises `ChildDied` if the stream ends or the frame is invalid."""
        (length,) = frames.HEADER.unpack(await self._exactly(frames.HEADER.size))
        if length > self._frame_bytes:
            raise ChildDied("protocol", "the worker sent a frame longer than a result can be")
        body = await self._exactly(length)
        try:
            frame = json.loads(body)
        except (ValueError, RecursionError):
            raise ChildDied("protocol", "the worker's answer is not JSON") from None
        if not isinstance(frame, dict):
            raise ChildDied("protocol", "the worker's answer is not a JSON object")
        return frame

    def abandon(self) -> None:
        """Close the stream. An idle child then exits by itself."""
        self._stream.close()

    async def close(self) -> None:
        """Kill the child and all its descendants."""
        self._stream.close()
        await self._server.kill(self.child)

    async def _exactly(self, count: int) -> bytes:
        loop = asyncio.get_running_loop()
        parts = bytearray()
        while len(parts) < count:
            part = b""
            with contextlib.suppress(OSError):
                part = await loop.sock_recv(self._stream, count - len(parts))
            if not part:
                raise await self._death()
            parts += part
        return bytes(parts)

    async def _death(self) -> ChildDied:
        """Determine why the stream ended. A child that only closed its descriptors is killed."""
        ended = self.child.ended
        await asyncio.wait([ended], timeout=EXIT_NOTICE_SECONDS)
        closed = not ended.done()
        if closed:
            await self._server.kill(self.child)
            await asyncio.wait([ended], timeout=START_SECONDS)
        if not ended.done():
            return ChildDied("sandbox", "the worker process does not end")
        if ended.exception() is not None:
            return ChildDied("sandbox", str(ended.exception()))
        code, cpu_seconds = ended.result()
        if code == -signal.SIGXCPU or (code == -signal.SIGKILL and cpu_seconds >= 0.9 * self._cpu_seconds):
            return ChildDied("cpu", f"the limit of {self._cpu_seconds:g} CPU seconds is reached")
        if code == -signal.SIGKILL and closed:
            return ChildDied("exited", "the code closed the connection to its result")
        if code == -signal.SIGKILL:
            return ChildDied("crashed", "the process was killed (out of memory, or killed by another process)")
        if code < 0:
            return ChildDied("crashed", f"the process died of {signal.Signals(-code).name}")
        return ChildDied("exited", f"the code ended its process with status {code}")
