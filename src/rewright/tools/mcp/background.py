"""Threads with event loops: one of all MCP connections of this process, and one of each server object.

A connection outlives the event loops of its callers (each step of a trainer may have its own), and tools are listed by
code that is not asynchronous. Server objects have other threads (`in_process.py`), so no code of a tool runs in the
loop of the connections, and time limits hold whatever a tool does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

__all__ = ["LoopThread", "finish_in_background", "in_background", "start_in_background", "wait_in_background"]

T = TypeVar("T")
CLEANUP_SECONDS: Final = 5.0


class LoopThread:
    """A daemon thread that runs an event loop until `stop`. `SystemExit` of a task does not end it."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_DaemonThreads())
        self._stopped = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the loop. In a loop that has ended, it is cancelled."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:
            work.close()
            ended: Future[T] = Future()
            ended.cancel()
            return ended

    def stop(self) -> None:
        """End the loop, as soon as it has control. Does not wait."""
        self._stopped = True
        with contextlib.suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self.loop.stop)

    def _run(self) -> None:
        while not self._stopped:
            # asyncio raises SystemExit and KeyboardInterrupt of a task out of the loop, beside the task's own waiters.
            with contextlib.suppress(BaseException):
                self.loop.run_forever()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(BaseException):
            if tasks:
                self.loop.run_until_complete(asyncio.wait(tasks, timeout=CLEANUP_SECONDS))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class _DaemonThreads(ThreadPoolExecutor):
    """Runs functions of `asyncio.to_thread` in daemon threads: one that never returns does not hold the process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a function."""
        future: Future[Any] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    result = fn(*args, **kwargs)
                except BaseException as problem:
                    future.set_exception(problem)
                else:
                    future.set_result(result)

        threading.Thread(target=run, daemon=True).start()
        return future


_lock = threading.Lock()
_threads: dict[int, LoopThread] = {}
"""The thread of each process: a forked one has no thread of its parent's."""


def _thread() -> LoopThread:
    with _lock:
        if os.getpid() not in _threads:
            _threads.clear()
            _threads[os.getpid()] = LoopThread("rewright-mcp")
        return _threads[os.getpid()]


async def in_background(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the background loop. It is cancelled if the caller is."""
    return await asyncio.wrap_future(_thread().submit(work))


async def finish_in_background(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the background loop. It goes on if the caller is cancelled."""
    return await asyncio.shield(asyncio.wrap_future(_thread().submit(work)))


def start_in_background(work: Coroutine[Any, Any, Any]) -> None:
    """Start a coroutine in the background loop without waiting for it."""
    _thread().submit(work)


def wait_in_background(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the background loop and block until it is done."""
    future = _thread().submit(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
