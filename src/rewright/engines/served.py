"""Settings of the engine `openai`: any OpenAI-compatible server (`rewright.engines.openai`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from rewright.core.errors import InputError
from rewright.core.settings import PositiveFloat, PositiveInt
from rewright.engines.base import Engine
from rewright.engines.embedded import HFSettings
from rewright.engines.settings import EngineSettings, ModelSettings
from rewright.net.urls import keyed_addresses

if TYPE_CHECKING:
    from rewright.engines.openai import OpenAIEngine

__all__ = ["OpenAISettings"]

DEFAULT_KEY: Final = "OPENAI_API_KEY"


class OpenAISettings(EngineSettings, frozen=True):
    """A model on an OpenAI-compatible server; `path` is the name under which it is served."""

    engine: str = "openai"
    """Name of the engine."""
    base_url: str | tuple[str, ...] | None = None
    """Address of the server, such as http://localhost:8000/v1, or a list of servers that serve the same model."""
    mode: Literal["auto", "chat", "completions"] = "auto"
    """`chat`: messages in, text out. `completions`: token ids in and out. `auto`: `completions` if the server
    supports it."""
    api_key_env: str = DEFAULT_KEY
    """Environment variable with the API key; the key itself is never stored."""
    concurrency: PositiveInt = 32
    """Maximum number of concurrent requests at one server."""
    timeout_seconds: PositiveFloat = 300.0
    """Time limit of one attempt, in seconds."""
    attempts: PositiveInt = 5
    """Maximum number of attempts per request."""
    max_wait_seconds: PositiveFloat = 60.0
    """Longest wait between two attempts, in seconds."""
    check_model: bool = True
    """Treat an answer of a model with another name as a fault."""
    log_probs: Literal["raw", "processed", "off"] = "raw"
    """The kind of log-probabilities that the server returns (vLLM: `--logprobs-mode`)."""
    extra_body: dict[str, Any] | None = None
    """Additional fields of every request."""

    def check(self, where: str) -> None:
        """Raise InputError if `base_url`, a named API key, or the tokenizer of `mode: completions` is missing."""
        if not self.base_url:
            if self.base_url == ():
                raise InputError(f"{where}.base_url: the list is empty: expected at least one address")
            raise InputError(
                f"{where}.base_url is missing: engine openai requires base_url, such as http://localhost:8000/v1"
            )
        if self.api_key_env not in ("", DEFAULT_KEY) and not os.environ.get(self.api_key_env):
            raise InputError(
                f"{where}.api_key_env is {self.api_key_env}: the environment variable is not set: expected the API key "
                "in it"
            )
        try:
            self._engine(self.base_url)  # makes no connection
        except InputError as problem:
            raise InputError(f"{where}: {problem}") from None
        if self.tokenizer is not None or self.mode == "completions":
            from rewright.engines.checks import check_tokenizer

            check_tokenizer(self, where)

    def addresses(self) -> dict[str, str]:
        """Return `base_url`, if it is set, or its items."""
        return keyed_addresses("base_url", self.base_url)

    async def open(self) -> tuple[Engine, Any]:
        """Return the engine, and its tokenizer for token ids (else None). Raises InputError without `base_url`."""
        from rewright.engines.loading import load_tokenizer

        if not self.base_url:
            raise InputError(f"model {self.path}: engine openai requires base_url, such as http://localhost:8000/v1")
        engine = self._engine(self.base_url)
        try:
            if self.mode == "auto":
                await engine.probe()
            return engine, load_tokenizer(self) if engine.tokens else None
        except BaseException:  # the caller has not got the engine yet and cannot close it
            await engine.close()
            raise

    @property
    def default_dialect(self) -> str:
        """`chat`: chat servers return calls, and their models answer in prose. `hermes` in mode completions."""
        return "hermes" if self.mode == "completions" else "chat"

    @property
    def tokenizer_path(self) -> str | None:
        """The configured tokenizer; None: only the server has the tokenizer."""
        return self.tokenizer

    def trained(self, folder: str) -> ModelSettings:
        """Return settings of the `hf` engine for the saved weights: a server cannot load a folder on request."""
        common = {name: getattr(self, name) for name in ("dtype", "template_options", "trust_remote_code")}
        return msgspec.convert({"path": folder, **common}, HFSettings)

    def _engine(self, base_url: str | tuple[str, ...]) -> OpenAIEngine:
        from rewright.engines.openai import OpenAIEngine

        return OpenAIEngine(
            base_url,
            self.path,
            mode=self.mode,
            api_key_env=self.api_key_env,
            concurrency=self.concurrency,
            timeout_seconds=self.timeout_seconds,
            attempts=self.attempts,
            max_wait_seconds=self.max_wait_seconds,
            check_model=self.check_model,
            extra_body=self.extra_body,
            log_probs=self.log_probs,
        )
