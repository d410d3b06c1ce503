"""What a dialect is: how a model writes calls and answers, and how tool results are written back to it.

A dialect reads model text only. It never sees tool output: results reach the model through `results_as_messages`
and are never parsed again, so nothing that a tool prints can become a call or an answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from rewright.core.records import FollowUp, Message, Task, ToolCall, ToolResult, Trajectory, Turn

__all__ = [
    "Dialect",
    "Parsed",
    "conversation",
    "follow_up_messages",
    "is_answer_truncated",
    "malformed_calls",
    "new_schemas",
    "read_turn",
    "results_inline",
    "schemas_as_text",
    "with_instruction",
]


class Parsed(msgspec.Struct, frozen=True):
    """One turn, read. `thought` is what stood inside think tags; `rest` is the text outside of them.

    `open` names the tag that the turn's text leaves open: `answer`, and any tag in which a stop string of the dialect
    can end a turn.
    """

    calls: tuple[ToolCall, ...]
    answer: str | None
    thought: str
    rest: str
    open: str | None = None


class Dialect(Protocol):
    """A way of writing calls and answers."""

    name: str
    stop: tuple[str, ...]
    """Strings at which generation stops, kept in the text. Empty: the model's end token ends a turn."""
    control_words: tuple[str, ...]
    """Tags that mean something in this dialect: escape_control_tokens inside tool output."""
    tool_names: tuple[str, ...] | None
    """The only tools that can be called, where calls don't name their tool in JSON; None: any tool."""
    inline: bool
    """True where results stand inside the assistant's own text: a trajectory is then one assistant message."""

    def parse(self, text: str) -> Parsed:
        """Read one turn. Never raises, linear in the length of the text; malformed calls carry an `error`."""
        ...

    def truncate_at_stop(self, text: str) -> str:
        """A turn's text as it ends where generation is stopped.

        For servers that ignore stop strings (what was written behind the first call or answer is cut off), or that
        strip them without saying so (the tag that is open at the end is closed).
        """
        ...

    def messages(self, task: Task) -> list[Message]:
        """The prompt of a task, with this dialect's instruction where the task brings none."""
        ...

    def schemas(self, task: Task) -> list[dict[str, Any]]:
        """The schemas to hand to the chat template; empty where the dialect names its tools in words."""
        ...

    def write(self, text: str, calls: Sequence[ToolCall]) -> str:
        """A turn's text with `calls` written behind it, as the dialect writes them."""
        ...

    def assistant_message(self, text: str, calls: Sequence[ToolCall], *, malformed: bool = False) -> Message:
        """A turn as a chat message (Hugging Face convention: call arguments are dicts).

        `malformed` keeps malformed calls among the `tool_calls` (their raw text as arguments), so that every result
        of a running conversation has its call; without it they stay in the content.
        """
        ...

    def results_as_messages(self, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> list[Message]:
        """Tool results as the messages that follow the turn."""
        ...

    def format_problem(self, trajectory: Trajectory) -> str | None:
        """What is wrong with the format of a trajectory that has an answer, or None."""
        ...


def with_instruction(task: Task, instruction: str) -> list[Message]:
    """The task's messages, with the instruction in the system message.

    A task whose system message describes the format itself (it names `<answer>`) keeps it as it is.
    """
    messages = [dict(message) for message in task.messages]
    if not messages or messages[0].get("role") != "system":
        return [{"role": "system", "content": instruction}, *messages]
    own = str(messages[0]["content"])
    if "<answer>" not in own:
        messages[0]["content"] = f"{own}\n\n{instruction}"
    return messages


def read_turn(dialect: Dialect, text: str, stop: str) -> Parsed:
    """`dialect.parse`, knowing how the generation ended: an answer inside which a limit cut it off is none.

    A model that ends its turn itself may leave its answer open: it has said all of it.
    """
    parsed = dialect.parse(text)
    cut_off = parsed.open == "answer" and stop == "length"
    return msgspec.structs.replace(parsed, answer=None) if cut_off else parsed


def is_answer_truncated(trajectory: Trajectory) -> bool:
    """Is the answer of a stored trajectory one that `read_turn` reads as none? (Older versions stored such.)"""
    if trajectory.answer is None or not trajectory.turns or trajectory.turns[-1].stop != "length":
        return False
    last = trajectory.turns[-1]
    _, tag, behind = (last.opening + last.text).rpartition("<answer>")
    return bool(tag) and behind.strip() == trajectory.answer.strip()


def malformed_calls(trajectory: Trajectory) -> str | None:
    """The format problem of dialects whose only rule is that calls can be read, or None."""
    malformed = sum(call.error is not None for call in trajectory.calls)
    return f"{malformed} malformed calls" if malformed else None


def results_inline(dialect: Dialect, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> str:
    """Tool results as the text that goes on in the assistant's message, for a dialect that is `inline`."""
    contents = [str(message["content"]) for message in dialect.results_as_messages(calls, results)]
    return "".join(f"\n{content}\n" for content in contents)


def schemas_as_text(schemas: Sequence[dict[str, Any]]) -> str:
    """Function schemas as text."""
    lines = "\n".join(json.dumps(schema.get("function", schema), ensure_ascii=False) for schema in schemas)
    return f"You can call these functions:\n<tools>\n{lines}\n</tools>"


def new_schemas(dialect: Dialect, follow_up: FollowUp) -> list[dict[str, Any]]:
    """The schemas of the tools that come with a follow-up; empty where the dialect names its tools in words."""
    return dialect.schemas(Task(id="", messages=(), tools=follow_up.tools)) if follow_up.tools else []


def follow_up_messages(dialect: Dialect, follow_up: FollowUp) -> list[Message]:
    """What the user says next. The schemas of new tools stand before it: a prompt's own list of tools can't grow."""
    messages = [dict(message) for message in follow_up.messages]
    schemas = new_schemas(dialect, follow_up)
    if schemas and messages:
        messages[0]["content"] = f"{schemas_as_text(schemas)}\n\n{messages[0]['content']}"
    return messages


def conversation(dialect: Dialect, turns: Sequence[Turn], escape: Callable[[str], str]) -> list[Message]:
    """What follows the prompt, as chat messages: the model's turns, the tools' results, what the user said next.

    `escape` (`Renderer.escape`) makes the results plain text. Results that no turn follows are left out: the
    model never saw them.
    """
    messages: list[Message] = []
    text = ""
    for index, turn in enumerate(turns):
        seen = turn.results if index + 1 < len(turns) else ()
        results = [msgspec.structs.replace(result, content=escape(result.content)) for result in seen]
        # A malformed call stays in the text: its result must not be taken for that of a call of the tool it names.
        answered = [
            msgspec.structs.replace(call, name="") if call.error is not None else call
            for call in turn.calls[: len(results)]
        ]
        if dialect.inline:
            text += turn.opening + turn.text + (results_inline(dialect, answered, results) if answered else "")
            if turn.follow_up is not None:
                messages.append({"role": "assistant", "content": text})
                text = ""
        else:
            messages.append(dialect.assistant_message(turn.opening + turn.text, turn.calls))
            if answered:
                messages += dialect.results_as_messages(answered, results)
        if turn.follow_up is not None:
            messages += follow_up_messages(dialect, turn.follow_up)
    return [*messages, {"role": "assistant", "content": text}] if dialect.inline else messages
