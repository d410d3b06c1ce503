"""The client of `rewright serve-reward`, in the shape of the reward model itself: RL can use either.

Every request has a deadline and retries; after them a `ServerError` stops the stage: a reward model that does not
answer is never a silent 0. A request that the server refuses is a person's mistake, an `InputError`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from rewright.core.errors import InputError, ServerError
from rewright.net.endpoint import Endpoint, EndpointError, Fault
from rewright.net.urls import server_address

__all__ = ["RewardClient"]

REFUSED: Final = frozenset({400, 413, 422})
MAX_SCORE: Final = 1e6
"""A reward model's number is the output of one linear layer: beyond this it says nothing of a trajectory."""
REPLY_BYTES: Final = 1024 * 1024
"""Of a reply: thousands for each score."""


class _Scores(msgspec.Struct):
    """A reply of the server; other keys are ignored."""

    scores: list[float]


class RewardClient:
    """Scores token sequences on a server.

    `vocabulary` (`Renderer.fingerprint`) is sent along: the server refuses token ids of another vocabulary than its
    model's. `timeout_seconds` is the deadline of one attempt at one request of up to `request_size` sequences.
    """

    def __init__(
        self,
        url: str,
        *,
        vocabulary: str | None = None,
        timeout_seconds: float = 120.0,
        attempts: int = 5,
        concurrency: int = 8,
        request_size: int = 32,
        first_wait_seconds: float = 0.5,
    ) -> None:
        self.url = server_address(url, "reward model", "/score")
        self._vocabulary, self._request_size = vocabulary, request_size
        self._endpoint = Endpoint(
            self.url,
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            attempts=attempts,
            first_wait_seconds=first_wait_seconds,
            max_wait_seconds=20.0,
        )
        self._runner: asyncio.Runner | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """One number per token sequence, in the order given; not from inside an event loop (`score_async` is for it).

        Raises `ServerError` where the server does not answer after the retries, `InputError` where it refuses.
        """
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(self.score_async(sequences))

    async def score_async(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """As `score`, for one event loop."""
        size = self._request_size
        parts = [sequences[start : start + size] for start in range(0, len(sequences), size)]
        tasks = [asyncio.create_task(self._request(part)) for part in parts]
        try:
            return [score for scores in await asyncio.gather(*tasks) for score in scores]
        finally:
            for task in tasks:
                task.cancel()

    def close(self) -> None:
        """Close the connections that `score` has opened."""
        if self._runner is not None:
            self._runner.run(self._endpoint.close())
            self._runner.close()
            self._runner = None

    async def close_async(self) -> None:
        """Close the connections that `score_async` has opened."""
        await self._endpoint.close()

    async def _request(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        def read(reply: Any) -> list[float]:
            try:
                scores = msgspec.convert(reply, _Scores).scores
            except msgspec.ValidationError as problem:
                raise Fault("reply", f"not a reply of a reward server: {problem}", retry=False) from None
            if len(scores) != len(sequences) or not all(map(math.isfinite, scores)):
                shown = f"{len(scores)} scores for {len(sequences)} sequences" if scores else "no scores"
                raise Fault("reply", f"{shown}: expected one finite number for each", retry=False)
            absurd = next((score for score in scores if abs(score) > MAX_SCORE), None)
            if absurd is not None:
                words = f"the score {absurd:g}: expected a number from {-MAX_SCORE:g} to {MAX_SCORE:g}"
                raise Fault("impossible", words, retry=False)
            return scores

        body: dict[str, Any] = {"token_ids": [list(one) for one in sequences]}
        if self._vocabulary is not None:
            body["vocabulary"] = self._vocabulary
        try:
            return await self._endpoint.post("/score", body, read, max_bytes=REPLY_BYTES)
        except EndpointError as error:
            if error.cause == "status" and error.status in REFUSED:
                raise InputError(f"the reward model at {self.url} refuses the request: {error.detail}") from None
            raise ServerError(f"the reward model does not answer: {error}") from error
