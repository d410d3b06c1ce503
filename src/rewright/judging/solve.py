"""FTRL's Solve metrics: which of the expected sub-answers did the trajectory's calls really bring up?

Parity (the rule of FTRL's evaluation): a call solves one pending expected answer of its own tool if every part of it
(split at ", "), commas removed and in lower case, is a substring of the tool's output (commas removed, lower case).
With s solved, c calls and u expected: Solve-P = s/c (1 where c = 0), Solve-R = s/u, Solve-F1 = 2s/(c + u).

Strict (ours): Solve-P = 0 where c = 0, and an output that only echoes solves nothing: a result with an error, or a
not-found or error text that no longer holds the answer once the call's own arguments are taken out of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rewright.records import ToolCall, ToolResult, Trajectory

__all__ = ["aligned_results", "solve_metrics", "solves"]

_FAILURE_WORDS = re.compile(
    r"\b(?:error|errors|invalid|not found|no \w+(?: \w+){0,4} found|not available|unavailable|no data|no information|"
    r"no results?|no match(?:es|ing)?|no records?|not (?:exist|recognized|supported|valid)|does not|unknown|"
    r"unsupported|must be|cannot|could not|unable|fail(?:ed|ure)?|missing|exception|traceback|required)\b"
)

_MOST_ARGUMENTS = 200
"""Values in one call beyond which a failing output counts as an echo without being searched for each of them."""


def _plain(text: str) -> str:
    return text.lower().replace(",", "").strip()


def solves(output: str, expected: str) -> bool:
    """True where every ", "-separated part of `expected` is a substring of `output` (FTRL's rule)."""
    plain = _plain(output)
    return all(_plain(part) in plain for part in expected.split(", "))


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


def _is_failure(output: str) -> bool:
    """True for an error or a not-found text. JSON objects are failures by an `error` key or by their message."""
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        value = output
    if isinstance(value, dict):
        if any(str(key).lower() in ("error", "errors") and content for key, content in value.items()):
            return True
        if len(value) > 2:
            return False
    return _FAILURE_WORDS.search(output.lower()) is not None


def _solves_strictly(call: ToolCall, result: ToolResult, expected: str) -> bool:
    if result.error is not None or call.error is not None or not expected.strip():
        return False
    if not solves(result.content, expected):
        return False
    if not _is_failure(result.content):
        return True
    texts = _argument_texts(call.arguments)
    if len(texts) > _MOST_ARGUMENTS:
        return False
    remaining = _plain(result.content)
    for text in texts:
        remaining = remaining.replace(text, " ")
    return all(_plain(part) in remaining for part in expected.split(", "))


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
