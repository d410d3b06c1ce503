"""Judge, task format, dimension, benchmark, dialect and engine of another package, at the command line.

`toys/` holds one file of each kind. `toys/rewright_toys-0.1.dist-info` makes them an installed package: its entry
points of the group `rewright` are how Rewright finds them. A new toy is its file and one line in entry_points.txt.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOYS = Path(__file__).parent / "toys"
PROGRAM = "from rewright.cli.main import main; main()"
Finished = subprocess.CompletedProcess[str]


def rewright(folder: Path, *arguments: object, toys: bool = True) -> Finished:
    """`rewright ARGUMENTS` in `folder`, in an environment in which the package of toys is installed (or is not)."""
    path = os.pathsep.join([*([str(TOYS.parent.parent), str(TOYS)] if toys else []), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


RECIPE = """
dialect: toy
stages: [synth, judge, score]
tasks: {path: sums.jsonl, format: toy_sums}
model: {engine: toy, path: adder, off_by: 1}
synth: {n: 1}
quality: {dimensions: [{name: short, function: toy_brevity, weight: 1}]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task file and a recipe, run once."""
    folder = tmp_path_factory.mktemp("seams")
    (folder / "sums.jsonl").write_text('{"numbers": [2, 3]}\n{"numbers": [20, 30, 1]}\n')
    (folder / "wrong.jsonl").write_text('{"numbers": [2, 3]}\n{"numbers": [2, "x"]}\n')
    (folder / "recipe.yaml").write_text(RECIPE)
    done = rewright(folder, "run", "recipe.yaml", "--run", "run")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_recipe_uses_them_by_name(folder: Path) -> None:
    trajectories = records(folder / "run" / "trajectories.jsonl")
    assert [one["answer"] for one in trajectories] == ["6", "52"]
    verdicts = records(folder / "run" / "verdicts.jsonl")
    assert [(one["outcome"], one["reason"]) for one in verdicts] == [(0.5, "1 away")] * 2
    words = len(["I", "add", "them", "up.", "=", "6"])
    assert [one["total"] for one in records(folder / "run" / "quality.jsonl")] == [pytest.approx(10 / (10 + words))] * 2
    assert {one["judge"] for one in records(folder / "run" / "tasks.jsonl")} == {"toy_near"}


def test_a_judge_of_another_package_has_a_process_of_its_own(folder: Path) -> None:
    processes = {one["metrics"]["toy_process"] for one in records(folder / "run" / "verdicts.jsonl")}
    assert len(processes) == 1
    assert not Path(f"/proc/{int(processes.pop())}").exists()  # it ended with the command


def test_validate_reads_the_format(folder: Path) -> None:
    done = rewright(folder, "validate", "sums.jsonl", "--format", "toy_sums")
    assert (done.returncode, "2 rows, 0 tool functions" in done.stdout) == (0, True), done.stderr
    done = rewright(folder, "validate", "wrong.jsonl", "--format", "toy_sums")
    assert (done.returncode, "wrong.jsonl:2: 'numbers' is [2, 'x'], expected whole numbers" in done.stdout) == (1, True)
    done = rewright(folder, "validate", "sums.jsonl", "--format", "seams.toys.toy_task_format:to_task")
    assert (done.returncode, "2 rows" in done.stdout) == (0, True), done.stderr
    done = rewright(folder, "validate", "sums.jsonl", "--format", "toy-differences")
    assert (done.returncode, "format toy-differences draws its own tasks" in done.stderr) == (2, True), done.stderr


def test_a_judge_of_whole_trajectories(folder: Path) -> None:
    done = rewright(folder, "run", "recipe.yaml", "--run", "calls", "stages=[synth,judge]", "tasks.judge=toy_few_calls")
    assert done.returncode == 0, done.stderr
    verdicts = records(folder / "calls" / "verdicts.jsonl")
    assert [(one["outcome"], one["metrics"]) for one in verdicts] == [(1.0, {"calls": 0.0})] * 2
    plain = {"id": "a", "messages": [{"role": "user", "content": "1 + 1 = ?"}], "gold": {"answers": ["2"]}}
    (folder / "plain.jsonl").write_text(json.dumps(plain) + "\n")
    more = ("tasks.path=plain.jsonl", "tasks.format=rewright", "tasks.judge=toy_few_calls")
    done = rewright(folder, "run", "recipe.yaml", "--run", "none", "--dry-run", *more)
    said = "the recipe judges by toy_few_calls, which needs metadata.calls, and task a has none"
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_a_benchmark_is_evaluated(folder: Path) -> None:
    done = rewright(folder, "eval", "--benchmark", "toy-differences", "--run", "bench", "--model", "any", "--limit", 2)
    assert done.returncode == 0, done.stderr
    verdicts = records(folder / "bench" / "evaluations" / "base.verdicts.jsonl")
    assert [one["outcome"] for one in verdicts] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("eval", "--benchmark", "toy-diferences"), "unknown benchmark 'toy-diferences': did you mean"),
        (
            ("run", "recipe.yaml", "dialect=toi", "--dry-run"),
            "did you mean 'toy'? expected one of chat, hermes, tags, toy",
        ),
        (("run", "recipe.yaml", "tasks.format=toy_sum", "--dry-run"), "unknown task format 'toy_sum': did you mean"),
        (("run", "recipe.yaml", "model.engine=toyy", "--dry-run"), "unknown engine 'toyy': did you mean 'toy'?"),
        (("run", "recipe.yaml", "tasks.judge=toy_nea", "--dry-run"), "got 'toy_nea': did you mean 'toy_near'?"),
        (
            ("run", "recipe.yaml", "quality.dimensions=[{name: a, function: toy_brevty, weight: 1}]", "--dry-run"),
            "quality.dimensions: dimension a: unknown dimension 'toy_brevty': did you mean 'toy_brevity'?",
        ),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    done = rewright(folder, *arguments)
    assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr


def test_without_the_package_its_names_are_unknown(folder: Path) -> None:
    done = rewright(folder, "run", "recipe.yaml", "--dry-run", toys=False)
    assert (done.returncode, "unknown" in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
    done = rewright(folder, "validate", "sums.jsonl", "--format", "toy_sums", toys=False)
    assert (done.returncode, "unknown task format 'toy_sums'" in done.stderr) == (2, True), done.stderr
