"""A measured row, the file of all of them, and the table of docs/performance.md."""

from __future__ import annotations

import textwrap
from typing import Literal

import msgspec

BEGIN = "<!-- measured: begin, written by experiments/performance.py -->"
END = "<!-- measured: end -->"
NOT_MEASURED = "not measured"


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What Rewright is compared with: a value in the unit of the row, and what it is the value of."""

    value: float
    name: str


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row of the table. `today` is None if it was not measured; `missing` then says why."""

    what: str
    command: str
    unit: str = ""
    better: Literal["less", "more"] = "less"
    today: float | None = None
    peer: Figure | None = None
    limit: Figure | None = None
    missing: str = ""


class Report(msgspec.Struct, frozen=True):
    """All rows with where and when they were measured."""

    date: str
    machine: str
    load: float
    seconds: float
    versions: dict[str, str]
    rows: list[Row]
    tiny: bool = False


def rounded(value: float) -> float:
    """The value with four significant digits, so that file and page say the same."""
    return float(f"{value:.4g}")


def shown(value: float, unit: str) -> str:
    """A value with three significant digits and its unit."""
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".strip()


def ratio(row: Row, other: Figure | None) -> str:
    """How many times as good Rewright is as something else; above 1 is in its favour."""
    if row.today is None or other is None or not row.today or not other.value:
        return ""
    times = row.today / other.value if row.better == "more" else other.value / row.today
    return f"{times:,.0f}" if times >= 100 else f"{times:.2g}" if times < 10 else f"{times:.0f}"


def compared(row: Row, other: Figure | None) -> str:
    return "–" if other is None else f"{other.name}: {shown(other.value, row.unit)}"


def table(report: Report) -> str:
    """The part of the page between the markers."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    said = (
        f"Measured on {report.date} in {report.seconds:.0f} s on {report.machine}. "
        f"Load average when it started: {report.load:.1f}. Versions: {versions}."
    )
    if report.tiny:
        said = f"Tiny sizes: these numbers say nothing. {said}"
    lines = [BEGIN, *textwrap.wrap(said, 108), ""]
    lines += ["| what | today | peer | limit | ratio to peer / limit | command |", "|---|---|---|---|---|---|"]
    for row in report.rows:
        today = f"{NOT_MEASURED}: {row.missing}" if row.today is None else shown(row.today, row.unit)
        ratios = f"{ratio(row, row.peer) or '–'} / {ratio(row, row.limit) or '–'}"
        cells = (row.what, today, compared(row, row.peer), compared(row, row.limit), ratios, f"`{row.command}`")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, END])


def with_table(page: str, report: Report) -> str:
    """The text of a page with the part between the markers replaced. ValueError if a marker is missing."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no part between {BEGIN!r} and {END!r}")
    return head + table(report) + tail
