"""An OpenAI-compatible server on loopback that fails on purpose: what providers do on a bad day, on demand.

    async with FaultServer(probabilities={"reset": 0.1, "cut": 0.1}, seed=1) as server:
        engine = OpenAIEngine(server.url, server.model)
        ...
        print(server.summary())

Every request draws one fault (seeded, in the order of arrival) or takes the next of `script`; without a fault it is
answered by `reply`. What it stands in for is the network and the provider, not the model: tests of what models write
use a real server. Also usable by hand: `python tests/support/fault_server.py` serves until interrupted.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, get_args

from aiohttp import web

Fault = Literal[
    "rate_limit",  # 429 with Retry-After
    "server_error",  # 500
    "reset",  # the connection is reset before an answer
    "hang",  # no answer, ever
    "slow",  # the body arrives byte by byte and never ends
    "cut",  # the body is shorter than its Content-Length
    "wrong_json",  # 200 with a body that is not JSON
    "wrong_shape",  # 200 with JSON that is not a completion
    "empty_choices",  # 200 with no choices
    "wrong_model",  # another model answers
    "error_in_body",  # 200 with an error object, as routers send it
    "aborted",  # the engine behind the server gave the request up
]
Kind = Fault | Literal["ok"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
Reply = Callable[[dict[str, Any]], dict[str, Any]]
"""From the request's body to the fields of the reply's first choice; `usage` among them is the reply's."""

SLOW_STEP_SECONDS = 0.05


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """A plain good choice for either endpoint: the text `fine`, with token ids where they were asked for."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "stop_reason": None}
    if "messages" in body:
        choice["message"] = {"role": "assistant", "content": "fine"}
        choice["logprobs"] = {"content": [{"token": "fine", "logprob": -0.5}, {"token": "<end>", "logprob": -0.25}]}
    else:
        choice["text"] = "fine"
        choice["logprobs"] = {"tokens": ["fine", "<end>"], "token_logprobs": [-0.5, -0.25]}
    if body.get("return_token_ids"):
        choice["token_ids"] = [7, 2]
    return choice


class FaultServer:
    """See the module's docstring. `requests` and `headers` hold what arrived; the first sets `received`."""

    def __init__(
        self,
        *,
        script: Iterable[Kind] = (),
        probabilities: Mapping[Fault, float] | None = None,
        seed: int = 0,
        model: str = "tiny",
        reply: Reply = answer,
        retry_after: str = "0.01",
        refuses: Iterable[str] = (),
        status: Mapping[str, tuple[int, Any]] | None = None,
    ) -> None:
        """`refuses`: fields answered with 422, as strict servers do. `status`: path -> (status, body), always."""
        self.script = deque(script)
        self.probabilities = dict(probabilities or {})
        if sum(self.probabilities.values()) > 1:
            raise ValueError("the probabilities of the faults add up to more than 1")
        self.model = model
        self.reply = reply
        self.retry_after = retry_after
        self.refuses = set(refuses)
        self.status = dict(status or {})
        self.counts: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.received = asyncio.Event()
        self.under_way = 0
        self.most_under_way = 0
        self.url = ""
        self._random = random.Random(seed)
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/{path:.+}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        assert self._runner is not None
        await self._runner.cleanup()

    def summary(self) -> str:
        """One line: how many requests, and what each got."""
        counts = ", ".join(f"{kind} {count}" for kind, count in sorted(self.counts.items()))
        return f"{sum(self.counts.values())} requests: {counts}"

    def _next(self) -> Kind:
        if self.script:
            return self.script.popleft()
        kinds: list[Kind] = [*self.probabilities, "ok"]
        weights = list(self.probabilities.values())
        return self._random.choices(kinds, [*weights, 1 - sum(weights)])[0]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(request.headers)
        self.received.set()
        if (fixed := self.status.get("/" + request.match_info["path"])) is not None:
            self.counts[f"http_{fixed[0]}"] += 1
            return web.json_response(fixed[1], status=fixed[0])
        if refused := sorted(self.refuses & set(body)):
            self.counts["refused"] += 1
            return web.json_response({"detail": f"Unexpected fields in the request: {refused}"}, status=422)
        kind = self._next()
        self.counts[kind] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self._answer(kind, request, body)
        finally:
            self.under_way -= 1

    async def _answer(self, kind: Kind, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        good: dict[str, Any] = {
            "id": "1", "model": self.model, "choices": [],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }  # fmt: skip
        match kind:
            case "rate_limit":
                error = {"error": {"message": "slow down", "type": "rate_limit_error"}}
                return web.json_response(error, status=429, headers={"Retry-After": self.retry_after})
            case "server_error":
                return web.Response(text="Internal Server Error", status=500)
            case "reset":
                return self._reset(request)
            case "hang":
                await self._closing.wait()
                return web.Response(status=503)
            case "wrong_json":
                return web.Response(text='{"choices": [{"message": ', content_type="application/json")
            case "wrong_shape":
                return web.json_response(["not", "a", "completion"])
            case "empty_choices":
                return web.json_response(good)
            case "error_in_body":
                return web.json_response({"error": {"message": "the provider failed", "code": 502}})
            case "wrong_model":
                good["model"] = "another-model"
        good["choices"] = [choice := dict(self.reply(body))]
        good["usage"] = choice.pop("usage", good["usage"])
        if kind == "aborted":
            good["choices"][0]["finish_reason"] = "abort"
        payload = json.dumps(good).encode()
        if kind in {"slow", "cut"}:
            return await self._torn(request, payload, slow=kind == "slow")
        return web.Response(body=payload, content_type="application/json")

    async def _torn(self, request: web.Request, payload: bytes, *, slow: bool) -> web.StreamResponse:
        """Half a body: then silence broken by single spaces, or the end of the connection."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(payload) + 10_000
        await response.prepare(request)
        await response.write(payload[: len(payload) // 2])
        while slow and not self._closing.is_set():
            await response.write(b" ")
            await asyncio.sleep(SLOW_STEP_SECONDS)
        assert request.transport is not None
        request.transport.close()
        return response

    @staticmethod
    def _reset(request: web.Request) -> web.StreamResponse:
        """Close with a TCP reset instead of an orderly end."""
        assert request.transport is not None
        own: socket.socket = request.transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
        return web.Response(status=500)


async def _serve() -> None:
    async with FaultServer(probabilities=dict.fromkeys(FAULTS, 0.3 / len(FAULTS))) as server:
        print(f"{server.url}, model {server.model!r}, 30% faults; end with Ctrl-C")
        try:
            await asyncio.Event().wait()
        finally:
            print(server.summary())


if __name__ == "__main__":
    asyncio.run(_serve())
