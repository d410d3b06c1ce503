"""`rw.credit`: logs, rows, messages, trajectories and runs; the numbers are those of `rewright credit`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rewright as rw
from support.in_process import rewright

LOG = Path(__file__).parents[2] / "examples" / "credit_logs.jsonl"
ROWS = [json.loads(line) for line in LOG.read_text("utf-8").splitlines()]
GOLD = [{"name": "get_weather", "arguments": {"city": "Rome"}}]


def messages(city: str = "Rome") -> list[dict[str, Any]]:
    call = {"function": {"name": "get_weather", "arguments": json.dumps({"city": city})}}
    return [
        {"role": "user", "content": "Weather in Rome?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "21 C"},
        {"role": "assistant", "content": "It is 21 C."},
    ]


def quietly(*given: Any, **options: Any) -> list[rw.TrajectoryCredit]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rw.credit(*given, **options)


def test_a_log_file_has_the_numbers_that_the_command_prints(tmp_path: Path) -> None:
    said = rewright(tmp_path, "credit", str(LOG), "--json", "gamma=0.5", "--estimator", "fixed_horizon")
    printed = [json.loads(line) for line in said.output.splitlines()]
    for given in (LOG, str(LOG), ROWS):
        found = rw.credit(given, estimator="fixed_horizon", settings={"gamma": 0.5})
        assert [one.as_dict() for one in found] == printed
    assert found[1].calls[1].name == "book_flight"
    assert (found[1].calls[1].gold, found[1].calls[1].reward) == (1, 0.75)


def test_messages_with_gold_calls() -> None:
    (one,) = quietly(messages(), gold_calls=GOLD, outcomes=[1.0])
    assert one.turn_rewards.tolist() == [1.0, 1.0]
    assert (one.outcome, one.trajectory_reward) == (1.0, 2.0)
    first, second = quietly([messages(), messages("Oslo")], gold_calls=[GOLD, GOLD], outcomes=[1, 0])
    assert first.group == second.group
    assert second.turn_rewards[0] < first.turn_rewards[0] == 1.0
    assert first.advantages is not None and (first.advantages > 0).all()
    assert quietly([messages()], gold_calls={"a": GOLD, "b": []}, outcome="none", signal="outcome")[0].outcome is None
    by_task = quietly([{"messages": messages(), "task_id": "b"}], gold_calls={"a": GOLD, "b": []})
    assert by_task[0].turn_rewards.tolist() == [0.0, 0.0]
    assert "<svg" in first._repr_html_()


def test_trajectories_of_a_rollout_with_their_tasks_and_verdicts() -> None:
    task = rw.Task(
        id="t",
        messages=({"role": "user", "content": "Weather?"},),
        gold=rw.Gold(answers=("21",), calls=(rw.ToolCall("get_weather", {"city": "Rome"}),)),
    )
    call = rw.ToolCall("get_weather", {"city": "Rome"})
    text = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'
    good = rw.Trajectory(
        id="good", task_id="t", stage="synth", index=0, stop_reason="answered", answer="21",
        turns=(rw.Turn(text=text, calls=(call,), results=(rw.ToolResult("21"),)), rw.Turn(text="<answer>21</answer>")),
    )  # fmt: skip
    bad = rw.Trajectory(
        id="bad", task_id="t", stage="synth", index=1, stop_reason="answered", answer="5",
        turns=(rw.Turn(text="<answer>5</answer>"),),
    )  # fmt: skip
    verdicts = rw.judge([good, bad], [task])
    first, second = rw.credit([good, bad], tasks=[task], outcomes=verdicts)
    assert (first.turn_rewards.tolist(), second.turn_rewards.tolist()) == ([1.0, 1.0], [0.0])
    assert first.advantages is not None and second.advantages is not None
    assert np.all(first.advantages > 0) and np.all(second.advantages < 0)
    given = quietly([good, bad], gold_calls=[{"name": "get_weather", "arguments": {"city": "Rome"}}])
    assert [one.turn_rewards.tolist() for one in given] == [[1.0, 0.0], [0.0]]


def test_what_is_no_mistake_but_tells_less_is_a_warning_at_the_caller() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        rw.credit(messages(), gold_calls=GOLD)
    assert {one.filename for one in seen} == {__file__}
    assert any("its advantages compare it with nothing" in str(one.message) for one in seen)


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ([messages()], {}, "no trajectory has gold calls: give a file of them with gold_calls"),
        ([messages()], {"gold_calls": [GOLD, GOLD]}, "gold_calls: 2 lists for 1 trajectories"),
        ([messages()], {"gold_calls": [3]}, "gold_calls[0] is 3: expected a call, or a list of calls"),
        ([messages()], {"gold_calls": GOLD, "outcomes": [float("nan")]}, "outcomes[0] is nan"),
        ([messages()], {"gold_calls": GOLD, "outcomes": [1, 2]}, "outcomes: 2 for 1 trajectories"),
        ([messages()], {"gold_calls": GOLD, "estimator": "grop"}, "unknown estimator 'grop': did you mean 'grpo'?"),
        ([messages()], {"gold_calls": GOLD, "settings": {"gama": 1}}, "unknown key gama: did you mean "),
        ([messages(), [{"role": "model"}]], {"gold_calls": GOLD}, "trajectories[1]: "),
        ([{"messages": messages(), "score": 1.0}], {"gold_calls": GOLD}, "'score': name it with outcome=COLUMN"),
        ([{"other": 1}], {}, "trajectories[0]: "),
        ([3], {}, "trajectories[0] is a int"),
        ([], {}, "trajectories is empty"),
        ({"role": "user"}, {}, "trajectories is one dictionary"),
        ("nowhere.jsonl", {}, "nowhere.jsonl: no such file"),
        (LOG, {"format": "chat-log"}, "unknown importer 'chat-log'"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_argument(given: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(rw.InputError) as raised:
        quietly(given, **options)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "--" not in str(raised.value)
