"""The parts of a reply in the OpenAI wire format that Rewright uses; `replies` checks what they say.

The usual reply is decoded straight into typed structs (`CHAT`, `COMPLETION`), which skip the rest of it. A reply of
another form (content as a list of parts, arguments that are no string, an error with status 200, …) is decoded to plain
values and read key by key. Both give the same parts. No network code here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from rewright.core.records import ToolCall
from rewright.engines.model_names import check_model
from rewright.engines.wire import read_arguments
from rewright.net.endpoint import Fault

__all__ = ["CHAT", "COMPLETION", "Parts", "Usage", "chat_parts", "completion_parts"]

MAX_DETAIL: Final = 200
MAX_TOKEN_ID: Final = 10**7
MAX_LOG_PROB: Final = 0.01
"""A log-probability is at most 0; the margin allows for rounding in half precision."""
_TOKEN_ID: Final = re.compile(r"token_id:(\d{1,9})")


class PromptDetails(msgspec.Struct):
    """What the prompt's tokens were."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """What the generated tokens were."""

    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    """The token counts of a reply, not yet checked (a server may send anything)."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Parts(NamedTuple):
    """What a reply to /chat/completions or /completions says.

    `finish_reason`, `matched` (the stop string or stop token that ended the generation) and `usage` (`Usage`, if it is
    an object) are as the server sent them. `token_ids` and `log_probs` are None if they are not there or not valid.
    """

    content: str
    finish_reason: object
    matched: object
    usage: object
    token_ids: tuple[int, ...] | None
    log_probs: tuple[float, ...] | None
    prompt_ids: tuple[int, ...] | None
    calls: tuple[ToolCall, ...] | None = None
    reasoning: str = ""
    refusal: str = ""


class _Function(msgspec.Struct):
    name: str
    arguments: str


class _Call(msgspec.Struct):
    function: _Function


class _Message(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_Call] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    function_call: None = None


class _Token(msgspec.Struct):
    logprob: float | None = None
    token: str | None = None
    id: int | msgspec.UnsetType | None = msgspec.UNSET


class _LogProbs(msgspec.Struct):
    content: list[_Token] | None = None
    token_logprobs: list[float | None] | None = None
    tokens: list[str] | None = None


class _Choice(msgspec.Struct, kw_only=True):
    finish_reason: str
    stop_reason: str | int | msgspec.UnsetType | None = msgspec.UNSET
    matched_stop: str | int | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    logprobs: _LogProbs | None = None

    @property
    def matched(self) -> object:
        # vLLM's name, then SGLang's: the id of a stop token, or a stop string.
        return self.matched_stop if self.stop_reason is msgspec.UNSET else self.stop_reason


class _ChatChoice(_Choice, kw_only=True):
    message: _Message


class _TextChoice(_Choice, kw_only=True):
    text: str


class _Reply(msgspec.Struct, kw_only=True):
    model: str | None = None
    usage: Usage | None = None
    error: None = None


class _ChatReply(_Reply, kw_only=True):
    choices: list[_ChatChoice]


class _TextReply(_Reply, kw_only=True):
    choices: list[_TextChoice]
    prompt_token_ids: list[int] | None = None


CHAT: Final = msgspec.json.Decoder(_ChatReply)
"""Decodes the usual replies to /chat/completions."""
COMPLETION: Final = msgspec.json.Decoder(_TextReply)
"""Decodes the usual replies to /completions."""


def chat_parts(reply: Any, model: str | None) -> Parts:
    """Read a reply to /chat/completions.

    `reply`: as decoded by `CHAT`, or plain values. `model`: the expected model name; None accepts any. Raises Fault.
    """
    if isinstance(reply, _ChatReply) and reply.choices:
        check_model(reply.model, model)
        choice = reply.choices[0]
        message = choice.message
        calls = [_call(call.function.name, call.function.arguments) for call in message.tool_calls or ()]
        content = message.content or ""
        token_ids, log_probs, prompt_ids = _typed_tokens(choice)
        return Parts(
            content,
            choice.finish_reason,
            choice.matched,
            reply.usage,
            token_ids,
            log_probs,
            prompt_ids,
            tuple(calls) if calls else None,
            message.reasoning_content or message.reasoning or "",
            "" if content or calls else message.refusal or "",
        )
    plain = _choice(_plain(reply), model)
    said = plain.get("message")
    if not isinstance(said, dict):
        raise Fault("reply", "the choice has no message", retry=True)
    made = _calls(said)
    content = _text(said.get("content"))
    refusal = "" if content or made else _refusal(said)
    token_ids, log_probs, prompt_ids = _tokens(plain)
    reasoning = _reasoning(said)
    finish, matched = _ending(plain)
    usage = _usage(reply)
    return Parts(content, finish, matched, usage, token_ids, log_probs, prompt_ids, made, reasoning, refusal)


def completion_parts(reply: Any, model: str | None) -> Parts:
    """Read a reply to /completions. Arguments and errors as for `chat_parts` (`COMPLETION`)."""
    if isinstance(reply, _TextReply) and reply.choices:
        check_model(reply.model, model)
        choice = reply.choices[0]
        token_ids, log_probs, prompt_ids = _typed_tokens(choice)
        prompt_ids = prompt_ids or _valid_ids(reply.prompt_token_ids)
        finish, matched = choice.finish_reason, choice.matched
        return Parts(choice.text, finish, matched, reply.usage, token_ids, log_probs, prompt_ids)
    reply = _plain(reply)
    plain = _choice(reply, model)
    text = plain.get("text")
    if not isinstance(text, str):
        raise Fault("reply", "the choice has no text", retry=True)
    token_ids, log_probs, prompt_ids = _tokens(plain)
    prompt_ids = prompt_ids or _ids(reply.get("prompt_token_ids"))
    return Parts(text, *_ending(plain), _usage(reply), token_ids, log_probs, prompt_ids)


def _plain(reply: Any) -> Any:
    return msgspec.to_builtins(reply) if isinstance(reply, msgspec.Struct) else reply


def _usage(reply: Mapping[str, Any]) -> object:
    """Return the counts of a reply; anything but an object as it is."""
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return usage
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Usage(
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
        usage.get("total_tokens"),
        PromptDetails(prompt.get("cached_tokens")) if isinstance(prompt, dict) else None,
        CompletionDetails(completion.get("reasoning_tokens")) if isinstance(completion, dict) else None,
    )


def _ending(choice: Mapping[str, Any]) -> tuple[object, object]:
    """Return the finish reason, and the matched stop string or token (vLLM's name, then SGLang's)."""
    return choice.get("finish_reason"), choice.get("stop_reason", choice.get("matched_stop"))


def _typed_tokens(
    choice: _Choice,
) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None, tuple[int, ...] | None]:
    """As `_tokens`."""
    log_probs = choice.logprobs
    token_ids = _valid_ids(choice.token_ids)
    prompt_ids = _valid_ids(choice.prompt_token_ids)
    if log_probs is None:
        return token_ids, None, prompt_ids
    if log_probs.content is not None:
        numbers: list[Any] | None = [entry.logprob for entry in log_probs.content]
        tokens: list[Any] = [entry.token if entry.id is msgspec.UNSET else entry.id for entry in log_probs.content]
    else:
        numbers, tokens = log_probs.token_logprobs, log_probs.tokens or []
    if token_ids is None:
        token_ids = _numbered(tokens)
    if not numbers or None in numbers or not max(numbers) <= MAX_LOG_PROB:
        return token_ids, None, prompt_ids
    return token_ids, tuple(numbers), prompt_ids


def _valid_ids(values: list[int] | None) -> tuple[int, ...] | None:
    if values is None or (values and not 0 <= min(values) <= max(values) <= MAX_TOKEN_ID):
        return None
    return tuple(values)


def _call(name: object, value: object) -> ToolCall:
    """Return a call with the name and arguments that the server sent."""
    raw = value if isinstance(value, str) else json.dumps(value if value is not None else {}, ensure_ascii=False)
    arguments, error = read_arguments(value)
    if not isinstance(name, str) or not name:
        name, error = "", error or "the call has no name"
    if error is None:
        return ToolCall(name, arguments, raw)
    return ToolCall(name, {}, raw, f"malformed call: {error}")


def _choice(reply: Any, model: str | None) -> dict[str, Any]:
    if not isinstance(reply, dict):
        raise Fault("reply", f"the reply is a JSON {type(reply).__name__}, expected an object", retry=True)
    if reply.get("error"):
        raise _error_fault(reply["error"])
    answered = reply.get("model")
    check_model(answered if isinstance(answered, str) else None, model)
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
        calls.append(_call(function.get("name"), function.get("arguments")))
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
        tokens: object = [entry["id"] if "id" in entry else entry.get("token") for entry in entries]
    else:
        numbers, tokens = log_probs.get("token_logprobs"), log_probs.get("tokens")
    if token_ids is None and isinstance(tokens, list):
        token_ids = _numbered(tokens)
    return token_ids, _floats(numbers), prompt_ids


def _numbered(tokens: list[Any]) -> tuple[int, ...] | None:
    """Return the token ids of a list of ids, or of token strings `token_id:N`; None for any other token."""
    if not tokens or (isinstance(tokens[0], str) and not tokens[0].startswith("token_id:")):
        return None
    matches = [_TOKEN_ID.fullmatch(token) if isinstance(token, str) else token for token in tokens]
    return _ids([int(match[1]) if isinstance(match, re.Match) else match for match in matches])


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
