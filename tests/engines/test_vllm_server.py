"""Servers that take new weights through a file: all get them, a request sees one version, and one that comes back is
used only with the current weights.

The server here speaks the endpoints of vLLM's development server. Its weights are one number, which it generates.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rewright.core.errors import EngineError, InputError
from rewright.engines.base import Request, Sampling, TrainableEngine
from rewright.net import servers as servers_module
from rewright.net.server import listening

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from rewright.engines.vllm_server import VLLMServerEngine  # noqa: E402

QUICK: dict[str, Any] = {"first_wait_seconds": 0.001, "max_wait_seconds": 0.01, "api_key_env": None}
LOAD = ["/pause", "/collective_rpc", "/resume"]


class Serving:
    """One server: `number` are its weights; `alive` False loses every connection, as after a kill."""

    def __init__(self) -> None:
        self.number, self.alive = 1, True
        self.calls: list[str] = []
        self.files: list[Path] = []
        self.running = 0
        self.blocked = asyncio.Event()
        self.blocked.set()
        self.asked = asyncio.Event()

    def application(self) -> web.Application:
        made = web.Application()
        made.router.add_route("*", "/{path:.*}", self.answer)
        return made

    async def answer(self, request: web.Request) -> web.Response:
        from safetensors.torch import load_file

        if not self.alive:
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=500)
        if request.path == "/v1/completions":
            body = await request.json()
            self.running += 1
            self.asked.set()
            await self.blocked.wait()
            self.running -= 1
            choice = {
                "text": "x", "token_ids": [self.number], "finish_reason": "length",
                "logprobs": {"token_logprobs": [-0.5], "tokens": ["x"]},
            }  # fmt: skip
            return web.json_response({"model": body["model"], "choices": [choice]})
        if request.path == "/health":
            return web.Response()
        self.calls.append(request.path)
        if request.path == "/collective_rpc":
            assert not self.running
            self.files.append(Path((await request.json())["args"][0]))
            self.number = int(load_file(self.files[-1])["w"])
        return web.Response() if request.path in {"/sleep", "/wake_up"} else web.json_response({})


def turn(session: str = "") -> Request:
    return Request((), (), Sampling(max_tokens=1), token_ids=(1, 2), session=session)


def weights(number: int) -> list[tuple[str, Any]]:
    return [("w", torch.tensor(float(number)))]


def held(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def made(engine: VLLMServerEngine, count: int = 4) -> list[tuple[tuple[int, ...] | None, int | None]]:
    replies = await asyncio.gather(*(engine.generate(turn(f"s{number}")) for number in range(count)))
    for number in range(count):
        await engine.release(f"s{number}")
    return [(reply.token_ids, reply.weights_version) for reply in replies]


async def test_all_servers_get_the_weights_between_requests(tmp_path: Path) -> None:
    first, second = Serving(), Serving()
    async with listening(first.application()) as one, listening(second.application()) as two:
        engine = VLLMServerEngine([one, two], "policy", folder=tmp_path, **QUICK)
        trainable: TrainableEngine = engine
        assert await made(engine) == [((1,), None)] * 4
        first.blocked.clear()
        first.asked.clear()
        running = asyncio.create_task(engine.generate(turn("a")))
        await first.asked.wait()
        update = asyncio.create_task(trainable.update_weights(weights(5), 3))
        await asyncio.sleep(0)
        late = asyncio.create_task(engine.generate(turn("b")))
        first.blocked.set()
        await update
        assert ((await running).token_ids, (await running).weights_version) == ((1,), None)
        assert ((await late).token_ids, (await late).weights_version) == ((5,), 3)
        assert await made(engine) == [((5,), 3)] * 4
        assert first.calls == second.calls == LOAD
        assert first.files == second.files and len(held(tmp_path)) == 1
        await engine.sleep()
        waiting = asyncio.create_task(engine.generate(turn()))
        assert await engine.alive() and not waiting.done()
        await engine.wake()
        assert (await waiting).token_ids == (5,)
        await engine.pause()
        await engine.update_weights(weights(6), 4)
        waiting = asyncio.create_task(engine.generate(turn()))
        await asyncio.sleep(0)
        assert not waiting.done()
        await engine.resume()
        assert (await waiting).weights_version == 4
        await engine.close()
    assert held(tmp_path) == []


async def test_a_server_that_comes_back_gets_the_current_weights_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers_module, "FIRST_RETRY_SECONDS", 1e-6)
    first, second = Serving(), Serving()
    async with listening(first.application()) as one, listening(second.application()) as two:
        engine = VLLMServerEngine([one, two], "policy", folder=tmp_path, attempts=50, **QUICK)
        await engine.update_weights(weights(2), 1)
        first.alive = False
        assert await made(engine) == [((2,), 1)] * 4
        assert f"{one}/v1 is dropped" in capsys.readouterr().err
        await engine.update_weights(weights(3), 2)  # for those that are left
        first.number, first.alive = 99, True  # started again, with its first weights
        said = ""
        while "answers again" not in said:
            assert await made(engine) == [((3,), 2)] * 4
            said += capsys.readouterr().err
        assert first.number == 3
        # The only server that is left, for a moment: nothing is generated with old weights, and nothing is lost.
        second.alive = False
        assert await made(engine) == [((3,), 2)] * 4
        first.alive = False
        with pytest.raises(EngineError, match=r"POST http://127.0.0.1"):
            await engine.update_weights(weights(4), 3)
        assert not await engine.alive()
        await engine.close()


async def test_what_a_server_cannot_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="/no/such is not a folder"):
        VLLMServerEngine("http://h", "policy", folder="/no/such")

    async def bare(_: web.Request) -> web.Response:
        return web.json_response({"detail": "Not Found"}, status=404)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", bare)
    async with listening(application) as url:
        engine = VLLMServerEngine(url, "policy", folder=tmp_path, **QUICK)
        with pytest.raises(EngineError, match="expected a vLLM server with VLLM_SERVER_DEV_MODE=1"):
            await engine.update_weights(weights(1), 1)
        await engine.close()
