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


class _QueuedRequest(NamedTuple):
    sequences: Sequences
    tokens: int
    scores: asyncio.Future[list[float]]


class Batcher:
    """Scores the sequences of concurrent requests in batches (rounds), in order of arrival.

    Args:
        score: scores token sequences; runs in a thread.
        round_tokens: maximum number of tokens per forward pass. A larger request takes several passes, and stops when
            its caller is cancelled.
        waiting_tokens: maximum number of queued tokens.

    `rounds` and `scored` count the forward passes and the scored sequences.
    """

    def __init__(
        self, score: Callable[[Sequences], list[float]], *, round_tokens: int = 65536, waiting_tokens: int = 1 << 25
    ) -> None:
        self._score = score
        self._round_tokens, self._max_waiting_tokens = round_tokens, waiting_tokens
        self._waiting: deque[_QueuedRequest] = deque()
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
            for request in self._waiting:
                request.scores.cancel()

    async def score(self, sequences: Sequences) -> list[float]:
        """Return one score per sequence. Raises `BusyError` if the queue is full, and the exceptions of `score`."""
        tokens = sum(map(len, sequences))
        if self._waiting and self._waiting_tokens + tokens > self._max_waiting_tokens:
            raise BusyError(f"{len(self._waiting)} requests are waiting")
        scores: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_QueuedRequest(sequences, tokens, scores))
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
            batch_sequences = [sequence for request in batch for sequence in request.sequences]
            scores: list[float] = []
            try:
                for part in self._parts(batch_sequences):
                    if all(request.scores.done() for request in batch):
                        break
                    scores += await asyncio.to_thread(self._score, part)
                    self.rounds += 1
            except Exception as problem:  # passed on to the requests of the batch
                for request in batch:
                    if not request.scores.done():
                        request.scores.set_exception(problem)
                continue
            self.scored += len(scores)
            start = 0
            for request in batch:
                end = start + len(request.sequences)
                if not request.scores.done():
                    request.scores.set_result(scores[start:end])
                start = end

    def _parts(self, sequences: Sequences) -> list[Sequences]:
        """Split `sequences` into parts of up to `round_tokens` tokens. A longer sequence is a separate part."""
        parts: list[Sequences] = []
        start = tokens = 0
        for index, sequence in enumerate(sequences):
            if index > start and tokens + len(sequence) > self._round_tokens:
                parts.append(sequences[start:index])
                start, tokens = index, 0
            tokens += len(sequence)
        return [*parts, sequences[start:]]

    def _next_round(self) -> list[_QueuedRequest]:
        """Take the next requests from the queue, without those whose caller was cancelled."""
        batch: list[_QueuedRequest] = []
        tokens = 0
        while self._waiting and (not batch or tokens + self._waiting[0].tokens <= self._round_tokens):
            request = self._waiting.popleft()
            self._waiting_tokens -= request.tokens
            if not request.scores.done():
                batch.append(request)
                tokens += request.tokens
        return batch
