"""A `tasks` section that is a list: a weighted mixture of sources, through the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewright.recipe.loader import load_recipe, recipe_hash
from rewright.tasks.from_recipe import load_recipe_tasks, mixture_order
from support.in_process import rewright

HEAD = """\
name: mix
stages: [eval_base, synth, judge, score]
model: {path: pico, slots: 16}
sandbox: process
synth: {n: 2, temperature: 1.0, top_p: 1.0}
limits: {turns: 2, turn_tokens: 40, trajectory_tokens: 120}
"""
MIXTURE = """\
tasks:
  - {format: town, profile: short, count: 8, weight: 2}
  - {path: mine.jsonl, weight: 1}
eval:
  tasks: [{format: town, profile: short, count: 2}, mine.jsonl]
"""

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def write(folder: Path, mixture: str = MIXTURE, count: int = 3) -> None:
    tasks = [
        {"id": f"q{number}", "messages": [{"role": "user", "content": f"{number}?"}], "gold": {"answers": ["1"]}}
        for number in range(count)
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    (folder / "r.yaml").write_text(HEAD + mixture)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of the mixture and the table that it printed."""
    folder = tmp_path_factory.mktemp("mixture")
    write(folder)
    said = rewright(folder, "run", "r.yaml")
    assert said.code == 0, said.errors
    return folder, said.output


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.needs_torch
def test_tasks_are_in_proportion_to_the_weights_and_say_where_they_are_from(run: tuple[Path, str]) -> None:
    tasks = rows(run[0] / "runs/mix/tasks.jsonl")
    sources = [task["metadata"]["mixture_source"] for task in tasks]
    assert sources == ["town", "mine", "town"] * 3
    assert [task["id"] for task in tasks[:3]] == ["town/town-train-short-0-0", "mine/q0", "town/town-train-short-0-1"]
    assert {(task["metadata"]["mixture_source"], task["source"]) for task in tasks} == {
        ("town", "town"),
        ("mine", "mine"),
    }
    assert tasks[0]["metadata"]["family"]


@pytest.mark.needs_torch
def test_a_source_of_the_held_out_tasks_has_their_defaults(run: tuple[Path, str]) -> None:
    ids = {task["id"] for task in rows(run[0] / "runs/mix/eval_tasks.jsonl")}
    assert ids == {"town/town-heldout-short-1-0", "town/town-heldout-short-1-1", "mine/q0", "mine/q1", "mine/q2"}


@pytest.mark.needs_torch
def test_the_table_has_a_row_per_source(run: tuple[Path, str]) -> None:
    folder, table = run
    found = json.loads(rewright(folder, "report", "runs/mix", "--json").output.splitlines()[-1])
    assert set(found["sources"]) == set(found["stages"][0]["sources"]) == {"town", "mine"}
    verdicts = {one["trajectory_id"]: one["outcome"] >= 0.5 for one in rows(folder / "runs/mix/verdicts.jsonl")}
    for name, tasks in (("town", 6), ("mine", 3)):
        right = [ok for trajectory, ok in verdicts.items() if trajectory.startswith(f"synth/{name}/")]
        row = found["sources"][name]
        assert (row["tasks"], row["trajectories"], row["success"]) == (tasks, 2 * tasks, sum(right) / len(right))
        counts = row["counts"]
        assert counts["kept"] + counts["low"] == sum(right)
        assert counts["wrong"] == len(right) - sum(right)
        shown = next(line for line in table.splitlines() if line.startswith(f"{name} "))
        assert shown.split()[-6:-4] == [str(tasks), str(2 * tasks)]
        evaluated = found["stages"][0]["sources"][name]
        assert f"  {name}: {100 * evaluated['success']:.1f}% [" in table
    assert sum(one["trajectories"] for one in found["stages"][0]["sources"].values()) == 5


@pytest.mark.needs_torch
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_has_a_row_per_source(run: tuple[Path, str]) -> None:
    folder, _ = run
    found = json.loads(rewright(folder, "report", "runs/mix", "--json").output.splitlines()[-1])
    assert rewright(folder, "view", "runs/mix", "--static", "page.html").code == 0
    shown = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}",
         "--virtual-time-budget=10000", "--dump-dom", f"{(folder / 'page.html').as_uri()}#/overview"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    page = shown.stdout
    for name, row in found["sources"].items():
        numbers = [row["tasks"], row["trajectories"], *(row["counts"][key] for key in ("kept", "low", "wrong"))]
        cells = f"<td>{name}</td><td>{100 * row['success']:.1f}% [{100 * row['low']:.1f}, {100 * row['high']:.1f}]</td>"
        assert cells + "".join(f"<td>{number}</td>" for number in numbers) in page
        evaluated = found["stages"][0]["sources"][name]
        assert f"{found['stages'][0]['stage']}, {name}: {100 * evaluated['success']:.1f}% [" in page


@pytest.mark.needs_torch
def test_a_run_of_a_mixture_is_resumed(run: tuple[Path, str]) -> None:
    folder, table = run
    before = (folder / "runs/mix/trajectories.jsonl").read_bytes()
    said = rewright(folder, "run", "r.yaml", "--resume")
    assert (said.code, said.output) == (0, table)
    said = rewright(folder, "run", "runs/mix/recipe.yaml", "--run", "runs/mix", "--resume")
    assert (said.code, said.output) == (0, table)
    assert (folder / "runs/mix/trajectories.jsonl").read_bytes() == before


def plan(folder: Path, *arguments: str) -> dict[str, Any]:
    said = rewright(folder, "run", "r.yaml", "--dry-run", "--json", *arguments)
    assert said.code == 0, said.errors
    found: dict[str, Any] = json.loads(said.output)
    return found


def test_limits_are_of_all_tasks_together(tmp_path: Path) -> None:
    write(tmp_path)
    assert plan(tmp_path)["task_sources"] == {"town": 6, "mine": 3}
    assert plan(tmp_path, "--limit", "3")["task_sources"] == {"town": 2, "mine": 1}
    assert plan(tmp_path, "--limit", "3")["evaluated"] == 3
    assert plan(tmp_path, "synth.limit=2")["candidates"] == 4
    write(tmp_path, "tasks: {limit: 4, sources: [mine.jsonl, {format: town, count: 3, limit: 2}]}\n")
    assert plan(tmp_path)["task_sources"] == {"mine": 2, "town": 2}


def test_the_limit_of_the_command_is_of_the_tasks_of_rl_too(tmp_path: Path) -> None:
    recipe = {"name": "r", "model": {"path": "pico"}, "stages": ["rl"], "dpo": {"beta": 0.2}}
    recipe["rl"] = {"tasks_per_step": 1, "tasks": {"format": "town", "count": 9}}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    assert plan(tmp_path)["rl_tasks"] == 9
    assert plan(tmp_path, "--limit", "2")["rl_tasks"] == 2
    assert plan(tmp_path, "--limit", "2", "rl.tasks.limit=4")["rl_tasks"] == 4
    said = rewright(tmp_path, "run", "r.yaml", "--dry-run")
    assert "note: dpo has settings and does not run: stages does not name it" in said.errors
    said = rewright(tmp_path, "run", "r.yaml", "--dry-run", "dpo.beta=0.1")  # the default
    assert "note: dpo" not in said.errors


def test_an_override_of_the_path_replaces_the_mixture(tmp_path: Path) -> None:
    write(tmp_path)
    found = plan(tmp_path, "tasks=mine.jsonl")
    assert (found["tasks"], "task_sources" in found) == (3, False)
    assert plan(tmp_path, "tasks=[mine.jsonl, {path: mine.jsonl, name: again}]")["task_sources"] == {
        "mine": 3,
        "again": 3,
    }


@pytest.mark.parametrize(("mixture", "words"), [
    ("tasks: []", "r.yaml:7: tasks: the list is empty: expected at least one source"),
    ("tasks: [{format: town, weight: 1}, mine.jsonl]", "tasks.sources: must all have a weight, or none of them"),
    ("tasks: [mine.jsonl, mine.jsonl]", "must have names of their own, got 'mine' for sources[0] and sources[1]"),
    ("tasks:\n  - {format: town}\n  - {format: frtl}", "r.yaml:9: tasks.sources[1].format: unknown task format 'frtl'"),
    (
        "tasks:\n  - mine.jsonl\n  - wieght: 1",
        "r.yaml:9: unknown key tasks.sources[1].wieght: did you mean tasks.sources[1].weight?",
    ),
    ("tasks:\n  - format: town\n    weight: 0", "r.yaml:9: tasks.sources[0].weight: must be positive, got 0"),
    ("tasks: [none.jsonl]", "none.jsonl: no such file"),
    ("tasks: [{format: ftrl}]", "tasks.sources[0].path is missing: expected a file in the format ftrl"),
    ("eval: {tasks: [{format: ftrl}]}", "eval.tasks.sources[0].path is missing"),
    ("eval: {tasks: {format: ftrl}}", "eval.tasks.path is missing"),
    ("tasks: [1]", "tasks.sources[0]: expected a section, got `int`"),
    ("tasks: {sources: [mine.jsonl], count: 3}", "r.yaml:7: tasks.count has no effect: tasks.sources is a list of 1"),
    ("tasks: [{path: mine.jsonl, seed: 3}]", "tasks.sources[0].seed has no effect: tasks.sources[0].format is"),
    ("tasks: [{format: town, path: mine.jsonl}]", "tasks.sources[0].path is mine.jsonl, but tasks.sources[0].format"),
    ("tasks: [{path: mine.jsonl, name: a/b}]", "tasks.sources[0].name: must be letters, digits"),
    ("tasks: [{path: mine.jsonl, judge: solve}]", "needs gold.outputs, and task q0 has none"),
    ("tasks: [{path: mine.jsonl, weight: 0.001}, {format: town, count: 4, weight: 5}]", "sources[0] contributes no"),
    ("tasks: [{path: mine.jsonl, sources: []}]", "unknown key tasks.sources[0].sources"),
    ("quality:\n  dimensions:\n    - {name: a, fucntion: length}", "r.yaml:9: unknown key quality.dimensions[0].fuc"),
])  # fmt: skip
def test_each_mistake_is_one_line_with_its_place(tmp_path: Path, mixture: str, words: str) -> None:
    write(tmp_path, mixture + "\n")
    rewright(tmp_path, "run", "r.yaml", "--dry-run").refused(words)
    assert not (tmp_path / "runs").exists()


def test_a_judge_of_a_source_comes_before_that_of_the_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "tasks: {judge: math, sources: [{path: mine.jsonl, judge: qa}, {format: town, count: 3}]}\n")
    monkeypatch.chdir(tmp_path)
    tasks = load_recipe_tasks(load_recipe(tmp_path / "r.yaml").tasks)
    assert {(task.id.partition("/")[0], task.judge) for task in tasks} == {("mine", "qa"), ("town", "math")}


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b.v1.jsonl.gz", "b.v1"), ("hf:owner/set:train", "set"), ("hf:", "gsm8k"), ("x.parquet", "x"), ("ü b", "ü-b")],
)
def test_a_source_is_named_after_its_file(tmp_path: Path, path: str, name: str) -> None:
    (tmp_path / "r.yaml").write_text(json.dumps({"tasks": [{"format": "gsm8k", "path": path}]}))
    assert load_recipe(tmp_path / "r.yaml").tasks.sources[0].label == name


def test_recipes_without_a_mixture_keep_their_hashes(tmp_path: Path) -> None:
    """The numbers are those of the version before mixtures."""
    (tmp_path / "r.yaml").write_text("eval: {tasks: {format: ftrl, path: a}}\nrl: {tasks: {count: 9}}\n")
    recipe = load_recipe(tmp_path / "r.yaml")
    sections = [("eval", "model"), ("tasks",), ("rl", "tasks", "eval")]
    assert [recipe_hash(recipe, one) for one in sections] == HASHES


HASHES = ["f198f660", "87cff679", "21a61c83"]


@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0.1, 10)), min_size=1, max_size=4))
def test_every_beginning_of_a_mixture_has_nearly_the_weights(sources: list[tuple[int, float]]) -> None:
    sizes, weights = [size for size, _ in sources], [weight for _, weight in sources]
    order = mixture_order(sizes, weights)
    assert len(set(order)) == len(order)
    total = sum(weights)
    counts = [0] * len(sources)
    for number, (source, index) in enumerate(order, 1):
        assert index == counts[source]
        counts[source] += 1
        for count, weight in zip(counts, weights, strict=True):
            assert abs(count - number * weight / total) < len(sources)
    assert any(count == size for count, size in zip(counts, sizes, strict=True))
    assert sorted(mixture_order(sizes, [None] * len(sizes))) == [
        (s, i) for s, size in enumerate(sizes) for i in range(size)
    ]


def test_the_order_of_a_mixture_depends_on_nothing_else() -> None:
    assert mixture_order([2, 4], [1.0, 2.0]) == [(1, 0), (0, 0), (1, 1), (1, 2), (0, 1), (1, 3)]
    assert mixture_order([200, 50], [3.0, 1.0]).count((1, 49)) == 1
    assert len(mixture_order([200, 50], [3.0, 1.0])) == 200
