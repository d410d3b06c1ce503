"""`rewright run` compares its training tasks with test questions of benchmarks that are on the machine."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rewright.core.errors import InputError
from rewright.tasks.loading import load_tasks
from support.in_process import rewright
from support.tau2 import needs_tau2

PRIMES = "How many positive integers less than one hundred have exactly three positive divisors and are odd numbers?"
FLIGHT = "Which of the two airports that serve the city where the painter was born has the longer main runway today?"
OTHER = (
    "A farmer has seven fields, and each of them needs two days of work with four horses: how many horse days is it?"
)
RETAIL = ["cancel_pending_order", "exchange_delivered_order_items", "find_user_id_by_email", "get_order_details"]


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Test sets in the published columns, a package tau2 in its published layout, and a recipe."""
    data = tmp_path / "benchmarks"
    lines(data / "math.jsonl", [{"problem": PRIMES, "solution": "\\boxed{3}"}])
    lines(data / "hotpotqa.jsonl", [{"id": "h", "question": FLIGHT, "answer": "north"}])
    package = tmp_path / "packages" / "tau2"
    domain = package / "data/tau2/domains/retail"
    domain.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('was imported')")
    said = {"reason_for_call": "You want to exchange a lamp.", "known_info": "You are Ann.", "unknown_info": None}
    rows = [{"id": name, "user_scenario": {"instructions": said}} for name in ("0", "1")]
    (domain / "tasks.json").write_text(json.dumps(rows))
    (domain / "split_tasks.json").write_text(json.dumps({"test": ["1"]}))
    (package / "domains/retail").mkdir(parents=True)
    tools = "".join(f"    @is_tool(ToolType.READ)\n    def {name}(self): ...\n" for name in RETAIL)
    (package / "domains/retail/tools.py").write_text(f"class Tools:\n{tools}    def helper(self): ...\n")
    monkeypatch.delitem(sys.modules, "tau2", raising=False)  # another test may have imported the real one
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("REWRIGHT_BENCHMARKS", str(data))
    return tmp_path


def dry_run(folder: Path, tasks: str, *changes: str) -> Any:
    (folder / "r.yaml").write_text(f"model: pico\nstages: [synth, judge]\ntasks: {tasks}\n")
    return rewright(folder, "run", "r.yaml", "--dry-run", *changes)


def said(errors: str) -> str:
    return " ".join(errors.split())


def test_questions_of_autotraj_that_are_test_questions_are_counted(folder: Path) -> None:
    near = FLIGHT.replace("today", "now").replace("Which", "So which")
    rows = [(PRIMES.upper(), "3"), (near, "north"), (OTHER, "56")]
    lines(folder / "q.jsonl", [{"question": question, "gold_answer": f"{{{answer}}}"} for question, answer in rows])
    shown = dry_run(folder, "{format: autotraj, path: q.jsonl}")
    assert shown.code == 0, shown.errors
    text = said(shown.errors)
    assert "1 of 1 test questions of math are among the 3 tasks (1 word for word), such as test task" in text
    assert "1 of 1 test questions of hotpotqa are among the 3 tasks (0 word for word)" in text
    assert "compared with the test questions of " in text
    assert "without data on this machine: " in text
    assert "gsm8k" in text.partition("without data")[2]
    assert text.endswith("(docs/contamination.md)")

    refused = dry_run(folder, "{format: autotraj, path: q.jsonl, contamination: error}")
    refused.refused("tasks: contamination: 1 of 1 test questions of hotpotqa are among the 3 tasks")
    assert "expected other tasks, or tasks.contamination=warn" in refused.errors
    assert "contamination" not in dry_run(folder, "{format: autotraj, path: q.jsonl}", "tasks.contamination=off").errors
    dry_run(folder, "{format: autotraj, path: q.jsonl}", "tasks.contamination=no").refused("tasks.contamination")


def test_tasks_with_the_tools_of_a_domain_of_tau2_are_counted(folder: Path) -> None:
    schemas = [{"name": name, "description": "", "parameters": {"type": "object", "properties": {}}} for name in RETAIL]
    call = json.dumps({"name": RETAIL[0], "arguments": {}})
    said_by = (("human", "Please cancel it."), ("function_call", call))
    row = {
        "conversations": [{"from": role, "value": text} for role, text in said_by],
        "system": "You are a retail agent.",
        "tools": json.dumps(schemas),
    }
    lines(folder / "a.jsonl", [row])
    shown = dry_run(folder, "{format: apigen-mt, path: a.jsonl}")
    assert shown.code == 0, shown.errors
    assert "1 of the 1 tasks have the tools of tau2 retail, such as task apigen-mt-0" in said(shown.errors)
    dry_run(folder, "{format: apigen-mt, path: a.jsonl}", "tasks.contamination=error").refused("tools of tau2 retail")


def test_nothing_is_said_of_clean_tasks_and_worlds(folder: Path) -> None:
    lines(folder / "q.jsonl", [{"question": OTHER, "gold_answer": "{56}"}])
    clean = dry_run(folder, "{format: autotraj, path: q.jsonl, contamination: error}")
    assert clean.code == 0, clean.errors
    assert "contamination:" not in clean.errors
    world = dry_run(folder, "{format: town, count: 2}")
    assert "compared" not in world.errors


def test_questions_of_imported_logs_are_compared(folder: Path) -> None:
    """Later stages do not compare them: `rewright judge RUN` is what follows."""
    said_by = (("user", PRIMES), ("assistant", "It is 3."))
    lines(folder / "log.jsonl", [{"messages": [{"role": r, "content": t} for r, t in said_by], "answer": "3"}])
    ask = ("import", "log.jsonl", "--run")
    found = "tasks: contamination: 1 of 1 test questions of math are among the 1 tasks (1 word for word)"
    rewright(folder, *ask, "refused", "tasks.contamination=error").refused(found)
    assert not (folder / "refused").exists()
    warned = rewright(folder, *ask, "warned")
    assert (warned.code, found in said(warned.errors)) == (0, True), warned.errors
    silent = rewright(folder, *ask, "silent", "tasks.contamination=off")
    assert (silent.code, "contamination" in silent.errors) == (0, False), silent.errors
    # The same for trajectories of tasks that a recipe names.
    lines(folder / "q.jsonl", [{"question": PRIMES, "gold_answer": "{3}"}])
    known = rewright(folder, *ask, "known", "tasks.format=autotraj", "tasks.path=q.jsonl")
    assert (known.code, found in said(known.errors)) == (0, True), known.errors


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "benchmarks" / "gsm8k.jsonl").write_text("{")
    lines(folder / "q.jsonl", [{"question": OTHER, "gold_answer": "{56}"}])
    shown = dry_run(folder, "{format: autotraj, path: q.jsonl}", "tasks.contamination=error")
    assert shown.code == 0, shown.errors
    assert "not compared: gsm8k: " in said(shown.errors)


def test_the_preamble_of_one_benchmark_is_none_because_others_are_compared_too(folder: Path) -> None:
    """20 of 2,020 questions have it."""
    preamble = "You are given some tools and must call them to answer the question that follows here about"
    lines(
        folder / "benchmarks" / "math.jsonl", [{"problem": f"Sum {n}", "solution": "\\boxed{3}"} for n in range(2000)]
    )
    asked = [{"id": str(n), "question": f"{preamble} item {n + 100}", "answer": "x"} for n in range(20)]
    lines(folder / "benchmarks" / "hotpotqa.jsonl", asked)
    own = [f"{preamble} thing {n}" if n < 20 else f"{n}. {OTHER}" for n in range(50)]
    lines(folder / "q.jsonl", [{"question": question, "gold_answer": "{1}"} for question in own])
    shown = dry_run(folder, "{format: autotraj, path: q.jsonl, contamination: error}")
    assert shown.code == 0, shown.errors
    lines(folder / "q.jsonl", [{"question": one["question"], "gold_answer": "{1}"} for one in asked[:3]])
    shown = dry_run(folder, "{format: autotraj, path: q.jsonl}")
    assert "3 of 20 test questions of hotpotqa are among the 3 tasks (3 word for word)" in said(shown.errors)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No files, only the packages of this machine."""
    monkeypatch.setenv("REWRIGHT_BENCHMARKS", str(tmp_path / "none"))
    return tmp_path


def test_all_turns_of_a_conversation_are_compared(installed: Path) -> None:
    pytest.importorskip("bfcl_eval")
    shown = dry_run(installed, "{format: bfcl-multi-turn, path: base, limit: 30}")
    assert shown.code == 0, shown.errors
    found = re.search(r"(\d+) of \d+ test questions of bfcl are among the 30 tasks \((\d+) word", said(shown.errors))
    assert found is not None, shown.errors
    assert int(found[2]) >= 30
    assert int(found[1]) >= 100, "the other three categories ask nearly the same"


@needs_tau2
def test_the_official_train_split_of_tau2_is_for_training(installed: Path) -> None:
    shown = dry_run(installed, '{format: tau2, path: "retail-ticket:train", contamination: error}')
    assert shown.code == 0, shown.errors
    other = dry_run(installed, '{format: tau2, path: "retail-ticket"}')
    assert "40 of the 114 tasks have the tools of tau2 retail, such as task tau2-retail-ticket-5" in said(other.errors)
    mixed = '[{format: tau2, path: "telecom-solo:train"}, {format: tau2, path: "telecom-solo:test"}]'
    mixture = dry_run(installed, f"{{sources: {mixed}}}")
    assert "40 of the 114 tasks have the tools of tau2 telecom" in said(mixture.errors)


def test_complexfuncbench_is_compared_or_named_as_missing(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.suppress(InputError):
        load_tasks("all", "complexfuncbench", 1)  # stored, if it was not
        shown = dry_run(installed, "{format: complexfuncbench, path: test, limit: 5}")
        assert "5 of 231 test questions of complexfuncbench are among the 5 tasks (5 word for" in said(shown.errors)
        shown = dry_run(installed, "{format: complexfuncbench, path: train, limit: 5, contamination: error}")
        assert shown.code == 0, shown.errors
        assert "with the test questions of bfcl, tau2, complexfuncbench" in said(shown.errors)

    hidden = installed / "hidden" / "nestful_wrapper-0.1.7.dist-info"
    hidden.mkdir(parents=True)
    (hidden / "METADATA").write_text("Metadata-Version: 2.1\nName: nestful-wrapper\nVersion: 0.1.7\n")
    monkeypatch.syspath_prepend(hidden.parent)
    monkeypatch.setenv("REWRIGHT_CACHE", str(installed / "empty"))
    lines(installed / "q.jsonl", [{"question": OTHER, "gold_answer": "{56}"}])
    shown = dry_run(installed, "{format: autotraj, path: q.jsonl}")
    assert shown.code == 0, shown.errors
    assert "complexfuncbench" in said(shown.errors).partition("without data on this machine: ")[2]


EVALUATED = "stages: [synth, judge, score, repair, build, sft, eval_sft]\nrepair: {model: pico-repairer}\nmodel: pico\n"


def evaluated(folder: Path, rest: str, *changes: str) -> Any:
    (folder / "r.yaml").write_text(EVALUATED + rest)
    return rewright(folder, "run", "r.yaml", "--dry-run", *changes)


@pytest.mark.needs_torch
def test_evaluation_tasks_that_are_training_tasks_are_counted(folder: Path) -> None:
    templates = [f"Tell me the salary of the landlord of the doctor of the person number {n}." for n in range(8)]
    rows = [{"question": question, "gold_answer": "{1}"} for question in (*templates[:4], OTHER)]
    lines(folder / "q.jsonl", rows)
    lines(folder / "other.jsonl", [{**row, "question": text} for row, text in zip(rows, templates[4:], strict=False)])
    lines(folder / "mixed.jsonl", [{**rows[0], "question": text} for text in (templates[7], OTHER.upper())])
    tasks = "tasks: {format: autotraj, path: q.jsonl%s}\n"
    found = "tasks: contamination: 1 of 2 tasks of eval.tasks are among the 5 tasks (word for word), such as evaluation"
    mixed = "eval: {tasks: {format: autotraj, path: mixed.jsonl}}\n"
    shown = evaluated(folder, tasks % "" + mixed)
    assert (shown.code, found in said(shown.errors)) == (0, True), shown.errors
    evaluated(folder, tasks % ", contamination: error" + mixed).refused(found)
    # RL on the same tasks, while `tasks` are others.
    rl = "rl: {tasks: {format: autotraj, path: q.jsonl}, tasks_per_step: 2}\n"
    shown = evaluated(folder, "tasks: {format: town, count: 2}\n" + mixed + rl, "stages=[eval_base,rl,eval_rl]")
    assert (shown.code, f"rl.{found}" in said(shown.errors)) == (0, True), shown.errors
    # Clean: tasks of the same template, no training on `tasks`, or no evaluation.
    clean = (
        evaluated(folder, tasks % "" + "eval: {tasks: {format: autotraj, path: other.jsonl}}\n"),
        evaluated(folder, tasks % "" + mixed, "stages=[sft,eval_sft]", "sft.source=demonstrations"),
        evaluated(folder, tasks % "" + mixed, "stages=[synth,judge,score,repair,build,sft]"),
        evaluated(folder, tasks % "" + mixed, "stages=[eval_base,synth,judge]"),
        evaluated(folder, tasks % ", contamination: off" + mixed),
    )
    for shown in clean:
        assert (shown.code, "eval.tasks are" in shown.errors) == (0, False), shown.errors


@pytest.mark.needs_torch
def test_an_evaluation_on_the_split_of_a_world_that_is_trained_on_is_said(folder: Path) -> None:
    tasks = "tasks: {format: town, split: train, count: 3}\n"
    same = evaluated(folder, f"{tasks}eval: {{tasks: {{format: town, split: train, count: 2, seed: 0}}}}\n")
    assert "2 of 2 tasks of eval.tasks are among the 3 tasks" in said(same.errors)
    held_out = evaluated(folder, f"{tasks}eval: {{tasks: {{format: town, split: heldout, count: 2}}}}\n")
    assert (held_out.code, "contamination" in held_out.errors) == (0, False), held_out.errors
