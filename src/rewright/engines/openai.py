"""The `openai` engine: any OpenAI-compatible server (vLLM, SGLang, llama.cpp, `transformers serve`, hosted providers).

There are two modes. `chat` is a message engine: messages and tool schemas are sent to /chat/completions, and the server
may return parsed calls. `completions` is a token engine: the exact token ids of the conversation are sent to
/completions, and the server must return the generated ids (vLLM does). `auto` is `chat` unless `probe()` finds that the
server supports `completions`.

Servers differ in the fields that they accept. Fields outside OpenAI's API are optional: if a server rejects one by name
(HTTP 400 or 422), the request is repeated without them, and this engine no longer sends them. A field of `extra_body`
takes precedence and is never dropped; the value None removes a field from the body.

Not supported: streaming, and several choices per request (a group is several requests; servers cache the shared
prompt). Measurements with real servers are in docs/openai_servers.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.engines.base import Generation, Request, Sampling
from rewright.engines.dropped_text import DroppedText
from rewright.engines.replies import Bounds, chat_generation, read_completion
from rewright.engines.reply_parts import CHAT, COMPLETION, chat_parts
from rewright.engines.wire import Conversations, chat_body, completion_body
from rewright.net.bodies import encode_json
from rewright.net.endpoint import MAX_BODY_BYTES, Endpoint, EndpointError, Fault
from rewright.net.urls import normalize_base_url, without_password

__all__ = ["OpenAIEngine"]

Mode = Literal["chat", "completions", "auto"]
LogProbs = Literal["raw", "processed", "off"]

EXTENSIONS: Final[dict[str, Any]] = {
    "return_token_ids": True,
    # Without these fields, servers use the top_k, min_p and penalty of the model's generation_config.json.
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
MAX_FIXED_REPLY_BYTES: Final = 16 * 1024 * 1024
"""Maximum size of the part of a reply that does not grow with the generated tokens, mainly the prompt's ids."""
MAX_REPLY_BYTES_PER_TOKEN: Final = 8192
"""Allows for a token's log-probability and those of twenty alternatives, which `extra_body` may request."""
MAX_TOKENS_PER_BYTE: Final = 4
MAX_EXTRA_PROMPT_TOKENS: Final = 65_536
"""A prompt has at most one token per byte of its text. Both limits allow for text that templates and servers add."""
LOGGER: Final = logging.getLogger(__name__)


class OpenAIEngine:
    """A model on an OpenAI-compatible server. Raises EngineError (an `EndpointError`) after its retries.

    Args:
        base_url: address of the server, as http://localhost:8000/v1, or of several that serve the same model: requests
            of a trajectory stay with one of them, new ones go to the least busy (`rewright.net.servers`).
        model: the name under which the server serves the model.
        api_key, api_key_env: the API key, else the environment variable that holds it; without both, none is sent.
        mode: `chat`, `completions` or `auto`.
        concurrency: maximum number of concurrent attempts at one server.
        timeout_seconds: timeout of one attempt. (`Request.timeout_seconds` limits all attempts and waits.)
        attempts: maximum number of attempts per request.
        first_wait_seconds, max_wait_seconds: first and longest wait between attempts; waits double.
        extra_body: fields that are added to every request.
        headers: headers that are added to every request.
        log_probs: meaning of the server's log-probabilities: `raw` (at temperature 1: vLLM's default; kept only when
            sampling at temperature 1), `processed` (at the sampling temperature: SGLang, or vLLM with --logprobs-mode
            processed_logprobs), or `off` (not requested).
        check_model: treat an answer of another model as a fault.

    Raises InputError for invalid arguments.
    """

    tokens: bool
    name: str

    def __init__(
        self,
        base_url: str | Sequence[str],
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
        addresses = [base_url] if isinstance(base_url, str) else base_url
        self._endpoint = Endpoint(
            [normalize_base_url(address) for address in addresses],
            headers={**authorization, **(headers or {})},
            secret=key or None,
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            attempts=attempts,
            first_wait_seconds=first_wait_seconds,
            max_wait_seconds=max_wait_seconds,
        )
        self._dropped_text = DroppedText(self._endpoint.base_url, model)
        self._conversations = Conversations()
        self._rejected: set[str] = set()
        self._length_field = "max_tokens"

    @property
    def faults(self) -> Counter[str]:
        """Failed attempts by cause (`http_429`, `timeout`, …), including those after which a retry succeeded."""
        return self._endpoint.faults

    async def generate(self, request: Request) -> Generation:
        """Generate the next turn of the conversation. Raises only EngineError."""
        return await self._generate(request)

    async def _generate(self, request: Request, only: str | None = None) -> Generation:
        """`generate`, by the server at the address `only` if that is given."""
        loop = asyncio.get_running_loop()
        deadline = None if request.timeout_seconds is None else loop.time() + request.timeout_seconds
        path = "/completions" if self.tokens else "/chat/completions"
        while True:
            try:
                body = self._body(request)
                data = encode_json(body)
            except (Fault, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
                message = f"the messages cannot be encoded in a request: {type(error).__name__}: {error}"
                fault = error if isinstance(error, Fault) else Fault("request", message, retry=False)
                raise EndpointError(self._endpoint.base_url + path, fault, attempts=0) from None
            tokens = _requested_tokens(body)
            read = partial(self._completion if self.tokens else self._chat, request, body, len(data), tokens)
            max_bytes = MAX_BODY_BYTES if tokens is None else MAX_FIXED_REPLY_BYTES + MAX_REPLY_BYTES_PER_TOKEN * tokens
            try:
                return await self._endpoint.post(
                    path,
                    data,
                    read,
                    deadline=deadline,
                    max_bytes=max_bytes,
                    session=request.session,
                    only=only,
                    decoder=COMPLETION if self.tokens else CHAT,
                )
            except EndpointError as error:
                if not self._drop_rejected_fields(error, body):
                    raise

    def _chat(self, request: Request, body: Mapping[str, Any], size: int, tokens: int | None, reply: Any) -> Generation:
        """Read a reply to /chat/completions; `size`: bytes of the body. Raises Fault."""
        parts = chat_parts(reply, self.model if self.check_model else None)
        generation = chat_generation(
            parts,
            stop=request.sampling.stop,
            log_probs=self._log_probs_kept(request, body),
            bounds=Bounds(tokens, MAX_EXTRA_PROMPT_TOKENS + MAX_TOKENS_PER_BYTE * size),
        )
        self._dropped_text.check(request, parts.usage, hidden=bool(parts.reasoning))
        return generation

    def _completion(
        self, request: Request, body: Mapping[str, Any], size: int, tokens: int | None, reply: Any
    ) -> Generation:
        """Read a reply to /completions. Raises Fault."""
        return read_completion(
            reply,
            model=self.model if self.check_model else None,
            prompt=request.token_ids or (),
            stop=request.sampling.stop,
            log_probs=self._log_probs_kept(request, body),
            bounds=Bounds(tokens),
        )

    def _log_probs_kept(self, request: Request, body: Mapping[str, Any]) -> bool:
        return "logprobs" in body and self._log_probs_usable(request.sampling)

    async def probe(self) -> bool:
        """Resolve mode `auto`: return True if /completions accepts and returns token ids. Raises EngineError.

        Costs one generated token per server, and servers that do not answer are dropped. Token ids are used if all of
        the others support them. In other modes no request is sent.
        """
        if self.mode == "auto":
            supported: dict[str, bool] = {}
            problem: EndpointError | None = None
            for address in self._endpoint.base_urls:
                try:
                    supported[address] = await self._supports_ids(address)
                except EndpointError as error:
                    problem = error
            if problem is not None and not supported:
                raise problem
            self.tokens = all(supported.values())
            self.mode = "completions" if self.tokens else "chat"
            if len(set(supported.values())) > 1:
                lacking = next(without_password(address) for address, found in supported.items() if not found)
                say(f"warning: {lacking} does not return token ids as other servers do: all are used in mode chat")
        return self.tokens

    async def _supports_ids(self, address: str) -> bool:
        """Return True if the server accepts and returns token ids. Raises EndpointError if it does not answer."""
        self.tokens = True
        before = self.faults.copy()
        try:
            await self._generate(Request((), (), Sampling(temperature=1.0, max_tokens=1), token_ids=(0, 0)), address)
        except EndpointError as error:
            # Authentication errors, rate limits and outages do not show what the server supports.
            refused = error.status is not None and error.status not in {401, 403, 408, 409, 429, 502, 503, 504}
            if not refused and error.cause not in {"tokens", "reply", "impossible"}:
                raise
            self._rejected.clear()
            # The refusal is the answer that was asked for, and no failed attempt of the run.
            self.faults.clear()
            self.faults.update(before)
            return False
        finally:
            self.tokens = False
        return True

    async def release(self, session: str) -> None:
        """Forget the trajectory `session`. (The server manages its cache.)"""
        self._dropped_text.forget(session)
        self._conversations.forget(session)
        self._endpoint.release(session)

    async def close(self) -> None:
        """Close the connections. Running requests fail with EngineError."""
        await self._endpoint.close()

    def _log_probs_usable(self, sampling: Sampling) -> bool:
        """Return True if the server's log-probabilities are at the sampling temperature, before top-p."""
        if self.log_probs == "processed":
            return sampling.temperature > 0 and sampling.top_p >= 1
        return self.log_probs == "raw" and sampling.temperature == 1

    def _body(self, request: Request) -> dict[str, Any]:
        """Build the request body without the fields that this server has rejected. Raises Fault."""
        if self.tokens:
            body = completion_body(request, self.model)
        else:
            body = chat_body(request, self.model, self._conversations)
        if self._length_field != "max_tokens":
            body[self._length_field] = body.pop("max_tokens")
        rejected = self._rejected
        for key, value in EXTENSIONS.items():
            if key not in rejected:
                body[key] = value
        if "logprobs" not in rejected and self._log_probs_usable(request.sampling):
            body["logprobs"] = 1 if self.tokens else True
        if self.tokens and "skip_special_tokens" not in rejected:
            # Keep generated control tokens in the text. (vLLM leaves the end token out regardless.)
            body["skip_special_tokens"] = False
        if not self.extra_body:
            return body
        body |= self.extra_body
        return {key: value for key, value in body.items() if value is not None}

    def _drop_rejected_fields(self, error: EndpointError, body: Mapping[str, Any]) -> bool:
        """After a rejected request, stop sending the fields that the server named. Returns False if it named none."""
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
        # A server that rejects one extension usually rejects all of them: drop all after one rejection.
        dropped = (sent - {"logprobs"}) | named if named & set(EXTENSIONS) else named
        if new := dropped - self._rejected:  # concurrent requests are rejected together: warn once
            LOGGER.warning("%s rejects %s: no longer sent", error.url, ", ".join(sorted(new)))
        self._rejected |= dropped
        return True


def _requested_tokens(body: Mapping[str, Any]) -> int | None:
    """Return the token limit of a request; None if `extra_body` has removed it."""
    limits = [body[key] for key in ("max_completion_tokens", "max_tokens") if type(body.get(key)) is int]
    return max(limits) if limits else None


def _names(detail: str, field: str) -> bool:
    return re.search(rf"(?<![A-Za-z_]){field}(?![A-Za-z_])", detail) is not None
