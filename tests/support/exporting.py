"""Runs to export, and `rewright export` as tests call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rewright.cli.main import app
from rewright.core.errors import RewrightError
from rewright.core.records import Trajectory
from rewright.core.storage import read_jsonl

__all__ = ["FILES", "FORMATS", "STORED", "STORED_FILES", "export", "lines", "refused", "stored"]

FORMATS = ("atif", "verifiers", "inspect", "hub-traces", "pi-sessions", "trackio-traces")
STORED = Path(__file__).parents[1] / "pipeline/stored_runs/format1"
FILES = {"stored": ("trajectories", "rollouts", "eval_base"), "hard": ("trajectories",)}
STORED_FILES = {"eval_base": "evaluations/base"}


def export(run: Path, out: Path, name: str) -> Any:
    return CliRunner().invoke(app, ["export", str(run), str(out), "--format", name], catch_exceptions=False)


def refused(run: Path, out: Path, name: str) -> str:
    """The message of the mistake with which an export ends."""
    with pytest.raises(RewrightError) as caught:
        CliRunner().invoke(
            app, ["export", str(run), str(out), "--format", name], catch_exceptions=False, standalone_mode=False
        )
    return str(caught.value)


def stored(run: Path, file: str) -> list[Trajectory]:
    return [one for _, one in read_jsonl(run / f"{STORED_FILES.get(file, file)}.jsonl", Trajectory)]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
