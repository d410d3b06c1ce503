"""Logs of one short conversation, and the command line in an empty directory, for the tests of importers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rewright.core.records import Task, Trajectory
from rewright.pipeline.run_directory import Run

Rewright = Callable[..., tuple[int, str, list[str]]]
QUESTION = {"role": "user", "content": "How warm is Paris?"}
CALL = {"name": "get_weather", "arguments": {"city": "Paris"}}
TEXT = json.dumps(CALL)
ANSWER = {"role": "assistant", "content": "21"}
OPENAI = [
    QUESTION,
    {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": CALL}]},
    {"role": "tool", "tool_call_id": "1", "content": "21"},
    ANSWER,
]
TAGGED = f"<think>I look.</think>\n<tool_call>\n{TEXT}\n</tool_call>"
SEARCHED = "<think>a</think><search>warm Paris</search>\n\n<{0}>\n21\n</{0}>\n\n<think>b</think>\n<answer> 21 </answer>"


def write(name: str, *rows: Any) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def imported(rewright: Rewright, file: str, *options: object) -> tuple[list[Task], list[Trajectory]]:
    code, _, errors = rewright("import", file, "--run", "run", *options)
    assert code == 0, errors
    run = Run.open(Path("run"))
    return list(run.tasks), list(run.trajectories)


def gold_file() -> str:
    Path("gold.json").write_text(json.dumps([CALL]))
    return "gold.json"


def imported_again(rewright: Rewright, rows: list[Any]) -> tuple[list[Task], list[Trajectory]]:
    assert rewright("import", write("more.jsonl", *rows), "--run", "second")[0] == 0
    run = Run.open(Path("second"))
    return list(run.tasks), list(run.trajectories)
