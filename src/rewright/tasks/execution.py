"""Validation by execution: tools are loaded, and gold calls run with their tasks' own tools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack

from rewright.core.errors import InputError
from rewright.core.records import ToolCall
from rewright.core.trust import target_problem
from rewright.judging.solve import solves
from rewright.sandbox import Sandbox
from rewright.sandbox.errors import error_kind
from rewright.sandbox.sandbox import Level
from rewright.tasks.findings import Notes
from rewright.tools import FunctionTools

__all__ = ["execute_tasks"]

_MAX_CONCURRENT_TASKS = 4
"""Number of tasks whose tools are executed concurrently."""


async def execute_tasks(
    notes: Sequence[Notes],
    factory: FunctionTools,
    level: Level,
    wall_seconds: float,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Run the module scope of every source and the gold calls, and add what fails to `notes`.

    `progress` is called as `progress(done, total)` after each task. Raises InputError for a trusted module that cannot
    be imported.
    """
    slots = asyncio.Semaphore(_MAX_CONCURRENT_TASKS)
    done = 0
    async with AsyncExitStack() as stack:
        box = Sandbox(level, wall_seconds=wall_seconds)
        if any(tool.source is not None for note in notes for tool in note.task.all_tools):
            await stack.enter_async_context(box)  # importable tools alone need no sandbox of this level

        async def validate_one(note: Notes) -> None:
            nonlocal done
            async with slots:
                await _probe_sources(note, box)
                await _run_gold_calls(note, factory)
            done += 1
            if progress is not None:
                progress(done, len(notes))

        try:
            await _load_targets(notes, factory)
            await asyncio.gather(*(validate_one(note) for note in notes))
        finally:
            await factory.close()


async def _load_targets(notes: Sequence[Notes], factory: FunctionTools) -> None:
    """Import every trusted target once. Raises InputError for a module that cannot be imported."""
    known: set[str] = set()
    for note in notes:
        for tool in note.task.all_tools:
            if tool.target is None or tool.source is not None or tool.target in known:
                continue
            if tool.kind != "function" or target_problem(tool.name, tool.target) is not None:
                continue
            if any(finding.kind == "target" and finding.tool == tool.name for finding in note.findings):
                continue  # it is not there, as has been found without loading it
            known.add(tool.target)
            async with factory.open([tool]) as toolset:
                result = await toolset.load(tool.name)
            if result.error is None:
                continue
            problem = " ".join(result.error.split())
            if error_kind(result) in ("import", "sandbox"):
                raise InputError(
                    f"the target {tool.target} of the tool {tool.name} is trusted, and cannot be loaded: {problem}: "
                    "expected an importable function"
                )
            note.error("target", f"tool {tool.name}: its target {tool.target} cannot be loaded: {problem}", tool.name)


def _probes(note: Notes) -> Iterator[tuple[str, str, str]]:
    """Yield (tool, probe, source): the tool's source followed by a function that checks for the tool's function.

    Sources with a known error are skipped.
    """
    broken = {finding.tool for finding in note.findings if finding.kind.startswith("source-")}
    for number, tool in enumerate(note.task.all_tools):
        if tool.source is not None and tool.name not in broken:
            probe = f"rewright_probe_{number}"
            yield tool.name, probe, f"{tool.source}\n\n\ndef {probe}():\n    return str(callable({tool.name}))\n"


async def _probe_sources(note: Notes, box: Sandbox) -> None:
    """Run the module scope of every source and check that it terminates and defines the tool's function."""
    probes = list(_probes(note))
    if not probes:
        return
    async with box.session({probe: source for _, probe, source in probes}) as session:
        for name, probe, _ in probes:
            result = await session.call(probe, {})
            if result.error is not None:
                note.error("source-fails", f"tool {name}: its module scope fails: {result.error}", name)
            elif result.content != "True":
                note.error("source-no-function", f"tool {name}: its source defines no function of that name", name)


async def _run_gold_calls(note: Notes, factory: FunctionTools) -> None:
    """Run the gold calls in order; each must succeed and together they must return the expected outputs."""
    calls = note.task.gold.calls
    if not calls or any(finding.severity == "error" for finding in note.findings):
        return
    results = []
    async with factory.open(note.task.all_tools) as toolset:
        for number, call in enumerate(calls):
            result = await toolset.call(ToolCall(call.name, call.arguments))
            results.append(result)
            if result.error is not None:
                note.error("gold-call-fails", f"gold call {number} to {call.name!r} fails: {result.error}", call.name)
    pending = {name: list(answers) for name, answers in (note.task.gold.outputs or {}).items()}
    for call, result in zip(calls, results, strict=True):
        answers = pending.get(call.name, [])
        solved = next((answer for answer in answers if result.error is None and solves(result.content, answer)), None)
        if solved is not None:
            answers.remove(solved)
    for name, answers in pending.items():
        for answer in answers:
            message = f"the expected output {answer!r} of {name!r} is in no result of a gold call"
            note.error("gold-output-missing", message, name)
