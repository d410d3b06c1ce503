"""The probe of a server asks a question; a refusal is its answer, and no failed attempt of the run."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from rewright.engines.base import Request, Sampling
from rewright.engines.openai import OpenAIEngine

REPLY = {
    "id": "1",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@pytest.mark.parametrize("status", [404, 400, 500])
async def test_a_refused_probe_is_not_counted(status: int) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "no completions here"}}, status=status)

    async def chat(request: web.Request) -> web.Response:
        return web.json_response(REPLY)

    application = web.Application()
    application.router.add_post("/v1/completions", refuse)
    application.router.add_post("/v1/chat/completions", chat)
    async with TestServer(application) as server:
        engine = OpenAIEngine(
            str(server.make_url("/v1")), "m", mode="auto", attempts=2, first_wait_seconds=0.01, max_wait_seconds=0.01
        )
        try:
            assert await engine.probe() is False
            assert engine.faults == {}
            messages = ({"role": "user", "content": "hi"},)
            await engine.generate(Request(messages, (), Sampling(temperature=1.0, max_tokens=8)))
            assert engine.faults == {}
        finally:
            await engine.close()
