"""`rewright schema`: real files are valid under it, and what the loader refuses it refuses, too."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from rewright.core.records import Task, Trajectory
from rewright.core.storage import read_jsonl
from rewright.recipe.yaml_file import read_yaml
from rewright.tasks.from_recipe import load_recipe_tasks
from rewright.tasks.loading import load_tasks
from rewright.tasks.settings import TaskSettings
from support.in_process import rewright

ROOT = Path(__file__).parents[2]
KINDS = ("task", "recipe", "trajectory")
STARTER = files("rewright.recipe") / "starter_files"


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The printed schemas."""
    folder = tmp_path_factory.mktemp("schemas")
    return {kind: json.loads(rewright(folder, "schema", kind).output) for kind in KINDS}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two tasks with repairs."""
    folder = tmp_path_factory.mktemp("run")
    recipe = (
        "name: tiny\nstages: [synth, judge, score, repair]\ntasks: {profile: short, count: 2}\nsandbox: process\n"
        "synth: {n: 1, temperature: 1.0, top_p: 1.0}\nlimits: {turns: 3, turn_tokens: 48, trajectory_tokens: 160}\n"
        "repair: {model: pico-repairer}\nprices: {pico: {input: 1, output: 2.5}}\n"
    )
    (folder / "r.yaml").write_text(recipe)
    said = rewright(folder, "run", "r.yaml")
    assert said.code == 0, said.errors
    return folder / "runs" / "tiny"


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_schema_of_its_draft_that_describes_every_key(schemas: dict[str, Any], kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schemas[kind])
    assert schemas[kind]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for name, definition in schemas[kind]["$defs"].items():
        assert definition["description"], name
        for key, value in definition.get("properties", {}).items():
            if name != "FunctionSchema":
                assert value.get("description"), f"{name}.{key}"


def recipes() -> Iterator[tuple[str, Path | str]]:
    for path in [*ROOT.glob("recipes/*.yaml"), *ROOT.glob("examples/**/recipe.yaml")]:
        yield path.name, path
    yield "quickstart", Path(str(files("rewright.recipe"))) / "quickstart.yaml"
    yield "init", (STARTER / "recipe.yaml").read_text("utf-8")
    for page in (
        "pipeline.md",
        "recipes.md",
        "recipe_keys.md",
        "recipe_training_keys.md",
        "engines.md",
        "judges.md",
        "tasks.md",
    ):
        text = (ROOT / "docs" / page).read_text("utf-8")
        yield from (
            (f"{page} {number}", one) for number, one in enumerate(re.findall(r"```yaml\n(.*?)```", text, re.S))
        )
    yield (
        "short forms",
        "tasks: a.jsonl\nmodel: smollm2\nsandbox: process\neval: {tasks: b.jsonl}\nrl: {tasks: c.jsonl}\n",
    )
    yield (
        "mixtures",
        (
            "tasks: [{format: town, weight: 2}, {path: a.jsonl, weight: 1, name: mine}]\n"
            "eval: {tasks: [a.jsonl, {format: town}]}\nrl: {tasks: {sources: [a.jsonl], limit: 3}}\n"
        ),
    )
    yield "empty sections", "synth:\nmodel:\ntasks:\nrepair: {model: }\nrl: {tasks: , credit: }\n"
    yield "code", "model: {engine: 'my_engines:Mine', anything: 1}\ntasks: {format: 'mine:format', path: a}\n"


@pytest.mark.parametrize(("name", "recipe"), list(recipes()), ids=[name for name, _ in recipes()])
def test_real_recipes_are_valid(schemas: dict[str, Any], tmp_path: Path, name: str, recipe: Path | str) -> None:
    if isinstance(recipe, str):
        (tmp_path / "recipe.yaml").write_text(recipe)
        recipe = tmp_path / "recipe.yaml"
    validator(schemas["recipe"]).validate(read_yaml(recipe)[0])


@pytest.mark.needs_torch
def test_the_resolved_recipe_of_a_run_is_valid(schemas: dict[str, Any], run: Path) -> None:
    validator(schemas["recipe"]).validate(read_yaml(run / "recipe.yaml")[0])


@pytest.mark.parametrize("recipe", [
    "synht: {n: 2}", "synth: {m: 2}", "rl: {credit: {gama: 1}}", "model: {slots: 4, base_url: 'http://x/v1'}",
    "repair: {model: {engine: openai, slots: 4}}", "model: {engine: openia}", "quality: {dimensions: [{nam: x}]}",
    "seed: -1", "seed: 4294967296", "synth: {n: 0}", "synth: {n: two}", "synth: {n: 1.5}", "synth: {top_p: 0}",
    "rl: {generations: 1}", "rl: {credit: {gamma: 1.5}}", "rl: {credit: {weights: [1, 1]}}", "eval: {n: -1}",
    "limits: {turns: 0}", "build: {held_out_fraction: 1.1}", "rl: {loss_type: gpro}", "dialect: hermse",
    "tasks: {format: frtl, path: x}", "tasks: {judge: exactt}", "rl: {credit: {estimator: mathctir}}",
    "quality: {dimensions: [{name: a, function: lenght}]}", "stages: []", "stages: [synht]", "stages: [synth, synth]",
    "name: a/b", "name: .a", "name: ''", "name: 'a '", "tasks: [1]", "sandbox: {level: stric}", "synth: [1]",
    "prices: {pico: {inptu: 1}}", "prices: {pico: {input: -1}}", "rl: {outcome: solve}", "sft: {backend: tlr}",
    "tasks: []", "tasks: [{format: town, wieght: 1}]", "tasks: [{format: town, weight: 0}]", "tasks: [{format: twon}]",
    "tasks: [{path: a.jsonl, name: a/b}]", "eval: {tasks: [{format: town, count: 0}]}", "tasks: {sources: 3}",
    "tasks: [{path: a.jsonl, sources: []}]",
    "limits: {tool_seconds: .inf}", "judges: my_judges", "tasks: {count: 2000000000}",
])  # fmt: skip
def test_what_the_loader_refuses_the_schema_refuses(schemas: dict[str, Any], tmp_path: Path, recipe: str) -> None:
    (tmp_path / "r.yaml").write_text(recipe + "\n")
    said = rewright(tmp_path, "run", "r.yaml", "--dry-run")
    assert said.code == 2, said.output
    assert not validator(schemas["recipe"]).is_valid(read_yaml(tmp_path / "r.yaml")[0])


def as_stored(task: Task) -> Any:
    return json.loads(msgspec.json.encode(task))


FIND = {"name": "find", "description": "d", "parameters": {"type": "object", "properties": {"n": {"type": "string"}}}}
PUBLISHED: dict[str, dict[str, Any]] = {
    "ftrl": {
        "messages": [{"role": "user", "content": "Where?"}],
        "tools": json.dumps([{"type": "function", "function": FIND}]),
        "codes": json.dumps({"find": "def find(n):\n    return 'Rome'"}),
        "unsolved_set": json.dumps({"find": ["Rome"]}),
        "solve_rate": 0.0, "data_source": "self", "split": "test", "answer": "Rome",
    },
    "gsm8k": {"question": "2 + 2?", "answer": "#### 4"},
    "hotpotqa": {"question": "Who?", "golden_answers": ["Ann"]},
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_tasks_of_published_formats_are_valid_in_ours(schemas: dict[str, Any], tmp_path: Path, name: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(PUBLISHED[name]) + "\n")
    (task,) = load_tasks(tmp_path / "rows.jsonl", name)
    validator(schemas["task"]).validate(as_stored(task))


@pytest.mark.parametrize("name", ["town", "almanac"])
def test_tasks_of_the_worlds_are_valid(schemas: dict[str, Any], name: str) -> None:
    for task in load_recipe_tasks(TaskSettings(format=name, count=20)):
        validator(schemas["task"]).validate(as_stored(task))


@pytest.mark.needs_torch
def test_the_tasks_of_a_run_and_of_init_are_valid(schemas: dict[str, Any], run: Path) -> None:
    lines = (run / "tasks.jsonl").read_text().splitlines() + (STARTER / "tasks.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 7
    for line in lines:
        validator(schemas["task"]).validate(json.loads(line))


TASK = json.loads((STARTER / "tasks.jsonl").read_text("utf-8").splitlines()[0])
FOLLOW_UP = {"messages": [{"role": "user", "content": "And then?"}]}


@pytest.mark.parametrize("changes", [
    {"jugde": "math"}, {"id": ""}, {"id": 3}, {"messages": []}, {"messages": [{"content": "x"}]}, {"version": 2},
    {"messages": [{"role": "human", "content": "x"}]}, {"messages": [{"role": "user"}]}, {"messages": "x"},
    {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]}, {"judge": "exactt"},
    {"gold": {"anwers": ["x"]}}, {"gold": {"answers": "x"}}, {"gold": {"answers": [36]}},
    {"gold": {"answers": ["36"], "calls": [{"name": "add", "arguments": "{}"}]}},
    {"gold": {"answers": ["36"], "calls": [{"name": "add", "arguments": {}, "id": 1}]}},
    {"tools": [{"schema": {}}]}, {"tools": [{"scheme": {}}]}, {"tools": [{"target": "a:b"}]},
    {"tools": [{**TASK["tools"][0], "source": "def get_manager(person): ..."}]},
    {"tools": [{**TASK["tools"][0], "target": "my_tools.get_manager"}]},
    {"tools": [{"schema": TASK["tools"][0]["schema"]["function"], "target": "my_tools:get_manager"}]},
    {"follow_ups": [{"messages": []}]}, {"follow_ups": [{**FOLLOW_UP, "tolls": []}]},
])  # fmt: skip
def test_a_task_that_validate_refuses_the_schema_refuses(
    schemas: dict[str, Any], tmp_path: Path, changes: dict[str, Any]
) -> None:
    task = {**copy.deepcopy(TASK), **changes}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    (tmp_path / "r.yaml").write_text("tasks: tasks.jsonl\nstages: [synth]\n")
    assert rewright(tmp_path, "validate", "tasks.jsonl", "--no-execute").code == 1 or (
        rewright(tmp_path, "run", "r.yaml").code == 2
    )
    assert not validator(schemas["task"]).is_valid(task)


@pytest.mark.parametrize("changes", [
    {"follow_ups": [FOLLOW_UP]}, {"judge": "mine:judge"}, {"gold": {"calls": [], "answers": ["1"]}}, {"tools": []},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [{}]}]},
    {"tools": [{"schema": {"type": "function", "function": {"name": "p"}}, "kind": "python"}]},
    {"tools": [{**TASK["tools"][0], "source": None, "data": [1]}]}, {"metadata": {"any": {"thing": None}}},
])  # fmt: skip
def test_less_common_tasks_are_valid(schemas: dict[str, Any], tmp_path: Path, changes: dict[str, Any]) -> None:
    task = {**copy.deepcopy(TASK), **changes}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    assert load_tasks(tmp_path / "tasks.jsonl", check=False)
    validator(schemas["task"]).validate(task)


@pytest.mark.needs_torch
def test_the_trajectories_of_a_run_are_valid_and_a_key_that_import_refuses_is_not(
    schemas: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    check = validator(schemas["trajectory"])
    rows = [row for _, row in read_jsonl(run / "trajectories.jsonl", dict[str, Any])]
    assert {row["stage"] for row in rows} == {"synth", "repair"}
    for row in rows:
        check.validate(row)
        assert msgspec.convert(row, Trajectory)
    wrong = copy.deepcopy(rows[0])
    wrong["turns"][0]["tool_calls"] = wrong["turns"][0].pop("calls")
    (tmp_path / "t.jsonl").write_text(json.dumps(wrong) + "\n")
    said = rewright(tmp_path, "import", "t.jsonl", "--run", "new", "--recipe", str(run / "recipe.yaml"))
    said.refused("unknown key 'turns.0.tool_calls'")
    assert not check.is_valid(wrong)
    assert not check.is_valid({**rows[0], "stop_reason": "tired"})


@pytest.mark.parametrize(
    ("kind", "hint"), [("foo", ""), ("taks", "did you mean task? "), ("Recipe", "did you mean recipe? ")]
)
def test_an_unknown_schema_is_answered_with_those_that_there_are(tmp_path: Path, kind: str, hint: str) -> None:
    said = rewright(tmp_path, "schema", kind)
    said.refused(f"no schema {kind!r}: {hint}expected one of task, recipe, trajectory")
