"""Does a model's chat template do what rollouts, exports and chat servers expect of it? Seen before any money is spent.

Our own loop renders a conversation once and then only appends, so it is right with any template. Whoever renders a
whole conversation anew (a chat server at every turn, another trainer with our exports) sees other tokens than the model
wrote where the template is not prefix-preserving: where the rendering of a longer conversation does not begin with that
of the shorter one. Nothing here runs a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from rewright.core.errors import InputError
from rewright.core.records import Message, Task, ToolCall, ToolResult
from rewright.rendering.renderer import QUESTION, Renderer

__all__ = ["TemplateFinding", "prompt_problem", "template_findings"]

THOUGHT: Final = "REWRIGHT_THOUGHT"
QUOTED_CHARACTERS: Final = 40
"""Characters of a difference that are quoted."""


class TemplateFinding(NamedTuple):
    """One thing that the template does; `kind` groups findings in reports."""

    kind: str
    message: str


def prompt_problem(renderer: Renderer, task: Task) -> str | None:
    """Why the template can't render the prompt of a task, or None."""
    try:
        renderer.task_prompt_ids(task)
    except InputError as problem:
        return str(problem)
    return None


def template_findings(renderer: Renderer, task: Task, *, follow_ups: bool = False) -> Iterator[TemplateFinding]:
    """What the template does to a conversation of thoughts, calls and results that begins like `task`.

    `follow_ups`: the user may speak again, in front of which some templates drop thoughts. None for a dialect whose
    results stand in the assistant's own message: it is one message, and is never split.
    """
    dialect = renderer.dialect
    if dialect.inline:
        return
    name = task.tools[0].name if task.tools else "probe"
    call = next(iter(task.gold.calls or ()), ToolCall(name, {}))
    if not renderer.native_system and dialect.messages(task)[0].get("role") == "system":
        yield TemplateFinding(
            "template-system", "it has no system message: its text goes into the user's first message"
        )
    if task.tools and not renderer.native_tools:
        yield TemplateFinding("template-tools", "it does not write tools: their schemas go into the system message")
    if not renderer.native_results:
        yield TemplateFinding("template-results", "it does not write tool messages: results go into user messages")
    if (end := _ends(renderer)) is not None:
        yield TemplateFinding("template-end", end)
    if task.tools and renderer.native_tools and not _reads_calls(renderer, call):
        yield TemplateFinding(
            "template-calls",
            f"it tells the model to write calls in a form that the dialect {dialect.name} does not read: calls will be "
            "malformed or missed unless the model is told otherwise",
        )
    try:
        yield from _rewrites(renderer, task, call, follow_ups=follow_ups)
    except InputError as problem:
        yield TemplateFinding("template-conversation", str(problem))


def _ends(renderer: Renderer) -> str | None:
    """How the end of a message depends on what follows it, or None where it does not."""
    if renderer.ends == ((), ()):
        before_results = renderer.end_ids((ToolCall("f", {}),), (ToolResult("result"),))
        if before_results == renderer.end_ids():
            return None
        return (
            f"it writes no end token behind the model's message: {renderer.tokenizer.decode(before_results)!r}, which "
            f"opens the results, ends it there, and the last one is taught to end with {renderer.end_token!r}"
        )
    last, between = ("".join(tokens) for tokens in renderer.ends)
    if last == between:
        return None
    return (
        f"it ends the last message with {last!r} and those before with {between!r}: a conversation that is rendered "
        "anew has another token than the model wrote"
    )


def _reads_calls(renderer: Renderer, call: ToolCall) -> bool:
    """Does the dialect read the call that the template writes?"""
    function = {"name": call.name, "arguments": call.arguments}
    message: Message = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    try:
        written = renderer.prompt_text([QUESTION, message, QUESTION], [])
    except InputError:
        return True  # it takes no calls without results, so it does not say how it would write one
    if call.name not in written:
        return True
    return any(found.name == call.name and found.error is None for found in renderer.dialect.parse(written).calls)


def _rewrites(renderer: Renderer, task: Task, call: ToolCall, *, follow_ups: bool) -> Iterator[TemplateFinding]:
    """Renderings of the conversation after the prompt, after two turns with results, and when the user speaks again."""
    dialect, tools = renderer.dialect, renderer.dialect.schemas(task)
    conversation: list[Message] = dialect.messages(task)
    shorter = renderer.prompt_text(conversation, tools)
    # Where the prompt has closed the thought already, the model writes none.
    thought = "" if shorter.rstrip().endswith("</think>") else f"<think>\n{THOUGHT}\n</think>\n\n"
    text = dialect.write(thought, (call,))
    turn = [
        dialect.assistant_message(text, dialect.parse(text).calls),
        *renderer.as_messages(dialect.results_as_messages((call,), (ToolResult("result"),))),
    ]
    stages = [("after results", turn), ("after more results", turn)]
    if follow_ups:
        stages.append(("when the user speaks again", [{"role": "assistant", "content": "Done."}, dict(QUESTION)]))
    for when, more in stages:
        conversation = [*conversation, *more]
        longer = renderer.prompt_text(conversation, tools)
        dropped = longer.count(THOUGHT) < shorter.count(THOUGHT) + bool(thought and more is turn)
        if dropped or not longer.startswith(shorter):
            what = "it leaves thoughts out" if dropped else _difference(shorter, longer)
            yield TemplateFinding("template-prefix", f"it is not prefix-preserving: {what} {when}")
            return
        shorter = longer


def _difference(shorter: str, longer: str) -> str:
    """Where the two part, quoted."""
    place = next((at for at, pair in enumerate(zip(shorter, longer, strict=False)) if pair[0] != pair[1]), len(longer))
    return f"{shorter[place : place + QUOTED_CHARACTERS]!r} becomes {longer[place : place + QUOTED_CHARACTERS]!r}"
