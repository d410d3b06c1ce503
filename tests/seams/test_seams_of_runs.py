"""Stage and trainer back end of another package, through `rewright run`: one file and one entry point each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.toys import rewright

RECIPE = """
seed: 3
stages: [toy_lengths, sft]
tasks: {count: 2, profile: short}
sft: {backend: toy, source: demonstrations, demonstrations: 3, epochs: 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, run once."""
    folder = tmp_path_factory.mktemp("seams")
    (folder / "recipe.yaml").write_text(RECIPE)
    done = rewright(folder, "run", "recipe.yaml", "--run", "run")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.needs_torch
def test_a_stage_of_another_package_runs_and_writes_its_files(folder: Path) -> None:
    tasks = [json.loads(line) for line in (folder / "run/tasks.jsonl").open()]
    rows = [json.loads(line) for line in (folder / "run/lengths.jsonl").open()]
    assert rows == [{"id": one["id"], "characters": len(one["messages"][-1]["content"])} for one in tasks]
    state = json.loads((folder / "run/state.json").read_text())
    assert (list(state), state["toy_lengths"]["rows"]) == (["toy_lengths", "sft"], 2)
    logged = [json.loads(line) for line in (folder / "run/metrics.jsonl").open()]
    longest = max(row["characters"] for row in rows)
    assert {"stage": "toy_lengths", "longest": float(longest)} in logged


@pytest.mark.needs_torch
def test_its_row_gives_a_verb_a_plan_a_check_and_a_report(folder: Path) -> None:
    planned = rewright(folder, "run", "recipe.yaml", "--dry-run", "--json")
    assert json.loads(planned.stdout)["measured"] == 2, planned.stderr
    none = rewright(folder, "run", "recipe.yaml", "tasks.count=1", "--run", "none")
    assert (none.returncode, "tasks.count is 1: expected at least 2 tasks" in none.stderr) == (2, True), none.stderr
    assert not (folder / "none").exists()
    before = (folder / "run/lengths.jsonl").read_bytes()
    again = rewright(folder, "lengths", "run")
    assert (again.returncode, (folder / "run/lengths.jsonl").read_bytes()) == (0, before), again.stderr
    report = rewright(folder, "report", "run", "--json")
    assert "toy_lengths" in json.loads(report.stdout.splitlines()[-1])["stage_seconds"], report.stderr


@pytest.mark.needs_torch
def test_a_trainer_of_another_package_trains_what_the_recipe_says(folder: Path) -> None:
    done = rewright(folder, "run", "recipe.yaml", "stages=[sft]", "--run", "trained")
    assert done.returncode == 0, done.stderr
    saved = json.loads((folder / "trained/models/sft/unigrams.json").read_text())
    assert (saved["rows"], saved["base"], saved["epochs"], saved["seed"]) == (3, "pico", 2.0, 3)
    logged = json.loads((folder / "trained/metrics.jsonl").read_text())
    assert logged == {"stage": "sft", "step": 1, "tokens": sum(saved["counts"].values())}


@pytest.mark.needs_torch
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("stages=[toy_length]",), "stages: must hold known names: unknown stage 'toy_length': did you mean"),
        (("sft.backend=toyy",), "sft.backend: unknown trainer 'toyy': did you mean 'toy'?"),
        (("sft.backend=seams.toys.toy_trainer:NoTrainer",), "sft.backend: trainer 'seams.toys.toy_trainer:NoTrainer'"),
        (("sft.backend=seams.toys.toy_trainer:__doc__",), "toy_trainer:__doc__ is not a trainer"),
        (("stages=[rl]", "rl.backend=toy"), "rl.backend: toy trains in sft only"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(folder: Path, changes: tuple[str, ...], said: str) -> None:
    done = rewright(folder, "run", "recipe.yaml", *changes, "--run", "wrong")
    assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
    assert not (folder / "wrong").exists()


@pytest.mark.needs_torch
def test_a_stored_recipe_s_trainer_runs_once_its_package_is_named(folder: Path) -> None:
    stored = folder / "trained"
    text = (stored / "recipe.yaml").read_text()
    assert "backend: toy\n" in text
    (stored / "recipe.yaml").write_text(text.replace("backend: toy\n", "backend: seams.toys.toy_trainer:ToyTrainer\n"))
    done = rewright(folder, "sft", "trained")
    assert (done.returncode, "names code (sft.backend: seams.toys.toy_trainer:ToyTrainer)" in done.stderr) == (2, True)
    assert rewright(folder, "sft", "trained", "--trusted", "seams").returncode == 0


@pytest.mark.parametrize(("signal", "noted"), [("matched", True), ("outcome", False)])
def test_rl_says_that_gold_calls_are_missing_only_where_they_are_used(tmp_path: Path, signal: str, noted: bool) -> None:
    (tmp_path / "no_training.py").write_text(
        "class Nothing:\n"
        "    def check(self, section, settings): pass\n"
        "    def train_rl(self, job):\n"
        "        job.out.mkdir(parents=True)\n"
        "        return [{'step': 1}]\n"
    )
    task = {"id": "a", "messages": [{"role": "user", "content": "1 + 1 = ?"}], "gold": {"answers": ["2"]}}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    changes = ("rl.backend=no_training:Nothing", "rl.tasks_per_step=1", "rl.trajectory_reward=matchtir")
    (tmp_path / "r.yaml").write_text("stages: [rl]\ntasks: tasks.jsonl\n")
    done = rewright(tmp_path, "run", "r.yaml", *changes, f"rl.credit.signal={signal}", "--run", "run")
    assert (done.returncode, "rl: no task has gold calls" in done.stderr) == (0, noted), done.stderr
