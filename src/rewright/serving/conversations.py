"""Convert a conversation in chat messages to the token ids that `Renderer` produces for the same trajectory.

The prompt (everything before the first assistant message) is rendered by the model's chat template. Each assistant
message is tokenised as written (calls in `tool_calls`: as the template writes them), and tool results are inserted as
in training. If the token ids of the rollout are known, send those instead: the model may have formatted its calls, or
tokenised the same text, differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewright.core.errors import InputError
from rewright.core.records import Message, ToolCall, ToolResult
from rewright.core.strict_json import STRICT
from rewright.dialects import Tags
from rewright.rendering.renderer import Renderer

__all__ = ["conversation_ids"]


def conversation_ids(
    renderer: Renderer, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()
) -> list[int]:
    """Return the token ids of the prompt and the trajectory in `messages`.

    `messages`: as in the rows of preferences.jsonl, `prompt` + `chosen`. `tools`: the function schemas of the prompt.
    Results after the last assistant message are left out, as in training. Raises InputError unless the messages are a
    prompt followed by assistant messages with tool messages between them.
    """
    first = next((index for index, message in enumerate(messages) if message.get("role") == "assistant"), None)
    if not first:
        raise InputError("messages: expected a prompt and then at least one message of role assistant")
    ids = renderer.prompt_ids(messages[:first], tools)
    calls: list[ToolCall] = []
    results: list[ToolResult] = []
    turns = 0
    for index in range(first, len(messages)):
        message = messages[index]
        role, content = message.get("role"), message.get("content") or ""
        if not isinstance(content, str):
            raise InputError(f"messages[{index}]: content is {type(content).__name__}: expected text")
        if role == "tool" and not renderer.dialect.inline:
            calls.append(ToolCall(str(message.get("name") or ""), {}))
            results.append(ToolResult(content))
        elif role == "assistant" and (turns == 0 or results):
            if turns:
                ids += renderer.end_ids(calls, results)
                ids += renderer.suffix_ids(calls, results, ended=True, end=ids[-1])
            calls, results = [], []
            ids += _message_ids(renderer, message, turns, index)
            turns += 1
        else:
            wanted = "nothing after the model's message" if renderer.dialect.inline else "tool and assistant in turn"
            raise InputError(f"messages[{index}]: role {role!r} after the model's first message: expected {wanted}")
    return [*ids, *renderer.end_ids()]


def _message_ids(renderer: Renderer, message: Message, turn: int, index: int) -> list[int]:
    """Tokenise an assistant message, calls included, without the part that the generation prompt contains.

    Inline, a message is several turns with results between them; each part is tokenised separately, as in a rollout.
    """
    text = str(message.get("content") or "")
    try:
        calls = [_call(call) for call in message.get("tool_calls") or ()]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"messages[{index}].tool_calls: expected a list of {{function: {{name, arguments}}}}"
        ) from None
    text = (renderer.with_calls(text, calls) if calls else text).removeprefix(renderer.opening(turn))
    if not renderer.dialect.inline:
        return renderer.encode_text(text)
    ids: list[int] = []
    for part in Tags().turns(text):
        ids += renderer.encode_text(part.text)
        ids += renderer.suffix_ids(part.calls, part.results, ended=False) if part.results else []
    return ids


def _call(call: dict[str, Any]) -> ToolCall:
    function = call.get("function", call)
    arguments = function["arguments"]
    if isinstance(arguments, str):
        arguments = STRICT.decode(arguments)
    if not isinstance(arguments, dict):
        raise ValueError("arguments are not an object")
    return ToolCall(str(function["name"]), arguments)
