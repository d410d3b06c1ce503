"""`import rewright as rw` is cheap, complete, and the packages of its functions' names stay packages."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import rewright as rw
from test_without_torch import WITHOUT


def python(program: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_nothing_but_the_package_itself() -> None:
    program = "import sys, typing, importlib, __future__; before = set(sys.modules); import rewright; "
    loaded = python(program + "print(*(set(sys.modules) - before))")
    assert set(loaded.split()) == {"rewright.core", "rewright.core.version", "rewright"}


def test_a_function_is_found_whichever_is_imported_first() -> None:
    program = """
import rewright as rw
import importlib, inspect, sys
for first in sys.argv[1:]:
    importlib.import_module(first)
assert callable(rw.credit) and callable(rw.rollout) and callable(rw.repair)
from rewright import credit
from rewright.credit import match
import rewright.credit as package
assert credit is package is rw.credit and package.match is match
assert "samples" in inspect.signature(rw.rollout).parameters
assert "turn rewards and advantages" in rw.credit.__doc__
try:
    rw.credit([])
except rw.InputError as problem:
    print(problem)
"""
    for first in ([], ["rewright.credit", "rewright.repair.quality"], ["rewright.api"], ["rewright.cli.main"]):
        assert python(program, *first) == "trajectories is empty: expected at least one\n"


def test_every_name_is_there_and_documented() -> None:
    assert set(rw.__all__) <= set(dir(rw))
    for name in rw.__all__:
        found = getattr(rw, name)
        if name[0].islower() and not name.startswith("_"):
            sections = {line.strip() for line in (found.__doc__ or "").splitlines()}
            assert {"Args:", "Returns:", "Raises:", "Example:"} <= sections, name
            parameters = set(inspect.signature(found).parameters) - {"function"}
            assert all(f"{parameter}:" in found.__doc__ for parameter in parameters), name
    assert (Path(rw.__file__).parent / "py.typed").exists()


def test_without_torch_everything_works_that_needs_none(tmp_path: Path) -> None:
    program = """
import asyncio, json, sys
import rewright as rw
from support.scripted_engine import ScriptedEngine
@rw.tool
def add(a: int, b: int) -> int:
    "Add."
    return a + b
tasks = rw.load_tasks([{"id": "a", "messages": [{"role": "user", "content": "1 + 2?"}], "gold": {"answers": ["3"],
    "calls": [{"name": "add", "arguments": {"a": 1, "b": 2}}]}}])
call = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
engine = ScriptedEngine(lambda request, turn: call if turn == 0 else "<answer>3</answer>")
found = rw.rollout_sync(tasks, model=engine, tools=[add], samples=2)
verdicts = rw.judge(found, tasks)
credit = rw.credit(found, tasks=tasks, outcomes=verdicts)
rows = rw.build_sft(found, tasks, qualities=rw.score(found, verdicts))
print(json.dumps([[one.correct for one in verdicts], credit[0].turn_rewards.tolist(), len(rows)]))
try:
    rw.rollout_sync(tasks, model="pico")
except rw.InputError as problem:
    print(problem)
"""
    tests = str(Path(__file__).parents[1])
    printed = python(f"{WITHOUT}\nsys.path.append({tests!r})\n{program}").splitlines()
    assert json.loads(printed[0]) == [[True, True], [1.0, 1.0], 1]
    assert "model pico needs the package" in printed[1]
    assert "pip install 'rewright[train]'" in printed[1]
