"""Worked examples: right in every style, read by our own parser, with results that the tools really gave."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from rewright.core.records import Task, ToolCall, Trajectory
from rewright.dialects.format_check import format_problem
from rewright.dialects.hermes import Hermes
from rewright.judging import judge_trajectory
from rewright.repair.quality import score_trajectory, word_count
from rewright.tasks.worlds.demonstrations import STYLES, demonstrate, execute
from rewright.tasks.worlds.town import CACHED, Profile, generate
from rewright.tools import FunctionTools

TASKS = [task for split in ("train", "heldout", "long") for task in generate(split, 40, seed=9, profile="all")]


@pytest.fixture
async def tools() -> AsyncIterator[FunctionTools]:
    factory = FunctionTools(level="process", wall_seconds=20.0)
    yield factory
    await factory.close()


def every(task: Task) -> list[Trajectory]:
    return [
        *(demonstrate(task, style=style) for style in STYLES),
        demonstrate(task, style="hedging", rng=random.Random(1)),
    ]


@pytest.mark.parametrize("task", TASKS[::4], ids=lambda task: task.id)
def test_a_demonstration_is_judged_right_and_well_formed(task: Task) -> None:
    for one in every(task):
        assert judge_trajectory(task, one).outcome == 1.0
        assert format_problem(one, "hermes") is None
        dialect = Hermes()
        for turn in one.turns:
            parsed = dialect.parse(turn.text)
            assert parsed.calls == turn.calls
            assert parsed.thought
        assert dialect.parse(one.turns[-1].text).answer == one.answer


async def test_results_are_what_the_real_tools_return(tools: FunctionTools) -> None:
    families = {str(task.metadata["family"]): task for task in TASKS}
    assert len(families) == 4
    for task in families.values():
        trajectory = demonstrate(task)
        async with tools.open(task.tools) as toolset:
            for call, shown in zip(trajectory.calls, trajectory.results, strict=True):
                real = await toolset.call(call)
                assert (real.content, real.error is None) == (shown.content, shown.error is None)
        strangers = [ToolCall("nothing", {}), ToolCall(task.tools[0].name, {"who": "?"})]
        assert all(execute(task, call).error is not None for call in strangers)


def test_solve_metrics_of_a_demonstration_are_full_marks_where_nothing_moved() -> None:
    for task in TASKS:
        metrics = judge_trajectory(task, demonstrate(task)).metrics
        if task.metadata["family"] != "recover":
            assert metrics["solve_f1"] == pytest.approx(1.0), task.id


def test_where_a_tool_moved_the_error_comes_first() -> None:
    for task in generate("train", 10, profile=Profile(families={"recover": 1.0}, hops={1: 0.5, 3: 0.5})):
        trajectory = demonstrate(task)
        errors = [result.error is not None for result in trajectory.results]
        assert errors.count(True) == 1
        position = errors.index(True)
        assert trajectory.calls[position].arguments == trajectory.calls[position + 1].arguments
        assert trajectory.results[position].content.endswith(f"use {trajectory.calls[position + 1].name}")


def test_styles_differ_in_what_quality_measures() -> None:
    for task in TASKS:
        concise, wordy, hedging = (demonstrate(task, style=style) for style in STYLES)
        assert word_count(concise) < word_count(wordy)
        shortest = word_count(concise)
        assert score_trajectory(concise, shortest).confidence == 1.0
        assert score_trajectory(wordy, shortest).confidence == 1.0
        assert score_trajectory(hedging, shortest).confidence == 0.0
        assert score_trajectory(hedging, shortest).total <= 0.6
        assert score_trajectory(concise, shortest).total > score_trajectory(wordy, shortest).total


def test_a_demonstration_asks_a_cache_only_where_it_is_right() -> None:
    rng, asked, lookups = random.Random(2), 0, 0
    for task in generate("train", 60, seed=2, profile="cached"):
        trajectory = demonstrate(task, style="wordy", rng=rng, cached=1.0)
        assert judge_trajectory(task, trajectory).outcome == 1.0
        right = set((task.gold.outputs or {}).get(trajectory.calls[-1].name.removesuffix(CACHED), ()))
        assert trajectory.results[-1].content in right
        asked += sum(call.name.endswith(CACHED) for call in trajectory.calls)
        lookups += len(trajectory.calls)
    assert 0.15 < asked / lookups < 0.35  # 60% have a cache, half of its entries are right
    assert not any(call.name.endswith(CACHED) for task in TASKS for call in demonstrate(task, rng=rng).calls)
