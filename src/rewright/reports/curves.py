"""Plot the learning curves of a run: SFT loss, reward-model accuracy, RL success, and held-out success per stage."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from rewright.pipeline.registry import Stage
from rewright.recipe.stages import ALL_STAGES

__all__ = ["learning_curves"]

BLUE, ORANGE, GREEN, GREY = "#2563eb", "#d97706", "#059669", "#9ca3af"
COLOURS = (BLUE, ORANGE, GREEN)
MIN_POINTS_TO_SMOOTH = 20
"""Curves with fewer points are not smoothed."""


def learning_curves(metrics: Sequence[dict[str, Any]], summary: dict[str, Any], stages: Sequence[Stage]) -> bytes:
    """Plot the curves of metrics.jsonl. Returns the PNG.

    `stages`: those of the run. One that is not among the default stages is left out if it has not run.
    """
    known = {row["stage"] for row in metrics} | {*ALL_STAGES}
    drawn = [(stage, *stage.curve) for stage in stages if stage.curve is not None and stage.name in known]
    panels = len(drawn) + 1
    figure, axes = plt.subplots(1, panels, figsize=(3.75 * panels, 3.6), layout="constrained")
    held_out = summary.get("reward_model_accuracy")
    for axis, (stage, key, title), colour in zip(axes, drawn, cycle(COLOURS), strict=False):
        _curve(axis, metrics, stage.name, key, title=title, colour=colour)
        if stage.trains == "reward_model" and held_out is not None:
            pairs = summary["reward_model_held_out_pairs"]
            axis.axhline(held_out, color=GREY, linestyle="--", linewidth=1, label=f"{pairs} held-out pairs, at the end")
            axis.legend(frameon=False, fontsize=8, loc="lower right")
    _bars(axes[-1], summary["stages"], [stage.name for stage, *_ in drawn])
    drawing = io.BytesIO()
    figure.savefig(drawing, dpi=110)
    plt.close(figure)
    return drawing.getvalue()


def _curve(axis: Any, metrics: Sequence[dict[str, Any]], stage: str, key: str, *, title: str, colour: str) -> None:
    points = [(row.get("step"), row.get(key)) for row in metrics if row["stage"] == stage]
    # NaN is stored as null.
    rows = [point for point in points if all(isinstance(number, int | float) for number in point)]
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("optimizer step")
    axis.spines[["top", "right"]].set_visible(False)
    if not rows:
        axis.text(0.5, 0.5, "not run", ha="center", va="center", transform=axis.transAxes, color=GREY)
        return
    steps, values = zip(*rows, strict=True)
    if len(values) < MIN_POINTS_TO_SMOOTH:  # smoothing so few points would hide the data
        axis.plot(steps, values, color=colour, linewidth=1.5, marker="o", markersize=4)
    else:
        axis.plot(steps, values, color=colour, alpha=0.35, linewidth=1)
        axis.plot(steps, _smooth(values), color=colour, linewidth=2)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(steps) == 1:
        axis.set_xticks(steps)
    axis.set_ylim(0, 1.02 if key != "loss" else max(1.08 * max(values), 1e-9))


def _smooth(values: Sequence[float]) -> list[float]:
    """Return the centred moving average with a window of about a tenth of the curve."""
    half = max(1, len(values) // 20)
    return [
        sum(values[max(0, index - half) : index + half + 1]) / len(values[max(0, index - half) : index + half + 1])
        for index in range(len(values))
    ]


def _bars(axis: Any, evaluated: Sequence[dict[str, Any]], drawn: Sequence[str]) -> None:
    axis.set_title("held-out success, 95% interval", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_ylim(0, 1.02)
    names = [row["stage"] for row in evaluated]
    values = [row["success"] for row in evaluated]
    below = [row["success"] - row["low"] for row in evaluated]
    above = [row["high"] - row["success"] for row in evaluated]
    colours = {name: COLOURS[position % len(COLOURS)] for position, name in enumerate(drawn)}
    axis.bar(names, values, yerr=[below, above], capsize=5, color=[colours.get(name, GREY) for name in names])
    for position, row in enumerate(evaluated):
        axis.text(
            position, min(row["high"] + 0.03, 0.95), f"{100 * row['success']:.0f}%", ha="center", fontweight="bold"
        )
