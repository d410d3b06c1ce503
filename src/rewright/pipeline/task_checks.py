"""Check the tasks of a run before its first stage: their tools can be opened, and their judges have what they need."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from rewright.core.errors import InputError
from rewright.core.records import Task
from rewright.judging.base import task_problem
from rewright.judging.judges import find_judge
from rewright.pipeline.context import Context, eval_settings
from rewright.rollout.prerequisites import prerequisite_tasks
from rewright.rollout.users import check_users
from rewright.tasks.from_recipe import draws_tasks
from rewright.tasks.settings import TaskSettings
from rewright.tasks.stored import each_task
from rewright.tools.mcp.listing import KIND as MCP
from rewright.tools.mcp.listing import missing_tool
from rewright.tools.targets import target_missing

__all__ = ["check_candidates", "check_eval_tasks", "check_judged_candidates", "check_judges", "check_rl_tasks"]


def check_candidates(context: Context) -> None:
    """Raise InputError unless the tasks can be loaded and their tools opened."""
    check_tools(context, _tasks(context, context.recipe.tasks, "tasks"))


def check_judges(context: Context) -> None:
    """Raise InputError unless the tasks can be loaded and judged. One task is in memory at a time."""
    check_verdicts(each_task(context.lookup(_some(context.recipe.tasks), "tasks")))


def check_judged_candidates(context: Context) -> None:
    """Raise InputError unless the tasks can be loaded, their tools opened and their answers judged."""
    check_candidates(context)
    check_judges(context)


def check_eval_tasks(context: Context) -> None:
    """Raise InputError unless the held-out tasks can be loaded, their tools opened and their answers judged."""
    tasks = _tasks(context, eval_settings(context.recipe), "eval.tasks")
    check_tools(context, [*prerequisite_tasks(tasks), *tasks])
    check_verdicts(tasks)


def check_rl_tasks(context: Context) -> None:
    """Raise InputError unless the RL tasks can be loaded, their tools opened and their answers compared."""
    settings = context.recipe.rl
    own = settings.tasks
    tasks = _tasks(context, context.recipe.tasks, "tasks") if own is None else _tasks(context, own, "rl.tasks")
    check_tools(context, tasks)
    if settings.backend == "verl":
        for task in tasks:
            if task.user is not None and task.user.kind == "model":
                raise InputError(
                    f"task {task.id}: rl.backend is verl, which has no model for simulated users: expected trl"
                )
    if settings.outcome == "judge":
        check_verdicts(tasks)
    else:
        context.check_rewards()


def check_tools(context: Context, tasks: list[Task]) -> None:
    """Raise InputError for a tool that no executor of the recipe can run, or a user that nobody plays.

    Starts no process but those of MCP servers.
    """
    check_users(tasks, context.recipe.user)
    tools = context.open_tools()
    sandbox = context.recipe.sandbox
    try:
        for task in tasks:
            try:
                tools.open(task.executed_tools)
                for tool in task.executed_tools:
                    # Code at sandbox.url runs on another machine, which may have other modules.
                    missing = None if sandbox.url is not None else target_missing(tool, sandbox.trusted)
                    if tool.kind == MCP:
                        missing = missing_tool(tool, context.listed_mcp_tools())
                    if missing is not None:
                        raise InputError(missing)
            except InputError as problem:
                raise InputError(f"task {task.id}: {problem}") from None
    finally:
        asyncio.run(tools.close())


def check_verdicts(tasks: Iterable[Task]) -> None:
    """Raise InputError for a task that lacks what its judge needs, or has it malformed."""
    for task in tasks:
        problem = task_problem(task, find_judge(task.judge))
        if problem is not None:
            raise InputError(f"task {task.id}: {problem}")


def _tasks(context: Context, settings: TaskSettings, where: str) -> list[Task]:
    return context.load(_some(settings), where)


def _some(settings: TaskSettings) -> TaskSettings:
    """The tasks of a section. Of a world, which makes as many as wanted of one kind, the first."""
    return msgspec.structs.replace(settings, count=1, limit=None) if draws_tasks(settings) else settings
