"""One thread with an event loop, in which every MCP connection of this process lives.

A connection outlives the event loops of its callers (each step of a trainer may have its own), and tools are listed by
code that is not asynchronous. A server in this process that blocks does not block the rollouts.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["in_background", "start_in_background", "wait_in_background"]

T = TypeVar("T")
_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}
"""The loop of each process: a forked one has no thread of its parent's."""


def _loop() -> asyncio.AbstractEventLoop:
    with _lock:
        if os.getpid() not in _loops:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="rewright-mcp", daemon=True).start()
            _loops.clear()
            _loops[os.getpid()] = loop
        return _loops[os.getpid()]


async def in_background(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the background loop. It is cancelled if the caller is."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, _loop()))


def start_in_background(work: Coroutine[Any, Any, Any]) -> None:
    """Start a coroutine in the background loop without waiting for it."""
    asyncio.run_coroutine_threadsafe(work, _loop())


def wait_in_background(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the background loop and block until it is done."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
