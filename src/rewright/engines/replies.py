"""Parse replies in the OpenAI wire format to a `Generation`; an invalid or empty reply is a `Fault`.

Supports the replies of vLLM, SGLang, llama.cpp, transformers and hosted providers. No network code here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from rewright.core.records import ToolCall
from rewright.engines.base import Generation
from rewright.engines.reply_parts import Parts, Usage, chat_parts, completion_parts
from rewright.net.endpoint import Fault

__all__ = ["Bounds", "chat_generation", "read_chat", "read_completion"]

Ending = Literal["end", "length", "stop"]

END_REASONS: Final = frozenset(
    {"stop", "eos", "eos_token", "end_turn", "tool_calls", "tool_call", "tool_use", "function_call"}
)
STOP_REASONS: Final = frozenset({"stop_sequence"})
LENGTH_REASONS: Final = frozenset({"length", "max_tokens", "model_length"})
ABORT_REASONS: Final = frozenset({"abort", "aborted", "cancelled", "error", "timeout"})
MAX_CHARACTERS_PER_TOKEN: Final = 256
"""The longest tokens of current vocabularies have 128 characters (spaces)."""
MAX_EXTRA_CHARACTERS: Final = 4096
"""Allows for text that a server adds around the tokens: tags, ids, a stop string."""
MAX_TOKENS: Final = 10**8
"""Upper bound of token counts in any reply: a hundred times the longest contexts."""


class Bounds(NamedTuple):
    """Upper bounds for a valid reply.

    Attributes:
        tokens: token limit of the request; None: unknown.
        prompt_tokens: maximum number of prompt tokens; None: unknown.
    """

    tokens: int | None = None
    prompt_tokens: int | None = None

    @property
    def reported(self) -> int:
        """Maximum reported number of generated tokens. Some servers exceed the limit or add reasoning tokens."""
        return MAX_TOKENS if self.tokens is None else min(MAX_TOKENS, 4 * self.tokens + 1024)

    @property
    def characters(self) -> int:
        """Maximum number of characters of the generated text."""
        return MAX_CHARACTERS_PER_TOKEN * (MAX_TOKENS if self.tokens is None else self.tokens) + MAX_EXTRA_CHARACTERS


_NO_BOUNDS: Final = Bounds()


def read_chat(
    reply: Any, *, model: str | None, stop: Sequence[str] = (), log_probs: bool = True, bounds: Bounds = _NO_BOUNDS
) -> Generation:
    """Parse a reply to /chat/completions.

    Args:
        reply: the decoded JSON, or as decoded by `reply_parts.CHAT`.
        model: the expected model name; None accepts any.
        stop: the stop strings of the request.
        log_probs: keep log-probabilities.
        bounds: upper bounds for a valid reply.

    Token ids and log-probs are None if the server did not return them. Raises Fault.
    """
    return chat_generation(chat_parts(reply, model), stop=stop, log_probs=log_probs, bounds=bounds)


def chat_generation(parts: Parts, *, stop: Sequence[str], log_probs: bool, bounds: Bounds) -> Generation:
    """As `read_chat`, of the parts of a reply."""
    calls, token_ids, numbers = parts.calls, parts.token_ids, parts.log_probs
    content = parts.content or parts.refusal
    ending, matched = _ending(parts.finish_reason, parts.matched)
    reported = bounds.reported
    if token_ids is not None and len(token_ids) > reported:
        raise _impossible(f"{len(token_ids)} token ids for {bounds.tokens} requested tokens")
    if numbers is not None and len(numbers) > reported:
        raise _impossible(f"{len(numbers)} log-probs for {bounds.tokens} requested tokens")
    if token_ids is not None and numbers is not None and len(token_ids) != len(numbers):
        raise _impossible(f"{len(numbers)} log-probs for {len(token_ids)} token ids")
    completion_tokens = _count(parts.usage, "completion_tokens", reported)
    if not calls and not content and not parts.reasoning and completion_tokens == 0:
        raise Fault("reply", "the server generated no token", retry=True)
    text = _with_reasoning(parts.reasoning, content, closed=bool(content or calls) or ending == "end")
    text, ending = _with_stop(text, ending, matched, stop)
    _check_length(text, calls or (), bounds)
    written = bool(text or calls)
    return Generation(
        text=text,
        token_ids=token_ids,
        log_probs=numbers if log_probs else None,
        calls=calls,
        stop=ending,
        # 0 tokens with a text: the server does not count tokens.
        prompt_tokens=_count(parts.usage, "prompt_tokens", bounds.prompt_tokens or MAX_TOKENS) or None,
        completion_tokens=(completion_tokens or None) if written else completion_tokens,
        refused=bool(parts.refusal),
    )


def read_completion(
    reply: Any,
    *,
    model: str | None,
    prompt: Sequence[int],
    stop: Sequence[str] = (),
    log_probs: bool = True,
    bounds: Bounds = _NO_BOUNDS,
) -> Generation:
    """Parse a reply to /completions, which must have token ids (and log-probs if `log_probs`).

    `prompt`: the token ids of the request; they must equal those that the server reports. Other arguments as for
    `read_chat`. Raises Fault.
    """
    parts = completion_parts(reply, model)
    ending, matched = _ending(parts.finish_reason, parts.matched)
    token_ids, numbers, seen_prompt = parts.token_ids, parts.log_probs, parts.prompt_ids
    if token_ids is None:
        raise Fault(
            "tokens", "the server returned no token ids: use mode chat, or a server that returns them", retry=False
        )
    if not token_ids:
        raise Fault("reply", "the server generated no token", retry=True)
    if bounds.tokens is not None and len(token_ids) > bounds.tokens + 1:  # some servers add the end token
        raise _impossible(f"{len(token_ids)} token ids for {bounds.tokens} requested tokens")
    if seen_prompt is not None and seen_prompt != tuple(prompt):
        raise Fault(
            "tokens",
            f"the server read {len(seen_prompt)} prompt tokens that differ from the {len(prompt)} sent",
            retry=False,
        )
    if log_probs and (numbers is None or len(numbers) != len(token_ids)):
        count = "no" if numbers is None else len(numbers)
        raise Fault("tokens", f"the server returned {count} log-probs for {len(token_ids)} tokens", retry=False)
    _count(parts.usage, "completion_tokens", bounds.reported)  # not used, but an invalid count invalidates the reply
    text, ending = _with_stop(parts.content, ending, matched, stop)
    _check_length(text, (), bounds)
    return Generation(
        text=text,
        token_ids=token_ids,
        log_probs=numbers if log_probs else None,
        stop=ending,
        prompt_tokens=len(prompt),
        completion_tokens=len(token_ids),
    )


def _ending(reason: object, matched: object) -> tuple[Ending, str | None]:
    """Return how the generation ended, and the matched stop string if the server reports it."""
    if not isinstance(reason, str):
        raise Fault("reply", "the choice has no finish_reason", retry=True)
    if reason in LENGTH_REASONS:
        return "length", None
    if reason in STOP_REASONS or (reason in END_REASONS and isinstance(matched, str)):
        return "stop", matched if isinstance(matched, str) else None
    if reason in END_REASONS:
        return "end", None
    if reason in ABORT_REASONS:
        raise Fault("reply", f"the server aborted the generation: finish_reason {reason!r}", retry=True)
    if reason == "content_filter":
        raise Fault("filtered", "the provider's content filter ended the generation", retry=False)
    raise Fault("reply", f"unknown finish_reason {reason!r}", retry=False)


def _with_stop(text: str, ending: Ending, matched: str | None, stop: Sequence[str]) -> tuple[str, Ending]:
    """Append a stop string that the server removed; detect one that it kept."""
    if matched and not text.endswith(matched):
        return text + matched, "stop"
    if stop and ending == "end" and any(word and text.endswith(word) for word in stop):
        return text, "stop"
    return text, ending


def _with_reasoning(reasoning: str, content: str, *, closed: bool) -> str:
    if not reasoning:
        return content
    return f"<think>{reasoning}" + (f"</think>{content}" if closed else "")


def _count(usage: object, key: str, max_count: int) -> int | None:
    """Return a count of the usage object; None if there is none. Raises Fault for an invalid count."""
    if usage is None:
        return None
    if not isinstance(usage, Usage):
        raise _impossible(f"usage is a JSON {type(usage).__name__}, expected an object")
    value: int | None = getattr(usage, key)
    if value is not None and (type(value) is not int or not 0 <= value <= max_count):
        raise _impossible(f"usage.{key} is {value!r:.40}, expected a whole number from 0 to {max_count}")
    return value


def _check_length(text: str, calls: Sequence[ToolCall], bounds: Bounds) -> None:
    """Raise Fault for more text than the requested tokens can have."""
    length = len(text)
    for call in calls:
        length += len(call.name) + len(call.raw)
    if length > bounds.characters:
        raise _impossible(f"{length} characters for {bounds.tokens} requested tokens")
    if len(calls) > bounds.reported:
        raise _impossible(f"{len(calls)} calls for {bounds.tokens} requested tokens")


def _impossible(what: str) -> Fault:
    return Fault("impossible", f"impossible reply: {what}", retry=False)
