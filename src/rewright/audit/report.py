"""An audit as text, as JSON and as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rewright.audit.run import AuditResult
from rewright.audit.siblings import SiblingRow
from rewright.audit.signals import ALWAYS
from rewright.audit.table import Estimate, SignalRow, few_tasks
from rewright.reports.drawing import Drawing, Line, Rect, Shape, Text

__all__ = ["as_json", "as_text", "drawing_of", "siblings_as_json", "siblings_as_text"]

NAMES = (
    "signal", "rho [95%]", "corrected", "within", "auc not 0 [95%]", "auc harmful [95%]", "sign", "partial [95%]",
    "shuffled", "ess", "generations", "",
)  # fmt: skip
DARK, GREY, BAND, BLUE, ORANGE = "#111827", "#6b7280", "#e5e7eb", "#2563eb", "#d97706"
LEFT, RIGHT, TOP, ROW = 150, 24, 64, 26
"""Pixels of the picture: beside and above the rows, and of a row."""
PLOT = 520


def as_text(result: AuditResult) -> Iterator[str]:
    """Yield the lines of the table, the ceiling under it, and what is not defined."""
    table, plan = result.table, result.plan
    rows = [_cells(row, result) for row in table.rows]
    best = table.ceiling
    rows.append(
        [
            "(a perfect signal)",
            _number(best["rho"]),
            "",
            _number(best["within"]),
            _number(best["auc_not_zero"], sign=False),
            _number(best["auc_harmful"], sign=False),
            _number(best["sign"], sign=False),
            *[""] * 5,
        ]
    )
    yield from _aligned([list(NAMES), *rows])
    yield ""
    causes = "".join(f", {cause}: {count}" for cause, count in result.undefined.items())
    yield (
        f"{table.turns} turns of {table.tasks} tasks; defined {_percent(result.defined / len(plan.turns))} of "
        f"{len(plan.turns)}{causes}; effect not zero {_percent(table.not_zero)}, harmful {_percent(table.harmful)}; "
        f"split-half reliability {_number(table.reliability, sign=False)}"
    )
    if (warning := few_tasks(table.tasks)) is not None:
        yield warning
    for one in table.differences:
        if not {one.signal, one.other} & {*ALWAYS}:
            yield f"{one.signal} - {one.other}: {_interval(one.rho)}"


def as_json(result: AuditResult) -> dict[str, Any]:
    """The result as plain values."""
    table, plan = result.table, result.plan
    return {
        "folder": str(result.folder),
        "stage": plan.stage,
        "model": plan.model,
        "success": plan.success,
        "seed": plan.seed,
        "k": plan.k,
        "repeat": plan.repeat,
        "factual": plan.factual,
        "alternatives": plan.alternatives,
        "temperature": plan.temperature,
        "planned": len(plan.turns),
        "defined": result.defined,
        "undefined": dict(result.undefined),
        "turns": table.turns,
        "tasks": table.tasks,
        "not_zero": table.not_zero,
        "harmful": table.harmful,
        "reliability": table.reliability,
        "ceiling": dict(table.ceiling),
        "signals": [_row_as_json(row) for row in table.rows],
        "differences": [
            {"signal": one.signal, "other": one.other, "rho": one.rho._asdict()} for one in table.differences
        ],
        "costs": {name: dict(cost) for name, cost in result.costs.items()},
        "seconds": round(result.seconds, 2),
    }


def _row_as_json(row: SignalRow) -> dict[str, Any]:
    return {
        "signal": row.signal,
        "rho": row.rho._asdict(),
        "corrected": row.corrected,
        "within": row.within._asdict(),
        "auc_not_zero": row.auc_not_zero._asdict(),
        "auc_harmful": row.auc_harmful._asdict(),
        "sign": row.sign,
        "partial": row.partial._asdict(),
        "band": list(row.band),
        "ess": row.ess,
        "missing": row.missing,
        "distinguishable": row.distinguishable,
    }


def _cells(row: SignalRow, result: AuditResult) -> list[str]:
    cost = result.costs.get(row.signal, {}).get("generations", 0)
    return [
        row.signal,
        _interval(row.rho),
        _number(row.corrected),
        _number(row.within.value),
        _interval(row.auc_not_zero, sign=False),
        _interval(row.auc_harmful, sign=False),
        _number(row.sign, sign=False),
        _interval(row.partial),
        "-" if math.isnan(row.band[0]) else f"{row.band[0]:+.2f} to {row.band[1]:+.2f}",
        f"{row.ess:.0f}",
        f"{cost:,.0f}",
        "" if row.distinguishable else "not distinguishable",
    ]


def drawing_of(result: AuditResult) -> Drawing:
    """Draw the rank correlation of every signal with its interval, the band of shuffled signals and the ceiling."""
    table = result.table
    height = TOP + ROW * len(table.rows) + 48
    width = LEFT + PLOT + RIGHT
    bottom = TOP + ROW * len(table.rows)

    def place(value: float) -> float:
        return LEFT + PLOT * (value + 1) / 2

    shapes: list[Shape] = [
        Text(12, 24, [("Rank correlation of signals with measured effects", DARK)], size=14, bold=True),
        Text(
            12, 44, [(f"{table.turns} turns of {table.tasks} tasks, {result.plan.stage}, 95% intervals", GREY)], size=11
        ),
    ]  # fmt: skip
    for tick in (-1.0, -0.5, 0.0, 0.5, 1.0):
        shapes.append(Line(place(tick), TOP - 6, place(tick), bottom, GREY if tick == 0 else BAND))
        shapes.append(
            Text(place(tick), bottom + 16, [(f"{tick:+.1f}" if tick else "0", GREY)], anchor="middle", size=11)
        )
    for number, row in enumerate(table.rows):
        middle = TOP + ROW * (number + 0.5)
        colour = BLUE if row.distinguishable else GREY
        shapes.append(Text(LEFT - 10, middle + 4, [(row.signal[:24], DARK)], anchor="end"))
        if math.isnan(row.rho.value):
            shapes.append(Text(place(0) + 6, middle + 4, [("not defined", GREY)], size=11))
            continue
        if not math.isnan(row.band[0]):
            low, high = map(place, row.band)
            shapes.append(Rect(low, middle - 8, max(high - low, 1), 16, BAND, label="shuffled inside trajectories"))
        if not math.isnan(row.rho.low):
            shapes.append(Rect(place(row.rho.low), middle - 1, place(row.rho.high) - place(row.rho.low), 2, colour))
        label = f"{row.signal}: {_interval(row.rho)}"
        shapes.append(Rect(place(row.rho.value) - 4, middle - 4, 8, 8, colour, radius=4, label=label))
    best = table.ceiling["rho"]
    if not math.isnan(best):
        shapes.append(Line(place(best), TOP - 6, place(best), bottom, ORANGE))
        shapes.append(Text(place(best), TOP - 10, [(f"perfect signal {best:.2f}", ORANGE)], anchor="middle", size=11))
    note = "grey band: 95% of shuffled signals; grey points: not distinguishable"
    shapes.append(Text(LEFT, bottom + 36, [(note, GREY)], size=11))
    return Drawing("Audit of credit signals", width, height, shapes)


def siblings_as_text(rows: Sequence[SiblingRow]) -> Iterator[str]:
    """Yield the lines of a table of correlations with siblings' outcomes."""
    cells = [["signal", "turns", "tasks", "pearson [95%]", "spearman [95%]", "contrast turns", "contrast [95%]"]]
    cells += [
        [
            row.signal,
            str(row.turns),
            str(row.tasks),
            _interval(row.pearson),
            _interval(row.spearman),
            str(row.contrast_turns),
            _interval(row.contrast),
        ]
        for row in rows
    ]
    yield from _aligned(cells)
    warnings = [few_tasks(row.tasks) for row in rows]
    yield from dict.fromkeys(warning for warning in warnings if warning is not None)


def siblings_as_json(rows: Sequence[SiblingRow]) -> list[dict[str, Any]]:
    """The rows as plain values."""
    return [
        {key: value._asdict() if isinstance(value, Estimate) else value for key, value in row._asdict().items()}
        for row in rows
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *rest = row
        cells = [first.ljust(widths[0]), *(cell.rjust(size) for cell, size in zip(rest, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()


def _interval(found: Estimate, *, sign: bool = True) -> str:
    if math.isnan(found.value):
        return "-"
    if math.isnan(found.low):
        return f"{_number(found.value, sign=sign)} [-]"
    return f"{_number(found.value, sign=sign)} [{_number(found.low, sign=sign)}, {_number(found.high, sign=sign)}]"


def _number(value: float, *, sign: bool = True) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:+.2f}" if sign else f"{value:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
