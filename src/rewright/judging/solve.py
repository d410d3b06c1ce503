"""FTRL's Solve metrics: which of the expected sub-answers did the trajectory's calls really bring up?

Parity (the rule of FTRL's evaluation): a call solves one pending expected answer of its own tool if every part of it
(split at ", "), commas removed and in lower case, is a substring of the tool's output (commas removed, lower case).
With s solved, c calls and u expected: Solve-P = s/c (1 where c = 0), Solve-R = s/u, Solve-F1 = 2s/(c + u).

Strict (ours): every part must stand in the output as words of its own, not inside others ("no" in "know", "5" in "15",
"12" in "-12" or "2023-12-05"). Solve-P = 0 where c = 0. An output that only echoes the call's arguments solves nothing:
a result with an error; an error or not-found text that no longer holds the answer once the arguments are taken out of
it; a JSON object that holds it only in fields with the name and the value of an argument. A text that repeats an
argument without failing can't be told from a finding, and counts.
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
_MOST_ARGUMENTS = 200
"""Values in one call beyond which a failing output counts as an echo without being searched for each of them."""


_DEEPEST_FIELD = 8


def _plain(text: str) -> str:
    return text.lower().replace(",", "").strip()


def solves(output: str, expected: str) -> bool:
    """True where every ", "-separated part of `expected` is a substring of `output` (FTRL's rule)."""
    plain = _plain(output)
    return all(_plain(part) in plain for part in expected.split(", "))


_GROUP_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_SIGNS = "-−–"


def solves_by_words(output: str, expected: str) -> bool:
    """True where every ", "-separated part of `expected` stands in `output` as whole words and whole numbers.

    Letter case does not count, nor do commas between groups of three digits. 36.0 is 36; -12 is not 12.
    """
    lower = output.lower()
    texts = {lower, _GROUP_COMMA.sub("", lower)}
    parts = [_plain(part) for part in expected.split(", ")]
    return all(any(_stands_in(part, text) for text in texts) for part in parts)


def _stands_in(part: str, text: str) -> bool:
    if not part:
        return True
    start = text.find(part)
    while start >= 0:
        if _starts_a_word(part[0], text, start) and _ends_a_word(part[-1], text, start + len(part)):
            return True
        start = text.find(part, start + 1)
    return False


def _joined(left: str, right: str) -> bool:
    """Are two neighbouring characters of one word? Scripts without spaces between words have no such border."""
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
    if before in _SIGNS:  # a sign, or the middle of a date or a number; "F-16" and "10 - 12" are none
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
    """Every scalar value in `arguments`, nested ones included, in plain form, longest first."""
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
    """True for an error or a not-found text: by the words in it, or by an `error` key that is not empty."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if any(str(key).lower() in ("error", "errors", "error_message") and said for key, said in value.items()):
                return True
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, str) and _FAILURE_WORDS.search(value.lower()):
            return True
    return False


def _without_repeated_fields(value: Any, arguments: Mapping[str, Any], depth: int = 0) -> Any:
    """A JSON value without the fields of its objects that have the name and the value of an argument."""
    if depth == _DEEPEST_FIELD:
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
    found = _without_repeated_fields(value, call.arguments)
    if found != value and not solves_by_words(json.dumps(found, ensure_ascii=False), expected):
        return False
    if not failure:
        return True
    texts = _argument_texts(call.arguments)
    if len(texts) > _MOST_ARGUMENTS:
        return False
    remaining = _GROUP_COMMA.sub("", result.content.lower())
    for text in texts:
        remaining = remaining.replace(text, " ")
    return solves_by_words(remaining, expected)


def aligned_results(trajectory: Trajectory) -> list[tuple[ToolCall, ToolResult | None]]:
    """Every call with its result, in order; None for a call that was not run (tool limit, error)."""
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
    """`solve_p`, `solve_r`, `solve_f1` and their `_strict` variants, each in [0, 1].

    Malformed calls count among the calls. No expected answers at all: recall is 1 and F1 as the formula has it (0
    without calls as well, where the formula is 0/0).
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


SOLVE = TrajectoryJudge(_solve, needs=("gold.outputs",), reads_answer=False, self_contained=True)
"""Judge `solve`: the outcome is the strict Solve-F1 of the calls."""
SOLVE_PARITY = TrajectoryJudge(_solve_parity, needs=("gold.outputs",), reads_answer=False, self_contained=True)
"""Judge `solve_parity`: the outcome is FTRL's Solve-F1 of the calls."""
