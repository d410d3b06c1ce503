"""Concurrent requests in one forward pass: order, fairness, and faults of one round (docs/reward_model.md)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from rewright.net.batching import Batcher, BusyError


class Model:
    """Scores a sequence by its sum, once it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.started = threading.Event()
        self.batches: list[int] = []

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        self.started.set()
        self.go.wait()
        self.batches.append(len(sequences))
        if any(min(sequence) < 0 for sequence in sequences):
            raise IndexError("no such token")
        return [float(sum(sequence)) for sequence in sequences]


async def all_waiting(batcher: Batcher, numbers: Sequence[int]) -> list[asyncio.Task[list[float]]]:
    """One request for each number, all of them in the queue."""
    tasks = [asyncio.create_task(batcher.score([[number], [number, 1]])) for number in numbers]
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_a_pass_runs_shares_the_next_one() -> None:
    model = Model()
    batcher = Batcher(model.score, round_tokens=3 * 20)
    async with batcher.running():
        first = await all_waiting(batcher, [100])
        await asyncio.to_thread(model.started.wait)
        others = await all_waiting(batcher, range(63))
        others[5].cancel()
        await asyncio.sleep(0)
        model.go.set()
        assert await first[0] == [100.0, 101.0]
        kept = [number for number in range(63) if number != 5]
        assert [await others[number] for number in kept] == [[float(number), number + 1.0] for number in kept]
    assert model.batches == [2, 40, 40, 40, 4]
    assert (batcher.rounds, batcher.scored) == (5, 126)


async def test_a_fault_is_told_to_its_round_and_ends_there() -> None:
    model = Model()
    model.go.set()
    batcher = Batcher(model.score)
    async with batcher.running():
        with pytest.raises(IndexError, match="no such token"):
            await batcher.score([[-1]])
        assert await batcher.score([[2, 3]]) == [5.0]


async def test_too_much_waiting_is_refused_at_once() -> None:
    model = Model()
    batcher = Batcher(model.score, waiting_tokens=3)
    async with batcher.running():
        first = asyncio.create_task(batcher.score([[1] * 9]))
        await asyncio.to_thread(model.started.wait)
        second = await all_waiting(batcher, [1])
        with pytest.raises(BusyError, match="1 requests are waiting"):
            await batcher.score([[1]])
        model.go.set()
        assert await first == [9.0]
        assert await second[0] == [1.0, 2.0]
