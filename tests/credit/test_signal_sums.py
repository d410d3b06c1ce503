"""Weighted sums of signals, and numbers that are missing: in `rewright.credit` and what trainers compute with it."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from rewright.core.errors import InputError
from rewright.core.records import Gold, Task, ToolCall, ToolResult, Trajectory, Turn, Verdict
from rewright.core.registry import register
from rewright.credit import CreditTrajectory, Resources, TurnSignal, compares_trajectories, needs
from rewright.credit.settings import TurnCredit
from rewright.training.group_credit import Rewards, score_rollouts, with_credit
from rewright.training.rl_step import step_metrics
from rewright.training.settings import RLSettings

ADA = {"name": "age", "arguments": {"of": "Ada"}}


@register("signal", "sum_long")
def long(trajectories: Any) -> list[list[float]]:
    """The number of characters of a turn; NaN without a text."""
    return [[math.nan if turn.text is None else float(len(turn.text)) for turn in one.turns] for one in trajectories]


@register("signal", "sum_long_last")
def long_last(trajectories: Any) -> list[list[float]]:
    """0 for every turn but the last one, which has no number."""
    return [[0.0] * (len(one.turns) - 1) + [math.nan] for one in trajectories]


@register("signal", "sum_value")
def rising(trajectories: Any) -> TurnSignal:
    return TurnSignal.of([[2.0 * (t + 1) for t in range(len(one.turns))] for one in trajectories], kind="value",
                         initial=np.zeros(len(trajectories)))  # fmt: skip


@register("signal", "sum_advantage")
def better(trajectories: Any) -> TurnSignal:
    return TurnSignal.of([[1.0] * len(one.turns) for one in trajectories], kind="advantage", stats={"share": 0.5})


@register("signal", "sum_scored")
@needs("log_prob")
def with_a_model(trajectories: Any, *, log_prob: Any) -> list[list[float]]:
    return [[float(log_prob([([], [1])])[0].sum())] * len(one.turns) for one in trajectories]


@register("signal", "sum_compared")
@compares_trajectories
def compared(trajectories: Any) -> list[list[float]]:
    return [[float(len(trajectories))] * len(one.turns) for one in trajectories]


TWO = [CreditTrajectory.of_calls([[ADA], []], [ADA]), CreditTrajectory.of_calls([[]], [ADA])]


def test_rewards_and_differences_of_values_are_added_with_their_scales() -> None:
    credit = TurnCredit.of({"signal": [{"name": "matched", "scale": 0.5}, {"name": "sum_value", "scale": -1}]})
    found = credit.signal_of(TWO)
    assert (found.kind, [row.tolist() for row in found.values]) == ("reward", [[-1.5, -2.0], [-2.0]])
    assert credit.signal_name == "0.5 matched + -1 sum_value"
    parts = found.provenance["parts"]
    assert [(part["signal"], part["scale"]) for part in parts] == [("matched", 0.5), ("sum_value", -1.0)]


def test_advantages_are_added_to_advantages() -> None:
    both = TurnCredit.of({"signal": ["sum_advantage", {"name": "sum_advantage", "scale": 2}]}).signal_of(TWO)
    assert (both.kind, both.values[0].tolist(), both.added) == ("advantage", [3.0, 3.0], None)
    mixed = TurnCredit.of({"signal": ["matched", {"name": "sum_advantage", "scale": 2}]}).signal_of(TWO)
    assert (mixed.kind, mixed.values[0].tolist()) == ("reward", [1.0, 0.0])
    assert mixed.advantages is not None and mixed.advantages[0].tolist() == [2.0, 2.0]
    assert mixed.stats == {"2 sum_advantage/share": 0.5}


def test_what_is_missing_in_a_part_is_missing_in_the_sum() -> None:
    found = TurnCredit.of({"signal": ["matched", "sum_long"]}).signal_of(TWO)
    assert [mask.tolist() for mask in found.missing] == [[True, True], [True]]


def test_equal_choices_are_equal_settings() -> None:
    assert TurnCredit.of({"signal": [{"name": "matched"}]}) == TurnCredit()
    assert TurnCredit.of({"signal": [{"name": "matched", "scale": 1, "unmatched": -1}]}) == TurnCredit(unmatched=-1)
    listed = TurnCredit.of({"signal": [{"name": "matched", "scale": 2}, {"name": "outcome"}], "unmatched": -0.5})
    assert listed.signal == [{"name": "matched", "scale": 2.0}, "outcome"]
    inside = TurnCredit.of({"signal": [{"name": "matched", "scale": 2, "unmatched": -0.5}, "outcome"]})
    wrong = [CreditTrajectory.of_calls([[{"name": "x", "arguments": {}}]], [ADA])]
    assert [one.signal_of(wrong).values[0].tolist() for one in (listed, inside)] == [[-1.0], [-1.0]]
    assert inside.unmatched == 0.0


@pytest.mark.parametrize(
    ("signal", "said"),
    [
        ([], "signal must be a list of 1 to 8 signals, got 0"),
        (["outcome"] * 9, "signal must be a list of 1 to 8 signals, got 9"),
        ([{"scale": 1}], r"signal\[0\] must be a name, or have the key name"),
        (
            [{"name": "matched", "scale": 0}, "outcome"],
            r"signal\[0\]\.scale must be a finite number other than 0, got 0",
        ),
        (["matched", {"name": "outcome", "scale": math.nan}], r"signal\[1\]\.scale must be a finite number"),
        (["matched", {"name": "outcome", "scale": True}], r"signal\[1\]\.scale must be a finite number"),
        (["matched", {"name": "outcome", "scale": "2"}], r"signal\[1\]\.scale must be a finite number"),
        (["matched", "outcom"], "unknown signal 'outcom': did you mean 'outcome'"),
        (
            ["matched", {"name": "score", "smeer": 1}],
            r"signal\[1\]\.smeer must be a setting of score: did you mean smear",
        ),
        (["outcome", {"name": "matched", "reg": -1}], r"signal\[1\]\.reg must be positive"),
        (
            {"name": "score", "scale": 2},
            r"signal\.scale must be in a list, as in signal: \[\{name: score, scale: 2\}\]",
        ),
        ({"name": "matched", "scale": 2}, r"signal\.scale must be in a list, as in signal: \[\{name: matched"),
    ],
)
def test_a_list_that_is_wrong_says_which_part(signal: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TurnCredit.of({"signal": signal})


def test_the_environment_of_other_trainers_may_hold_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = [{"name": "matched", "scale": 0.5}, "sum_value"]
    monkeypatch.setenv("REWRIGHT_TURN_CREDIT", json.dumps({"signal": signal}))
    rewards = TurnCredit.from_environment().call_rewards([[[ADA], []]], [[ADA]])
    assert rewards[0].tolist() == [2.5, 2.0]


def test_a_model_is_asked_for_by_name_and_a_trainer_without_one_refuses() -> None:
    credit = TurnCredit.of({"signal": ["matched", {"name": "sum_scored", "scale": 2}]})
    assert credit.needs() == ("log_prob",)
    with pytest.raises(ValueError, match="signal 'sum_scored' needs a model that scores tokens: there is none here"):
        credit.signal_of(TWO)
    half = Resources(log_prob=lambda pairs: [np.full(len(ids), -0.5) for _, ids in pairs])
    assert credit.signal_of(TWO, resources=half).values[0].tolist() == [0.0, -1.0]
    with pytest.raises(ValueError, match=r"signal\[1\] 'sum_scored' needs a model that scores tokens: this trainer"):
        credit.check_alone()
    with pytest.raises(ValueError, match="'sum_compared' compares the trajectories of a task: this trainer gives one"):
        TurnCredit(signal="sum_compared").check_alone()
    TurnCredit.of({"signal": ["matched", "outcome"]}).check_alone()


TASK = Task(
    id="t", messages=({"role": "user", "content": "How old?"},), gold=Gold(("36",), (ToolCall("age", {"of": "Ada"}),))
)


@register("signal", "sum_told")
def told(trajectories: Any) -> TurnSignal:
    """1 for a turn with a result, NaN for one whose result is "?"."""
    rows = [[math.nan if "?" in (turn.results or ()) else float(bool(turn.results)) for turn in one.turns]
            for one in trajectories]  # fmt: skip
    causes = {index: "the result is ?" for index, row in enumerate(rows) if np.isnan(row).any()}
    return TurnSignal.of(rows, causes=causes)


def rollout(index: int, result: str) -> Trajectory:
    turns = (
        Turn(text="", calls=(ToolCall("age", {"of": "Ada"}),), results=(ToolResult(result),)),
        Turn(text="<answer>36</answer>"),
    )
    return Trajectory(
        id=f"r{index}", task_id="t", stage="rl", index=index, turns=turns, stop_reason="answered", answer="36"
    )


def step(results: list[str], **credit: Any) -> Rewards:
    rollouts = [rollout(index, result) for index, result in enumerate(results)]
    verdicts = [Verdict(trajectory_id=one.id, outcome=float(one.index % 2), reason="") for one in rollouts]
    settings = RLSettings(credit=TurnCredit.of({"signal": "sum_told", **credit}), trajectory_reward="matchtir")
    return score_rollouts([TASK] * len(rollouts), rollouts, verdicts, settings, dialect="hermes")


def test_a_rollout_with_a_missing_number_is_in_no_group_and_is_counted() -> None:
    whole = step(["36"] * 10)
    found = step(["36"] * 10 + ["?"])
    assert found.advantages == [*whole.advantages, [0.0, 0.0]], "the others are compared as if it were not there"
    assert found.trajectory_rewards[-1] is None and math.isnan(found.turn_rewards[-1][0])
    assert (sum(found.missing), sum(found.left_out)) == (1, 1)
    rollouts = [rollout(index, "") for index in range(11)]
    assert step_metrics(found, rollouts)["rewright/credit_missing"] == 1.0
    assert step_metrics(found, rollouts)["rewright/turn_reward"] == 1.5, "the mean of those with all numbers"
    verdicts = [Verdict(trajectory_id=one.id, outcome=1.0, reason="") for one in rollouts]
    stored = with_credit(rollouts, verdicts, found, "hermes")[-1].credit
    assert stored is not None and (stored.turn_rewards, stored.trajectory_reward) == ((None, 0.0), None)


def test_bridging_keeps_it_and_counts_it_too() -> None:
    found = step(["36", "?", "36", "?"], missing="bridge")
    assert (sum(found.missing), sum(found.left_out)) == (2, 0)
    assert found.trajectory_rewards == [1.0, 1.0, 1.0, 1.0]
    assert all(len(row) == 2 and all(map(math.isfinite, row)) for row in found.advantages)


def test_the_metric_of_turn_rewards_has_the_outcome_of_a_last_turn_without_a_number() -> None:
    rollouts = [rollout(0, "36"), rollout(1, "36")]
    for join, expected in (("last_turn", 0.5), ("trajectory", 0.0)):
        credit = TurnCredit.of({"signal": "sum_long_last", "missing": "bridge", "join": join})
        verdicts = [Verdict(trajectory_id=one.id, outcome=float(one.index), reason="") for one in rollouts]
        settings = RLSettings(credit=credit, trajectory_reward="matchtir")
        found = score_rollouts([TASK] * 2, rollouts, verdicts, settings, dialect="hermes")
        metrics = step_metrics(found, rollouts, joined=join == "last_turn")
        assert (metrics["rewright/turn_reward"], metrics["rewright/credit_missing"]) == (expected, 2.0)


def test_a_step_with_more_than_a_tenth_missing_stops_and_names_signal_and_cause() -> None:
    with pytest.raises(InputError) as stop:
        step(["36"] * 9 + ["?"] * 2)
    assert str(stop.value).startswith(
        "rl.credit.signal sum_told has no number for 2 of 11 trajectories, more than a tenth (the first is r9: the "
        "result is ?)"
    )


def test_a_signal_without_weight_is_not_missing() -> None:
    rollouts = [rollout(0, "?"), rollout(1, "?")]
    verdicts = [Verdict(trajectory_id=one.id, outcome=float(one.index), reason="") for one in rollouts]
    settings = RLSettings(credit=TurnCredit(signal="sum_told"), trajectory_reward="matchtir", call_weight=0.0)
    found = score_rollouts([TASK] * 2, rollouts, verdicts, settings, dialect="hermes")
    assert (found.missing, found.turn_rewards) == ([False, False], [[0.0, 0.0], [0.0, 1.0]])
