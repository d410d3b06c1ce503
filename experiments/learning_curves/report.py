"""Table and picture of a learning benchmark, from its results file alone.

Per base and length of run: mean success over the whole run (the area under the curve, as a share of the largest
possible one), success at the end, and the rollouts after which the smoothed mean curve first reaches fixed levels, as
a ratio to a reference method. Then the differences to that method within seeds, with Student's 95% intervals: the same
seed means the same tasks in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning_curves.estimates import estimate, shown

__all__ = ["LEVELS", "draw", "reached", "table"]

LEVELS = (0.05, 0.1, 0.15, 0.25, 0.5, 0.75)
WINDOW = 5
"""Steps of the moving mean, 320 rollouts."""
COLOURS = {
    "outcome": "#6b7280", "outcome+format": "#b45309", "matchtir-hard": "#2563eb", "matchtir-soft": "#0891b2",
    "fixed_horizon": "#059669", "rewright": "#db2777", "outcome-or-calls": "#ea580c",
    "outcome-or-turns": "#7c3aed", "calls-then-outcome": "#65a30d",
    "outcome-and-calls": "#a16207", "gigpo": "#0f766e", "likelihood": "#be123c", "model": "#4338ca",
}  # fmt: skip

Row = dict[str, Any]
Array = NDArray[np.float64]


def grouped(rows: Sequence[Row]) -> dict[tuple[str, int], dict[str, list[Row]]]:
    """Rows by (base, steps), the hardest base first, then by method in the order they were met in; seeds sorted."""
    found: dict[tuple[str, int], dict[str, list[Row]]] = {}
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        found.setdefault((row["base"], row["steps"]), {}).setdefault(row["method"], []).append(row)
    return dict(sorted(found.items(), key=lambda item: (float(item[0][0].rstrip("%")), item[0][1])))


def curves(rows: Sequence[Row]) -> Array:
    """Success by seed and step, (seeds, steps)."""
    return np.array([row["success"] for row in rows], dtype=np.float64)


def smooth(values_T: Array) -> Array:
    """The mean of each step and up to WINDOW - 1 steps before it, (T,)."""
    sums = np.cumsum(np.insert(values_T, 0, 0.0))
    end = np.arange(1, len(values_T) + 1)
    start = np.maximum(0, end - WINDOW)
    return np.asarray((sums[end] - sums[start]) / (end - start))


def reached(values_T: Array, level: float, rollouts_per_step: int) -> int | None:
    """Rollouts taken before the smoothed curve first stands at `level`; None: never. 0: from the start."""
    above = np.flatnonzero(smooth(values_T) >= level)
    return int(above[0]) * rollouts_per_step if len(above) else None


def ratio(own: int | None, reference: int | None, longest: int) -> str:
    """Rollouts needed over those of the reference, in words where one of both never got there."""
    if own is None:
        return "never" if reference is None else f"> {longest / max(1, reference):.1f}"
    if reference is None:
        return f"< {own / longest:.2f}"
    return f"{own / reference:.2f}" if reference else "-"


def spread(values: Array) -> str:
    """Mean, and the standard deviation over seeds where there are several."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def table(rows: Sequence[Row], reference: str = "outcome") -> str:
    """Markdown, one table per base and length; ratios are to the method `reference`."""
    lines: list[str] = []
    for (base, steps), methods in grouped(rows).items():
        per_step = next(iter(methods.values()))[0]["rollouts_per_step"]
        compared = methods.get(reference)
        mean_T = {method: curves(own).mean(axis=0) for method, own in methods.items()}
        start = np.mean([values_T[0] for values_T in mean_T.values()])
        highest = max(float(smooth(values_T).max()) for values_T in mean_T.values())
        levels = [level for level in LEVELS if 1.5 * start < level <= highest]
        lines += [f"### base {base}, {steps} steps of {per_step} rollouts", ""]
        head = ["method", "seeds", "first step", "mean success (area)", "last 5 steps", "held out", "equal groups"]
        lines.append("| " + " | ".join([*head, *(f"rollouts to {level:g} (ratio)" for level in levels)]) + " |")
        lines += ["|---|---|---|---|---|---|---|" + "---|" * len(levels)]
        for method, own in methods.items():
            measures_3S = np.array([measures(row) for row in own]).T
            line = f"| {method} | {len(own)} | {mean_T[method][0]:.3f} | " + " | ".join(map(spread, measures_3S))
            line += f" | {np.mean([np.mean(row['equal_groups']) for row in own]):.2f} |"
            for level in levels:
                mine = reached(mean_T[method], level, per_step)
                cell = "never" if mine is None else str(mine)
                if compared is not None and method != reference:
                    theirs = reached(mean_T[reference], level, per_step)
                    cell += f" ({ratio(mine, theirs, steps * per_step)})"
                line += f" {cell} |"
            lines.append(line)
        lines += ["", *differences(methods, reference)]
    return "\n".join(lines)


def measures(row: Row) -> tuple[float, float, float]:
    """Success of one run: over all steps, over the last ones, on the held-out tasks."""
    return float(np.mean(row["success"])), float(np.mean(row["success"][-WINDOW:])), float(row["held_out"])


def differences(methods: dict[str, list[Row]], reference: str) -> list[str]:
    """Markdown: what each method has more than the reference in the seeds that both have, in points of success."""
    known = {row["seed"]: row for row in methods.get(reference, [])}
    lines = [f"| minus {reference}, points | seeds | mean success | last 5 steps | held out |", "|---|---|---|---|---|"]
    for method, own in methods.items():
        pairs = [(row, known[row["seed"]]) for row in own if row["seed"] in known and method != reference]
        if not pairs:
            continue
        gains_S3 = np.array([np.subtract(measures(row), measures(other)) for row, other in pairs])
        line = " | ".join(shown(estimate(gains_S3[:, column].tolist()), "+") for column in range(3))
        lines.append(f"| {method} | {len(pairs)} | {line} |")
    return [*lines, ""] if len(lines) > 2 else []


def draw(rows: Sequence[Row], path: Path) -> None:
    """One panel per base and length: smoothed mean over seeds, band from the lowest to the highest seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = grouped(rows)
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 3.9), layout="constrained", squeeze=False)
    for axis, ((base, steps), methods) in zip(axes[0], panels.items(), strict=True):
        for method, own in methods.items():
            smoothed_ST = np.array([smooth(one) for one in curves(own)])
            rollouts_T = np.arange(steps) * own[0]["rollouts_per_step"]
            colour = COLOURS.get(method)
            label = f"{method} ({len(own)} seed{'s' if len(own) > 1 else ''})"
            (line,) = axis.plot(rollouts_T, smoothed_ST.mean(axis=0), color=colour, linewidth=2, label=label)
            low_T, high_T = smoothed_ST.min(axis=0), smoothed_ST.max(axis=0)
            axis.fill_between(rollouts_T, low_T, high_T, color=line.get_color(), alpha=0.15, linewidth=0)
        axis.set_title(f"base {base}", fontsize=10)
        axis.set_xlabel("rollouts")
        axis.set_ylabel(f"success on fresh tasks (mean of {WINDOW} steps)")
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8, loc="best")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
