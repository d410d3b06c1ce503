"""The examples that need no trainer run as examples/README.md says, and print what it shows."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
README = (EXAMPLES / "README.md").read_text("utf-8")
COMMAND = [sys.executable, "-c", "from rewright.cli.main import main; main()"]


def run(*command, path=""):
    """What a command prints that is run from the repository's root."""
    environment = os.environ | {"PYTHONPATH": str(path)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def shown(section):
    """The output that a section of the page shows."""
    text = README.split(f"\n## {section}")[1].split("\n## ")[0]
    (output,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    return output


def test_every_example_has_its_row_and_its_section():
    files = {path.name for path in EXAMPLES.iterdir() if path.name != "__pycache__"}
    scripts = {name for name in files if not name.endswith((".md", ".jsonl"))}
    assert set(re.findall(r"^\| (\d) \|", README, re.MULTILINE)) == set(
        re.findall(r"^## (\d)\. ", README, re.MULTILINE)
    )
    assert {
        target.partition("/")[0] for target in re.findall(r"^\| \d \| \[.*?\]\((.*?)\)", README, re.MULTILINE)
    } == scripts


def test_credit_of_a_log_prints_what_the_page_shows_and_what_the_command_line_finds():
    printed = run(sys.executable, "examples/credit_logs.py")
    assert printed == shown("2.")
    rows = [json.loads(line) for line in run(*COMMAND, "credit", "examples/credit_logs.jsonl", "--json").splitlines()]
    found = [float(value) for row in rows if "turn_advantages" in row for value in row["turn_advantages"]]
    said = [float(value) for value in re.findall(r" ([+-]\d\.\d{3})", printed)]
    assert said == pytest.approx(found, abs=6e-4)


def test_own_signal_and_estimator_print_what_the_page_shows_and_work_by_import_path():
    assert run(sys.executable, "examples/own_signal.py") == shown("5.")
    log = "examples/credit_logs.jsonl"
    table = run(*COMMAND, "credit", log, "estimator=own_signal:median_baseline", path=EXAMPLES)
    assert re.search(r"flight/0 .*\+0\.271 \+0\.000 \+0\.000", table)


def test_own_tasks_are_what_the_script_writes_and_their_gold_calls_work(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "own_tools"))
    tasks = runpy.run_path(str(EXAMPLES / "own_tools" / "make_tasks.py"), run_name="tasks")["tasks"]()
    stored = (EXAMPLES / "own_tools" / "tasks.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in stored] == tasks
    file = "examples/own_tools/tasks.jsonl"
    found = run(*COMMAND, "validate", file, "--trusted", "company", "--level", "process", path=EXAMPLES / "own_tools")
    assert found.strip() and found.strip() in README


def test_own_tools_are_called_in_a_run(tmp_path):
    pytest.importorskip("torch")
    recipe, out = "examples/own_tools/recipe.yaml", tmp_path / "run"
    run(*COMMAND, "run", recipe, "--run", str(out), "--limit", "4", "synth.n=2", path=EXAMPLES / "own_tools")
    verdicts = [json.loads(line) for line in (out / "verdicts.jsonl").read_text("utf-8").splitlines()]
    assert [verdict["outcome"] for verdict in verdicts] == [1.0] * 8
    assert (out / "sft.jsonl").read_text("utf-8").count("\n") > 0
