"""Synchronous twins of coroutine functions, which also work where an event loop is running (Jupyter)."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

__all__ = ["synchronous"]

P = ParamSpec("P")
R = TypeVar("R")


def synchronous(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Return a function that runs the coroutine function to its end.

    In a running event loop it uses a loop of its own, in another thread, and blocks until that has ended.
    """

    @functools.wraps(function)
    def twin(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(function(*args, **kwargs))
        return _in_other_thread(function(*args, **kwargs))

    name = function.__name__
    twin.__name__ = f"{name}_sync"
    twin.__qualname__ = f"{function.__qualname__}_sync"
    twin.__doc__ = f"`{name}` without `await`, for notebooks and scripts.\n\n{function.__doc__}"
    return twin


def _in_other_thread(coroutine: Coroutine[Any, Any, R]) -> R:
    results: list[R] = []
    problems: list[BaseException] = []
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    ended = threading.Event()
    context = contextvars.copy_context()

    async def main() -> R:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        return await coroutine

    def work() -> None:
        try:
            results.append(context.run(asyncio.run, main()))
        except BaseException as problem:
            problems.append(problem)
        finally:
            ended.set()

    threading.Thread(target=work, name="rewright-sync").start()
    try:
        ended.wait()  # not Thread.join, which takes the thread for ended when it is interrupted
    except BaseException:  # Ctrl-C, or the notebook's stop button
        if running:
            loop, task = running[0]
            with suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(task.cancel)
        ended.wait()
        raise
    if problems:
        raise problems[0]
    return results[0]
