"""The engine interface of the rollout loop: a coroutine that generates the next turn of a conversation.

There are two kinds of engine. A *token engine* (`tokens = True`: local transformers, vLLM's completions endpoint) takes
the exact token ids of the conversation and returns token ids. A *message engine* (`tokens = False`: any hosted chat
endpoint) takes messages and schemas and returns text and, if the server parses them, structured calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Protocol

import msgspec

from rewright.core.records import Message, ToolCall

__all__ = ["Engine", "Generation", "NamedWeights", "Request", "Sampling", "TrainableEngine"]

NamedWeights = Iterable[tuple[str, Any]]
"""Weights by their names in a checkpoint: (name, torch tensor)."""


class Sampling(msgspec.Struct, frozen=True):
    """Sampling parameters. `temperature` 0 is greedy; `max_tokens` limits the generated tokens."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int | None = None


class Request(msgspec.Struct, frozen=True):
    """A generation request. `token_ids` is the whole context for a token engine, else None."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
    sampling: Sampling
    token_ids: tuple[int, ...] | None = None
    session: str = ""
    """Identifies the trajectory, so that an engine can keep its KV cache between turns."""
    timeout_seconds: float | None = None


class Generation(msgspec.Struct, frozen=True):
    """A generated turn. `calls` is set only if the server parses calls.

    `token_ids` includes the end token if the model generated one; `text` excludes it. `text` includes a stop string.
    `log_probs`: one per token, natural logarithm, at the sampling temperature before top-p.
    """

    text: str
    token_ids: tuple[int, ...] | None = None
    log_probs: tuple[float, ...] | None = None
    calls: tuple[ToolCall, ...] | None = None
    stop: Literal["end", "length", "stop"] = "end"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    refused: bool = False
    """The server marks the text as a refusal of the model, which is not an answer."""
    weights_version: int | None = None
    """Version of the weights that generated the turn. None: the engine's weights were never updated."""


class Engine(Protocol):
    """A text generation engine. Raises only `EngineError`, after its retries."""

    name: str
    tokens: bool

    async def generate(self, request: Request) -> Generation:
        """Generate the next turn of the conversation. Raises EngineError."""
        ...

    async def release(self, session: str) -> None:
        """Free the cache of the trajectory `session`, which has ended."""
        ...

    async def close(self) -> None:
        """Release the model or the connections."""
        ...


class TrainableEngine(Engine, Protocol):
    """A token engine that takes new weights while a model is trained. It returns log-probabilities.

    All methods raise EngineError. No turn is generated with the weights of two versions: requests that run are
    completed before the weights change, and later ones wait.
    """

    weights_version: int | None
    """Version of the current weights; None: those that the engine was opened with."""

    async def update_weights(self, named: NamedWeights, version: int) -> None:
        """Replace the weights. Every later turn has `version` as its `weights_version`."""
        ...

    async def pause(self) -> None:
        """Complete the running requests; later ones wait for `resume`."""
        ...

    async def resume(self) -> None:
        """Continue with the requests that wait."""
        ...

    async def sleep(self) -> None:
        """Pause, and free memory that generation needs and training can use."""
        ...

    async def wake(self) -> None:
        """End `sleep`: requests are answered again."""
        ...

    async def alive(self) -> bool:
        """Return True if requests can be answered (after `resume` or `wake`)."""
        ...
