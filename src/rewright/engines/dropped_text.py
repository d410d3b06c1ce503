"""Notice that a server drops text of the model's earlier turns from its next prompt.

Some chat templates, and some servers, ignore the content of an assistant message that has `tool_calls`. The model then
does not read the thoughts and remarks that it wrote beside its calls. The check needs no extra request: if the second
prompt has fewer tokens than the first prompt and its reply together, something of them is missing.
"""

from __future__ import annotations

from typing import NamedTuple

from rewright.core.progress import say
from rewright.engines.base import Request
from rewright.engines.reply_parts import Usage

__all__ = ["DroppedText"]

_SAID: set[tuple[str, str]] = set()
"""(server, model) of the warnings of this process: several engines may be opened for one server."""


class _Sent(NamedTuple):
    """What the next prompt of a trajectory contains at least."""

    messages: int
    prompt: int
    reply: int


class DroppedText:
    """Compares the token counts of consecutive prompts of a trajectory. Warns once per server and model."""

    def __init__(self, url: str, model: str) -> None:
        self._key = (url, model)
        self._sent: dict[str, _Sent] = {}

    def check(self, request: Request, usage: object, *, hidden: bool) -> None:
        """Compare a reply with the one before it, and remember it.

        `usage`: the server's, from `Parts`. `hidden`: the reply had reasoning in a field of its own, which the next
        prompt may leave out. Does nothing for counts that the server does not report.
        """
        if not isinstance(usage, Usage) or not request.session or self._key in _SAID:
            return
        before = self._sent.pop(request.session, None)
        prompt = _prompt_tokens(usage)
        if (
            before is not None
            and prompt is not None
            and prompt < before.prompt + before.reply
            and _goes_on(request, before)
        ):
            _SAID.add(self._key)
            url, model = self._key[0], self._key[1]
            say(
                f"warning: {model} at {url}: the prompt after a tool call has {prompt} tokens, fewer than the prompt "
                f"before it and its reply ({before.prompt} + {before.reply}): the server or its chat template drops "
                "the text that the model wrote beside its calls"
            )
            return
        reply = _reply_tokens(usage, hidden=hidden)
        if prompt is not None and reply is not None:
            self._sent[request.session] = _Sent(len(request.messages), prompt, reply)

    def forget(self, session: str) -> None:
        """Forget a trajectory, which has ended."""
        self._sent.pop(session, None)


def _goes_on(request: Request, before: _Sent) -> bool:
    """Return True if only the reply, with text beside its calls, and the results were added.

    Before a user message, templates may leave thoughts out.
    """
    first, *rest = request.messages[before.messages :] or ({},)
    beside = first.get("role") == "assistant" and first.get("tool_calls") and str(first.get("content") or "").strip()
    return bool(beside) and bool(rest) and all(message.get("role") == "tool" for message in rest)


def _prompt_tokens(usage: Usage) -> int | None:
    """Return the number of prompt tokens, cached ones included, as OpenAI counts them.

    Some servers leave cached tokens out of `prompt_tokens`: their total then has more than prompt and reply, or more
    tokens are cached than the prompt has.
    """
    prompt, reply = _whole(usage.prompt_tokens), _whole(usage.completion_tokens)
    if not prompt:
        return None
    details = usage.prompt_tokens_details
    cached = 0 if details is None else _whole(details.cached_tokens) or 0
    without = cached > prompt or (cached > 0 and _whole(usage.total_tokens) == prompt + cached + (reply or 0))
    return prompt + cached if without else prompt


def _reply_tokens(usage: Usage, *, hidden: bool) -> int | None:
    """Return the number of tokens of the reply that the next prompt must contain; None if it is not known."""
    reply = _whole(usage.completion_tokens)
    details = usage.completion_tokens_details
    reasoning = None if details is None else _whole(details.reasoning_tokens)
    if not reply or (hidden and not reasoning):
        return None
    return max(0, reply - (reasoning or 0))


def _whole(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
