"""docs/api.md: its first example works as printed, and it names every function that there is and no other."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

import rewright as rw
from support.fault_server import FaultServer

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_every_function_stands_on_the_page_and_every_name_on_it_exists() -> None:
    named = set(re.findall(r"\brw\.(\w+)", PAGE))
    assert named <= set(rw.__all__)
    functions = {name for name in rw.__all__ if name[0].islower() and not name.startswith("_")}
    assert functions | {"Run"} <= named


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_arguments_on_the_page_exist(number: int) -> None:
    calls = [node for node in ast.walk(ast.parse(BLOCKS[number])) if isinstance(node, ast.Call)]
    for call in calls:
        target = ast.unparse(call.func)
        if target.startswith("rw.") and target != "rw.tool":
            parameters = inspect.signature(getattr(rw, target.removeprefix("rw."))).parameters
            assert {keyword.arg for keyword in call.keywords} <= set(parameters), target


async def test_the_first_example_works_as_printed() -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        last = body["messages"][-1]
        message: dict[str, Any] = {"role": "assistant", "content": "<answer>5</answer>"}
        if last["role"] != "tool":
            call = {"function": {"name": "get_price", "arguments": json.dumps({"item": "tea"})}, "type": "function"}
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", **call}]}
        return {"index": 0, "finish_reason": "stop", "message": message}

    async with FaultServer(model="NAME", reply=reply, status={"/completions": (404, {})}) as server:
        source = BLOCKS[0].replace("http://localhost:8000/v1", server.url)
        names: dict[str, Any] = {}
        code = compile(source, "docs/api.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with pytest.warns(UserWarning, match="one trajectory only"):
            await eval(code, names)
    (one,) = names["trajectories"]
    assert [result.content for result in one.results] == ["2.5"]
    assert names["verdicts"][0].correct
    assert names["credit"][0].turn_rewards.tolist() == [1.0, 1.0]
