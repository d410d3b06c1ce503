"""The engine interface of the rollout loop: a coroutine that generates the next turn of a conversation.

There are two kinds of engine. A *token engine* (`tokens = True`: local transformers, vLLM's completions endpoint) takes
the exact token ids of the conversation and returns token ids. A *message engine* (`tokens = False`: any hosted chat
endpoint) takes messages and schemas and returns text and, if the server parses them, structured calls.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from rewright.core.records import Message, ToolCall

__all__ = ["Engine", "Generation", "Request", "Sampling"]


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
