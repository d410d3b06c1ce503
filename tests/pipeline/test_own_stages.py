"""Stages of another package, through the command line: mistakes, consent, resuming. (A working toy: tests/seams.)"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.own_parts import install

COMMAND = "from rewright.cli.main import main; main()"
PARTS = """
import json
from rewright.core.errors import InputError
from rewright.core.registry import register
from rewright.pipeline.registry import Stage

def count(context):
    rows = [{"id": task.id, "seed": context.recipe.seed} for task in context.tasks]
    return {"rows": context.run.write_lines("count.jsonl", rows)}

def number(context):
    context.run.write_json("number.json", len(context.run.read_lines("count.jsonl")))
    context.run.set_metrics("number", [{"number": 1.0}])

def check(recipe):
    if recipe.seed == 7:
        raise InputError("seed is 7: expected another one for the stage count")

register(
    "stage",
    "count",
    Stage(
        name="count", run=count, after="eval_base", files=("count.jsonl",), verb="count", help="Count the tasks.",
        uses_tasks=True, check=check, plan=lambda context: {"counted": len(context.load_tasks())},
    ),
)
NUMBER = Stage(name="number", run=number, reads=("count",), files=("number.json",))
TWIN = Stage(name="sft", run=number)
nothing = 5

register("stage", "five", 5)
register("stage", "lost", "no.such:thing")
register("stage", "alias", NUMBER)
"""
RECIPE = "seed: 3\ntasks: {count: 2, profile: short}\nstages: [count, own_parts:NUMBER]\nsandbox: process\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    install(tmp_path / "site", "own_parts", PARTS)
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder / "site")}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert words in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_a_recipe_names_them_and_they_are_resumed_redone_and_reported(folder: Path) -> None:
    planned = command(folder, "run", "r.yaml", "--dry-run", "--json")
    assert json.loads(planned.stdout)["counted"] == 2, planned.stderr
    done = command(folder, "run", "r.yaml", "--run", "run")
    assert done.returncode == 0, done.stderr
    state = json.loads((folder / "run/state.json").read_text())
    assert list(state) == ["count", "number"] and state["count"]["rows"] == 2
    assert json.loads((folder / "run/number.json").read_text()) == 2

    (folder / "run/count.jsonl").unlink()
    resumed = command(folder, "run", "r.yaml", "--run", "run", "--resume")
    refused(resumed, "stage count is done, but its count.jsonl is missing")
    assert "rewright count run" in resumed.stderr

    again = command(folder, "count", "run", "--trusted", "own_parts")
    assert again.returncode == 0, again.stderr
    assert len((folder / "run/count.jsonl").read_text().splitlines()) == 2
    assert not (folder / "run/redo").exists()
    report = command(folder, "report", "run", "--json")
    assert set(json.loads(report.stdout.splitlines()[-1])["stage_seconds"]) == {"count", "number"}
    assert "Count the tasks." in command(folder, "--help").stdout


def test_code_that_a_stored_recipe_names_needs_consent(folder: Path) -> None:
    assert command(folder, "run", "r.yaml", "--run", "run").returncode == 0
    refused(command(folder, "count", "run"), "names code (stages: own_parts:NUMBER)")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stages=[coumt]", "stages: must hold known names: unknown stage 'coumt': did you mean 'count'?"),
        ("stages=[synth, count]", "stages: must be in the order in which they run, each once: [count, synth]"),
        ("stages=[count, count]", "stages: must be in the order in which they run, each once: [count]"),
        ("stages=[own_parts:NUMBER, own_parts:NUMBER]", "each once"),
        ("stages=[own_parts:TWIN]", "own_parts:TWIN is named 'sft', as another stage is"),
        ("stages=[own_parts:nothing]", "own_parts:nothing is not a stage"),
        ("stages=[own_parts:none]", "stages: stage"),
        ("stages=[five]", "stages: must hold known names: what is registered as stage 'five' is no"),
        ("stages=[alias]", "stages: must hold known names: what is registered as stage 'alias' is no"),
        ("stages=[lost]", "stages: must hold known names: stage 'no.such:thing'"),
        ("seed=7", "seed is 7: expected another one for the stage count"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(folder: Path, change: str, said: str) -> None:
    refused(command(folder, "run", "r.yaml", change, "--run", "run"), said)
    assert not (folder / "run").exists()
