"""Suites: the benchmarks of one paper, evaluated by one command, and its table beside the published rows.

    rewright eval --suite matchtir --model MODEL --data ftrl=ftrl_test.parquet

Published values are those that the papers report, in percent. A value that is not at hand is left out, never filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from rewright.benchmarks import find_benchmark
from rewright.benchmarks.scoring.scores import ALL, totals
from rewright.core.errors import InputError
from rewright.core.records import LIMIT_STOPS

__all__ = ["SUITES", "Member", "Published", "Suite", "find_suite", "member_row", "suite_row", "suite_table"]


class Member(msgspec.Struct, frozen=True):
    """One column of a suite: a benchmark, and which of its numbers counts."""

    benchmark: str
    title: str
    """Heading of the column."""
    score: str = "success"
    """`success`, `solve_f1`, or `totals.NAME` for a total of the benchmark."""
    settings: tuple[str, ...] = ()
    """Recipe overrides of the paper's protocol, after those of the benchmark."""


class Published(msgspec.Struct, frozen=True):
    """One row of the paper's table: values in percent by column (benchmark, or `average`)."""

    system: str
    values: Mapping[str, float]


class Suite(msgspec.Struct, frozen=True):
    """The benchmarks of a paper. If `averaged`, the table has the mean of the columns."""

    name: str
    members: tuple[Member, ...]
    published: tuple[Published, ...]
    source: str
    """Where the published rows are from, and which are not at hand."""
    averaged: bool = False
    note: str = ""
    """What differs from the paper's protocol."""


_AUTOTRAJ_LIMITS: Final = ("limits.turns=10", "limits.turn_tokens=1024", "limits.tool_calls=3")
"""AutoTraj's caps: 10 calls of the model with 1024 new tokens each, and 3 tool calls."""

MATCHTIR: Final = Suite(
    name="matchtir",
    members=(
        Member("ftrl", "FTRL Solve-F1", "solve_f1"),
        Member("bfcl-multi-turn", "BFCL multi-turn", "totals.multi-turn"),
        Member("toolhop", "ToolHop AC"),
    ),
    published=(
        Published("Qwen3-4B, vanilla", {"average": 27.78}),
        Published("Qwen3-4B, GRPO", {"average": 31.32}),
        Published("Qwen3-4B, FTRL-M", {"average": 33.82}),
        Published("Qwen3-4B, ToolRL-M", {"average": 31.82}),
        Published("Qwen3-4B, MatchTIR (OT)", {"average": 34.45}),
        Published("Qwen3-4B, MatchTIR (KM)", {"average": 36.07}),
        Published("Qwen3-8B, vanilla", {"average": 33.99}),
        Published("Qwen3-8B, GRPO", {"average": 34.92}),
        Published("Qwen3-8B, FTRL-M", {"average": 36.61}),
        Published("Qwen3-8B, ToolRL-M", {"average": 35.36}),
        Published("Qwen3-8B, MatchTIR (OT)", {"average": 38.54}),
        Published("Qwen3-8B, MatchTIR (KM)", {"average": 39.92}),
    ),
    source="arXiv 2601.10712, averages of its main table; the values per benchmark are in that table",
    averaged=True,
    note="the paper's average also covers BFCL's agentic categories (web search, memory), which are no column here, so "
    "the two averages are not the same number; limits: FTRL and ToolHop 10 turns and 23000 tokens of response, as in "
    "the paper, BFCL 20 steps and 4096 tokens a turn",
)

AUTOTRAJ: Final = Suite(
    name="autotraj",
    members=(
        Member("aime24", "AIME24", settings=_AUTOTRAJ_LIMITS),
        Member("aime25", "AIME25", settings=_AUTOTRAJ_LIMITS),
        Member("amc23", "AMC23", settings=_AUTOTRAJ_LIMITS),
        Member("math", "MATH", settings=(*_AUTOTRAJ_LIMITS, "eval.tasks.limit=1000")),
        Member("gsm8k", "GSM8K", settings=_AUTOTRAJ_LIMITS),
        Member("hotpotqa", "HotpotQA", settings=(*_AUTOTRAJ_LIMITS, "eval.tasks.limit=200")),
        Member("2wikimultihopqa", "2Wiki", settings=(*_AUTOTRAJ_LIMITS, "eval.tasks.limit=200")),
        Member("musique", "MuSiQue", settings=(*_AUTOTRAJ_LIMITS, "eval.tasks.limit=200")),
        Member("hle", "HLE text", settings=(*_AUTOTRAJ_LIMITS, "eval.tasks.limit=1000")),
    ),
    published=(Published("AutoTraj, 7B", {"math": 69.1, "amc23": 47.5, "aime24": 23.33}),),
    source="arXiv 2601.23032, main table; the other values of the row, and the other rows, are in that table",
    note="greedy, pass@1; an answer in words is right with an exact match or a token F1 of 0.5; the tools are those of "
    "the recipe (tools.python=true tools.search=index for the paper's); limits as in the paper: 10 turns of 1024 "
    "tokens and 3 tool calls",
)

SUITES: Final = {suite.name: suite for suite in (MATCHTIR, AUTOTRAJ)}


def find_suite(name: str) -> Suite:
    """Return the suite of that name. Raises InputError, with the known ones."""
    if name not in SUITES:
        raise InputError(f"--suite: unknown suite {name!r}: expected one of {', '.join(sorted(SUITES))}")
    return SUITES[name]


def member_row(member: Member, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the column of a member from the row of its evaluation: `value`, `low`, `high`, `floor`, `ceiling`.

    Shares in [0, 1]. `limited` is the share of trajectories that a limit ended. `value` is None if the evaluation does
    not have the score, and `missing` says why; bounds that are not stated are left out.
    """
    kind, _, name = member.score.partition(".")
    if kind == "totals":
        found = row.get("totals", {}).get(name, {})
        value, low, high, key = found.get("value"), found.get("low"), found.get("high"), name
    elif kind == "success":
        value, low, high, key = row["success"], row["low"], row["high"], ALL
    else:
        value, low, high, key = row.get(kind), row.get(f"{kind}_low"), row.get(f"{kind}_high"), None
    bounds = {side: row[side][key] for side in ("floor", "ceiling") if key in row.get(side, {})}
    if kind.startswith("solve_f1"):
        bounds = {"floor": 0.0}  # without a call nothing is solved
    found = {"score": member.score, "value": value, "low": low, "high": high, "tasks": row["tasks"], **bounds}
    stops, trajectories = row.get("stops") or {}, row.get("trajectories") or 0
    if trajectories:
        found["limited"] = sum(stops.get(reason, 0) for reason in LIMIT_STOPS) / trajectories
    return found if value is not None else found | {"missing": _why_missing(member, row)}


def _why_missing(member: Member, row: Mapping[str, Any]) -> str:
    """Why an evaluation does not have the score of a member."""
    kind, _, name = member.score.partition(".")
    if kind != "totals":
        return f"no task of this evaluation has {kind}"
    parts = find_benchmark(member.benchmark, "--suite").aggregates.get(name, {})
    without = [category for category in parts if category not in row.get("categories", {})]
    return f"no task of {', '.join(without)} was evaluated, and its total needs all {len(parts)} categories"


def suite_row(suite: Suite, columns: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the average over all columns with its 95% interval; None if one is missing, or the suite has none."""
    names = [member.benchmark for member in suite.members]
    if not suite.averaged or any(columns.get(name, {}).get("value") is None for name in names):
        return None
    parts = {name: {"success": columns[name]["value"], **columns[name]} for name in names}
    return totals({"average": dict.fromkeys(names, 1 / len(names))}, parts)["average"]


def suite_table(suite: Suite, model: str, columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of a suite as plain text: this run with interval, floor and ceiling, then the published rows.

    A row has the share of trajectories that a limit ended, if there are any. Every `-` in the first row has a reason.
    """
    average = suite_row(suite, columns)
    keys = [*(member.benchmark for member in suite.members), *(["average"] if suite.averaged else [])]
    titles = [*(member.title for member in suite.members), *(["average"] if suite.averaged else [])]
    cells = {key: columns.get(key, {}) for key in keys} | ({"average": average or {}} if suite.averaged else {})
    limited = any(cell.get("limited") for cell in cells.values())
    rows: list[tuple[str, list[str]]] = [
        (model, [_percent(cells[key].get("value")) for key in keys]),
        ("  95% interval", [_interval(cells[key]) for key in keys]),
        ("  floor", [_percent(cells[key].get("floor")) for key in keys]),
        ("  ceiling", [_percent(cells[key].get("ceiling")) for key in keys]),
        *([("  ended at a limit", [_percent(cells[key].get("limited")) for key in keys])] if limited else []),
        *((row.system, [_published(row.values.get(key)) for key in keys]) for row in suite.published),
    ]
    first = max(len(suite.name) + 6, *(len(name) for name, _ in rows))
    widths = [max(len(title), *(len(row[column]) for _, row in rows)) + 2 for column, title in enumerate(titles)]
    lines = [_line(f"suite {suite.name}", titles, first, widths)]
    for number, (name, row) in enumerate(rows):
        if number == len(rows) - len(suite.published):
            lines.append(f"published: {suite.source}")
        lines.append(_line(name, row, first, widths))
    if suite.note:
        lines.append(f"note: {suite.note}")
    missing = {key: cells[key]["missing"] for key in keys if "missing" in cells[key]}
    if suite.averaged and average is None:
        missing["average"] = (
            f"it needs all columns, and {', '.join(missing)} {'has' if len(missing) == 1 else 'have'} no value"
        )
    lines += [f"missing: {key}: {why}" for key, why in missing.items()]
    return "\n".join(lines)


def _line(name: str, cells: Sequence[str], first: int, widths: Sequence[int]) -> str:
    return name.ljust(first) + "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _published(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _interval(cell: Mapping[str, Any]) -> str:
    if cell.get("low") is None or cell.get("high") is None:
        return "-"
    return f"[{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"
