"""Validation: every kind of finding, on tasks made to have it, with sources run in the real sandbox."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rewright.cli.main import app
from rewright.core.records import Gold, Task, ToolCall, ToolSpec
from rewright.tasks.loading import save_tasks
from rewright.tasks.validation import Finding, validate_file, validate_tasks


def schema(name: str = "find", required: tuple[str, ...] = ("name",), **properties: Any) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": "d",
            "parameters": {
                "type": "object",
                "properties": properties or {"name": {"type": "string"}},
                "required": list(required),
            },
        },
    }


FIND = "def find(name):\n    return {'city': 'Rome'} if name == 'Ann' else {'error': f'no {name}'}\n"


def task(source: str = FIND, tool_schema: dict[str, Any] | None = None, **changes: Any) -> Task:
    values: dict[str, Any] = {
        "id": "a",
        "messages": ({"role": "user", "content": "Where does Ann live?"},),
        "tools": (ToolSpec(tool_schema or schema(), source=source),),
        "gold": Gold(answers=("Rome",), calls=(ToolCall("find", {"name": "Ann"}),), outputs={"find": ["Rome"]}),
        **changes,
    }
    return Task(**values)


def findings(*tasks: Task) -> list[Finding]:
    return list(validate_tasks(tasks, level="process", wall_seconds=2.0).findings)


def test_a_good_task_has_no_findings() -> None:
    validation = validate_tasks([task()], level="process")
    assert validation.findings == ()
    assert (validation.tasks, validation.tools, validation.expected_outputs) == (1, 1, 1)
    assert validation.executed


@pytest.mark.parametrize(
    ("bad", "severity", "kind", "message"),
    [
        (task("def find(name:\n    pass"), "error", "source-syntax", "not valid Python"),
        (task("x = '\x00'"), "error", "source-syntax", "valid Python|can't be compiled"),
        (task("def search(name):\n    return 'Rome'"), "error", "source-no-function", "it defines search"),
        (task("find = 'Rome'"), "error", "source-no-function", "defines no function of that name"),
        (task("import os\nraise OSError('broken')\n" + FIND), "error", "source-fails", "broken"),
        (task("while True: pass\n" + FIND), "error", "source-fails", "no result after 2 s"),
        (task("import no_such_module_at_all\n" + FIND), "warning", "import-missing", "no_such_module_at_all"),
        (task(FIND + "def other():\n    return dattime"), "warning", "undefined-name", "'dattime'"),
        (task("async def find(name):\n    return 'Rome'"), "error", "source-async", "async"),
        (task("def find():\n    return 'Rome'"), "error", "signature", "'name', which its function does not take"),
        (
            task("def find(name, country):\n    return 'Rome'"),
            "error",
            "signature",
            "requires 'country', which the schema does not have",
        ),
        (task(FIND, schema(required=())), "warning", "signature", "requires 'name', which the schema calls optional"),
        (task("def find(name, /):\n    return 'Rome'"), "error", "signature", "positional only"),
        (
            task("def find(name, year=1):\n    return 'Rome'"),
            "warning",
            "signature",
            "takes 'year', which the schema does not have",
        ),
        (task(FIND, schema(name={"type": "strnig"})), "error", "schema", "'strnig'"),
        (task(FIND, schema(required=("nam",))), "error", "schema", "'nam', which is not one of its properties"),
        (task(FIND, schema(required=(["name"],))), "error", "schema", r"\['name'\] is not of type 'string'"),
        (
            task("x = " + "-" * 100_000 + "1"),
            "error",
            "source-syntax",
            "can't be compiled: (MemoryError|RecursionError|Parser stack overflowed)",
        ),
        (
            task(gold=Gold(answers=("Rome",), calls=(ToolCall("find", {"name": 1}),))),
            "error",
            "gold-against-tools",
            "1 is not of type 'string'",
        ),
        (
            task(metadata={"calls_per_message": [2]}),
            "error",
            "gold-metadata",
            r"metadata.calls_per_message is \[2\]: expected 1 numbers with the sum 1",
        ),
        (
            task(metadata={"ends_with_call": "find"}),
            "error",
            "gold-metadata",
            "metadata.ends_with_call is 'find': expected the name of a declared tool",
        ),
        (
            task(FIND.replace("{'error'", "1/0, {'error'"), gold=Gold(("Rome",), (ToolCall("find", {"name": "Bob"}),))),
            "error",
            "gold-call-fails",
            "gold call 0 to 'find' fails: exception: ZeroDivisionError",
        ),
        (
            task(gold=Gold(("Rome",), (ToolCall("find", {"name": "Ann"}),), {"find": ["Rome", "Oslo"]})),
            "error",
            "gold-output-missing",
            "'Oslo' of 'find' is in no result",
        ),
        (task(gold=Gold(("Rome",), None, {"find": ["Oslo"]})), "warning", "output-not-in-source", "'Oslo'"),
        (task(gold=Gold(("Rome",), None, {"find": [" "]})), "error", "empty-output", "is empty"),
        (task(gold=Gold()), "error", "no-gold", "no gold answer for the judge exact"),
        (task(judge="exct"), "error", "judge", "unknown judge 'exct'"),
        (task(judge="nowhere:judge"), "error", "judge", "nowhere"),
        (task(judge="solve", gold=Gold(("Rome",))), "error", "no-gold", "needs gold.outputs"),
        (
            task(judge="calls", gold=Gold(("Rome",), ()), metadata={"compare": {"defualts": True}}),
            "error",
            "judge-data",
            "metadata.compare: ",
        ),
        (task(judge="math", gold=Gold((r"\frac{1}{",))), "warning", "gold-unreadable", "only equals itself"),
        (task(gold=Gold((r"\boxed{}",))), "error", "gold-judged-wrong", "is judged 0"),
    ],
)
def test_each_kind_of_finding(bad: Task, severity: str, kind: str, message: str) -> None:
    found = [finding for finding in findings(bad) if finding.kind == kind]
    assert found, findings(bad)
    assert found[0].severity == severity
    assert re.search(message, found[0].message), found[0].message
    assert str(found[0]).startswith(f"{severity}: row 0 (a): ")


def test_ids_and_questions_used_twice() -> None:
    kinds = [(finding.row, finding.kind) for finding in findings(task(), task())]
    assert kinds == [(1, "duplicate-id"), (1, "duplicate-task")]


def test_a_module_scope_of_one_tool_does_not_reach_another() -> None:
    second = ToolSpec(schema("count"), source="def count(name):\n    return helper(name)")
    first = ToolSpec(schema(), source="def helper(x):\n    return x\n" + FIND)
    calls = (ToolCall("find", {"name": "Ann"}), ToolCall("count", {"name": "Ann"}))
    found = findings(task(tools=(first, second), gold=Gold(("Rome",), calls)))
    assert {finding.kind for finding in found} == {"undefined-name", "gold-call-fails"}


def test_without_execution_sources_are_only_read() -> None:
    validation = validate_tasks([task("raise OSError()\n" + FIND)], execute=False)
    assert validation.findings == ()
    assert not validation.executed


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    good = {"id": "a", "messages": [{"role": "user", "content": "q"}], "gold": {"answers": ["1"]}}
    path.write_text("\n".join([json.dumps(good), '{"id": ', json.dumps({**good, "jugde": "x"}), json.dumps(good)]))
    validation = validate_file(path)
    assert [(finding.row, finding.kind) for finding in validation.findings] == [
        (1, "bad-row"),
        (2, "bad-row"),
        (3, "duplicate-id"),
        (3, "duplicate-task"),
    ]
    assert validation.tasks == 4
    assert validation.errors == 3
    assert validation.counts == {"bad-row": 2, "duplicate-id": 1, "duplicate-task": 1}
    assert "t.jsonl:2" in validation.findings[0].message


def test_tasks_without_gold_calls_beside_others_are_named_once(tmp_path: Path) -> None:
    def written(*golds: dict[str, Any]) -> list[str]:
        rows = [
            {"id": f"t{n}", "messages": [{"role": "user", "content": f"q{n}"}], "gold": {"answers": ["1"], **gold}}
            for n, gold in enumerate(golds)
        ]
        (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return CliRunner().invoke(app, ["validate", str(tmp_path / "t.jsonl")]).stdout.splitlines()

    line, last = written({"calls": []}, {}, {})
    assert line == ("warning: row 1 (t1): has no gold.calls, as 2 of 3 tasks: in RL the calls of their turns earn 0")
    assert last.startswith("3 rows")
    assert len(written({}, {})) == len(written({"calls": []}, {"calls": []})) == 1


def test_progress_counts_every_task() -> None:
    seen: list[tuple[int, int]] = []
    validate_tasks(
        [task(id=f"t{n}") for n in range(3)], level="process", progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_progress_is_shown_for_tasks_that_are_executed_and_for_no_others(tmp_path: Path) -> None:
    save_tasks(tmp_path / "t.jsonl", [task(id="a"), task(id="b")])
    for arguments, said in (
        (["--level", "process", "--limit", "1"], True),
        (["--no-execute"], False),
        (["--no-execute", "--limit", "1"], False),
    ):
        done = CliRunner().invoke(app, ["validate", str(tmp_path / "t.jsonl"), *arguments])
        assert done.exit_code == 0
        assert ("rows: 1/1 in" in done.stderr) == ("rows" in done.stderr) == said


def test_a_judge_in_the_directory_of_the_command_is_found(tmp_path: Path) -> None:
    """With -P Python itself leaves that directory out, as it does for an installed command."""
    (tmp_path / "my_judges.py").write_text(
        "from rewright.judging import Judgement\n\n\ndef same(answer, golds):\n"
        "    return Judgement(float(answer in golds), 'compared')\n"
    )
    task = Task(id="t", messages=({"role": "user", "content": "?"},), gold=Gold(answers=("a",)), judge="my_judges:same")
    save_tasks(tmp_path / "tasks.jsonl", [task])
    command = [sys.executable, "-P", "-c", "from rewright.cli.main import main; main()", "validate", "tasks.jsonl"]
    command += ["--judges", "my_judges"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
