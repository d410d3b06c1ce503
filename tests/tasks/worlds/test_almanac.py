"""The almanac: its gold calls run through the real tools, its splits share nothing, its examples fit the dialect."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from rewright.core.errors import InputError
from rewright.core.records import Task, ToolCall
from rewright.dialects.tags import Tags
from rewright.dialects.tags_format import validate_turns
from rewright.judging import judge_trajectory
from rewright.repair.quality import score_group
from rewright.rollout.toolsets import open_toolsets
from rewright.sandbox.settings import SandboxSettings
from rewright.tasks.from_recipe import load_recipe_tasks
from rewright.tasks.settings import TaskSettings
from rewright.tasks.validation import validate_tasks
from rewright.tasks.worlds.almanac import PROFILES, SPLITS, almanac, almanac_index, generate
from rewright.tasks.worlds.almanac_demonstrations import demonstrate
from rewright.tasks.worlds.demonstrations import STYLES
from rewright.tools import ToolsetFactory
from rewright.tools.settings import ToolSettings


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return [task for split in SPLITS for name in PROFILES for task in generate(split, 40, seed=3, profile=name)]


@pytest.fixture(scope="module")
async def tools() -> AsyncIterator[ToolsetFactory]:
    sandbox = SandboxSettings(level="process", wall_seconds=60.0)
    factory = open_toolsets(ToolSettings(search="almanac"), sandbox)
    yield factory
    await factory.close()


async def test_gold_calls_return_what_the_examples_say(tools: ToolsetFactory) -> None:
    for task in generate("heldout", 30, seed=5):
        async with tools.open(task.tools) as toolset:
            for turn in demonstrate(task).turns[:-1]:
                result = await toolset.call(turn.calls[0])
                assert (result.error, result.content) == (None, turn.results[0].content), task.id


def test_every_search_of_the_examples_finds_its_passage(tasks: list[Task]) -> None:
    searched = 0
    for task in tasks:
        for turn in demonstrate(task).turns:
            for call, result in zip(turn.calls, turn.results, strict=True):
                if call.name == "search":
                    found = almanac_index().search(str(call.arguments["query"]))
                    assert found[0].document.contents == result.content
                    searched += 1
    assert searched > 50


def test_a_question_does_not_hold_what_its_later_searches_need(tasks: list[Task]) -> None:
    for task in tasks:
        if task.metadata["family"] != "fact":
            continue
        names = [str(call.arguments["query"]).partition(" of ")[2] for call in task.gold.calls or ()]
        question = str(task.messages[-1]["content"])
        assert names[0] in question
        assert not any(name in question for name in names[1:])


def test_the_splits_share_nobody_and_no_question() -> None:
    people = [set(almanac(split).people) for split in SPLITS]
    assert not people[0] & people[1]
    questions = [{str(task.messages[-1]["content"]) for task in generate(split, 300, seed=1)} for split in SPLITS]
    assert not questions[0] & questions[1]


def test_tasks_are_sound_and_do_not_depend_on_how_many_are_drawn(tasks: list[Task]) -> None:
    assert validate_tasks(tasks, execute=False).errors == 0
    assert {task.metadata["family"] for task in tasks} == {"sum", "fact", "both"}
    assert all(len(task.gold.calls or ()) <= 3 for task in tasks)  # AutoTraj's cap on calls
    settings = TaskSettings(format="almanac", split="heldout", count=4, seed=3)
    assert load_recipe_tasks(settings) == list(generate("heldout", 40, seed=3))[:4]


def test_examples_are_right_well_formed_and_differ_in_quality(tasks: list[Task]) -> None:
    rng = random.Random(0)
    for task in tasks[::4]:
        examples = [demonstrate(task, style=style, rng=rng) for style in STYLES]
        for example in examples:
            assert validate_turns(example.turns).valid
            assert judge_trajectory(task, example).correct
            for turn in example.turns:
                parsed = Tags().parse(turn.text)
                assert [(call.name, call.arguments) for call in parsed.calls] == [
                    (call.name, call.arguments) for call in turn.calls
                ]
        concise, wordy, hedging = score_group(examples, [True] * 3)
        assert concise.selected == "kept"
        assert (wordy.selected, hedging.selected) == ("low", "low")


async def test_a_wrong_query_finds_something_else_or_nothing(tools: ToolsetFactory) -> None:
    task = next(generate("train", 1))
    async with tools.open(task.tools) as toolset:
        nothing = await toolset.call(ToolCall(name="search", arguments={"query": "qqq"}))
        assert (nothing.error, nothing.content) == (None, "No passage found.")
        other = await toolset.call(ToolCall(name="search", arguments={"query": "age of Qqq"}))
        assert "The age of" in other.content


@pytest.mark.parametrize(
    ("given", "message"), [({"split": "long"}, "expected one of train"), ({"profile": "hard"}, "expected one of short")]
)
def test_unknown_names_are_one_clear_line(given: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        next(generate(**{"split": "train", "count": 1, **given}))  # type: ignore[arg-type]
