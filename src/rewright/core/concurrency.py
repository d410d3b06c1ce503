"""Work that runs side by side, never more of it in memory than is under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["as_completed"]

T = TypeVar("T")


async def as_completed(work: Iterable[Coroutine[Any, Any, T]], *, concurrency: int) -> AsyncGenerator[T]:
    """Results as they become ready. At most `concurrency` coroutines are under way; they are drawn when needed.

    The first exception ends it, behind the results that were ready with it: nothing finished is lost. Whatever is
    under way when it ends, for that or another reason, is cancelled.
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
