"""FTRL's Solve metrics: how many of the expected sub-answers did the trajectory's tool calls return?

Parity (the rule of FTRL's evaluation): a call solves one pending expected answer of the same tool if every part of it
(split at ", ") is a substring of the tool's output. Both are lower-cased and have their commas removed.
With s solved, c calls and u expected: Solve-P = s/c (1 if c = 0), Solve-R = s/u, Solve-F1 = 2s/(c + u).

Strict (Rewright's variant) differs as follows:

- Every part must match whole words: "no" does not match "know", "5" not "15", and "12" not "-12" or "2023-12-05".
- Solve-P = 0 if c = 0.
- An output that only echoes the call's arguments solves nothing. This covers a result with an error, an error or
  not-found text that no longer contains the answer after the arguments are removed, and a JSON object that contains
  the answer only in fields that repeat an argument's name and value.
- Any other text that repeats an argument counts, because it can't be distinguished from a genuine result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rewright.core.records import Task, ToolCall, ToolResult, Trajectory
from rewright.core.strict_json import TOLERANT
from rewright.judging.base import Judgement, TrajectoryJudge

__all__ = ["SOLVE", "SOLVE_PARITY", "aligned_results", "solve_metrics", "solves", "solves_by_words"]

_FAILURE_WORDS = re.compile(
    r"\b(?:errors?|exception|traceback|invalid|unknown|unavailable|unsupported|unable|unrecognized|fail(?:s|ed|ure)?|"
    r"missing|cannot|can't|could not|couldn't|does not|doesn't|did not|must be|n/a|"
    r"not (?:found|available|specified|identified|recognized|supported|valid|applicable|determined|provided|exist)|"
    r"no (?:data|information|results?|records?|match(?:es|ing)?|specific|such)|"
    r"no (?:\w+ ){1,6}(?:found|available|identified|specified|exists?|recorded|provided))\b"
)
_MAX_ARGUMENTS = 200
"""Maximum number of argument values to search for; with more, a failing output always counts as an echo."""


_MAX_FIELD_DEPTH = 8


def _plain(text: str) -> str:
    return text.lower().replace(",", "").strip()


def solves(output: str, expected: str) -> bool:
    """Return True if every ", "-separated part of `expected` is a substring of `output` (FTRL's rule)."""
    plain = _plain(output)
    return all(_plain(part) in plain for part in expected.split(", "))


_GROUP_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_SIGNS = "-−–"


def solves_by_words(output: str, expected: str) -> bool:
    """Return True if every ", "-separated part of `expected` occurs in `output` as whole words and whole numbers.

    Letter case and thousands separators are ignored. 36.0 matches 36; -12 does not match 12.
    """
    lower = output.lower()
    texts = {lower, _GROUP_COMMA.sub("", lower)}
    parts = [_plain(part) for part in expected.split(", ")]
    return all(any(_occurs_in(part, text) for text in texts) for part in parts)


def _occurs_in(part: str, text: str) -> bool:
    if not part:
        return True
    start = text.find(part)
    while start >= 0:
        if _starts_a_word(part[0], text, start) and _ends_a_word(part[-1], text, start + len(part)):
            return True
        start = text.find(part, start + 1)
    return False


def _joined(left: str, right: str) -> bool:
    """Return True if two adjacent characters belong to one word. Scripts without spaces have no word boundaries."""
    return all(character.isalnum() or character == "_" for character in (left, right)) and not any(
        "\u2e80" <= character <= "\uffdc" or "\u0e00" <= character <= "\u0eff" for character in (left, right)
    )


def _starts_a_word(first: str, text: str, start: int) -> bool:
    if start == 0:
        return True
    before = text[start - 1]
    if _joined(before, first):
        return False
    if not first.isdigit():
        return True
    if before in _SIGNS:  # a minus sign, or a hyphen in a date; the hyphen in "F-16" is neither
        return start > 1 and text[start - 2].isalpha()
    return not (before in ".:/" and start > 1 and text[start - 2].isdigit()) and before != "."


def _ends_a_word(last: str, text: str, end: int) -> bool:
    if end == len(text):
        return True
    if _joined(last, text[end]):
        return False
    if not last.isdigit() or text[end] not in ".:/" + _SIGNS or not text[end + 1 : end + 2].isdigit():
        return True
    rest = re.compile(r"[0-9]+").match(text, end + 1)
    return text[end] == "." and rest is not None and not rest[0].strip("0") and text[rest.end() : rest.end() + 1] != "."


def _argument_texts(arguments: Mapping[str, Any]) -> list[str]:
    """Return all normalised scalar values in `arguments`, including nested ones, longest first."""
    texts: set[str] = set()
    pending: list[Any] = [arguments]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, (list, tuple)):
            pending.extend(value)
        elif value is not None and not isinstance(value, bool) and (text := _plain(str(value))):
            texts.add(text)
    return sorted(texts, key=lambda text: (-len(text), text))


def _decoded(output: str) -> Any:
    try:
        return TOLERANT.decode(output)
    except ValueError:
        return output


def _is_failure(value: Any) -> bool:
    """Return True for an error or not-found text, detected by its words or by a non-empty `error` key."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if any(str(key).lower() in ("error", "errors", "error_message") and text for key, text in value.items()):
                return True
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, str) and _FAILURE_WORDS.search(value.lower()):
            return True
    return False


def _without_repeated_fields(value: Any, arguments: Mapping[str, Any], depth: int = 0) -> Any:
    """Remove fields whose name and value equal an argument's from a JSON value."""
    if depth == _MAX_FIELD_DEPTH:
        return value
    if isinstance(value, list):
        return [_without_repeated_fields(item, arguments, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _without_repeated_fields(content, arguments, depth + 1)
        for key, content in value.items()
        if not (key in arguments and arguments[key] == content)
    }


def _solves_strictly(call: ToolCall, result: ToolResult, expected: str) -> bool:
    if result.error is not None or call.error is not None or not expected.strip():
        return False
    if not solves_by_words(result.content, expected):
        return False
    value = _decoded(result.content)
    failure = _is_failure(value)
    reduced = _without_repeated_fields(value, call.arguments)
    if reduced != value and not solves_by_words(json.dumps(reduced, ensure_ascii=False), expected):
        return False
    if not failure:
        return True
    texts = _argument_texts(call.arguments)
    if len(texts) > _MAX_ARGUMENTS:
        return False
    remaining = _GROUP_COMMA.sub("", result.content.lower())
    for text in texts:
        remaining = remaining.replace(text, " ")
    return solves_by_words(remaining, expected)


def aligned_results(trajectory: Trajectory) -> list[tuple[ToolCall, ToolResult | None]]:
    """Return every call with its result, in order; the result is None if the call was not run (tool limit, error)."""
    pairs: list[tuple[ToolCall, ToolResult | None]] = []
    for turn in trajectory.turns:
        results: list[ToolResult | None] = [*turn.results, *[None] * len(turn.calls)]
        pairs.extend(zip(turn.calls, results, strict=False))
    return pairs


def _count_solved(
    pairs: Sequence[tuple[ToolCall, ToolResult | None]], outputs: Mapping[str, Sequence[str]], *, strict: bool
) -> int:
    pending = {name: list(expected) for name, expected in outputs.items()}
    solved = 0
    for call, result in pairs:
        if result is None:
            continue
        answers = pending.get(call.name, [])
        for position, expected in enumerate(answers):
            if _solves_strictly(call, result, expected) if strict else solves(result.content, expected):
                del answers[position]
                solved += 1
                break
    return solved


def solve_metrics(trajectory: Trajectory, outputs: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return `solve_p`, `solve_r`, `solve_f1` and their `_strict` variants, each in [0, 1].

    Malformed calls count as calls. Without expected answers, recall is 1 and F1 follows the formula; F1 is 0 if there
    are no calls either.
    """
    pairs = aligned_results(trajectory)
    calls, expected = len(pairs), sum(len(answers) for answers in outputs.values())
    metrics: dict[str, float] = {}
    for suffix, strict in (("", False), ("_strict", True)):
        solved = _count_solved(pairs, outputs, strict=strict)
        metrics[f"solve_p{suffix}"] = solved / calls if calls else float(not strict)
        metrics[f"solve_r{suffix}"] = solved / expected if expected else 1.0
        metrics[f"solve_f1{suffix}"] = 2 * solved / (calls + expected) if calls + expected else 0.0
    return metrics


def _solve(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    f1 = solve_metrics(trajectory, task.gold.outputs or {})["solve_f1_strict"]
    return Judgement(f1, f"strict Solve-F1 {f1:.3f} over {len(trajectory.calls)} calls")


def _solve_parity(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    f1 = solve_metrics(trajectory, task.gold.outputs or {})["solve_f1"]
    return Judgement(f1, f"FTRL's Solve-F1 {f1:.3f} over {len(trajectory.calls)} calls")


SOLVE = TrajectoryJudge(_solve, needs=("gold.outputs",), reads_answer=False, self_contained=True, without_gold=str)
"""Judge `solve`: the outcome is the strict Solve-F1 of the calls."""
SOLVE_PARITY = TrajectoryJudge(
    _solve_parity, needs=("gold.outputs",), reads_answer=False, self_contained=True, without_gold=str
)
"""Judge `solve_parity`: the outcome is FTRL's Solve-F1 of the calls."""
