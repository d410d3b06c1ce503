"""Settings of `rl.server`: vLLM servers that generate the rollouts of RL and take the trained weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rewright.core.errors import InputError
from rewright.core.settings import PositiveFloat, PositiveInt, Settings
from rewright.net.urls import keyed_addresses

if TYPE_CHECKING:
    from rewright.engines.vllm_server import VLLMServerEngine

__all__ = ["PolicyServer"]


class PolicyServer(Settings, frozen=True):
    """vLLM servers of the policy (`rewright.engines.vllm_server`)."""

    base_url: str | tuple[str, ...] | None = None
    """Address of the server, such as http://localhost:8000/v1, or a list of servers; all get the weights."""
    path: str = "policy"
    """Name under which the servers serve the policy."""
    folder: str | None = None
    """Folder for the file with the weights, which the servers can read; default: memory (/dev/shm)."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with the API key; the key itself is never stored."""
    concurrency: PositiveInt = 64
    """Maximum number of concurrent requests at one server."""
    timeout_seconds: PositiveFloat = 300.0
    """Time limit of one attempt, in seconds."""
    update_seconds: PositiveFloat = 600.0
    """Time limit for loading new weights, in seconds."""

    weights: Literal["file", "nccl"] = "file"
    """How the servers get new weights: `file`, which they read; `nccl`: from GPU to GPU memory (not tested)."""

    def addresses(self) -> dict[str, str]:
        """Return `base_url`, if it is set, or its items."""
        return keyed_addresses("base_url", self.base_url)

    def open(self) -> VLLMServerEngine:
        """Return the engine, without a connection. Raises InputError for invalid settings."""
        from rewright.engines.vllm_server import VLLMServerEngine

        if not self.base_url:
            raise InputError("rl.server.base_url is missing: expected the address of a vLLM server, or several")
        try:
            return VLLMServerEngine(
                self.base_url,
                self.path,
                folder=self.folder,
                api_key_env=self.api_key_env,
                concurrency=self.concurrency,
                timeout_seconds=self.timeout_seconds,
                update_seconds=self.update_seconds,
                weights=self.weights,
            )
        except InputError as problem:
            raise InputError(f"rl.server: {problem}") from None
