"""A server with the endpoints of vLLM's development server that RL uses, over the engine `hf`, on loopback.

    with served(lambda: vllm_like_server(folder, calls)) as url:
        ...  # rl.server.base_url is f"{url}/v1"

It loads the weights of `/collective_rpc` from their file as vLLM's workers do, by the names of a checkpoint, and keeps
to vLLM's rules: no request runs while it is paused, and weights are loaded only then.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web

from rewright.engines.base import Request, Sampling

__all__ = ["vllm_like_server"]


def vllm_like_server(
    path: str, calls: list[str], *, dtype: str = "float32", log_probs: bool = True, die_at: int = 0
) -> web.Application:
    """The application. `calls` gets the path of every call. `die_at`: from this generation on, every call fails."""
    from safetensors.torch import load_file

    from rewright.engines.embedded import HFSettings
    from rewright.engines.hf import HFEngine
    from rewright.engines.loading import load_model, load_tokenizer

    settings = HFSettings(path=path, dtype=dtype)  # type: ignore[arg-type]
    # Loaded at once: transformers loads no two models at the same time in one process.
    engine = HFEngine(load_model(settings), load_tokenizer(settings), name=path, slots=16)
    state: dict[str, Any] = {"made": 0, "running": 0, "resumed": asyncio.Event()}
    state["resumed"].set()

    async def completions(request: web.Request) -> web.Response:
        body = await request.json()
        state["made"] += 1
        if die_at and state["made"] >= die_at:
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=500)
        await state["resumed"].wait()
        state["running"] += 1
        try:
            sampling = Sampling(
                temperature=body["temperature"], top_p=body["top_p"], max_tokens=body["max_tokens"],
                stop=tuple(body.get("stop") or ()), seed=body.get("seed"),
            )  # fmt: skip
            made = await engine.generate(Request((), (), sampling, token_ids=tuple(body["prompt"])))
        finally:
            state["running"] -= 1
        choice: dict[str, Any] = {
            "index": 0, "text": made.text, "token_ids": made.token_ids, "prompt_token_ids": body["prompt"],
            "finish_reason": "length" if made.stop == "length" else "stop", "stop_reason": None,
        }  # fmt: skip
        if log_probs:
            choice["logprobs"] = {
                "token_logprobs": made.log_probs,
                "tokens": [str(one) for one in made.token_ids or ()],
            }
        return web.json_response({"id": "1", "model": body["model"], "choices": [choice]})

    async def develop(request: web.Request) -> web.Response:
        if die_at and state["made"] >= die_at:
            return web.json_response({"error": "the engine is dead"}, status=500)
        calls.append(request.path_qs)
        match request.path:
            case "/pause":
                assert request.query["mode"] == "wait"
                state["resumed"].clear()
                assert state["running"] == 0, "a request was running"
            case "/resume":
                state["resumed"].set()
            case "/collective_rpc":
                body = await request.json()
                assert body["method"] == "load_file" and not state["resumed"].is_set()
                weights = load_file(Path(body["args"][0]))
                # A head that is tied to the embeddings is not among the weights of a checkpoint.
                missing, unexpected = engine.model.load_state_dict(weights, strict=False)
                assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
                engine.refresh()
                return web.json_response({"results": [str(len(weights))]})
            case "/sleep" | "/wake_up" | "/health":
                return web.Response(status=200)
        return web.json_response({"status": "ok"})

    async def closed(_: web.Application) -> None:
        await engine.close()

    application = web.Application(client_max_size=1 << 26)
    application.router.add_post("/v1/completions", completions)
    for route in ("/pause", "/resume", "/collective_rpc", "/sleep", "/wake_up"):
        application.router.add_post(route, develop)
    application.router.add_get("/health", develop)
    application.on_cleanup.append(closed)
    return application
