"""Which code files may name: task files, recipes and the recipes of stored runs, through the command line."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewright import cli
from rewright.tools import capabilities

LEVEL = "strict" if capabilities().strict else "process"
Rewright = Callable[..., tuple[Any, str, str]]


@pytest.fixture
def rewright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Rewright]:
    """Run the command in `tmp_path`; returns exit code, standard output and standard error."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["rewright", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder with a file, which nothing may touch."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    return folder


def task(path: Path, **changes: Any) -> dict[str, Any]:
    """A task with one tool whose gold call is `f(path=…)`; `changes` are of the tool, `judge` of the task."""
    judge = changes.pop("judge", "exact")
    parameters = {"type": "object", "properties": {"path": {"type": "string"}}}
    tool = {"schema": {"type": "function", "function": {"name": "f", "parameters": parameters}}, **changes}
    gold = {"answers": [str(path)], "calls": [{"name": "f", "arguments": {"path": str(path)}}]}
    return {"id": "a", "messages": [{"role": "user", "content": "?"}], "tools": [tool], "judge": judge, "gold": gold}


def write_task(path: Path, **changes: Any) -> None:
    Path("tasks.jsonl").write_text(json.dumps(task(path, **changes)) + "\n")


REACHING = (
    "rewright.tools.worker.files:remove_tree",
    "rewright.tools.worker:files.remove_tree",
    "rewright:tools.worker.files.remove_tree",
    " rewright.tools.worker.files:remove_tree",
    "rewright.tools.worker.files:os.rmdir",
    "rewright.worlds.town:hashlib.sha256",
    "rewright.worlds.town:look_up.__globals__",
    "rewright.worlds.town:generate",
    "rewright.benchmarks.bfcl_world:Path.unlink",
)


@pytest.mark.parametrize("level", [LEVEL, "unsafe"])
@pytest.mark.parametrize("target", REACHING)
def test_no_target_reaches_a_function_of_rewright(rewright: Rewright, victim: Path, target: str, level: str) -> None:
    write_task(victim, target=target)
    code, found, _ = rewright("validate", "tasks.jsonl", "--level", level)
    assert (code, "1 errors" in found) == (1, True)
    assert f"row 0 (a): tool f: target {target!r} is a function of Rewright: expected" in found
    assert (victim / "thesis.txt").exists()


@pytest.mark.parametrize("section", ["tasks", "eval.tasks", "rl.tasks"])
def test_no_recipe_lets_it(rewright: Rewright, victim: Path, section: str) -> None:
    write_task(victim, target=REACHING[0])
    Path("plain.yaml").write_text("stages: [synth, eval_base, rl]\nmodel: pico\n")
    file = (f"{section}.path=tasks.jsonl", f"{section}.format=rewright")
    for more in ((), ("sandbox.level=unsafe",), ("sandbox.level=process",)):
        code, _, said = rewright("run", "plain.yaml", "--dry-run", *file, *more)
        assert (code, "tasks.jsonl:1: tool f: target " in said) == (2, True), said
    code, _, said = rewright("run", "plain.yaml", *file, *(() if section == "tasks" else ("stages=[eval_base]",)))
    if section != "rl.tasks":
        assert (code, "tasks.jsonl:1: tool f: target " in said) == (2, True), said
    assert (victim / "thesis.txt").exists()


@pytest.mark.parametrize("named", ["rewright", "rewright.tools", "rewright.tools.worker.files:remove_tree"])
def test_nobody_can_trust_rewright_itself(rewright: Rewright, victim: Path, named: str) -> None:
    write_task(victim, target=REACHING[0])
    for flag in ("--trusted", "--judges"):
        code, _, said = rewright("validate", "tasks.jsonl", flag, named)
        assert (code, f"error: {flag} names {named!r}: expected packages of your own" in said) == (2, True)
    for key in ("sandbox.trusted", "judges"):
        section, _, name = key.rpartition(".")
        Path("r.yaml").write_text(yaml.safe_dump({section: {name: [named]}} if section else {name: [named]}))
        code, _, said = rewright("run", "r.yaml", "tasks=tasks.jsonl")
        assert (code, f"{key}: must name packages of your own, got {named!r}" in said) == (2, True)
        assert "error: r.yaml:" in said
    assert not Path("runs").exists()
    assert (victim / "thesis.txt").exists()


def test_a_package_of_ones_own_is_no_way_to_what_it_imports(rewright: Rewright, victim: Path) -> None:
    Path("my_tools.py").write_text(
        "import rewright.tools.worker.files as files\nfrom rewright.tools.worker.files import remove_tree\n"
        "from rewright.benchmarks.rows import read_rows\nfrom rewright.worlds.town import look_up\n"
        "def count(path):\n    return len(path)\n"
    )
    for target in ("remove_tree", "files.remove_tree", "read_rows", "look_up"):
        write_task(victim, target=f"my_tools:{target}")
        code, found, _ = rewright("validate", "tasks.jsonl", "--trusted", "my_tools", "--level", LEVEL)
        assert (code, "is not defined in a trusted package, but in 'rewright." in found) == (1, True), found
    write_task(victim, target="my_tools:count")
    assert rewright("validate", "tasks.jsonl", "--trusted", "my_tools", "--level", LEVEL)[0] == 0
    assert (victim / "thesis.txt").exists()


def test_the_tools_of_the_worlds_are_reached_from_a_file(rewright: Rewright, victim: Path) -> None:
    data = {"parameter": "path", "table": {str(victim): "Rome"}}
    write_task(victim, target="rewright.worlds.town:look_up", data=data)
    code, found, _ = rewright("validate", "tasks.jsonl", "--level", LEVEL)
    assert (code, "0 errors, 0 warnings" in found) == (0, True), found


@pytest.mark.parametrize("judge", ["rewright.tools.worker.files:remove_tree", "rewright.judging.qa:qa"])
def test_no_judge_is_a_function_of_rewright(rewright: Rewright, victim: Path, judge: str) -> None:
    write_task(victim, source="def f(path):\n    return path\n", judge=judge)
    code, found, _ = rewright("validate", "tasks.jsonl", "--level", LEVEL)
    assert (code, f"judge {judge!r} is a function of Rewright: expected one of exact" in found) == (1, True)
    Path("r.yaml").write_text("stages: [synth, judge]\ntasks: tasks.jsonl\nmodel: pico\n")
    code, _, said = rewright("run", "r.yaml")
    assert (code, f"tasks.jsonl:1: judge {judge!r} is a function of Rewright" in said) == (2, True)
    assert (victim / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"quality": {"dimensions": [{"name": "d", "function": REACHING[0], "weight": 1}]}},
            f"quality.dimensions: dimension d {REACHING[0]!r} is a function of Rewright: expected one of",
        ),
        (
            {"rl": {"credit": {"estimator": REACHING[0]}}},
            f"rl.credit.estimator: estimator is {REACHING[0]!r}: expected",
        ),
    ],
)
def test_no_dimension_and_no_estimator_is_another_function_of_rewright(
    rewright: Rewright, settings: dict[str, Any], said: str
) -> None:
    Path("r.yaml").write_text(yaml.safe_dump(settings))
    code, _, error = rewright("run", "r.yaml", "--dry-run")
    assert (code, said in error) == (2, True), error
