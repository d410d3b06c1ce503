"""Check a model's chat template for rollouts, exports and chat servers. Does not run a model.

The rollout loop renders a conversation once and then only appends, so it is exact with any template. A program that
renders the whole conversation again (a chat server at every turn, another trainer on an export) gets other tokens than
the model generated if the template is not prefix-preserving, that is, if the rendering of a longer conversation does
not start with that of the shorter one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from rewright.core.errors import InputError
from rewright.core.records import Message, Task, ToolCall, ToolResult
from rewright.dialects.detect import detect_dialect
from rewright.dialects.native import NativeDialect
from rewright.rendering.native_turns import QUESTION
from rewright.rendering.renderer import Renderer

__all__ = ["TemplateFinding", "prompt_problem", "template_findings"]

THOUGHT: Final = "REWRIGHT_THOUGHT"
QUOTED_CHARACTERS: Final = 40
"""Number of characters of a difference that are quoted."""


class TemplateFinding(NamedTuple):
    """A finding about the template; `kind` groups findings in reports."""

    kind: str
    message: str


def prompt_problem(renderer: Renderer, task: Task) -> str | None:
    """Return why the template cannot render the prompt of a task; None if it can."""
    try:
        renderer.task_prompt_ids(task)
    except InputError as problem:
        return str(problem)
    return None


def template_findings(renderer: Renderer, task: Task, *, follow_ups: bool = False) -> Iterator[TemplateFinding]:
    """Yield findings about a conversation of thoughts, calls and results that starts like `task`.

    `follow_ups`: also check further user messages, before which some templates drop thoughts. Yields nothing for an
    inline dialect: its conversation is a single assistant message.
    """
    dialect = renderer.dialect
    if dialect.inline:
        return
    name = task.tools[0].name if task.tools else "probe"
    call = next(iter(task.gold.calls or ()), ToolCall(name, {}))
    if not renderer.native_system and dialect.messages(task)[0].get("role") == "system":
        yield TemplateFinding(
            "template-system", "it has no system role: the system text goes into the first user message"
        )
    if task.tools and not renderer.native_tools:
        yield TemplateFinding("template-tools", "it does not support tools: their schemas go into the system message")
    if not renderer.native_results:
        yield TemplateFinding("template-results", "it does not support tool messages: results go into user messages")
    if (end := _ends(renderer)) is not None:
        yield TemplateFinding("template-end", end)
    if task.tools and renderer.native_tools and not _reads_calls(renderer, call):
        known = detect_dialect(str(renderer.tokenizer.chat_template))
        yield TemplateFinding(
            "template-calls",
            f"it describes calls in a format that the dialect {dialect.name} does not parse: calls will be "
            "malformed or missed unless the model is told otherwise"
            + (f"; dialect: {known} reads it" if known not in (None, dialect.name) else ""),
        )
    try:
        yield from _rewrites(renderer, task, call, follow_ups=follow_ups)
    except InputError as problem:
        yield TemplateFinding("template-conversation", str(problem))


def _ends(renderer: Renderer) -> str | None:
    """Describe how the end of a message depends on the next message; None if it does not."""
    if renderer.ends == ((), ()):
        before_results = renderer.end_ids((ToolCall("f", {}),), (ToolResult("result"),))
        if before_results == renderer.end_ids():
            return None
        return (
            f"it writes no end token after the model's message: training ends a message before results with "
            f"{renderer.tokenizer.decode(before_results)!r}, which starts the results, and the last one with "
            f"{renderer.end_token!r}"
        )
    last, between = ("".join(tokens) for tokens in renderer.ends)
    if last == between:
        return None
    return (
        f"it ends the last message with {last!r} and earlier ones with {between!r}: a conversation that is rendered "
        "again has another token than the model generated"
    )


def _reads_calls(renderer: Renderer, call: ToolCall) -> bool:
    """Return True if the dialect parses the call that the template writes."""
    if isinstance(renderer.dialect, NativeDialect):
        return True  # else there were no renderer
    function = {"name": call.name, "arguments": call.arguments}
    message: Message = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    try:
        written = renderer.prompt_text([QUESTION, message, QUESTION], [])
    except InputError:
        return True  # it rejects calls without results, so the format cannot be determined
    if call.name not in written:
        return True
    return any(parsed.name == call.name and parsed.error is None for parsed in renderer.dialect.parse(written).calls)


def _rewrites(renderer: Renderer, task: Task, call: ToolCall, *, follow_ups: bool) -> Iterator[TemplateFinding]:
    """Compare renderings of the conversation: the prompt, two turns with results, and a further user message."""
    dialect, tools = renderer.dialect, renderer.dialect.schemas(task)
    conversation: list[Message] = dialect.messages(task)
    shorter = renderer.prompt_text(conversation, tools)
    # If the prompt closes the thought already, the model writes none.
    thought = "" if shorter.rstrip().endswith("</think>") else f"<think>\n{THOUGHT}\n</think>\n\n"
    if isinstance(dialect, NativeDialect) and thought:
        thought = dialect.thought(THOUGHT)
    text = dialect.write(thought, (call,))
    turn = [
        renderer.as_message(dialect.assistant_message(text, dialect.parse(text).calls)),
        *renderer.as_messages(dialect.results_as_messages((call,), (ToolResult("result"),))),
    ]
    stages = [("after results", turn), ("after more results", turn)]
    if follow_ups:
        stages.append(("after a further user message", [{"role": "assistant", "content": "Done."}, dict(QUESTION)]))
    for when, more in stages:
        conversation = [*conversation, *more]
        longer = renderer.prompt_text(conversation, tools)
        dropped = longer.count(THOUGHT) < shorter.count(THOUGHT) + bool(thought and more is turn)
        if dropped or not longer.startswith(shorter):
            what = "it removes thoughts" if dropped else _difference(shorter, longer)
            yield TemplateFinding("template-prefix", f"it is not prefix-preserving: {what} {when}")
            return
        shorter = longer


def _difference(shorter: str, longer: str) -> str:
    """Quote the first difference."""
    start = next(
        (index for index, pair in enumerate(zip(shorter, longer, strict=False)) if pair[0] != pair[1]), len(longer)
    )
    return f"{shorter[start : start + QUOTED_CHARACTERS]!r} becomes {longer[start : start + QUOTED_CHARACTERS]!r}"
