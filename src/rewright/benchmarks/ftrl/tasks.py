"""FTRL: tool-use tasks with a schema and Python source for every tool, and the expected sub-answers of its calls.

Columns: messages, tools, codes, unsolved_set, answer, data_source, split; the training split adds ground_truth. Columns
with JSON may be text (as in the published parquet) or already decoded. Solve metrics: `rewright.judging.solve`.
"""

from __future__ import annotations

from rewright.core.records import Gold, Message, Task, ToolCall, ToolSpec
from rewright.judging.fitting import default_judge
from rewright.tasks.formats import RowFormat
from rewright.tasks.rows import Row, function_schema

__all__ = ["FORMAT", "to_task"]


def read_messages(row: Row, key: str = "messages") -> tuple[Message, ...]:
    """Return the chat messages of a row, each with a role and content."""
    messages = row.decoded(key, list)
    if not messages:
        raise row.fail(f"{key!r} is empty, expected at least one message")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise row.fail(f"{key!r}[{number}] is not a message, expected an object with role and content")
        if not isinstance(message.get("content"), str):
            raise row.fail(f"{key!r}[{number}] has no content, expected text")
    return tuple({name: value for name, value in message.items() if value is not None} for message in messages)


def _calls(row: Row) -> tuple[ToolCall, ...] | None:
    if row.values.get("ground_truth") is None:
        return None
    calls = []
    for number, call in enumerate(row.decoded("ground_truth", list)):
        arguments = call.get("parameters", call.get("arguments")) if isinstance(call, dict) else None
        if not isinstance(arguments, dict) or not isinstance(call.get("name"), str):
            raise row.fail(f"'ground_truth'[{number}] is not a call, expected an object with name and parameters")
        calls.append(ToolCall(call["name"], arguments))
    return tuple(calls)


def _outputs(row: Row) -> dict[str, list[str]]:
    outputs: dict[str, list[str]] = {}
    for name, answers in row.decoded("unsolved_set", dict).items():
        if not isinstance(answers, list):
            raise row.fail(f"'unsolved_set'[{name!r}] is not a list, expected the answers of the tool in order")
        outputs[name] = [answer if isinstance(answer, str) else str(answer) for answer in answers]
    return outputs


def to_task(row: Row) -> Task:
    """Convert one row to a task. `id` is `ftrl-<split>-<row>`, with rows counted from 0."""
    schemas = [function_schema(row, f"'tools'[{n}]", tool) for n, tool in enumerate(row.decoded("tools", list))]
    codes = row.decoded("codes", dict)
    tools = []
    for schema in schemas:
        name = schema["function"]["name"]
        source = codes.get(name)
        if not isinstance(source, str):
            raise row.fail(f"'codes' has no source for the tool {name!r}")
        tools.append(ToolSpec(schema, source=source))
    answer = row.text("answer")
    split = row.optional_text("split") or "test"
    return Task(
        id=f"ftrl-{split}-{row.index}",
        messages=read_messages(row),
        tools=tuple(tools),
        gold=Gold(answers=(answer,), calls=_calls(row), outputs=_outputs(row)),
        source="ftrl",
        split=split,
        judge=default_judge(answer),
        metadata={"data_source": row.optional_text("data_source") or ""},
    )


FORMAT = RowFormat(to_task, columns=("messages", "tools", "codes", "unsolved_set", "answer"))
