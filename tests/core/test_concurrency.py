"""Many coroutines at once: their time limits, and the garbage collector."""

from __future__ import annotations

import asyncio
import gc

import pytest

from rewright.core.concurrency import TimeLimits, rare_collections


async def test_each_block_ends_at_its_own_limit_and_no_other() -> None:
    limits = TimeLimits()
    now = asyncio.get_running_loop().time()

    async def ends(seconds: float | None) -> bool:
        with limits.until(None if seconds is None else now + seconds) as limit, pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        return limit.expired

    unlimited, far = asyncio.create_task(ends(None)), asyncio.create_task(ends(600.0))
    assert await asyncio.gather(*(ends(seconds) for seconds in (0.03, -1.0, 0.01, 0.02))) == [True] * 4
    assert not unlimited.done()
    assert not far.done()
    unlimited.cancel()
    far.cancel()
    assert await asyncio.gather(unlimited, far) == [False, False]


async def test_a_block_that_ended_is_not_interrupted() -> None:
    limits = TimeLimits()
    loop = asyncio.get_running_loop()
    soon = loop.time() + 0.02
    with limits.until(soon):
        pass
    with limits.until(soon) as reached, pytest.raises(asyncio.CancelledError):
        await asyncio.Event().wait()
    assert reached.expired


async def test_of_two_limits_the_first_one_ends_its_block_and_a_cancelled_task_stays_cancelled() -> None:
    inner, outer = TimeLimits(), TimeLimits()
    now = asyncio.get_running_loop().time()
    with outer.until(now + 60) as far, pytest.raises(TimeoutError), inner.until(now - 1) as near:
        await asyncio.Event().wait()
    assert near.expired
    assert not far.expired

    async def both() -> None:
        with pytest.raises(TimeoutError), outer.until(now):  # both at once: the outer one
            try:
                with inner.until(now):
                    await asyncio.Event().wait()
            except TimeoutError:
                pytest.fail("the inner block swallowed the end of the outer one")

    await asyncio.create_task(both())

    async def waits() -> None:
        with inner.until(asyncio.get_running_loop().time() + 60):
            await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_limits_are_used_in_one_event_loop_after_another() -> None:
    limits = TimeLimits()

    async def late() -> None:
        with pytest.raises(TimeoutError), limits.until(asyncio.get_running_loop().time() + 0.01):
            await asyncio.Event().wait()

    for _ in range(2):
        asyncio.run(late())


def test_the_collector_has_its_setting_again_after_the_last_of_several_blocks() -> None:
    before = gc.get_threshold()
    first, second = rare_collections(), rare_collections()
    first.__enter__()
    second.__enter__()
    during = gc.get_threshold()
    first.__exit__(None, None, None)
    assert gc.get_threshold() == during != before
    second.__exit__(None, None, None)
    assert gc.get_threshold() == before
