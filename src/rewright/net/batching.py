"""Dynamic batching: requests that arrive during a forward pass share the next one, without a batching delay."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

__all__ = ["Batcher", "BusyError"]

Sequences = Sequence[Sequence[int]]


class BusyError(Exception):
    """The queue is full: retry later."""


class _Waiting(NamedTuple):
    sequences: Sequences
    tokens: int
    scores: asyncio.Future[list[float]]


class Batcher:
    """Scores the sequences of concurrent requests in batches (rounds), in order of arrival.

    `score` runs in a thread. A round takes queued requests up to `round_tokens` tokens. A larger request takes several
    rounds, and stops when its caller is cancelled. At most `waiting_tokens` tokens are queued. `rounds` and `scored`
    count the forward passes and the scored sequences.
    """

    def __init__(
        self, score: Callable[[Sequences], list[float]], *, round_tokens: int = 65536, waiting_tokens: int = 1 << 25
    ) -> None:
        self._score = score
        self._round_tokens, self._max_waiting_tokens = round_tokens, waiting_tokens
        self._waiting: deque[_Waiting] = deque()
        self._waiting_tokens = 0
        self._arrived = asyncio.Event()
        self.rounds = self.scored = 0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Process requests inside the block."""
        worker = asyncio.create_task(self._work())
        try:
            yield
        finally:
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker
            for one in self._waiting:
                one.scores.cancel()

    async def score(self, sequences: Sequences) -> list[float]:
        """Return one score per sequence. Raises `BusyError` if the queue is full, and the exceptions of `score`."""
        tokens = sum(map(len, sequences))
        if self._waiting and self._waiting_tokens + tokens > self._max_waiting_tokens:
            raise BusyError(f"{len(self._waiting)} requests are waiting")
        scores: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(sequences, tokens, scores))
        self._waiting_tokens += tokens
        self._arrived.set()
        return await scores

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            batch = self._next_round()
            if not batch:
                self._arrived.clear()
                continue
            batch_sequences = [sequence for one in batch for sequence in one.sequences]
            scores: list[float] = []
            try:
                for part in self._parts(batch_sequences):
                    if all(one.scores.done() for one in batch):
                        break
                    scores += await asyncio.to_thread(self._score, part)
                    self.rounds += 1
            except Exception as problem:  # passed on to the requests of the batch
                for one in batch:
                    if not one.scores.done():
                        one.scores.set_exception(problem)
                continue
            self.scored += len(scores)
            start = 0
            for one in batch:
                end = start + len(one.sequences)
                if not one.scores.done():
                    one.scores.set_result(scores[start:end])
                start = end

    def _parts(self, sequences: Sequences) -> list[Sequences]:
        """Split `sequences` into parts of up to `round_tokens` tokens. A longer sequence is a part of its own."""
        parts: list[Sequences] = []
        start = tokens = 0
        for place, sequence in enumerate(sequences):
            if place > start and tokens + len(sequence) > self._round_tokens:
                parts.append(sequences[start:place])
                start, tokens = place, 0
            tokens += len(sequence)
        return [*parts, sequences[start:]]

    def _next_round(self) -> list[_Waiting]:
        """Take the next requests from the queue, without those whose caller was cancelled."""
        batch: list[_Waiting] = []
        tokens = 0
        while self._waiting and (not batch or tokens + self._waiting[0].tokens <= self._round_tokens):
            one = self._waiting.popleft()
            self._waiting_tokens -= one.tokens
            if not one.scores.done():
                batch.append(one)
                tokens += one.tokens
        return batch
