"""The form into which every log format is read: one attempt as chat messages in the Hugging Face convention.

A reader of a format (`LogFormat`) converts rows to `Conversation`s and nothing else. `rewright credit`
(`rewright.importers.chat_logs`) and `rewright import` (`rewright.importers.attempts`) both start from them, so that a
format has one reader.

Roles are system, user, assistant and tool. An assistant message has `content` (text), `tool_calls` in any shape that
`rewright.credit.calls` reads, and perhaps `reasoning`; `written` is the text of a turn whose calls were part of it. A
tool message has `content`, and as far as known `tool_call_id`, `name` and `error`.

Nothing in a file is executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from rewright.core.records import Message
from rewright.core.strict_json import TOLERANT
from rewright.tasks.rows import Row

__all__ = [
    "TEXT_PARTS",
    "THOUGHT_PARTS",
    "Conversation",
    "Kept",
    "LogFormat",
    "MessageFormat",
    "TurnTokens",
    "decoded",
    "kind_of",
    "log_probs",
    "name_some",
    "parts_of",
    "prompt_messages",
    "said",
    "split_results",
    "token_ids",
]

TEXT_PARTS: Final = frozenset({"text", "output_text", "input_text", "refusal", "text-plain"})
_BETWEEN: Final = re.compile(r"\n?</tool_response>\s*<tool_response>\n?")
THOUGHT_PARTS: Final = frozenset({"reasoning", "thinking", "redacted_thinking"})


class TurnTokens(NamedTuple):
    """Token ids of one turn: the generated ones, their log-probabilities, and those before the next turn."""

    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...] | None
    suffix_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """What our own export has kept of a trajectory beside the format's fields (`rewright.importers.own_extras`).

    Attributes:
        about: the object in the file.
        dialect: dialect of the exported run.
        prompt_ids, tokens: token ids of the prompt and the turns in the fields of the format; unknown ones are empty.
    """

    about: Mapping[str, Any]
    dialect: str
    prompt_ids: tuple[int, ...] | None
    tokens: Sequence[TurnTokens] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One attempt at a task.

    Attributes:
        row: the row of the file, for error messages.
        prompt: messages before the first turn.
        turns: messages from the first turn on.
        columns: columns of which one may be the outcome, or hold gold calls and answers.
        prompt_text: text of the question, if it is not that of the last message of the prompt.
        id: id of the attempt; None if the file has none.
        group: label that the attempts at one task share; None if the file has none.
        label: prefix of the group, if that is the question (a step of training).
        tools: schemas of the tools as the file has them; None if unknown.
        gold_calls, gold_answers: gold calls and answers if the format has a place for them.
        model: name of the model.
        dialect: the dialect whose text the turns are in (`tags`); None for any.
        prompt_ids, tokens: token ids of the prompt and of every turn, if the file has all of them.
        kept: what our own export has kept beside the format's fields; None for a log of another program.
    """

    row: Row
    prompt: Sequence[Message]
    turns: Sequence[Message]
    columns: Mapping[str, Any]
    prompt_text: str | None = None
    id: str | None = None
    group: str | None = None
    label: str = ""
    tools: Any = None
    gold_calls: Sequence[Any] | None = None
    gold_answers: Sequence[str] | None = None
    model: str = ""
    dialect: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    tokens: Sequence[TurnTokens] | None = None
    kept: Kept | None = None

    @property
    def messages(self) -> list[Message]:
        """All messages in order."""
        return [*self.prompt, *self.turns]

    @property
    def roles(self) -> list[str]:
        """The roles that occur, each once."""
        return list(dict.fromkeys(str(message["role"]) for message in self.messages))


class LogFormat(NamedTuple):
    """A reader of rows.

    Attributes:
        name: name for `--format`.
        about: what a row looks like, for error messages.
        matches: whether a row's keys are those of the format.
        read: converts a row; raises InputError with the row's place for what it does not understand.
    """

    name: str
    about: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Row], Iterable[Conversation]]


class MessageFormat(NamedTuple):
    """A convention of messages, in whatever key of a row they are.

    Attributes:
        name: name for `--format`.
        about: what a message looks like, for error messages.
        marks: whether a message can only be of this convention.
        convert: converts the messages of a row (see the module's docstring); raises InputError.
    """

    name: str
    about: str
    marks: Callable[[Mapping[str, Any]], bool]
    convert: Callable[[Row, Sequence[Any]], list[Message]]


def parts_of(row: Row, place: str, content: Any, *, strict: bool, ignored: Iterable[str] = ()) -> tuple[str, str]:
    """Return the text and the reasoning in the content of a message: a text, or a list of parts.

    Parts of other types are `[type]` in the text, or with `strict` (the model's own messages) an error; those in
    `ignored` are left out.
    """
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list):
        raise row.fail(f"{place} has content {content!r:.100}: expected text, or a list of parts")
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = str(part.get("type") or "text") if isinstance(part, Mapping) else type(part).__name__
        if kind in ignored:
            continue
        if kind in TEXT_PARTS:
            texts.append(str(part.get("text") or part.get("refusal") or ""))
        elif kind in THOUGHT_PARTS:
            thoughts.append(str(part.get("thinking") or part.get("reasoning") or part.get("text") or ""))
        elif strict:
            raise row.fail(f"{place} has a part of type {kind!r:.100}: expected text there, and calls in tool_calls")
        else:
            texts.append(f"[{kind}]")
    return "".join(texts), "".join(thoughts)


def token_ids(value: Any) -> tuple[int, ...] | None:
    """Return a list of token ids, or None for anything else."""
    if not isinstance(value, list) or not all(type(one) is int for one in value):
        return None
    return tuple(value)


def log_probs(value: Any, count: int) -> tuple[float, ...] | None:
    """Return a list of `count` log-probabilities, or None for anything else."""
    if not isinstance(value, list) or len(value) != count or not all(type(one) in (int, float) for one in value):
        return None
    return tuple(map(float, value))


def said(role: str, content: str, **more: Any) -> Message:
    """Return a message; keys of `more` that are None or empty are left out."""
    return {"role": role, "content": content, **{key: value for key, value in more.items() if value}}


def split_results(content: str, calls: int) -> list[str]:
    """Split results that a template for one message joined with `</tool_response>` and `<tool_response>`.

    Only behind a turn with several calls: a single result may hold these tags as text.
    """
    return _BETWEEN.split(content) if calls > 1 else [content]


def decoded(value: Any) -> Any:
    """Decode a text that is JSON; anything else is returned unchanged."""
    if isinstance(value, str):
        try:
            return TOLERANT.decode(value)
        except ValueError:
            return value
    return value


def prompt_messages(text: str) -> list[Message]:
    """Return a prompt that is a text as one message of the user."""
    return [said("user", text)] if text else []


def kind_of(value: Any) -> str:
    """Describe a value in an error message."""
    if isinstance(value, Mapping):
        return f"an object with {name_some(list(map(str, value)))}"
    if isinstance(value, str):
        return f"the text {value!r:.60}"
    return f"{value!r:.100}"


def name_some(keys: Sequence[str], most: int = 12) -> str:
    """Return a list of names for an error message, ending with `…`."""
    return ", ".join(repr(key[:60]) for key in keys[:most]) + ", …" if keys else "none"
