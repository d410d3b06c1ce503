"""Judge, task format, dimension, benchmark, dialect and engine of another package, at the command line.

`toys/` holds one file of each kind. `toys/rewright_toys-0.1.dist-info` makes them an installed package: its entry
points of the group `rewright` are how Rewright finds them. A new toy is its file and one line in entry_points.txt.
"""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rewright.core.records import ToolCall, ToolSpec
from rewright.core.statistics import mean_interval, proportion_interval
from rewright.rollout.toolsets import open_toolsets
from rewright.sandbox.settings import SandboxSettings
from rewright.tools.settings import ToolSettings
from support.static_page import page_data
from support.toys import rewright


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


def test_a_user_of_another_package_speaks_again(folder: Path) -> None:
    user = {"kind": "toy_asking", "data": {"questions": ["20 + 30 = ?"]}}
    task = {
        "id": "a",
        "messages": [{"role": "user", "content": "1 + 1 = ?"}],
        "gold": {"answers": ["50"]},
        "user": user,
    }
    (folder / "asked.jsonl").write_text(json.dumps(task) + "\n")
    settings = ("model.engine=toy", "model.path=adder", "dialect=toy", "eval.tasks.judge=exact")
    done = rewright(folder, "eval", "asked.jsonl", "--run", "asked", *settings)
    assert done.returncode == 0, done.stderr
    (made,) = records(folder / "asked" / "evaluations" / "base.jsonl")
    assert [turn["text"] for turn in made["turns"]] == ["I add them up. = 2", "I add them up. = 50"]
    assert (made["answer"], made["ending"]["messages"][0]["content"]) == ("50", "Thanks for 50.")


def test_a_task_begins_with_what_earlier_ones_of_another_package_leave(folder: Path) -> None:
    needed = {"kind": "toy_sums", "tasks": ["1+2", "30+40"]}
    first = {"role": "system", "content": "You add."}
    task = {"id": "a", "messages": [first], "gold": {"answers": ["73"]}, "prerequisites": needed}
    (folder / "later.jsonl").write_text(json.dumps(task) + "\n")
    settings = ("model.engine=toy", "model.path=adder", "dialect=toy", "eval.tasks.judge=exact")
    done = rewright(folder, "eval", "later.jsonl", "--run", "later", *settings, "eval.n=2")
    assert done.returncode == 0, done.stderr
    assert "100.0%" in done.stdout
    earlier = records(folder / "later" / "evaluations" / "base.prerequisites.jsonl")
    assert [(one["task_id"], one["index"], one["answer"]) for one in earlier] == [
        ("1+2", 0, "3"), ("1+2", 1, "3"), ("30+40", 0, "70"), ("30+40", 1, "70"),
    ]  # fmt: skip
    made = records(folder / "later" / "evaluations" / "base.jsonl")
    assert [(one["answer"], one["prompt"][-1]["content"]) for one in made] == [("73", "3 + 70 = ?")] * 2
    assert made[0]["prompt"][0] == first


def test_a_benchmark_is_evaluated(folder: Path) -> None:
    done = rewright(folder, "eval", "--benchmark", "toy-differences", "--run", "bench", "--model", "any", "--limit", 2)
    assert done.returncode == 0, done.stderr
    verdicts = records(folder / "bench" / "evaluations" / "base.verdicts.jsonl")
    assert [one["outcome"] for one in verdicts] == [1.0, 1.0]


def test_a_benchmark_brings_its_own_metrics(folder: Path) -> None:
    arguments = ("eval", "--benchmark", "toy-differences", "--run", "metrics", "--model", "any", "model.off_by=3")
    done = rewright(folder, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert "  distance: 3.000 [3.000, 3.000] of 3" in done.stderr.splitlines()
    distance = {"value": 3.0, "low": 3.0, "high": 3.0, "trajectories": 3}
    assert json.loads(done.stdout.splitlines()[-1])["stages"][0]["metrics"] == {"distance": distance}
    assert records(folder / "metrics" / "metrics.jsonl")[0]["metrics"] == {"distance": distance}
    plain = rewright(folder, *arguments, "eval.benchmark=null", "--run", "without")
    assert (plain.returncode, "distance" in plain.stdout) == (0, False), plain.stderr
    ids = [
        [one["id"] for one in records(folder / run / "evaluations" / "base.jsonl")] for run in ("metrics", "without")
    ]
    assert ids[0] == ids[1]  # metrics change neither ids nor seeds
    assert rewright(folder, "view", "metrics", "--static", "page.html").returncode == 0
    (page,) = page_data(folder / "page.html")["runs"]
    assert page["summary"]["report"]["stages"][0]["metrics"] == {"distance": distance}
    again = (folder / "metrics" / "recipe.yaml").read_text()
    assert "benchmark: toy-differences\n" in again
    (folder / "metrics" / "recipe.yaml").write_text(
        again.replace("benchmark: toy-differences\n", "benchmark: toy_benchmark:BROKEN\n")
    )
    refused = rewright(folder, "eval", "metrics")
    assert (refused.returncode, "names code (eval.benchmark: toy_benchmark:BROKEN)" in refused.stderr) == (2, True)


def test_intervals_of_own_metrics_that_are_shares_lie_between_0_and_1(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shares.py").write_text(
        "from rewright.benchmarks import Benchmark\n\n"
        "def metrics(task, trajectory, verdict):\n"
        "    number = int(task.id.rpartition('-')[2])\n"
        "    return {'never': 0, 'once': float(number == 0), 'half': 0.5, 'part': 0.1 * (number == 0),\n"
        "            'count': 2 * (number == 0)}\n\n"
        "BENCHMARK = Benchmark(('eval.tasks.format=toy-differences', 'eval.tasks.count=5', 'model.engine=toy', "
        "'dialect=toy'), metrics=metrics)\n"
    )
    done = rewright(tmp_path, "eval", "--benchmark", "shares:BENCHMARK", "--run", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert "  never: 0.000 [0.000, 0.434] of 5" in done.stderr.splitlines()
    found = json.loads(done.stdout.splitlines()[-1])["stages"][0]["metrics"]
    rows = {name: (row["value"], row["low"], row["high"]) for name, row in found.items()}
    for name, right in (("never", 0), ("once", 1), ("half", 2.5)):
        assert rows[name] == pytest.approx(proportion_interval(right, 5)), name
    part, low, high = rows["part"]
    assert 0 < low < part < high < rows["once"][2]
    assert rows["count"] == pytest.approx(mean_interval([2, 0, 0, 0, 0])), "a count is no share"


def test_floor_ceiling_and_pass_k_stand_beside_the_score(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bounded.py").write_text(
        "from rewright.benchmarks import Benchmark\n"
        "BENCHMARK = Benchmark(('eval.tasks.format=toy-differences', 'eval.tasks.count=2', 'model.engine=toy', "
        "'dialect=toy'), floor={'all': 0.25}, ceiling={'all': 0.975}, note='two of a hundred differences')\n"
    )
    arguments = ("eval", "--benchmark", "bounded:BENCHMARK", "--run", "run", "eval.n=3", "--json")
    done = rewright(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    shown = done.stderr.splitlines()
    assert "  pass^2 100.0% [34.2, 100.0], pass^3 100.0% [34.2, 100.0]" in shown
    assert "  floor 25.0%, ceiling 97.5%" in shown
    assert "  note: two of a hundred differences" in shown
    (row,) = json.loads(done.stdout.splitlines()[-1])["stages"]
    assert (row["floor"], row["ceiling"]) == ({"all": 0.25}, {"all": 0.975})
    assert {k: part["value"] for k, part in row["pass_powers"].items()} == {"2": 1.0, "3": 1.0}
    assert records(tmp_path / "run" / "metrics.jsonl")[0]["ceiling"] == {"all": 0.975}


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("1 / 0", "own_metrics:BENCHMARK failed for eval-base/difference-heldout-1-0/0/"),
        ("{'a': float('nan')}", "are {'a': nan}: expected finite numbers by name"),
        ("{'a': 'b'}", "are {'a': 'b'}: expected finite numbers by name"),
        ("{5: 1.0}", "are {5: 1.0}: expected finite numbers by name"),
        ("5", "failed for eval-base/difference-heldout-1-0/0/"),
    ],
)
def test_metrics_that_give_no_numbers_are_one_line(folder: Path, tmp_path: Path, returned: str, said: str) -> None:
    (tmp_path / "own_metrics.py").write_text(
        "from rewright.benchmarks import Benchmark\n"
        f"BENCHMARK = Benchmark(('eval.tasks.format=toy-differences', 'eval.tasks.count=1', 'model.engine=toy', "
        f"'dialect=toy'), metrics=lambda task, trajectory, verdict: {returned})\n"
    )
    done = rewright(tmp_path, "eval", "--benchmark", "own_metrics:BENCHMARK", "--run", "run")
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    assert len(records(tmp_path / "run" / "evaluations" / "base.verdicts.jsonl")) == 1  # nothing is lost


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("eval", "--benchmark", "toy-diferences"), "unknown benchmark 'toy-diferences': did you mean"),
        (("run", "recipe.yaml", "eval.benchmark=hotpot", "--dry-run"), "eval.benchmark: unknown benchmark 'hotpot'"),
        (("run", "recipe.yaml", "eval.benchmark=json:load", "--dry-run"), "benchmark 'json:load' is a function: exp"),
        (("run", "recipe.yaml", "dialect=toi", "--dry-run"), "did you mean 'toy'? expected one of chat, deepseek, "),
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


ECHO = {"type": "function", "function": {"name": "echo", "parameters": {"type": "object", "properties": {}}}}


async def test_an_executor_runs_the_tools_of_its_kind() -> None:
    importlib.import_module("seams.toys.toy_executor")  # as its entry point does
    tools = open_toolsets(ToolSettings(), SandboxSettings())
    async with tools.open([ToolSpec(ECHO, kind="toy-echo")]) as toolset:
        assert (await toolset.call(ToolCall("echo", {"a": "b"}))).content == '{"A": "B"}'
        assert (await toolset.call(ToolCall("ecko", {}))).error == "unknown_tool: unknown tool 'ecko'; available: echo"
    await tools.close()


def test_a_task_file_names_an_executor_by_its_name_only(folder: Path, tmp_path: Path) -> None:
    task = {"id": "a", "messages": [{"role": "user", "content": "1 + 1 = ?"}], "gold": {"answers": ["2"]}}
    for kind, said in (("toy-ecko", "toy-echo"), ("json:JSONDecoder", "no executor for kind 'json:JSONDecoder'")):
        (tmp_path / "tasks.jsonl").write_text(json.dumps({**task, "tools": [{"schema": ECHO, "kind": kind}]}) + "\n")
        shutil.copy(folder / "recipe.yaml", tmp_path)
        done = rewright(tmp_path, "run", "recipe.yaml", "tasks.path=tasks.jsonl", "tasks.format=rewright")
        assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
    (tmp_path / "tasks.jsonl").write_text(json.dumps({**task, "tools": [{"schema": ECHO, "kind": "toy-echo"}]}) + "\n")
    done = rewright(tmp_path, "run", "recipe.yaml", "tasks.path=tasks.jsonl", "tasks.format=rewright")
    assert done.returncode == 0, done.stderr
