"""Results of tools belong to their calls, whole; calls without arguments are calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.logs import ANSWER, OPENAI, QUESTION, Rewright, imported, write


def _calls(*calls: tuple[Any, int]) -> dict[str, Any]:
    given = [
        {"id": identity, "type": "function", "function": {"name": "f", "arguments": json.dumps({"x": x})}}
        for identity, x in calls
    ]
    return {"role": "assistant", "content": None, "tool_calls": given}


def _result(content: Any, identity: Any = None) -> dict[str, Any]:
    return {"role": "tool", "content": content} | ({} if identity is None else {"tool_call_id": identity})


@pytest.mark.parametrize(
    ("calls", "results", "expected"),
    [
        ([("a", 1), ("b", 2)], [_result("B", "b"), _result("A", "a")], ["A", "B"]),
        ([("a", 1), ("b", 2)], [_result("B"), _result("A", "a")], ["A", "B"]),  # the first has no id
        ([(1, 1), (0, 2)], [_result("B", 0), _result("A", 1)], ["A", "B"]),  # numbers as ids
        ([("a", 1), ("a", 2)], [_result("A", "a"), _result("B", "a")], ["A", "B"]),  # one id for both calls
        ([("a", 1)], [_result([{"temp": 1}, {"temp": 2}], "a")], ['[{"temp": 1}, {"temp": 2}]']),
        ([("a", 1)], [_result([{"type": "hotel", "name": "X"}], "a")], ['[{"type": "hotel", "name": "X"}]']),
        ([("a", 1)], [_result(["x", "y"], "a")], ['["x", "y"]']),
        ([("a", 1)], [_result([{"type": "text", "text": "x"}, {"type": "image_url"}], "a")], ["x[image_url]"]),
    ],
)
def test_results_belong_to_their_calls_and_are_whole(
    rewright: Rewright, calls: list[Any], results: list[Any], expected: list[str]
) -> None:
    write("logs.jsonl", {"messages": [QUESTION, _calls(*calls), *results, ANSWER], "answer": "21"})
    _, (trajectory,) = imported(rewright, "logs.jsonl")
    assert [result.content for result in trajectory.turns[0].results] == expected


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (
            [_calls(("a", 1), ("b", 2)), _result("A", "a"), _result("A", "a")],
            "message 3 is a second result of the call 'a'",
        ),
        (
            [_calls(("a", 1), ("b", 2)), _result("A", "a"), _calls(("c", 3)), _result("B", "b")],
            "message 4 is the result of a call of an earlier turn, 'b'",
        ),
    ],
)
def test_a_result_of_another_call_is_one_line(rewright: Rewright, messages: list[Any], said: str) -> None:
    write("logs.jsonl", {"messages": [QUESTION, *messages, ANSWER]})
    code, _, (line,) = rewright("import", "logs.jsonl", "--run", "run")
    assert code == 2
    assert said in line


def test_several_choices_of_a_response_are_one_line(rewright: Rewright) -> None:
    write("logs.jsonl", {"request": {"messages": [QUESTION]}, "response": {"choices": [{"message": ANSWER}] * 2}})
    code, _, (line,) = rewright("import", "logs.jsonl", "--run", "run")
    assert code == 2
    assert "its response has 2 choices" in line


@pytest.mark.parametrize("function", [{"name": "now", "arguments": ""}, {"name": "now"}])
def test_credit_reads_calls_without_arguments(rewright: Rewright, function: dict[str, Any]) -> None:
    asked = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]}
    write(
        "logs.jsonl",
        {"messages": [QUESTION, asked, OPENAI[2], ANSWER], "gold_calls": [{"name": "now", "arguments": {}}]},
    )
    code, shown, _ = rewright("credit", "logs.jsonl", "--json")
    assert code == 0
    assert json.loads(shown)["turn_rewards"] == [1.0, 0.0]
