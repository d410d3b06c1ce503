"""The SFT and preference sets hold every conversation once, in an order that the seed gives."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rewright.core.records import (
    Failure,
    FollowUp,
    Gold,
    Provenance,
    Quality,
    Repair,
    SimulatedUser,
    Task,
    Trajectory,
    Turn,
    Verdict,
)
from rewright.engines.served import OpenAISettings
from rewright.exports.llama_factory import row as llama_factory_row
from rewright.pipeline.context import Context
from rewright.pipeline.run_directory import Run
from rewright.pipeline.stages.build import build, held_out
from rewright.pipeline.stages.evaluate import summarise
from rewright.pipeline.stages.held_out import held_out_keys, question_keys, unseen_pairs
from rewright.recipe.schema import Recipe
from rewright.reports.summary import report
from rewright.reports.table import table
from rewright.tasks.loading import save_tasks
from rewright.tasks.settings import TaskSettings
from rewright.training.settings import BuildSettings, RewardSettings


def trajectory(
    key: str, task: str, answer: str, *, parent: str | None = None, thought: str = "It is so."
) -> Trajectory:
    text = f"<think>{thought}</think><answer>\\boxed{{{answer}}}</answer>"
    return Trajectory(
        id=key,
        task_id=task,
        stage="repair" if parent else "synth",
        index=0,
        turns=(Turn(text=text, stop="stop"),),
        stop_reason="answered",
        answer=f"\\boxed{{{answer}}}",
        provenance=Provenance(parent=parent),
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Four candidates of each of eight tasks: two equal wrong ones, an equal repair of both, two equal kept ones."""
    tasks = [
        Task(id=name, messages=({"role": "user", "content": f"What is {name}?"},), gold=Gold(answers=("36",)))
        for name in "abcdefgh"
    ]
    save_tasks(tmp_path / "tasks.jsonl", tasks)
    recipe = Recipe(
        dialect="tags",
        model=OpenAISettings(path="some-model", base_url="http://localhost:1/v1"),
        tasks=TaskSettings(format="rewright", path=str(tmp_path / "tasks.jsonl")),
        build=BuildSettings(held_out_fraction=0.5),
    )
    run = Run.create(tmp_path / "run", recipe, resume=False)
    for task in tasks:
        for number in range(2):
            wrong, mended = f"{task.id}/wrong{number}", f"{task.id}/repair{number}"
            kept = f"{task.id}/kept{number}"
            run.trajectories.append(trajectory(wrong, task.id, "7"))
            run.trajectories.append(trajectory(mended, task.id, "36", parent=wrong, thought="It is mended."))
            run.trajectories.append(trajectory(kept, task.id, "36"))
            for key, selected in ((wrong, "wrong"), (kept, "kept")):
                scores = Quality(confidence=1, length=1, repetition=1, total=1.0, trajectory_id=key, selected=selected)  # type: ignore[arg-type]
                run.qualities.append(scores)
            run.repairs.append(
                Repair(
                    original_id=wrong,
                    repaired_id=mended,
                    task_id=task.id,
                    mode="wrong_answer",
                    accepted=True,
                    reason="correct",
                )
            )
    return run


def test_equal_conversations_and_equal_pairs_are_there_once(run: Run) -> None:
    outside = [name for name in "abcdefgh" if held_out(name, 0.5)]
    inside = [name for name in "abcdefgh" if name not in outside]
    assert inside and outside
    counts = {"sft": 2 * len(inside), "pairs": 8, "held_out": 2 * len(outside), "duplicates": 16, "duplicate_pairs": 8}
    assert build(Context(run, run.recipe())) == counts
    run.finish("build", 0.0, **counts)
    words = f"SFT rows {counts['sft']}: 16 kept + 16 repaired, less 16 duplicates and {counts['held_out']} held out"
    assert words in table(report(run)).splitlines()
    rows, pairs = run.read_lines("sft.jsonl"), run.read_lines("preferences.jsonl")
    assert sorted(row["id"] for row in rows) == sorted(
        f"{name}/{kind}0" for name in inside for kind in ("kept", "repair")
    )
    assert {row["parent"] for row in rows if row["kind"] == "repaired"} == {f"{name}/wrong0" for name in inside}
    assert sorted(pair["id"] for pair in pairs) == [f"{name}/repair0>{name}/wrong0" for name in "abcdefgh"]
    assert sorted(pair["task_id"] for pair in pairs if pair["split"] == "heldout") == outside
    assert [row["id"] for row in rows] != sorted(row["id"] for row in rows), "shuffled"
    build(Context(run, run.recipe()))
    assert (run.read_lines("sft.jsonl"), run.read_lines("preferences.jsonl")) == (rows, pairs)


def test_a_question_whose_pairs_are_held_out_is_not_learned_under_another_id_either(tmp_path: Path, run: Run) -> None:
    """All tasks ask the same: one has a pair of its own, which is held out."""
    tasks = [
        Task(id=name, messages=({"role": "user", "content": "?"},), gold=Gold(answers=("36",))) for name in "abcdefgh"
    ]
    save_tasks(tmp_path / "tasks.jsonl", tasks)
    outside = next(name for name in "abcdefgh" if held_out(name, 0.5))
    wrong, mended = trajectory("wrong", outside, "8"), trajectory("mended", outside, "36", parent="wrong")
    for one in (wrong, mended):
        run.trajectories.append(one)
    run.repairs.append(
        Repair(
            original_id="wrong", repaired_id="mended", task_id=outside, mode="wrong_answer", accepted=True, reason="r"
        )
    )
    assert build(Context(run, run.recipe()))["sft"] == 0
    assert [pair["split"] for pair in run.read_lines("preferences.jsonl")] == ["heldout"] * 2


GREETING = ({"role": "system", "content": "The policy."}, {"role": "assistant", "content": "How can I help?"})


def asks(key: str, *messages: Any, user: SimulatedUser | None = None) -> Task:
    return Task(id=key, messages=messages, user=user, gold=Gold(answers=("36",)))


def begin_with(run: Run, words: Callable[[Trajectory], str]) -> None:
    """Give every trajectory of the run a first message of the simulated user."""
    run.trajectories.rewrite(
        msgspec.structs.replace(one, opening=FollowUp(({"role": "user", "content": words(one)},)))
        for one in list(run.trajectories)
    )


@pytest.mark.parametrize(
    "tasks",
    [
        [asks(name, *GREETING, user=SimulatedUser("model", opens=True)) for name in "abcdefgh"],
        [asks(name, {"role": "system", "content": f"Say {name}."}) for name in "abcdefgh"],
    ],
    ids=["a user opens", "the system message asks"],
)
def test_prompts_without_a_user_message_are_not_one_question(tasks: list[Task], tmp_path: Path, run: Run) -> None:
    save_tasks(tmp_path / "tasks.jsonl", tasks)
    if tasks[0].user is not None:
        begin_with(run, lambda one: f"I am {one.task_id}.")
    inside = [name for name in "abcdefgh" if not held_out(name, 0.5)]
    assert build(Context(run, run.recipe()))["sft"] == 2 * len(inside)
    pairs = run.read_lines("preferences.jsonl")
    assert sorted(pair["task_id"] for pair in pairs if pair["split"] == "train") == inside
    kept = [task.id for task in tasks if not question_keys(task, task.messages) & held_out_keys(pairs)]
    assert kept == inside, "as SFT on gold calls leaves them out"


@pytest.mark.parametrize("same", [True, False])
def test_the_first_message_of_a_simulated_user_is_in_the_pairs(same: bool, tmp_path: Path, run: Run) -> None:
    """It is in the prompt if the user has opened both conversations with it, else each side has its own."""
    save_tasks(
        tmp_path / "tasks.jsonl",
        [asks(name, *GREETING, user=SimulatedUser("model", opens=True)) for name in "abcdefgh"],
    )
    begin_with(run, lambda one: "Hello." if same or one.provenance.parent is None else "Good day.")
    build(Context(run, run.recipe()))
    for pair in run.read_lines("preferences.jsonl"):
        assert [message["role"] for message in pair["prompt"][:2]] == ["system", "assistant"]
        for side, words in (("chosen", "Hello." if same else "Good day."), ("rejected", "Hello.")):
            whole = [*pair["prompt"], *pair[side]]
            assert whole[2] == {"role": "user", "content": words}
            assert [message["role"] for message in whole[3:]] == ["assistant"]
        assert len(pair["prompt"]) == (3 if same else 2)
        ticket = [{"role": "user", "content": "My ticket."}, *pair["prompt"][2:]]
        assert (llama_factory_row({**pair, "prompt": ticket}) is None) == (not same)


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ({}, r"8 pairs are held out, and reward\.minimum_pairs is 20: RL will not use the reward model"),
        ({"url": "http://localhost:1"}, "RL will refuse the reward model"),
        ({"minimum_pairs": 1}, ""),
    ],
)
def test_too_few_held_out_pairs_are_said_before_anything_is_trained(
    reward: dict[str, Any], words: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = msgspec.structs.replace(run.recipe(), reward=RewardSettings(**reward))
    build(Context(run, recipe))
    said = capsys.readouterr().err.replace("\n", " ")
    assert re.search(words, said) if words else "minimum_pairs" not in said


def test_pairs_of_tasks_that_sft_has_learned_from_do_not_measure_the_reward_model(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    build(Context(run, run.recipe()))
    pairs = run.pairs()
    outside = next(pair["task_id"] for pair in pairs if pair["split"] == "heldout")
    assert unseen_pairs(run, pairs) == pairs, "SFT is not done"
    run.finish("sft", 1.0)
    assert unseen_pairs(run, pairs) == pairs
    run.write_lines("sft.jsonl", [*run.read_lines("sft.jsonl"), {"task_id": outside}])  # as older versions built it
    assert unseen_pairs(run, pairs) == [pair for pair in pairs if pair["task_id"] != outside]
    assert "1 held-out pairs are of tasks that SFT has learned from" in capsys.readouterr().err.replace("\n", " ")


def test_a_kept_trajectory_is_preferred_to_a_wrong_one_but_not_to_one_that_broke(run: Run) -> None:
    broken = Trajectory(
        id="i/broken", task_id="a", stage="synth", index=9, turns=(), stop_reason="error",
        failure=Failure(kind="engine", message="no server"),
    )  # fmt: skip
    order = run.trajectories.keys_in_order()
    run.trajectories.append(broken)
    run.trajectories.reorder([broken.id, *order])
    run.qualities.append(
        Quality(confidence=1, length=1, repetition=1, total=1.0, trajectory_id=broken.id, selected="wrong")
    )
    recipe = msgspec.structs.replace(run.recipe(), build=BuildSettings(pairs="repaired+kept"))
    assert build(Context(run, recipe))["pairs"] == 16
    pairs = [pair["id"] for pair in run.read_lines("preferences.jsonl") if pair["mode"] == "kept_over_wrong"]
    assert sorted(pairs) == [f"{name}/kept0>{name}/wrong0" for name in "abcdefgh"]


def test_an_evaluation_has_the_mean_quality_and_the_mean_number_of_words() -> None:
    """Both of the first task are right: one has 4 words and hedges, the shortest has 3."""
    given = [
        trajectory("a", "t", "36", thought="Maybe it is so."),
        trajectory("b", "t", "36", thought="So it is."),
        trajectory("c", "u", "7", thought="So"),
    ]
    verdicts = [Verdict(trajectory_id=one.id, outcome=float("36" in str(one.answer)), reason="") for one in given]
    row = summarise(given, verdicts, seconds=0.0)
    lengths = [len(one.turns[0].text.split()) for one in given]
    assert lengths == [4, 3, 1]
    first = 0.3 * 2.718281828459045 ** (-2 * (4 / 3 - 1) ** 2) + 0.3
    assert row["quality"] == pytest.approx((first + 1.0 + 1.0) / 3)
    assert row["words"] == pytest.approx(8 / 3)
    assert summarise([], [], seconds=0.0)["quality"] is None
