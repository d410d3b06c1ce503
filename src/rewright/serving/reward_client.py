"""The client of `rewright serve-reward`. It has the interface of the reward model, so RL can use either.

Every request has a deadline and retries. If the server still does not answer, a `ServerError` stops the stage; a
missing score is never replaced by 0. A request that the server rejects is a user error, an `InputError`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from rewright.core.errors import InputError, ServerError
from rewright.net.endpoint import Endpoint, EndpointError, Fault
from rewright.net.urls import server_address

__all__ = ["RewardClient"]

REFUSED_STATUSES: Final = frozenset({400, 413, 422})
MAX_SCORE: Final = 1e6
"""A score is the output of one linear layer; a larger absolute value is treated as an error."""
MAX_REPLY_BYTES: Final = 1024 * 1024
"""Maximum size of a reply: thousands of bytes per score."""


class _Scores(msgspec.Struct):
    """A reply of the server; other keys are ignored."""

    scores: list[float]


class RewardClient:
    """Scores token sequences with a served reward model.

    Args:
        url: address of the server.
        vocabulary: `Renderer.fingerprint`; the server rejects token ids of another vocabulary than its model's.
        timeout_seconds: timeout of one attempt.
        attempts: maximum number of attempts per request.
        concurrency: maximum number of concurrent requests.
        request_size: maximum number of sequences per request.
        first_wait_seconds: wait before the first retry; later waits double.
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
        self._arguments: dict[str, Any] = {
            "vocabulary": vocabulary,
            "timeout_seconds": timeout_seconds,
            "attempts": attempts,
            "concurrency": concurrency,
            "request_size": request_size,
            "first_wait_seconds": first_wait_seconds,
        }
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

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy for another process, with connections of its own."""
        return partial(RewardClient, self.url, **self._arguments), ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Return one score per token sequence, in the given order. Inside an event loop, use `score_async`.

        Raises `ServerError` if the server does not answer after the retries, and `InputError` if it rejects the
        request.
        """
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(self.score_async(sequences))

    async def score_async(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """As `score`, as a coroutine. All calls must use the same event loop."""
        size = self._request_size
        parts = [sequences[start : start + size] for start in range(0, len(sequences), size)]
        tasks = [asyncio.create_task(self._request(part)) for part in parts]
        try:
            return [score for scores in await asyncio.gather(*tasks) for score in scores]
        finally:
            for task in tasks:
                task.cancel()

    def close(self) -> None:
        """Close the connections opened by `score`."""
        if self._runner is not None:
            self._runner.run(self._endpoint.close())
            self._runner.close()
            self._runner = None

    async def close_async(self) -> None:
        """Close the connections opened by `score_async`."""
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
            out_of_range = next((score for score in scores if abs(score) > MAX_SCORE), None)
            if out_of_range is not None:
                reason = f"the score {out_of_range:g}: expected a number from {-MAX_SCORE:g} to {MAX_SCORE:g}"
                raise Fault("impossible", reason, retry=False)
            return scores

        body: dict[str, Any] = {"token_ids": [list(sequence) for sequence in sequences]}
        if self._vocabulary is not None:
            body["vocabulary"] = self._vocabulary
        try:
            return await self._endpoint.post("/score", body, read, max_bytes=MAX_REPLY_BYTES)
        except EndpointError as error:
            if error.cause == "status" and error.status in REFUSED_STATUSES:
                raise InputError(f"the reward model at {self.url} refuses the request: {error.detail}") from None
            raise ServerError(f"the reward model does not answer: {error}") from error
