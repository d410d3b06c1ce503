"""Write the figures of a run: learning curves as PNG. Does nothing if matplotlib is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewright.core.storage import write_atomically
from rewright.pipeline.run_directory import Run

__all__ = ["write_report"]


def write_report(run: Run, summary: dict[str, Any]) -> list[Path]:
    """Write `learning_curves.png` if the run has trained a model. Returns the written files.

    Raises StorageError if it cannot be written; an earlier picture is then unchanged.
    """
    metrics = run.metrics()
    drawn = {stage.name for stage in run.stages() if stage.curve is not None}
    if not any(row["stage"] in drawn for row in metrics):
        return []
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("Agg")
    from rewright.reports.curves import learning_curves

    path = run.path / "learning_curves.png"
    write_atomically(path, [learning_curves(metrics, summary, run.stages())])
    return [path]
