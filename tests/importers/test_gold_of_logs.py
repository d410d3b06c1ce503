"""Gold calls of logs that no attempt has made: the task has their tools, and a wrong name or argument is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.logs import ANSWER, CALL, OPENAI, QUESTION, Rewright, imported, write

PREFIXED = {"role": "assistant", "content": "", "tool_calls": [{**CALL, "name": "functions.get_weather"}]}
APART = (
    "warning: no call has the name of a gold call: the calls are to 'functions.get_weather', the gold calls to "
    "'get_weather'; --strip-prefix functions. makes them equal"
)


def test_a_gold_call_that_no_attempt_has_made_is_to_a_tool_of_the_task(rewright: Rewright) -> None:
    gold = {"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}
    other = {"name": "get_time", "arguments": {}}
    file = write(
        "logs.jsonl",
        {"id": "none", "messages": [QUESTION, ANSWER], "gold_calls": [gold]},
        {"id": "less", "messages": [{**QUESTION, "content": "And now?"}, *OPENAI[1:]], "gold_calls": [gold, other]},
    )
    tasks, _ = imported(rewright, file)
    assert [[tool.name for tool in task.tools] for task in tasks] == [["get_weather"], ["get_weather", "get_time"]]
    assert tasks[0].tools[0].schema["function"]["parameters"] == {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    }
    code, output, _ = rewright("credit", "run")
    assert (code, "0.000" in output) == (0, True)


@pytest.mark.parametrize("prefix", ["functions.", "functions"])
def test_names_that_differ_by_a_prefix_are_said_and_made_equal(rewright: Rewright, prefix: str) -> None:
    file = write(
        "logs.jsonl", {"messages": [QUESTION, PREFIXED, OPENAI[2], ANSWER], "gold_calls": [CALL], "answer": "21"}
    )
    code, _, errors = rewright("import", file, "--run", "first")
    assert (code, APART in errors) == (0, True)
    code, _, errors = rewright("import", file, "--run", "second", "--strip-prefix", prefix)
    assert (code, [line for line in errors if line.startswith("warning: no call")]) == (0, [])


def test_a_gold_call_that_the_schema_of_the_file_forbids_is_refused_with_its_row(rewright: Rewright) -> None:
    tool = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "integer"}}}}
    rows = [{"messages": OPENAI}, {"id": "b", "messages": OPENAI, "group": "b", "tools": [tool], "gold_calls": [CALL]}]
    code, _, (line,) = rewright("import", write("logs.jsonl", *rows), "--run", "run")
    assert code == 2
    assert "logs.jsonl:2: gold call 0 to 'get_weather': argument 'city': 'Paris' is not of type 'integer'" in line
    assert not Path("run").exists()
