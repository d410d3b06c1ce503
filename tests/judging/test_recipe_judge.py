"""The recipe chooses the judge of its tasks: `tasks.judge`, at the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rewright.cli.main import app
from rewright.core.errors import InputError
from rewright.core.records import Gold, Task
from rewright.pipeline.run_directory import Run
from rewright.tasks.loading import save_tasks

ANSWERS = ("Paris", "It is Paris, the capital of France.", "London")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    task = Task(id="a", messages=({"role": "user", "content": "Where?"},), gold=Gold(answers=("Paris",)), judge="exact")
    save_tasks(tmp_path / "tasks.jsonl", [task])
    records = [{"question": "Where?", "output": f"<think>t</think><answer>{answer}</answer>"} for answer in ANSWERS]
    (tmp_path / "records.json").write_text(json.dumps(records))
    return tmp_path


def rewright(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def recipe(folder: Path, **tasks: str) -> Path:
    path = folder / "recipe.yaml"
    section = {"format": "rewright", "path": str(folder / "tasks.jsonl"), **tasks}
    path.write_text(
        f"dialect: tags\ntasks: {json.dumps(section)}\n"
        "model: {engine: openai, base_url: http://127.0.0.1:9/v1, path: none}\n"
    )
    return path


@pytest.mark.parametrize(
    ("judge", "outcomes"),
    [
        (None, [1.0, 0.0, 0.0]),
        ("token_set_f1", [1.0, 2 / 8, 0.0]),
        ("answer_correctness", [1.0, 1.0, 0.0]),
        ("qa", [1.0, 2 / 7, 0.0]),
    ],
)
def test_stored_answers_are_judged_as_the_recipe_says(folder: Path, judge: str | None, outcomes: list[float]) -> None:
    run = folder / "run"
    path = recipe(folder, **({} if judge is None else {"judge": judge}))
    imported = rewright("import", folder / "records.json", "--run", run, "--recipe", path, "--format", "autotraj")
    assert imported.exit_code == 0, imported.output
    judged = rewright("judge", run)
    assert judged.exit_code == 0, judged.output
    assert [verdict.outcome for verdict in Run.open(run).verdicts] == pytest.approx(outcomes)


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (
            "token_f",
            "recipe.yaml:2: tasks.judge: must be a registered one, got 'token_f': did you mean 'token_set_f1'? ",
        ),
        ("solve", "the recipe judges by solve, which needs gold.outputs, and task a has none"),
        ("reasoning_gym", "the recipe judges by reasoning_gym, which needs metadata.dataset, and task a has none"),
        ("os:system", "expected os in `judges`"),
    ],
)
def test_a_judge_that_cannot_judge_these_tasks_is_one_line(folder: Path, judge: str, message: str) -> None:
    run = folder / "run"
    path = recipe(folder, judge=judge)
    result = rewright("run", path, "--run", run, "stages=[synth]")
    assert isinstance(result.exception, InputError)  # which the command line ends with exit code 2
    assert message in str(result.exception)
    assert not (run / "trajectories.jsonl").exists()
