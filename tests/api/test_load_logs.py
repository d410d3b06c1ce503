"""`rw.load_logs`: logs become tasks and trajectories that can be judged, repaired and built into sets."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

import rewright as rw
from rewright.engines.base import Request
from support.in_process import rewright
from support.scripted_engine import ScriptedEngine

QUESTION = {"role": "user", "content": "What does tea cost?"}


def call(item: str) -> dict[str, Any]:
    function = {"name": "get_price", "arguments": json.dumps({"item": item})}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]}


ROWS: list[dict[str, Any]] = [
    {
        "id": "x",
        "messages": [
            QUESTION,
            call("tea"),
            {"role": "tool", "tool_call_id": "1", "content": "3"},
            {"role": "assistant", "content": "It costs 5."},
        ],
        "answer": "3",
    }
]


def says(item: str) -> Any:
    """Looks the item up, and says what it has read."""

    def script(request: Request, turn: int) -> str:
        if turn == 0:
            return f'<tool_call>{{"name": "get_price", "arguments": {{"item": "{item}"}}}}</tool_call>'
        return f"It costs {request.messages[-1]['content']}."

    return script


def quietly(*given: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rw.load_logs(*given, **options)


async def test_a_failure_in_a_log_is_repaired_with_recorded_results_or_with_a_function() -> None:
    with pytest.warns(UserWarning, match="tasks made from the log: 1"):
        tasks, trajectories, dialect = rw.load_logs(ROWS)
    assert dialect == "chat"
    assert [verdict.correct for verdict in rw.judge(trajectories, tasks)] == [False]
    (recorded,) = await rw.repair(trajectories, tasks, model=ScriptedEngine(says("tea")), progress=False)
    assert (recorded.accepted, recorded.attempts[0].answer) == (True, "It costs 3.")
    (other,) = await rw.repair(trajectories, tasks, model=ScriptedEngine(says("cake")), progress=False)
    assert not other.accepted and "needs a call that cannot be run" in other.reason

    def get_price(item: str) -> str:
        return "3"

    tool = rw.tool(get_price)
    (live,) = await rw.repair(trajectories, tasks, model=ScriptedEngine(says("cake")), tools=[tool], progress=False)
    assert live.accepted and live.attempts[0].results[0].content == "3"
    (row,) = rw.build_sft(trajectories, tasks, repairs=[live])
    assert row["messages"][-1]["content"] == "It costs 3."


def test_a_file_gives_what_import_makes_of_it(tmp_path: Path) -> None:
    (tmp_path / "logs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    said = rewright(tmp_path, "import", "logs.jsonl", "--run", "run")
    assert said.code == 0, said.errors
    run = rw.Run(tmp_path / "run")
    for given in (tmp_path / "logs.jsonl", ROWS):
        tasks, trajectories, dialect = quietly(given)
        assert (tasks, trajectories, dialect) == (list(run.tasks), list(run.trajectories), run.recipe.dialect)


def test_what_is_not_understood_is_one_line(tmp_path: Path) -> None:
    for given, said in (
        ([], "logs is empty"),
        ([3], "logs[0] is a int"),
        ([{"other": 1}], "logs[0]: "),
        ("nowhere.jsonl", "nowhere.jsonl: no such file"),
    ):
        with pytest.raises(rw.InputError) as raised:
            quietly(given)
        assert said in str(raised.value)
        assert "--" not in str(raised.value) and "\n" not in str(raised.value)


def test_rows_may_be_lists_of_messages() -> None:
    tasks, trajectories, _ = quietly([ROWS[0]["messages"], ROWS[0]["messages"]])
    assert [one.answer for one in trajectories] == ["It costs 5."] * 2
    assert [len(one.messages) for one in tasks] == [1]
    with pytest.raises(rw.InputError, match=r"logs\[1\] is a list: expected a row of a log"):
        quietly([ROWS[0]["messages"], ["hello"]])


def test_one_task_or_trajectory_in_the_place_of_a_list_is_said() -> None:
    tasks, trajectories, _ = quietly(ROWS)
    one: Any = tasks[0]
    with pytest.raises(rw.InputError, match=r"^tasks is a Task: expected a list of tasks$"):
        rw.judge(trajectories, one)
    one = trajectories[0]
    for function in (rw.judge, rw.build_sft):
        with pytest.raises(rw.InputError, match=r"^trajectories is a Trajectory: expected a list of trajectories$"):
            function(one, tasks)
