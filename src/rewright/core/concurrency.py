"""Bounded-concurrency execution of coroutines, yielding results as they complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["as_completed"]

T = TypeVar("T")


async def as_completed(work: Iterable[Coroutine[Any, Any, T]], *, concurrency: int) -> AsyncGenerator[T]:
    """Yield results as coroutines complete, with at most `concurrency` of them running.

    Coroutines are taken from `work` only when a slot is free, so that memory stays bounded. The first exception is
    raised after the results that completed together with it were yielded. Coroutines that are still running when the
    generator ends, for any reason, are cancelled.
    """
    source = iter(work)
    running: set[asyncio.Task[T]] = set()
    done: list[asyncio.Task[T]] = []
    ready = asyncio.Event()

    def finished(task: asyncio.Task[T]) -> None:
        running.discard(task)
        done.append(task)
        ready.set()

    try:
        while True:
            while len(running) < concurrency and (coroutine := next(source, None)) is not None:
                task = asyncio.create_task(coroutine)
                running.add(task)
                # (asyncio.wait would visit every running task for every result.)
                task.add_done_callback(finished)
            if not running and not done:
                return
            await ready.wait()
            ready.clear()
            completed, done[:] = list(done), []
            failed: list[asyncio.Task[T]] = []
            for one in completed:
                if one.cancelled() or one.exception() is not None:
                    failed.append(one)
                else:
                    yield one.result()
            if failed:
                failed[0].result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, *done, return_exceptions=True)
