"""Attempts as one text: AutoTraj and Tool-Star (`<result>`), Search-R1 (`<information>`), `<tool_call>` (hermes).

A question is in `question`, `input`, `prompt` or `instruction`, the text in `output`, `trajectory`, `completion`,
`response` or others, or several are in `trajectories`. These are also the columns of verl's generations.

Results are taken from the record and not verified. A record with calls or results in other tags is rejected, because
they would be read as text of the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rewright.core.records import Message
from rewright.dialects import Tags
from rewright.importers.conversation import Conversation, LogFormat, prompt_messages, said
from rewright.importers.text_calls import ANY_TAG, calls_from_text, from_text, tagged_messages
from rewright.tasks.rows import Row

__all__ = ["AUTOTRAJ", "HERMES", "SEARCH_R1", "has_text"]

TEXTS: Final = (
    "output", "trajectory", "react_trajectory", "trajectories", "completion", "response", "generated_text",
    "generation", "text",
)  # fmt: skip
_QUESTIONS: Final = ("question", "input", "prompt", "instruction", "query", "problem")
_OTHER_TAG: Final = re.compile(
    r"<(information|interpreter|observation|output|documents?|tool|tool_call|tool_response|tool_result|function_call|"
    r"function_results?|execution_results?)>",
    re.IGNORECASE,
)
"""Tags that other projects use for calls and results."""
_TAGS: Final = re.compile(r"<(?:think|search|code|python|result|answer)>")


def _texts_in(values: Mapping[str, Any]) -> list[str]:
    """Return the texts of a row's attempts; empty if it has none."""
    for key in TEXTS:
        value = values.get(key)
        items = value if isinstance(value, list) else [] if value is None else [value]
        found = [one.get("react_trajectory") if isinstance(one, dict) else one for one in items]
        texts = [text for text in found if isinstance(text, str) and text.strip()]
        if texts and len(texts) == len(found):
            return texts
    return []


def has_text(values: Mapping[str, Any]) -> bool:
    """Whether a row has the text of an attempt, with or without calls, and a question."""
    return bool(_texts_in(values)) and any(values.get(key) for key in _QUESTIONS)


def _is_tool_call_text(values: Mapping[str, Any]) -> bool:
    return any("<tool_call>" in text and not _TAGS_OF_CALLS.search(text) for text in _texts_in(values))


_TAGS_OF_CALLS: Final = re.compile(r"</(?:search|code|python)>")


def _is_search_r1(values: Mapping[str, Any]) -> bool:
    texts = _texts_in(values)
    return any("<information>" in text for text in texts) and not any("<result>" in text for text in texts)


def _is_autotraj(values: Mapping[str, Any]) -> bool:
    texts = _texts_in(values)
    tagged = any(_TAGS.search(text) for text in texts)
    return tagged and not _is_search_r1(values) and not _is_tool_call_text(values)


def _autotraj(row: Row) -> Iterator[Conversation]:
    yield from _tagged(row, "result")


def _search_r1(row: Row) -> Iterator[Conversation]:
    yield from _tagged(row, "information")


def _tagged(row: Row, tag: str) -> Iterator[Conversation]:
    for number, text in enumerate(texts := _required_texts(row)):
        turns = tagged_messages([said("assistant", text)], tag)
        last = next(message["content"] for message in reversed(turns) if message["role"] == "assistant")
        if problem := _problem(text, last, tag):
            raise row.fail(problem)
        yield _conversation(row, turns, number if len(texts) > 1 else None, "tags")


def _hermes(row: Row) -> Iterator[Conversation]:
    for number, text in enumerate(texts := _required_texts(row)):
        turns, _ = calls_from_text(from_text(text))
        yield _conversation(row, turns, number if len(texts) > 1 else None, None)


def _conversation(row: Row, turns: list[Message], number: int | None, dialect: str | None) -> Conversation:
    given = [key for key in _QUESTIONS if row.values.get(key)]
    prompt = row.get(*given) if given else None
    if isinstance(prompt, list):
        messages = [dict(message) for message in prompt if isinstance(message, Mapping)]
    else:
        text = row.text(*(given or _QUESTIONS))
        messages = from_text(text) if "<|im_start|>" in text else prompt_messages(text)
        messages = [message for message in messages if message["role"] != "assistant" or message["content"].strip()]
    identity = row.get("id")
    return Conversation(
        row=row,
        prompt=messages,
        turns=turns,
        columns=row.values,
        id=None if identity is None else f"{identity}/{number}" if number is not None else str(identity),
        dialect=dialect,
        tools=row.values.get("tools"),
    )


def _required_texts(row: Row) -> list[str]:
    texts = _texts_in(row.values)
    if not texts:
        raise row.fail(f"no text of a trajectory: expected one under {', '.join(map(repr, TEXTS))}")
    return texts


def _problem(text: str, last: str, tag: str) -> str | None:
    """Return why a text is not in the dialect, or None. `last` is its last turn, which contains all unparsed text."""
    dialect = Tags()
    if not any(word in text for word in dialect.control_words):
        return f"no tag of the dialect in it: expected <think>, <search>, <code>, <{tag}>, <answer>; got {text!r:.100}"
    parsed = dialect.parse(last)
    behind = last[len(dialect.truncate_at_stop(last)) :].strip() if parsed.calls else ""
    if behind:
        other = ANY_TAG.match(behind)
        found = f"<{other[1]}>" if other is not None else repr(behind[:60])
        closing = f" (closed by </{tag}>)" if found == f"<{tag}>" else ""
        return f"behind a call stands {found}: expected what the tool returned, in <{tag}></{tag}>{closing}"
    wrong = _OTHER_TAG.search(parsed.rest.partition("<answer>")[0]) if not parsed.calls else None
    return f"holds the tag {wrong[0]}: expected calls in <search> or <code>, results in <{tag}>" if wrong else None


AUTOTRAJ: Final = LogFormat(
    name="autotraj",
    about="question and output with <search>, <code>, <result>, <answer> (AutoTraj, Tool-Star)",
    matches=_is_autotraj,
    read=_autotraj,
)
SEARCH_R1: Final = LogFormat(
    name="search-r1",
    about="question and output with <search>, <information>, <answer> (Search-R1)",
    matches=_is_search_r1,
    read=_search_r1,
)
HERMES: Final = LogFormat(
    name="hermes",
    about="prompt and completion as text, or messages, with calls in <tool_call> (Hermes, Qwen)",
    matches=_is_tool_call_text,
    read=_hermes,
)
