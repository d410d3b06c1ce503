"""A gate between the requests of an engine and changes of its weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Gate"]


class Gate:
    """While it is closed, no request starts. It is closed when the running ones are completed.

    So no turn is generated with the weights of two versions. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._running = 0

    @property
    def is_open(self) -> bool:
        """Whether requests start."""
        return self._open.is_set()

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Wait until the gate is open, and count the request while it runs."""
        while not self._open.is_set():
            await self._open.wait()
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def close(self) -> None:
        """Let no request start, and wait for those that run."""
        self._open.clear()
        await self._idle.wait()

    def open(self) -> None:
        """Let requests start again."""
        self._open.set()
