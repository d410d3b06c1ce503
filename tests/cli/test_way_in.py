"""The command line's grammar: versions, completion, eval's readings, compare, and JSON alone on standard output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rewright import __version__
from rewright.cli.main import app
from rewright.core.records import Gold, Task, Trajectory, Verdict
from rewright.core.statistics import paired_difference
from rewright.pipeline.run_directory import Run
from rewright.recipe.loader import load_recipe
from support import in_process

EVAL = ["name=e", "stages=[eval_base]", "eval.tasks={format: town, split: heldout, profile: short, count: 2, seed: 1}"]
RIGHT = {"left": [1, 1, 0, 0, 1], "right": [1, 0, 1, 1, 1]}


def evaluated(folder: Path, right: list[int], *, question: str = "q") -> Path:
    """A run whose base model is evaluated on a task for each of `right`; task 9 is asked as `question`."""
    run = Run.create(folder, load_recipe(None, EVAL), resume=False)
    with run.locked():
        trajectories, verdicts = run.evaluation("base")
        for number, outcome in enumerate([*right, 1]):
            name = str(number if number < len(right) else 9)
            text = question if name == "9" else "q"
            run.eval_tasks.append(
                Task(id=name, messages=({"role": "user", "content": text},), gold=Gold(answers=("a",)))
            )
            one = Trajectory(
                id=f"t/{name}", task_id=name, stage="eval-base", index=0, turns=(), stop_reason="answered", answer="a"
            )
            trajectories.append(one)
            verdicts.append(Verdict(trajectory_id=one.id, outcome=float(outcome), reason="", answer="a"))
        row = {"tasks": 6, "trajectories": 6, "success": 0.5, "low": 0.2, "high": 0.8, "calls": 0.0, "seconds": 1.0}
        run.set_metrics("eval_base", [row])
        run.finish("eval_base", 1.0)
        trajectories.close()
        verdicts.close()
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    evaluated(tmp_path / "left", RIGHT["left"], question="one")
    evaluated(tmp_path / "right", RIGHT["right"], question="another")
    return tmp_path


def test_the_version_by_option_verb_and_module(tmp_path: Path) -> None:
    for arguments in (["--version"], ["version"]):
        assert in_process.rewright(tmp_path, *arguments).output == f"{__version__}\n"
    command = [sys.executable, "-m", "rewright", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{__version__}\n"


def test_the_shell_completes_verbs(tmp_path: Path) -> None:
    environment = {
        **os.environ, "_REWRIGHT_COMPLETE": "complete_bash", "COMP_WORDS": "rewright comp", "COMP_CWORD": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "rewright"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["compare"]


def test_a_run_is_continued_by_its_directory(runs: Path) -> None:
    said = in_process.rewright(runs, "run", "left", "--resume")
    assert said.code == 0, said.errors
    assert "eval_base: done before" in said.errors
    in_process.rewright(runs, "run", "left").refused(
        "left already contains a run: choose another --run, or continue it: rewright run left"
    )
    in_process.rewright(runs, "run", "left", "--resume", "seed=1").refused("left was started with another recipe")
    (runs / "none").mkdir()
    in_process.rewright(runs, "run", "none", "--resume").refused("cannot read recipe none: Is a directory")


@pytest.mark.needs_torch
def test_a_dry_run_of_a_run_is_of_what_is_left_of_it(runs: Path) -> None:
    said = in_process.rewright(runs, "run", "left", "--dry-run", "--json")
    assert (said.code, json.loads(said.output)["stages"]) == (0, []), said.errors
    (runs / "left/state.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in (runs / "left").rglob("*")}
    said = in_process.rewright(runs, "run", "left", "--resume", "--dry-run", "--json")
    assert (said.code, json.loads(said.output)["stages"]) == (0, ["eval_base"]), said.errors
    assert {path: path.stat().st_mtime_ns for path in (runs / "left").rglob("*")} == before
    in_process.rewright(runs, "run", "left", "--resume", "--dry-run", "eval.n=3").refused("eval.n is 1 there, and 3")


def test_the_tasks_of_a_run_are_validated_by_its_directory(runs: Path) -> None:
    task = Task(id="t", messages=({"role": "user", "content": "Where?"},), gold=Gold(answers=("a",)))
    in_process.rewright(runs, "validate", "left").refused("left/tasks.jsonl: no such file")
    (runs / "left/tasks.jsonl").write_bytes(msgspec.json.encode(task) + b"\n")
    said = in_process.rewright(runs, "validate", "left")
    assert (said.code, "1 rows" in said.output) == (0, True), said.errors


def test_a_run_directory_runs_no_code_that_is_not_named(runs: Path) -> None:
    path = runs / "left/recipe.yaml"
    path.write_text(path.read_text().replace("judges: []", "judges: [mine]"))
    in_process.rewright(runs, "run", "left", "--resume").refused("expected --trusted mine")
    assert in_process.rewright(runs, "run", "left", "--resume", "--trusted", "mine").code == 0


def test_compare_shows_the_difference_over_the_tasks_of_both(runs: Path) -> None:
    said = in_process.rewright(runs, "compare", "left", "right")
    assert said.code == 0, said.errors
    found = json.loads(in_process.rewright(runs, "compare", "left", "right", "--json").output)
    (row,) = found["stages"]
    differences = [after - before for before, after in zip(RIGHT["left"], RIGHT["right"], strict=True)]
    expected = paired_difference(differences)
    assert row["difference"] == {**expected._asdict(), "tasks": 5}
    assert row["changed"] == 1
    assert expected.value == pytest.approx(0.2)
    # Agresti and Min: (c - b)/(n + 2), with half a pair more in each of the four cells.
    cells, size = (2.5, 1.5), 7
    centre = (cells[0] - cells[1]) / size
    error = (sum(cells) / size - centre**2) ** 0.5 / size**0.5
    assert (expected.low, expected.high) == pytest.approx(
        (centre - 1.95996 * error, centre + 1.95996 * error), abs=1e-5
    )
    assert "+20.0% [" in said.output
    assert "1 tasks have the same id and are not the same" in said.output


def test_runs_without_a_common_task_have_no_difference(runs: Path) -> None:
    run = Run.open(runs / "left")
    run.eval_tasks.rewrite([msgspec.structs.replace(task, judge="math") for task in run.eval_tasks])
    run.close()
    found = json.loads(in_process.rewright(runs, "compare", "left", "right", "--json").output)
    assert (found["stages"][0]["difference"], found["stages"][0]["changed"]) == (None, 6)
    in_process.rewright(runs, "compare", "left", "left").refused("are the same run")
    in_process.rewright(runs, "compare", "left", "none").refused("none is not a run directory")


@pytest.mark.needs_torch
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["left", "--model", "sft"],
            "--model sft is the stage sft of left and the folder ./sft: expected stage:sft or",
        ),
        (["left", "--model", "stage:sft"], "left: stage eval_sft needs stage sft, which is not done"),
        (["left", "--model", "./sft"], "model ./sft: no saved model in it"),
        (["left", "--model", "bsae"], "--model is 'bsae': expected base, sft, dpo or rl, or name:bsae"),
        (["left", "--model", "stage:x"], "--model is 'stage:x': expected stage: with base, sft, dpo or rl"),
        (["left", "--benchmark", "bfcl-multi-turn", "--model", "stage:sft"], "no model of stage sft to evaluate"),
        (["t.jsonl", "--model", "rl"], "--model rl is a stage of a run, and there is no run: expected eval RUN --mod"),
        (["t.jsonl", "--model", "pico"], "--model pico is the model pico that Rewright names and the folder ./pico"),
        (["a=b"], "eval: a=b is the file a=b and the setting a with the value b: expected ./a=b for the file"),
        (["left", "t.jsonl"], "left and t.jsonl: expected one run directory or task file, then settings"),
        (["t.jsonl", "--benchmark", "bfcl-multi-turn"], "expected a task file or benchmarks, not both"),
        (["bfcl-multi-turn"], "it is a benchmark: expected --benchmark bfcl-multi-turn"),
        (["none.jsonl"], "none.jsonl: no such file: expected a run directory or a task file"),
        (["none"], "none is not a run directory"),
        (["pico"], "pico is not a run directory: expected a recipe.yaml in it"),
        ([], "nothing to evaluate on: expected a run directory, a task file, or --benchmark with one of "),
        (["left", "--limit", "2"], "--run, --limit and --resume of eval are for a new run"),
        (["left", "seed=2"], "the held-out tasks of left are evaluated with its own recipe"),
        (["--benchmark", "bfcl-multi-turn", "--trusted", "mine"], "--trusted of eval is for a run directory or a task"),
        (["--benchmark", "bfcl-multi-turn", "--benchmark", "bfcl-multi-turn"], "is given twice"),
        (["t.jsonl", "--limit", "0"], "--limit is 0: expected at least 1"),
    ],
)
def test_a_word_with_two_readings_is_refused_with_both(runs: Path, arguments: list[str], said: str) -> None:
    for folder in ("sft", "pico"):
        (runs / folder).mkdir()
    (runs / "a=b").touch()
    (runs / "t.jsonl").write_text('{"id": "a", "messages": [{"role": "user", "content": "q"}]}\n')
    before = sorted(path.name for path in runs.iterdir())
    in_process.rewright(runs, "eval", *arguments).refused(said)
    assert sorted(path.name for path in runs.iterdir()) == before


@pytest.mark.needs_torch
def test_a_task_file_that_names_code_is_evaluated_with_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    judge = "from rewright.judging import Judgement\n\n\ndef judge(answer, task):\n    return Judgement(1.0, 'yes')\n"
    (tmp_path / "judge_of_eval.py").write_text(judge)
    row: dict[str, Any] = {
        "id": "a",
        "messages": [{"role": "user", "content": "q"}],
        "judge": "judge_of_eval:judge",
        "gold": {"answers": ["a"]},
    }
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    few = ["limits.turn_tokens=4", "sandbox.level=process", "--run", "run"]
    in_process.rewright(tmp_path, "eval", "t.jsonl", *few).refused("expected judge_of_eval in `judges`")
    said = in_process.rewright(tmp_path, "eval", "t.jsonl", *few, "--trusted", "judge_of_eval")
    assert said.code == 0, said.errors
    recipe = (tmp_path / "run/recipe.yaml").read_text()
    assert recipe.count("- judge_of_eval\n") == 2  # judges and sandbox.trusted


@pytest.mark.needs_torch
def test_a_task_file_is_evaluated_in_a_run_of_its_own(tmp_path: Path) -> None:
    row: dict[str, Any] = {"id": "a", "messages": [{"role": "user", "content": "q"}], "gold": {"answers": ["a"]}}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    few = ["limits.turn_tokens=4", "sandbox=process"]
    said = in_process.rewright(tmp_path, "eval", "mine.jsonl", "--model", "name:pico", "--json", *few)
    assert said.code == 0, said.errors
    assert json.loads(said.output)["run"] == "runs/mine-eval"
    again = in_process.rewright(tmp_path, "eval", "runs/mine-eval", "--model", "base", "--json")
    assert again.code == 0, again.errors
    assert [stage["stage"] for stage in json.loads(again.output)["stages"]] == ["base"]
    other = in_process.rewright(tmp_path, "eval", "runs/mine-eval", "--model", "pico-tags", "--json", "dialect=tags")
    assert other.code == 0, other.errors
    assert json.loads(other.output)["run"] == "runs/mine-eval-eval"


VERBS = [
    ["report", "left"], ["view", "left", "--static", "page.html"],
    ["compare", "left", "right"], ["doctor"], ["run", "left", "--resume"],
    ["validate", "t.jsonl", "--no-execute"], ["run", "r.yaml", "--dry-run"], ["index", "c.jsonl"],
    ["judge", "left"], ["import", "x.jsonl", "--run", "new", "--recipe", "r.yaml"],
    ["credit", "x.jsonl", "--gold", "t.jsonl"], ["plan", "r.yaml"],
]  # fmt: skip


@pytest.mark.needs_torch
def test_json_is_alone_on_standard_output(runs: Path) -> None:
    task = {"id": "a", "messages": [{"role": "user", "content": "q"}], "gold": {"answers": ["a"], "calls": []}}
    (runs / "t.jsonl").write_text(json.dumps(task) + "\n" + json.dumps({**task, "id": "b"}) + "\n")
    (runs / "r.yaml").write_text("tasks: t.jsonl\nstages: [synth]\n")
    (runs / "c.jsonl").write_text('{"id": "1", "contents": "words in it"}\n')
    trajectory = Trajectory(id="x", task_id="a", stage="synth", index=0, turns=(), stop_reason="no_answer")
    (runs / "x.jsonl").write_bytes(msgspec.json.encode(trajectory) + b"\n")
    for verb in VERBS:
        said = in_process.rewright(runs, *verb, "--json")
        if verb[0] == "judge":  # it has nothing to judge
            assert (said.code, said.output) == (2, "")
            continue
        assert said.code == 0, (verb, said.errors)
        json.loads(said.output)


def test_every_verb_with_json_is_tried_or_needs_a_run_of_its_own(runs: Path) -> None:
    from typer.main import get_command

    command: Any = get_command(app)
    with_json = {name for name, verb in command.commands.items() if any("--json" in one.opts for one in verb.params)}
    stages = {"synth", "score", "repair", "build", "sft", "dpo", "reward", "rl"}  # as judge and report: one for all
    elsewhere = {"audit", "eval", "quickstart", "export", "check-batch", "probe-reward"}
    assert {verb[0] for verb in VERBS} | stages | elsewhere >= with_json - {"init", "schema"}


def test_the_doctors_page_has_sections_and_says_what_to_do(tmp_path: Path) -> None:
    said = in_process.rewright(tmp_path, "doctor")
    sections = [line for line in said.output.splitlines() if line and not line.startswith(" ")]
    assert sections == ["Machine", "Packages", "Sandbox", "Trainers with a plug-in"]
    lines = said.output.splitlines()
    for number, line in enumerate(lines):
        if line.split()[:1] == ["missing"]:
            assert lines[number + 1].strip().startswith("-> "), line


def test_a_failure_before_anything_was_done_does_not_say_that_something_was_saved(tmp_path: Path) -> None:
    served = (
        "{path: m, engine: openai, base_url: 'http://127.0.0.1:9/v1', attempts: 2, max_wait_seconds: 0.1, mode: %s}"
    )
    for mode in ("auto", "chat"):
        (tmp_path / f"{mode}.yaml").write_text(
            f"name: {mode}\nmodel: {served % mode}\nstages: [eval_base]\nsandbox: process\n"
            "eval: {tasks: {format: town, split: heldout, profile: short, count: 2}}\n"
        )
        said = in_process.rewright(tmp_path, "run", f"{mode}.yaml")
        assert said.code == 1, said.errors
        assert "Retrying" not in said.errors
        if mode == "auto":
            assert "saved" not in said.errors
            assert "stopped before anything was generated" in said.errors


NOISY = """
import logging
from rewright.pipeline.registry import Stage

def run(context):
    for name in ("httpx", "openai._base_client", "huggingface_hub.utils._http", "tenacity", "urllib3.connectionpool"):
        logging.getLogger(name).warning("Retrying in 8s by %s", name)
    print("a line of the stage")

STAGE = Stage(name="noisy_stage", run=run)
"""


def test_the_noise_of_libraries_goes_to_a_file_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "noisy_part.py").write_text(NOISY)
    (tmp_path / "r.yaml").write_text("name: r\nstages: ['noisy_part:STAGE']\n")
    command = [sys.executable, "-m", "rewright", "run", "r.yaml", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == "runs/r"
    assert "a line of the stage" in done.stderr
    assert "Retrying" not in done.stderr
    log = (tmp_path / "runs/r/libraries.log").read_text()
    assert [line.rpartition(" ")[2] for line in log.splitlines()] == [
        "httpx", "openai._base_client", "huggingface_hub.utils._http", "tenacity", "urllib3.connectionpool",
    ]  # fmt: skip
