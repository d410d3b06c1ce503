"""`rewright import` as tests call it."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from rewright.cli.main import app
from rewright.core.records import Trajectory
from rewright.core.storage import read_jsonl

__all__ = ["imported"]


def imported(path: Path, run: Path, *arguments: str) -> list[Trajectory]:
    """The trajectories of a log, in a new run directory."""
    result = CliRunner().invoke(app, ["import", str(path), "--run", str(run), *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return [one for _, one in read_jsonl(run / "trajectories.jsonl", Trajectory)]
