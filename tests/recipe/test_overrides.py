"""Overrides on the command line: items of lists, settings of a run that is resumed, arguments of a trainer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.in_process import Said, rewright

TASK = {"id": "t", "messages": [{"role": "user", "content": "1 + 1?"}], "gold": {"answers": ["2"]}}
RECIPE = """\
stages: [synth]
model: {engine: openai, path: m, mode: chat, base_url: ['http://a', 'http://b']}
tasks: [mine.jsonl, {format: town, count: 3}]
quality: {dimensions: [{name: confidence, function: confidence}, {name: length, function: length, weight: 1}]}
"""


def plan(folder: Path, *overrides: str) -> Said:
    (folder / "mine.jsonl").write_text(json.dumps(TASK) + "\n")
    (folder / "r.yaml").write_text(RECIPE)
    return rewright(folder, "run", "r.yaml", "--dry-run", "--json", *overrides)


@pytest.mark.parametrize(
    ("override", "sources"),
    [
        ("tasks.1.count=5", {"mine": 1, "town": 5}),
        ("tasks.sources.1.count=2", {"mine": 1, "town": 2}),
        ("tasks.0={format: town, name: other, count: 2}", {"other": 2, "town": 3}),
        ("tasks.0.name=own", {"own": 1, "town": 3}),  # the item is given as its path alone
    ],
)
def test_an_item_of_a_list_is_overridden(tmp_path: Path, override: str, sources: dict[str, int]) -> None:
    said = plan(tmp_path, override)
    assert said.code == 0, said.errors
    assert json.loads(said.output)["task_sources"] == sources


def test_other_lists_are_indexed_too(tmp_path: Path) -> None:
    from rewright.recipe.loader import load_recipe

    plan(tmp_path)
    recipe = load_recipe(tmp_path / "r.yaml", ["model.base_url.1=http://c", "quality.dimensions.0.name=repetition"])
    assert recipe.model.base_url == ("http://a", "http://c")  # type: ignore[attr-defined]
    assert [dimension.name for dimension in recipe.quality.dimensions] == ["repetition", "length"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "tasks.2.count=5",
            "tasks.sources has 2 items: expected an index below 2, or the whole list, as tasks.sources=",
        ),
        ("stages.1=judge", "stages has 1 item: expected an index below 1, or the whole list, as stages=[…, …]"),
        ("tasks.1.cuont=5", "unknown key tasks.sources[1].cuont: did you mean tasks.sources[1].count?"),
        ("tasks.sources.town=5", "tasks.sources is a list: expected the index of an item, as tasks.sources.0, or"),
        ("model.base_url.1=c", "model.base_url[1]: base_url 'c': expected http://HOST:PORT/v1"),
        ("model.base_url.1.x=c", "model.base_url.1 is not a section"),
        ("eval.tasks.0.count=5", "eval.tasks is not a list in the recipe: give a list whole, as eval.tasks=[…, …]"),
        ("rl.credit.0=5", "rl.credit is not a list in the recipe: give a list whole, as rl.credit=[…, …]"),
        ("synth.n.0=5", "synth.n is not a list in the recipe"),
        ("sft.adam_beta2=0.9", "(an argument of the trainer's own configuration is sft.arguments.adam_beta2)"),
        (
            "reward.max_grad_norm=1",
            "(an argument of the trainer's own configuration is reward.arguments.max_grad_norm)",
        ),
        ("rl.delta=3", "rl.arguments.delta)"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, override: str, words: str) -> None:
    said = plan(tmp_path, override)
    said.refused(words)
    assert f"override {override!r}: " in said.errors
    assert said.output == ""


def test_a_section_without_a_trainer_has_no_arguments_of_one(tmp_path: Path) -> None:
    said = plan(tmp_path, "synth.adam_beta2=0.9")
    said.refused("unknown key synth.adam_beta2")
    assert "arguments" not in said.errors


@pytest.mark.needs_torch
def test_a_run_is_resumed_with_its_own_settings_alone(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("stages: [build]\nname: mine\n")
    assert rewright(tmp_path, "run", "r.yaml", "--run", "run", "stages=[build]").code == 0
    before = (tmp_path / "run/recipe.yaml").read_bytes()
    said = rewright(tmp_path, "run", "run", "--resume", "sft.epochs=7", "synth.n=2")
    said.refused("run was started with another recipe: sft.epochs is 3.0 there, and 7.0 was given: ")
    said.refused("change those of later stages in run/recipe.yaml, or start a new run with --run")
    said = rewright(tmp_path, "run", "r.yaml", "--run", "run", "--resume", "sft.epochs=7", "seed=4")
    said.refused("(1 more differ)")
    rewright(tmp_path, "run", "run", "--resume", "tasks.0.count=3").refused("tasks is not a list in the recipe")
    assert (tmp_path / "run/recipe.yaml").read_bytes() == before
    assert rewright(tmp_path, "run", "run", "--resume", "sft.epochs=3", "name=mine").code == 0
