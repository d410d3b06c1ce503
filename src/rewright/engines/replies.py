"""Parse replies in the OpenAI wire format to a `Generation`; an invalid or empty reply is a `Fault`.

Supports the replies of vLLM, SGLang, llama.cpp, transformers and hosted providers. No network code here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from rewright.core.records import ToolCall
from rewright.engines.base import Generation
from rewright.engines.wire import read_arguments
from rewright.net.endpoint import Fault

__all__ = ["Bounds", "has_reasoning", "read_chat", "read_completion", "same_model"]

Ending = Literal["end", "length", "stop"]

END_REASONS: Final = frozenset(
    {"stop", "eos", "eos_token", "end_turn", "tool_calls", "tool_call", "tool_use", "function_call"}
)
STOP_REASONS: Final = frozenset({"stop_sequence"})
LENGTH_REASONS: Final = frozenset({"length", "max_tokens", "model_length"})
ABORT_REASONS: Final = frozenset({"abort", "aborted", "cancelled", "error", "timeout"})
MAX_DETAIL: Final = 200
MAX_CHARACTERS_PER_TOKEN: Final = 256
"""The longest tokens of current vocabularies have 128 characters (spaces)."""
MAX_EXTRA_CHARACTERS: Final = 4096
"""Allows for text that a server adds around the tokens: tags, ids, a stop string."""
MAX_TOKENS: Final = 10**8
"""Upper bound of token counts in any reply: a hundred times the longest contexts."""
MAX_TOKEN_ID: Final = 10**7
MAX_LOG_PROB: Final = 0.01
"""A log-probability is at most 0; the margin allows for rounding in half precision."""


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
        reply: the decoded JSON.
        model: the expected model name; None accepts any.
        stop: the stop strings of the request.
        log_probs: keep log-probabilities.
        bounds: upper bounds for a valid reply.

    Token ids and log-probs are None if the server did not return them. Raises Fault.
    """
    choice = _choice(reply, model)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Fault("reply", "the choice has no message", retry=True)
    calls = _calls(message)
    content = _text(message.get("content"))
    refusal = "" if content or calls else _refusal(message)
    content = content or refusal
    ending, matched = _ending(choice)
    token_ids, numbers, _ = _tokens(choice)
    for name, values in ("token ids", token_ids), ("log-probs", numbers):
        if values is not None and len(values) > bounds.reported:
            raise _impossible(f"{len(values)} {name} for {bounds.tokens} requested tokens")
    if token_ids is not None and numbers is not None and len(token_ids) != len(numbers):
        raise _impossible(f"{len(numbers)} log-probs for {len(token_ids)} token ids")
    completion_tokens = _count(reply, "completion_tokens", bounds.reported)
    if not calls and not content and not _reasoning(message) and completion_tokens == 0:
        raise Fault("reply", "the server generated no token", retry=True)
    text = _with_reasoning(_reasoning(message), content, closed=bool(content or calls) or ending == "end")
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
        prompt_tokens=_count(reply, "prompt_tokens", bounds.prompt_tokens or MAX_TOKENS) or None,
        completion_tokens=(completion_tokens or None) if written else completion_tokens,
        refused=bool(refusal),
    )


def has_reasoning(reply: Mapping[str, Any]) -> bool:
    """Return True if a valid reply of /chat/completions has reasoning in a field of its own."""
    return bool(_reasoning(reply["choices"][0]["message"]))


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
    choice = _choice(reply, model)
    text = choice.get("text")
    if not isinstance(text, str):
        raise Fault("reply", "the choice has no text", retry=True)
    ending, matched = _ending(choice)
    token_ids, numbers, seen_prompt = _tokens(choice)
    if token_ids is None:
        raise Fault(
            "tokens", "the server returned no token ids: use mode chat, or a server that returns them", retry=False
        )
    if not token_ids:
        raise Fault("reply", "the server generated no token", retry=True)
    if bounds.tokens is not None and len(token_ids) > bounds.tokens + 1:  # some servers add the end token
        raise _impossible(f"{len(token_ids)} token ids for {bounds.tokens} requested tokens")
    seen_prompt = seen_prompt or _ids(reply.get("prompt_token_ids"))
    if seen_prompt is not None and list(seen_prompt) != list(prompt):
        raise Fault(
            "tokens",
            f"the server read {len(seen_prompt)} prompt tokens that differ from the {len(prompt)} sent",
            retry=False,
        )
    if log_probs and (numbers is None or len(numbers) != len(token_ids)):
        count = "no" if numbers is None else len(numbers)
        raise Fault("tokens", f"the server returned {count} log-probs for {len(token_ids)} tokens", retry=False)
    _count(reply, "completion_tokens", bounds.reported)  # not used, but an invalid count invalidates the reply
    text, ending = _with_stop(text, ending, matched, stop)
    _check_length(text, (), bounds)
    return Generation(
        text=text,
        token_ids=token_ids,
        log_probs=numbers if log_probs else None,
        stop=ending,
        prompt_tokens=len(prompt),
        completion_tokens=len(token_ids),
    )


def same_model(requested: str, answered: str) -> bool:
    """Return True if `answered` names the model `requested`. Paths, revisions (`@…`), tags (`:…`) and dates may differ.

    >>> same_model("gpt-4o", "gpt-4o-2024-08-06"), same_model("gpt-4o", "gpt-4o-mini")
    (True, False)
    """
    name = requested.casefold().rstrip("/").removesuffix("-latest")
    other = answered.casefold().rstrip("/").removesuffix("-latest")
    if "/" not in name or "/" not in other:  # one of them names the owner or the directory, the other does not
        name, other = name.rpartition("/")[2], other.rpartition("/")[2]
    rest = other.removeprefix(name)
    return rest == "" or (rest != other and re.match(r"[@:]|-v?\d", rest) is not None)


def _choice(reply: Any, model: str | None) -> dict[str, Any]:
    if not isinstance(reply, dict):
        raise Fault("reply", f"the reply is a JSON {type(reply).__name__}, expected an object", retry=True)
    if reply.get("error"):
        raise _error_fault(reply["error"])
    answered = reply.get("model")
    if model and isinstance(answered, str) and answered and not same_model(model, answered):
        raise Fault(
            "model", f"model {answered!r} answered, expected {model!r} (check_model=False accepts any)", retry=True
        )
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Fault("reply", "the reply has no choices", retry=True)
    return choices[0]


def _error_fault(error: Any) -> Fault:
    """Convert an error object with status 200, as routers return it for a failure of their provider."""
    code = error.get("code") if isinstance(error, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    excerpt = " ".join(str(message or error).split())[:MAX_DETAIL]
    final = isinstance(code, int) and 400 <= code < 500 and code not in {408, 409, 429}
    return Fault("reply", f"the reply is an error: {excerpt}", retry=not final, detail=excerpt)


def _ending(choice: Mapping[str, Any]) -> tuple[Ending, str | None]:
    """Return how the generation ended, and the matched stop string if the server reports it."""
    reason = choice.get("finish_reason")
    # vLLM's name, then SGLang's: the id of a stop token, or a stop string.
    matched = choice.get("stop_reason", choice.get("matched_stop"))
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
    if ending == "end" and any(word and text.endswith(word) for word in stop):
        return text, "stop"
    return text, ending


def _calls(message: Mapping[str, Any]) -> tuple[ToolCall, ...] | None:
    tool_calls = message.get("tool_calls")
    if not tool_calls and isinstance(message.get("function_call"), dict):
        tool_calls = [{"function": message["function_call"]}]
    if not tool_calls:
        return None
    if not isinstance(tool_calls, list):
        raise Fault("reply", "tool_calls is not a list", retry=True)
    calls = []
    for entry in tool_calls:
        function = entry.get("function") if isinstance(entry, dict) else None
        if not isinstance(function, dict):
            calls.append(ToolCall("", {}, raw=json.dumps(entry), error="malformed call: it has no function"))
            continue
        value, name = function.get("arguments"), function.get("name")
        raw = value if isinstance(value, str) else json.dumps(value if value is not None else {}, ensure_ascii=False)
        arguments, error = read_arguments(value)
        if not isinstance(name, str) or not name:
            name, error = "", error or "the call has no name"
        calls.append(
            ToolCall(name, arguments if error is None else {}, raw, f"malformed call: {error}" if error else None)
        )
    return tuple(calls)


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _text(content: object) -> str:
    """Return the text of a message's content: a string, or the text parts of a list."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        return "".join(_string(part.get("text")) for part in parts if part.get("type") in {"text", "output_text"})
    raise Fault("reply", f"content is a JSON {type(content).__name__}, expected a string", retry=True)


def _refusal(message: Mapping[str, Any]) -> str:
    """Return the text with which the model refuses: a field of the message, or a part of its content."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    said = "".join(_string(part.get("refusal")) for part in parts if part.get("type") == "refusal")
    return _string(message.get("refusal")) or said


def _reasoning(message: Mapping[str, Any]) -> str:
    for key in ("reasoning_content", "reasoning"):
        if isinstance(message.get(key), str) and message[key]:
            return str(message[key])
    content = message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return "".join(_text(part.get("thinking")) for part in parts if part.get("type") == "thinking")


def _with_reasoning(reasoning: str, content: str, *, closed: bool) -> str:
    if not reasoning:
        return content
    return f"<think>{reasoning}" + (f"</think>{content}" if closed else "")


def _tokens(
    choice: Mapping[str, Any],
) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None, tuple[int, ...] | None]:
    """Return (token ids, log-probs, prompt ids) of a choice; each is None if the server did not return it.

    Token ids are read from `token_ids` (vLLM), from `logprobs.content[].id` (llama.cpp), or from token strings of the
    form `token_id:N` (vLLM with --return-tokens-as-token-ids).
    """
    token_ids = _ids(choice.get("token_ids"))
    prompt_ids = _ids(choice.get("prompt_token_ids"))
    log_probs = choice.get("logprobs")
    if not isinstance(log_probs, dict):
        return token_ids, None, prompt_ids
    content = log_probs.get("content")
    numbers: object
    if isinstance(content, list):
        entries = [entry if isinstance(entry, dict) else {} for entry in content]
        numbers = [entry.get("logprob") for entry in entries]
        ids = [entry["id"] if "id" in entry else _token_number(entry.get("token")) for entry in entries]
    else:
        numbers, tokens = log_probs.get("token_logprobs"), log_probs.get("tokens")
        ids = [_token_number(token) for token in tokens] if isinstance(tokens, list) else []
    if token_ids is None and ids:
        token_ids = _ids(ids)
    return token_ids, _floats(numbers), prompt_ids


def _token_number(token: object) -> int | None:
    match = re.fullmatch(r"token_id:(\d{1,9})", token) if isinstance(token, str) else None
    return int(match[1]) if match else None


def _ids(values: object) -> tuple[int, ...] | None:
    if not isinstance(values, list) or any(
        type(value) is not int or not 0 <= value <= MAX_TOKEN_ID for value in values
    ):
        return None
    return tuple(values)


def _floats(values: object) -> tuple[float, ...] | None:
    if not isinstance(values, list) or not values:
        return None
    if any(
        isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value <= MAX_LOG_PROB
        for value in values
    ):
        return None
    return tuple(float(value) for value in values)


def _count(reply: Mapping[str, Any], key: str, max_count: int) -> int | None:
    """Return a count of the usage object; None if there is none. Raises Fault for an invalid count."""
    usage = reply.get("usage")
    if usage is not None and not isinstance(usage, dict):
        raise _impossible(f"usage is a JSON {type(usage).__name__}, expected an object")
    value = usage.get(key) if usage is not None else None
    if value is not None and (type(value) is not int or not 0 <= value <= max_count):
        raise _impossible(f"usage.{key} is {value!r:.40}, expected a whole number from 0 to {max_count}")
    return value


def _check_length(text: str, calls: Sequence[ToolCall], bounds: Bounds) -> None:
    """Raise Fault for more text than the requested tokens can have."""
    length = len(text) + sum(len(call.name) + len(call.raw) for call in calls)
    if length > bounds.characters:
        raise _impossible(f"{length} characters for {bounds.tokens} requested tokens")
    if len(calls) > bounds.reported:
        raise _impossible(f"{len(calls)} calls for {bounds.tokens} requested tokens")


def _impossible(what: str) -> Fault:
    return Fault("impossible", f"impossible reply: {what}", retry=False)
