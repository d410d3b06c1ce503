"""What the rollout loop needs of a model: one coroutine that continues a conversation.

Two kinds of engine. A *token engine* (`tokens = True`: local transformers, vLLM's completions endpoint) is given the
exact token ids of the conversation and returns token ids. A *message engine* (`tokens = False`: any hosted chat
endpoint) is given messages and schemas and returns text and, where the server parses them, structured calls.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from rewright.core.records import Message, ToolCall

__all__ = ["Engine", "Generation", "Request", "Sampling"]


class Sampling(msgspec.Struct, frozen=True):
    """How to sample. `temperature` 0 is greedy; `max_tokens` counts new tokens of this generation."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int | None = None


class Request(msgspec.Struct, frozen=True):
    """One generation to make. `token_ids` is the whole context for a token engine, else None."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
    sampling: Sampling
    token_ids: tuple[int, ...] | None = None
    session: str = ""
    """Names the trajectory, so that an engine can keep its key-value cache between turns."""
    timeout_seconds: float | None = None


class Generation(msgspec.Struct, frozen=True):
    """What the model wrote. `calls` is set only by servers that parse calls themselves.

    `token_ids` includes the end token when the model wrote one; `text` excludes it. A stop string is kept in `text`.
    """

    text: str
    token_ids: tuple[int, ...] | None = None
    log_probs: tuple[float, ...] | None = None
    calls: tuple[ToolCall, ...] | None = None
    stop: Literal["end", "length", "stop"] = "end"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Engine(Protocol):
    """A model behind one coroutine. Raises `EngineError` after its retries; nothing else."""

    name: str
    tokens: bool

    async def generate(self, request: Request) -> Generation:
        """Continue the conversation of `request` by one turn."""
        ...

    async def release(self, session: str) -> None:
        """The trajectory `session` is over: forget what was cached for it."""
        ...

    async def close(self) -> None:
        """Free the model or the connections."""
        ...
