"""What the HTTP client sends and keeps."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from aiohttp import web

from rewright.net.endpoint import Endpoint, EndpointError
from rewright.net.server import listening

LIMITS: dict[str, Any] = {
    "concurrency": 2, "timeout_seconds": 60.0, "attempts": 1, "first_wait_seconds": 0.001, "max_wait_seconds": 0.001,
}  # fmt: skip


class Point(msgspec.Struct):
    x: int


async def test_the_cookie_of_a_load_balancer_does_not_bind_later_requests() -> None:
    cookies: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("Cookie"))
        reply = web.json_response({})
        reply.set_cookie("route", "server-1")
        return reply

    app = web.Application()
    app.router.add_post("/ask", answer)
    async with listening(app) as url:
        endpoint = Endpoint(url, **LIMITS)
        for _ in range(2):
            await endpoint.post("/ask", {}, lambda value: value)
        await endpoint.close()
    assert cookies == [None, None]


async def test_a_reply_is_decoded_to_the_given_type_and_another_form_to_plain_values() -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), content_type="application/json")

    app = web.Application()
    app.router.add_post("/echo", echo)
    decoder = msgspec.json.Decoder(Point)
    async with listening(app) as url:
        endpoint = Endpoint(url, **LIMITS)

        async def sent(body: dict[str, Any] | bytes, **options: Any) -> Any:
            return await endpoint.post("/echo", body, lambda value: value, **options)

        assert await sent({"x": 1}, decoder=decoder) == Point(1)
        assert await sent({"x": "1"}, decoder=decoder) == {"x": "1"}
        assert await sent(b'{"x":1}') == {"x": 1}
        with pytest.raises(EndpointError, match="the reply is not JSON"):
            await sent(b"{", decoder=decoder)
        with pytest.raises(EndpointError, match="the reply is larger than 5 bytes"):
            await sent({"x": 1}, max_bytes=5)
        await endpoint.close()
