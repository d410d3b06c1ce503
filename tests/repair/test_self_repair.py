"""Self-repair: the policy that made the candidates repairs them, and is shown what the checker says."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rewright.core.errors import InputError
from rewright.core.records import Gold, Task, ToolCall, Trajectory, Verdict
from rewright.judging import Judgement, TrajectoryJudge, judge_trajectory, reason_without_gold
from rewright.pipeline.stages.repair import repair
from rewright.recipe.loader import load_recipe, recipe_hash
from rewright.repair.decision import checker_error
from support.scripted_engine import ScriptedEngine
from support.scripted_run import QUESTION, TOKENIZER, attempt, context_with

CALL = ToolCall("python", {"code": "print(251)"})
ANSWER = "<think>Again.</think><answer>\\boxed{252}</answer>"


async def prompt_of(folder: Path, gold: str, *settings: str, judge: str = "exact", selected: str = "wrong") -> str:
    task = Task(id="t", messages=({"role": "user", "content": QUESTION},), gold=Gold(answers=(gold,)), judge=judge)
    engine = ScriptedEngine([ANSWER], tokenizer=TOKENIZER)
    whole = attempt("tags", CALL)
    failed = msgspec.structs.replace(whole, turns=whole.turns[:1], answer=None, stop_reason="no_answer")
    await repair(context_with(folder, "tags", task, failed, selected, engine, *settings))
    return str(TOKENIZER.decode(list(engine.requests[0].token_ids or ())))


async def test_the_policy_sees_what_is_wrong_with_its_format(tmp_path: Path) -> None:
    assert "The checker says:" in await prompt_of(tmp_path / "a", "252", "repair.by=self", judge="math")
    assert "The checker says:" not in await prompt_of(tmp_path / "b", "252", judge="math")
    assert "The checker says:" in await prompt_of(tmp_path / "c", "252", "repair.show_error=true", judge="math")
    hidden = await prompt_of(tmp_path / "d", "252", "repair.by=self", "repair.show_error=false", judge="math")
    assert "The checker says:" not in hidden
    low = await prompt_of(tmp_path / "e", "252", "repair.by=self", judge="math", selected="low")
    assert "The checker says:" not in low


@pytest.mark.parametrize("shown", [False, True])
def test_a_reason_with_the_right_answer_is_shown_only_with_it(shown: bool) -> None:
    task = Task(id="t", messages=({"role": "user", "content": QUESTION},), gold=Gold(answers=("Ada  Lovelace",)))
    good = attempt("tags", CALL)
    good = msgspec.structs.replace(good, turns=good.turns[1:])
    reason = "'Byron' has token F1 0.0 with the gold answer 'ada lovelace'"
    verdict = Verdict(trajectory_id="c", outcome=0.0, reason=reason)
    said = checker_error(task, good, verdict, "chat", show_gold=shown)
    assert said == (reason if shown else None)
    assert checker_error(task, good, msgspec.structs.replace(verdict, reason="2 of 3 calls"), "chat") == "2 of 3 calls"


LONG = "The treaty was signed in the year 1648 in the two cities of Osnabrueck and Muenster, after thirty years of war"


@pytest.mark.parametrize(
    ("judge", "gold"),
    [("exact", LONG), ("exact", 'it\'s "7"'), ("math", r"\boxed{\frac{7}{2}}"), ("qa", "U.S.A."), ("qa", "a\tb")],
)
def test_a_gold_answer_in_another_spelling_is_not_shown_either(judge: str, gold: str) -> None:
    """Verdicts quote and shorten it."""
    task = Task(id="t", messages=({"role": "user", "content": QUESTION},), gold=Gold(answers=(gold,)), judge=judge)
    wrong = attempt("tags", CALL)
    wrong = msgspec.structs.replace(wrong, turns=wrong.turns[1:], answer="1650")
    verdict = judge_trajectory(task, wrong)
    assert not verdict.correct and "1650" in verdict.reason
    assert checker_error(task, wrong, verdict, "chat") is None
    assert checker_error(task, wrong, verdict, "chat", show_gold=True) == verdict.reason


def quotes_gold(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    return Judgement(0.0, f"expected {task.gold.calls}")


def counts(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    return Judgement(0.0, f"{len(trajectory.calls)} calls")


QUOTES = TrajectoryJudge(quotes_gold)
COUNTS = TrajectoryJudge(counts, without_gold=str)


@pytest.mark.parametrize(
    ("judge", "reason"),
    [
        (f"{__name__}:QUOTES", None),
        (f"{__name__}:COUNTS", "0 calls"),
        ("calls", "0 of 1 gold calls made, 0 other calls"),
    ],
)
def test_a_judge_of_trajectories_says_that_its_reasons_are_without_gold(judge: str, reason: str | None) -> None:
    gold = Gold(calls=(ToolCall("python", {"code": "print(252)"}),))
    task = Task(id="t", messages=({"role": "user", "content": QUESTION},), gold=gold, judge=judge)
    wrong = attempt("tags", CALL)
    wrong = msgspec.structs.replace(wrong, turns=wrong.turns[1:])
    verdict = judge_trajectory(task, wrong)
    assert checker_error(task, wrong, verdict, "chat") == reason
    assert checker_error(task, wrong, verdict, "chat", show_gold=True) == verdict.reason
    without = msgspec.structs.replace(wrong, answer=None, stop_reason="turn_limit")
    if judge != "calls":
        none = "no answer (stop reason: turn_limit)"
        assert reason_without_gold(task, judge_trajectory(task, without).reason) == none


def test_a_repairer_beside_self_repair_is_a_mistake() -> None:
    with pytest.raises(InputError, match=r"repair\.model has no effect: repair\.by is self"):
        load_recipe(None, ["repair.by=self", "repair.model.path=pico-repairer"])
    with pytest.raises(InputError, match=r"repair\.round_tasks has no effect: repair\.rounds is 1"):
        load_recipe(None, ["repair.round_tasks=5"])


def test_the_new_keys_leave_the_ids_of_earlier_runs_as_they_were() -> None:
    sections = ("seed", "model", "synth", "quality", "repair")
    usual = recipe_hash(load_recipe(None, []), sections)
    assert usual == "28fdf9eb"
    assert recipe_hash(load_recipe(None, ["repair.rounds=3"]), sections) == usual
    assert recipe_hash(load_recipe(None, ["repair.form=splice"]), sections) != usual
    assert recipe_hash(load_recipe(None, ["repair.by=self"]), sections) != usual
