"""Samples of inspect_ai's evaluation logs: `.json` logs, single samples, and `.eval` files (see `inspect_files`).

Epochs of a sample are attempts at one task. Scores are outcomes: C and true are 1, P is 0.5, I, N and false are 0,
numbers are themselves; where there is one scorer, its score is the column `reward`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rewright.importers.conversation import Conversation, LogFormat, kind_of
from rewright.importers.openai_chat import FORMAT as CHAT
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]

_VALUES: Final = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_ATTACHMENT: Final = "attachment://"


def _read(row: Row) -> Iterator[Conversation]:
    samples = row.values.get("samples")
    if isinstance(samples, list):
        for number, sample in enumerate(samples):
            if not isinstance(sample, Mapping) or not isinstance(sample.get("messages"), list):
                raise row.fail(f"samples[{number}] is {kind_of(sample)}: expected an object with messages")
            yield _conversation(row, sample, row.values)
    elif "samples" in row.values or "messages" not in row.values:
        raise row.fail("a log of inspect_ai without samples: expected samples with messages")
    else:
        yield _conversation(row, row.values, {})


def _conversation(row: Row, sample: Mapping[str, Any], log: Mapping[str, Any]) -> Conversation:
    attachments = sample.get("attachments")
    given = sample["messages"]
    messages = CHAT.convert(row, _resolved(given, attachments) if isinstance(attachments, Mapping) else given)
    first = next(
        (
            index
            for index, message in enumerate(given)
            # An assistant message of the sample's input is a part of the prompt.
            if message.get("role") == "assistant" and message.get("source") != "input"
        ),
        len(messages),
    )
    output, about = sample.get("output"), log.get("eval")
    identity, epoch, uuid = sample.get("id"), sample.get("epoch"), sample.get("uuid")
    name = None if identity is None else str(identity)
    target = sample.get("target")
    answers = [target] if isinstance(target, str) else target
    answers = [str(one) for one in answers if str(one).strip()] if isinstance(answers, list) else None
    model = (output.get("model") if isinstance(output, Mapping) else "") or (
        about.get("model") if isinstance(about, Mapping) else ""
    )
    return Conversation(
        row=row,
        prompt=messages[:first],
        turns=messages[first:],
        columns={**_metadata(sample), **_scores(sample)},
        id=uuid if isinstance(uuid, str) and uuid else None if name is None else f"{name}/{epoch}",
        group=name,
        tools=_tools(sample),
        gold_answers=answers or None,
        model=str(model or ""),
    )


def _metadata(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the keys of a sample's metadata that hold gold calls. Its numbers are no outcomes."""
    found = sample.get("metadata")
    return {key: found[key] for key in ("gold_calls",) if key in found} if isinstance(found, Mapping) else {}


def _scores(sample: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, float] = {}
    scores = sample.get("scores")
    for name, score in (scores or {}).items() if isinstance(scores, Mapping) else ():
        value = score.get("value") if isinstance(score, Mapping) else None
        parts = value.items() if isinstance(value, Mapping) else [(None, value)]
        for key, one in parts:
            number = _VALUES.get(one) if isinstance(one, str) else one
            if isinstance(number, (bool, int, float)):
                found[name if key is None else f"{name}/{key}"] = float(number)
    if len(found) == 1:
        found["reward"] = next(iter(found.values()))
    return found


def _tools(sample: Mapping[str, Any]) -> list[Any] | None:
    """Return the tools that the sample's model calls had, each once."""
    tools: dict[str, Any] = {}
    for event in sample.get("events") or ():
        given = event.get("tools") if isinstance(event, Mapping) and event.get("event") == "model" else None
        for tool in given if isinstance(given, Sequence) and not isinstance(given, str) else ():
            if isinstance(tool, Mapping) and isinstance(tool.get("name"), str):
                parameters = tool.get("parameters")
                kept = {key: tool[key] for key in ("name", "description") if tool.get(key)}
                tools.setdefault(tool["name"], kept | {"parameters": _without_nulls(parameters or {})})
    return list(tools.values()) or None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _resolved(value: Any, attachments: Mapping[str, Any]) -> Any:
    """Put the attachments of a sample into the texts that stand for them."""
    if isinstance(value, str) and value.startswith(_ATTACHMENT):
        return attachments.get(value.removeprefix(_ATTACHMENT), value)
    if isinstance(value, Mapping):
        return {key: _resolved(inner, attachments) for key, inner in value.items()}
    return [_resolved(inner, attachments) for inner in value] if isinstance(value, list) else value


def _matches(values: Mapping[str, Any]) -> bool:
    if isinstance(values.get("eval"), Mapping) and ("samples" in values or "plan" in values):
        return True
    return isinstance(values.get("messages"), list) and {"epoch", "input", "target"} <= values.keys()


FORMAT: Final = LogFormat(
    name="inspect",
    about="a log with eval and samples, or a sample with epoch, input, target and messages (inspect_ai)",
    matches=_matches,
    read=_read,
)
