"""The `openai` engine: any OpenAI-compatible server (vLLM, SGLang, llama.cpp, `transformers serve`, hosted providers).

Two modes. `chat` is a message engine: messages and tool schemas go to /chat/completions, calls come back parsed where
the server parses them. `completions` is a token engine: the conversation's exact token ids go to /completions, and the
server must return the generated ids (vLLM does). `auto` is `chat` until `probe()` has found that the server can do the
second.

Servers differ in what they accept. Fields beyond OpenAI's own are sent on trial: a server that refuses one by name
(HTTP 400 or 422) is asked again without them, once, and they stay off for this engine. A field of `extra_body` always
wins, is never dropped, and with the value None takes a field out of the body.

Not here: streaming, several choices per request (a group is several requests; servers share the prompt by
themselves), and prices (rewright.reports.costs). What was measured with which server stands in docs/engines.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from rewright.core.errors import InputError
from rewright.engines.base import Generation, Request, Sampling
from rewright.engines.replies import Bounds, read_chat, read_completion
from rewright.engines.wire import chat_body, completion_body
from rewright.net.endpoint import MAX_BODY_BYTES, Endpoint, EndpointError, Fault
from rewright.net.urls import normalize_base_url

__all__ = ["OpenAIEngine"]

Mode = Literal["chat", "completions", "auto"]
LogProbs = Literal["raw", "processed", "off"]

EXTENSIONS: Final[dict[str, Any]] = {
    "return_token_ids": True,
    # A server that is not told samples with the top_k, min_p and penalty of the model's generation_config.json.
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
REPLY_BYTES: Final = 16 * 1024 * 1024
"""Of a reply, for what does not grow with the generated tokens: the prompt's ids, above all."""
REPLY_BYTES_PER_TOKEN: Final = 8192
"""A token with its log-probability, and those of twenty others where `extra_body` asks for them."""
TOKENS_PER_BYTE: Final = 4
PROMPT_TOKENS: Final = 65_536
"""A prompt has at most a token for each byte of its text; the rest is for what templates and servers add."""
LOGGER: Final = logging.getLogger(__name__)


class OpenAIEngine:
    """A model behind an OpenAI-compatible server. Raises EngineError (an `EndpointError`) after its retries.

    `timeout_seconds` limits one attempt, `Request.timeout_seconds` all of them and the waits between; at most
    `concurrency` attempts are under way. The API key is `api_key`, else the environment variable `api_key_env`, else
    none is sent. `headers` are added to every request. `log_probs` says what the server's numbers mean: `raw`
    (vLLM's default: at temperature 1, so they are kept only when sampling at temperature 1), `processed` (at the
    sampling temperature: SGLang, or vLLM with --logprobs-mode processed_logprobs), or `off` (not asked for).
    """

    tokens: bool
    name: str

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        mode: Mode = "chat",
        concurrency: int = 32,
        timeout_seconds: float = 300.0,
        attempts: int = 5,
        first_wait_seconds: float = 1.0,
        max_wait_seconds: float = 60.0,
        extra_body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        log_probs: LogProbs = "raw",
        check_model: bool = True,
    ) -> None:
        if mode not in {"chat", "completions", "auto"}:
            raise InputError(f"mode is {mode!r}: expected chat, completions or auto")
        if log_probs not in {"raw", "processed", "off"}:
            raise InputError(f"log_probs is {log_probs!r}: expected raw, processed or off")
        if not model:
            raise InputError("model is empty: expected the name under which the server serves it")
        key = (api_key or (os.environ.get(api_key_env, "") if api_key_env else "")).strip()
        if not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(f"the API key ({'api_key' if api_key else api_key_env}) contains an invalid character")
        self.name = self.model = model
        self.mode: Mode = mode
        self.tokens = mode == "completions"
        self.extra_body = dict(extra_body or {})
        self.log_probs: LogProbs = log_probs
        self.check_model = check_model
        authorization = {"Authorization": f"Bearer {key}"} if key else {}
        self._endpoint = Endpoint(
            normalize_base_url(base_url),
            headers={**authorization, **(headers or {})},
            secret=key or None,
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            attempts=attempts,
            first_wait_seconds=first_wait_seconds,
            max_wait_seconds=max_wait_seconds,
        )
        self._refused: set[str] = set()
        self._length_field = "max_tokens"

    @property
    def faults(self) -> Counter[str]:
        """Failed attempts by cause (`http_429`, `timeout`, `json`, …), including those a later attempt made good."""
        return self._endpoint.faults

    async def generate(self, request: Request) -> Generation:
        """Continue the conversation of `request` by one turn. Raises EngineError, nothing else."""
        loop = asyncio.get_running_loop()
        deadline = None if request.timeout_seconds is None else loop.time() + request.timeout_seconds
        path = "/completions" if self.tokens else "/chat/completions"
        while True:
            try:
                body = self._body(request)
            except (Fault, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
                words = f"the messages cannot be encoded in a request: {type(error).__name__}: {error}"
                fault = error if isinstance(error, Fault) else Fault("request", words, retry=False)
                raise EndpointError(self._endpoint.base_url + path, fault, attempts=0) from None
            wanted = "logprobs" in body and self._log_probs_usable(request.sampling)
            expected = self.model if self.check_model else None
            tokens = _tokens_asked_for(body)

            def read(
                reply: Any,
                wanted: bool = wanted,
                expected: str | None = expected,
                body: Mapping[str, Any] = body,
                tokens: int | None = tokens,
            ) -> Generation:
                stop = request.sampling.stop
                if self.tokens:
                    prompt = request.token_ids or ()
                    bounds = Bounds(tokens)
                    return read_completion(
                        reply, model=expected, prompt=prompt, stop=stop, log_probs=wanted, bounds=bounds
                    )
                bounds = Bounds(tokens, PROMPT_TOKENS + TOKENS_PER_BYTE * len(msgspec.json.encode(body)))
                return read_chat(reply, model=expected, stop=stop, log_probs=wanted, bounds=bounds)

            max_bytes = MAX_BODY_BYTES if tokens is None else REPLY_BYTES + REPLY_BYTES_PER_TOKEN * tokens
            try:
                return await self._endpoint.post(path, body, read, deadline=deadline, max_bytes=max_bytes)
            except EndpointError as error:
                if not self._drop_refused_fields(error, body):
                    raise

    async def probe(self) -> bool:
        """Settle `auto`: does /completions take and return token ids? True where it does. Raises EngineError.

        Costs one generated token. In the other modes nothing is asked.
        """
        if self.mode == "auto":
            self.tokens = True
            try:
                await self.generate(Request((), (), Sampling(temperature=1.0, max_tokens=1), token_ids=(0, 0)))
                self.mode = "completions"
            except EndpointError as error:
                self.tokens = False
                # A key, a limit or an outage says nothing about what the server can do.
                refused = error.status is not None and error.status not in {401, 403, 408, 409, 429, 502, 503, 504}
                if not refused and error.cause not in {"tokens", "reply", "impossible"}:
                    raise
                self._refused.clear()
                self.mode = "chat"
        return self.tokens

    async def release(self, session: str) -> None:
        """Nothing is kept per trajectory: the server decides what it caches."""

    async def close(self) -> None:
        """Close the connections; requests under way fail with EngineError."""
        await self._endpoint.close()

    def _log_probs_usable(self, sampling: Sampling) -> bool:
        """Are the server's numbers what `Turn.log_probs` means: at the sampling temperature, before top-p?"""
        if self.log_probs == "processed":
            return sampling.temperature > 0 and sampling.top_p >= 1
        return self.log_probs == "raw" and sampling.temperature == 1

    def _body(self, request: Request) -> dict[str, Any]:
        """The request body without what this server has refused. Raises Fault."""
        body = (completion_body if self.tokens else chat_body)(request, self.model)
        body[self._length_field] = body.pop("max_tokens")
        optional = dict(EXTENSIONS)
        if self._log_probs_usable(request.sampling):
            optional["logprobs"] = 1 if self.tokens else True
        if self.tokens:
            # The end token is left out of the text by vLLM all the same; other control tokens are what the model wrote.
            optional["skip_special_tokens"] = False
        body |= {key: value for key, value in optional.items() if key not in self._refused}
        body |= self.extra_body
        return {key: value for key, value in body.items() if value is not None}

    def _drop_refused_fields(self, error: EndpointError, body: Mapping[str, Any]) -> bool:
        """After a refusal: leave out what the server named. False where there is nothing to leave out."""
        if error.status not in {400, 422}:
            return False
        if (
            _names(error.detail, "max_completion_tokens")
            and "max_tokens" in body
            and "max_tokens" not in self.extra_body
        ):
            self._length_field = "max_completion_tokens"
            return True
        fixed = {"return_token_ids", *self.extra_body} if self.tokens else set(self.extra_body)
        sent = {key for key in (*EXTENSIONS, "logprobs", "skip_special_tokens") if key in body} - fixed
        named = {key for key in sent if _names(error.detail, key)}
        if not named:
            return False
        # A server that checks one foreign field checks them all: one refusal is enough to find out.
        dropped = (sent - {"logprobs"}) | named if named & set(EXTENSIONS) else named
        if new := dropped - self._refused:  # requests sent together are refused together: said once
            LOGGER.warning("%s rejects %s: no longer sent", error.url, ", ".join(sorted(new)))
        self._refused |= dropped
        return True


def _tokens_asked_for(body: Mapping[str, Any]) -> int | None:
    """How many tokens a request asks for; None where `extra_body` has taken the limit out."""
    given = [body[key] for key in ("max_completion_tokens", "max_tokens") if type(body.get(key)) is int]
    return max(given) if given else None


def _names(detail: str, field: str) -> bool:
    return re.search(rf"(?<![A-Za-z_]){field}(?![A-Za-z_])", detail) is not None
