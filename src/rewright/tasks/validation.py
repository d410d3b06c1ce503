"""Validate tasks before a run: schemas, tool sources, gold calls, gold outputs and gold answers.

`validate_file` reads a whole task file and reports every invalid row. `validate_tasks` checks tasks in memory. A
finding is an error if the task can't work as written, and a warning if it may work but probably not as intended.
Sources are parsed in this process but executed only in the sandbox.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from rewright.core.errors import InputError, RewrightError
from rewright.core.records import Task, Trajectory
from rewright.judging import judge_answer, judge_trajectory
from rewright.judging.base import AnswerJudge, missing_key, task_problem
from rewright.judging.extraction import find_extractor
from rewright.judging.judges import check_judge, find_judge
from rewright.judging.solve import solves
from rewright.rendering.renderer import Renderer
from rewright.rendering.template_check import prompt_problem, template_findings
from rewright.sandbox.sandbox import Level
from rewright.tasks.execution import execute_tasks
from rewright.tasks.findings import Finding, Notes
from rewright.tasks.gold_turns import closing_call, plays_gold
from rewright.tasks.licences import source_warnings
from rewright.tasks.loading import DEFAULT_FORMAT, iterate_tasks
from rewright.tasks.rows import LeftOutError
from rewright.tasks.schemas import record_problems, schema_problems, target_problems
from rewright.tasks.sources import source_problems
from rewright.tools import FunctionTools
from rewright.tools.functions import implementation_problem
from rewright.tools.targets import target_missing

__all__ = ["Finding", "Validation", "validate_file", "validate_tasks"]


class Validation(msgspec.Struct, frozen=True):
    """Numbers of checked items, and findings in row order. `seconds` is the wall-clock time."""

    tasks: int
    tools: int
    expected_outputs: int
    executed: bool
    """Whether tool sources were executed. If False, only static checks were done."""
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def errors(self) -> int:
        """Number of findings that are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings by kind, most frequent first."""
        return dict(Counter(finding.kind for finding in self.findings).most_common())


def validate_file(
    path: Path | str,
    format: str | None = None,  # noqa: A002
    limit: int | None = None,
    *,
    execute: bool = True,
    level: Level = "strict",
    trusted: Sequence[str] = (),
    renderer: Renderer | None = None,
    judges: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Validation:
    """Validate every row of a task file. An invalid row is a finding and does not stop the validation.

    A judge given as an import path runs only if its package is in `judges`. The other arguments are those of
    `validate_tasks`.

    Raises InputError for an unreadable file and for one without rows, and SandboxError if `level` is not available on
    this machine.
    """
    started = time.perf_counter()
    tasks: list[Task] = []
    rows: list[int] = []
    invalid_rows: list[Finding] = []
    for loaded in iterate_tasks(path, format):
        if isinstance(loaded.task, LeftOutError):
            invalid_rows.append(Finding("warning", "left-out", str(loaded.task), loaded.row))
        elif isinstance(loaded.task, InputError):
            invalid_rows.append(Finding("error", "bad-row", str(loaded.task), loaded.row))
        else:
            tasks.append(loaded.task)
            rows.append(loaded.row)
        if limit is not None and len(tasks) + len(invalid_rows) >= limit:
            break
    if not tasks and not invalid_rows:
        raise InputError(f"{path}: contains no task in the format {format or DEFAULT_FORMAT!r}")
    validation = validate_tasks(
        tasks,
        rows=rows,
        execute=execute,
        level=level,
        trusted=trusted,
        renderer=renderer,
        judges=judges,
        progress=progress,
    )
    findings = sorted([*invalid_rows, *validation.findings], key=lambda finding: finding.row)
    return msgspec.structs.replace(
        validation,
        tasks=len(tasks) + len(invalid_rows),
        findings=tuple(findings),
        seconds=time.perf_counter() - started,
    )


def validate_tasks(
    tasks: Sequence[Task],
    *,
    rows: Sequence[int] | None = None,
    execute: bool = True,
    level: Level = "strict",
    trusted: Sequence[str] = (),
    wall_seconds: float = 5.0,
    renderer: Renderer | None = None,
    judges: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Validation:
    """Validate `tasks`.

    Args:
        tasks: The tasks to check.
        rows: Row numbers to use in findings (default: positions in `tasks`).
        execute: Run module scopes and gold calls in the sandbox.
        level: Sandbox level.
        trusted: Packages whose importable tools run outside of the sandbox.
        wall_seconds: Wall-clock limit of one call.
        renderer: If given, the model's chat template is checked too.
        judges: Packages whose functions the tasks may name as judges.
        progress: Called as `progress(done, total)` after each executed task.

    Must not be called inside a running event loop. Raises SandboxError if `level` is not available on this machine.
    """
    started = time.perf_counter()
    notes = [Notes(row, task) for row, task in zip(rows or range(len(tasks)), tasks, strict=True)]
    _check_identities(notes)
    for note in notes:
        _check_record(note, judges, trusted)
    _check_gold_calls(notes)
    for kind, message in source_warnings(tasks):
        notes[0].warning(kind, message)
    if renderer is not None:
        _check_template(notes, renderer)
    executable = execute and any(tool.source or tool.target for task in tasks for tool in task.all_tools)
    if executable:
        factory = FunctionTools(level=level, wall_seconds=wall_seconds, trusted=trusted)
        asyncio.run(execute_tasks(notes, factory, level, wall_seconds, progress))
    return Validation(
        tasks=len(tasks),
        tools=sum(len(task.all_tools) for task in tasks),
        expected_outputs=sum(len(answers) for task in tasks for answers in (task.gold.outputs or {}).values()),
        executed=executable,
        findings=tuple(finding for note in notes for finding in note.findings),
        seconds=time.perf_counter() - started,
    )


def _check_identities(notes: Sequence[Notes]) -> None:
    ids: dict[str, int] = {}
    questions: dict[bytes, int] = {}
    for note in notes:
        if note.task.id in ids:
            note.error("duplicate-id", f"the id {note.task.id!r} is already used by row {ids[note.task.id]}")
        ids.setdefault(note.task.id, note.row)
        question = msgspec.json.encode((note.task.messages, note.task.tools, note.task.follow_ups))
        if question in questions:
            note.warning("duplicate-task", f"asks the same as row {questions[question]}, with the same tools")
        questions.setdefault(question, note.row)


def _check_gold_calls(notes: Sequence[Notes]) -> None:
    """Warn once if only some tasks have gold calls: turn credit is 0 for all calls of the others."""
    without = [note for note in notes if note.task.gold.calls is None]
    if without and len(without) < len(notes):
        without[0].warning(
            "no-gold-calls",
            f"has no gold.calls, as {len(without)} of {len(notes)} tasks: in RL the calls of their turns earn 0",
        )


def _check_record(note: Notes, judges: Sequence[str], trusted: Sequence[str]) -> None:
    task = note.task
    for tool_name, message in target_problems(task):
        note.error("target", message, tool_name)
    for tool in task.all_tools:
        if (problem := implementation_problem(tool)) is not None:
            note.error("no-implementation", problem, tool.name)
        elif (missing := target_missing(tool, trusted)) is not None:
            note.error("target", missing, tool.name)
    for name, message in record_problems(task):
        note.error("gold-against-tools", message, name)
    try:
        plays_gold(task)
        closing_call(task)
    except InputError as problem:
        note.error("gold-metadata", str(problem).removeprefix(f"task {task.id}: "))
    for tool in task.all_tools:
        for message in schema_problems(tool.schema):
            note.error("schema", f"tool {tool.name}: {message}", tool.name)
        if tool.source is not None:
            for severity, kind, message in source_problems(tool.name, tool.source, tool.schema):
                (note.error if severity == "error" else note.warning)(kind, f"tool {tool.name}: {message}", tool.name)
    sources = {tool.name: tool.source for tool in task.all_tools}
    for name, answers in (task.gold.outputs or {}).items():
        source = sources.get(name)
        for answer in answers:
            if not answer.strip():
                note.error("empty-output", f"tool {name}: an expected output is empty; every call would solve it", name)
            elif source is not None and task.gold.calls is None and not solves(source, answer):
                message = (
                    f"tool {name}: the expected output {answer!r} is nowhere in its source, so it must be computed"
                )
                note.warning("output-not-in-source", message, name)
    _check_answers(note, judges)


def _check_template(notes: Sequence[Notes], renderer: Renderer) -> None:
    """Check that every prompt can be rendered. Warnings about the template itself are reported once."""
    first: Notes | None = None
    for note in notes:
        problem = prompt_problem(renderer, note.task)
        if problem is not None:
            note.error("template-refuses", problem)
        elif first is None or (note.task.tools and not first.task.tools):
            first = note
    if first is not None:
        follow_ups = any(note.task.follow_ups for note in notes)
        for kind, message in template_findings(renderer, first.task, follow_ups=follow_ups):
            first.warning(kind, f"the chat template: {message}")


def _check_answers(note: Notes, judges: Sequence[str]) -> None:
    task = note.task
    golds = task.gold.answers or ()
    try:
        check_judge(task.judge, judges)
        judge = find_judge(task.judge)
        if task.extractor not in (None, "judge"):
            find_extractor(str(task.extractor), judges)
    except InputError as refused:
        note.error("judge", str(refused))
        return
    compares = isinstance(judge, AnswerJudge)
    missing = missing_key(task, judge.needs)
    if compares and not any(gold.strip() for gold in golds):
        note.error("no-gold", f"no gold answer for the judge {task.judge}")
        return
    if missing is not None:
        note.error("no-gold", f"the judge {task.judge} needs {missing}")
        return
    if (problem := task_problem(task, judge)) is not None:
        note.error("judge-data", problem)
        return
    if not judge.reads_answer:
        return
    for gold in golds:
        try:
            if compares:
                judgement = judge_answer(task.judge, gold, [gold])
                outcome, reason = judgement.outcome, judgement.reason
            else:
                attempt = Trajectory(
                    id="gold", task_id=task.id, stage="gold", index=0, turns=(), answer=gold, stop_reason="answered"
                )
                verdict = judge_trajectory(task, attempt)
                outcome, reason = verdict.outcome, verdict.reason
        except RewrightError as refused:
            note.error("judge", str(refused))
            return
        problem_of = judge.gold_problem if isinstance(judge, AnswerJudge) else None
        if outcome < 1:
            note.error("gold-judged-wrong", f"the gold answer {gold!r} is judged {outcome:g}: {reason}")
        elif problem_of is not None and (problem_text := problem_of(gold)) is not None:
            note.warning("gold-unreadable", f"the gold answer {gold!r} only equals itself: {problem_text}")
