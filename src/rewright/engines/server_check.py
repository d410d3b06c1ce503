"""What an OpenAI-compatible server can do, asked in bounded time: for `rewright doctor`."""

from __future__ import annotations

import asyncio
import os
from typing import Final, Literal

import msgspec

from rewright.core.errors import EngineError
from rewright.engines.base import Generation, Request, Sampling
from rewright.engines.openai import OpenAIEngine
from rewright.engines.served import OpenAISettings
from rewright.net.faults import connection_problem
from rewright.net.urls import normalize_base_url, without_password

__all__ = ["ServerReport", "check_servers"]

CHECK_SECONDS: Final = 10.0
"""Time limit of each of the three requests to a server."""
_MAX_REPLY_BYTES: Final = 4 * 1024 * 1024


class ServerReport(msgspec.Struct, frozen=True):
    """What one server can do. `problem`: why it cannot be used; else None."""

    address: str
    model: str
    problem: str | None = None
    models: tuple[str, ...] | None = None
    """Names of its models; None: it does not list them."""
    generates: str | None = None
    """Why it did not generate a token for the model; None: it did."""
    token_ids: bool = False
    """Whether it takes a prompt as token ids and returns the generated ones (mode completions)."""
    log_probs: bool = False
    """Whether it returns the log-probabilities of generated tokens."""


async def check_servers(settings: OpenAISettings) -> list[ServerReport]:
    """Ask each server of a model for its models and for one token, all at the same time. Never raises EngineError."""
    addresses = [normalize_base_url(address) for address in settings.addresses().values()]
    return list(await asyncio.gather(*(_check(settings, address) for address in addresses)))


async def _check(settings: OpenAISettings, address: str) -> ServerReport:
    shown = without_password(address)
    models, problem = await _models(settings, address)
    if problem is not None:
        return ServerReport(shown, settings.path, problem)
    ids = await _generated(settings, address, "completions")
    made = ids if isinstance(ids, Generation) else await _generated(settings, address, "chat")
    if isinstance(made, str):
        return ServerReport(shown, settings.path, models=models, generates=made)
    tokens = isinstance(ids, Generation)
    return ServerReport(shown, settings.path, None, models, None, tokens, made.log_probs is not None)


async def _models(settings: OpenAISettings, address: str) -> tuple[tuple[str, ...] | None, str | None]:
    """Return the names that GET /models lists (None: it lists none), and why the server cannot be reached."""
    import aiohttp

    key = os.environ.get(settings.api_key_env, "").strip() if settings.api_key_env else ""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with (
            asyncio.timeout(CHECK_SECONDS),
            aiohttp.ClientSession() as session,
            session.get(f"{address}/models", headers=headers, allow_redirects=False) as reply,
        ):
            content, status = await reply.content.read(_MAX_REPLY_BYTES), reply.status
    except TimeoutError:
        return None, f"no answer within {CHECK_SECONDS:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return None, " ".join(connection_problem(error).split())
    if status in (401, 403):
        return (
            None,
            f"HTTP {status}: expected an API key in the environment variable {settings.api_key_env or '(none)'}",
        )
    try:
        return tuple(str(one["id"]) for one in msgspec.json.decode(content)["data"]), None
    except (msgspec.DecodeError, KeyError, TypeError):
        return None, None  # servers need not list their models


async def _generated(settings: OpenAISettings, address: str, mode: Literal["chat", "completions"]) -> Generation | str:
    """Generate one token. Returns why it failed, where it did."""
    engine = OpenAIEngine(
        address,
        settings.path,
        api_key_env=settings.api_key_env,
        mode=mode,
        timeout_seconds=CHECK_SECONDS,
        attempts=1,
        extra_body=settings.extra_body,
        log_probs=settings.log_probs,
        check_model=settings.check_model,
    )
    sampling = Sampling(temperature=1.0, max_tokens=1)
    request = (
        Request((), (), sampling, token_ids=(0, 0))
        if mode == "completions"
        else Request(({"role": "user", "content": "Hello"},), (), sampling)
    )
    try:
        return await engine.generate(request)
    except EngineError as problem:
        return str(problem)
    finally:
        await engine.close()
