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
    try:
        while True:
            while len(running) < concurrency and (coroutine := next(source, None)) is not None:
                running.add(asyncio.create_task(coroutine))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            failed = [finished for finished in done if finished.exception() is not None]
            for finished in done.difference(failed):
                yield finished.result()
            if failed:
                failed[0].result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
