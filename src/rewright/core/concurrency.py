"""Many coroutines at once: results as they complete, time limits, and the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from math import inf
from types import TracebackType
from typing import Any, Final, Self, TypeVar

__all__ = ["TimeLimits", "as_completed", "rare_collections"]

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


_COLLECTIONS: Final = 50_000
_running = 0
_threshold = 0


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect cyclic garbage after every 50,000 new objects, for a block that holds many coroutines.

    By default it is every 700. Each collection then goes through the objects of all running coroutines, which are
    none.
    """
    global _running, _threshold  # noqa: PLW0603 - a setting of the whole process
    if not _running:
        _threshold = gc.get_threshold()[0]
        if 0 < _threshold < _COLLECTIONS:  # 0: the user has switched it off
            gc.set_threshold(_COLLECTIONS, *gc.get_threshold()[1:])
    _running += 1
    try:
        yield
    finally:
        _running -= 1
        if not _running:
            gc.set_threshold(_threshold, *gc.get_threshold()[1:])


class TimeLimits:
    """Time limits of many blocks of coroutines, with one timer of the event loop.

    `asyncio.timeout` starts and cancels a timer for each block. Here the timer stands at the first limit, and moves to
    the first of those that are left when it is reached.
    """

    def __init__(self) -> None:
        self._blocks: dict[TimeLimit, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._at = inf

    def until(self, moment: float | None) -> TimeLimit:
        """Return a context manager (`with`, not `async with`) like `asyncio.timeout_at(moment)`. None: no limit."""
        return TimeLimit(self, moment)

    def add(self, block: TimeLimit, moment: float) -> None:
        """Interrupt a block at a moment in the event loop's time."""
        if not self._blocks or moment < self._at:
            # (Where there is no block, the timer may be that of an event loop that has ended.)
            self._set(moment)
        self._blocks[block] = moment

    def remove(self, block: TimeLimit) -> None:
        """A block has ended."""
        self._blocks.pop(block, None)
        if not self._blocks and self._timer is not None:
            self._timer.cancel()
            self._timer, self._at = None, inf

    def _set(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._at = asyncio.get_running_loop().call_at(moment, self._interrupt), moment

    def _interrupt(self) -> None:
        now = max(asyncio.get_running_loop().time(), self._at)  # timers fire up to a clock tick early
        self._timer, self._at = None, inf
        for block in [block for block, moment in self._blocks.items() if moment <= now]:
            del self._blocks[block]
            block.interrupt()
        if self._blocks:
            self._set(min(self._blocks.values()))


class TimeLimit:
    """A block that ends with TimeoutError when its time is over, as `asyncio.timeout` does it. See `TimeLimits`."""

    __slots__ = ("_cancelling", "_limits", "_moment", "_task", "expired")

    def __init__(self, limits: TimeLimits, moment: float | None) -> None:
        self._limits, self._moment = limits, moment
        self.expired = False
        """Whether the time was over before the block ended."""

    def __enter__(self) -> Self:
        if self._moment is not None:
            task = asyncio.current_task()
            assert task is not None
            self._task, self._cancelling = task, task.cancelling()
            self._limits.add(self, self._moment)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._moment is None:
            return
        self._limits.remove(self)
        # If the task was cancelled from elsewhere too, it stays so.
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def interrupt(self) -> None:
        """The time is over."""
        self.expired = True
        self._task.cancel()
