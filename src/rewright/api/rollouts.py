"""`rw.rollout`: trajectories of a model with tools."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rewright.api.session import ToolLike, as_tools, session
from rewright.api.settings import LimitsLike, ModelLike, RecipeLike, SandboxLike, recipe_with
from rewright.api.tasks import TasksLike, as_task_list
from rewright.api.twins import synchronous
from rewright.core.progress import hidden_bars
from rewright.core.records import Trajectory
from rewright.pipeline.stages.data import synthesise
from rewright.sandbox.settings import SandboxSettings

__all__ = ["as_sandbox", "rollout", "rollout_sync"]


async def rollout(
    tasks: TasksLike,
    *,
    model: ModelLike | None = None,
    base_url: str | None = None,
    tools: Iterable[ToolLike] = (),
    samples: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    dialect: str | None = None,
    limits: LimitsLike | None = None,
    sandbox: SandboxLike | None = None,
    concurrency: int | None = None,
    tokenizer: Any = None,
    recipe: RecipeLike | None = None,
    on_done: Callable[[Trajectory], None] | None = None,
    progress: bool = True,
) -> list[Trajectory]:
    """Let a model solve tasks with tools, in the rollout loop that all stages use.

    Args:
        tasks: tasks, or what `rw.load_tasks` loads.
        model: a shipped model (`pico`), a folder or Hugging Face id (run in this process), the name of a served model
            (with `base_url`), a mapping with the keys of a recipe's `model` section, or an open engine; default: the
            recipe's.
        base_url: address of an OpenAI-compatible server, such as http://localhost:8000/v1.
        tools: functions and `rw.tool` objects that are added to every task. They run in this process; one replaces the
            task's tool of the same name.
        samples: number of trajectories per task; default: the recipe's, without a recipe 1.
        temperature: sampling temperature; default: the recipe's, without a recipe 1.
        top_p: nucleus sampling probability; default: the recipe's, without a recipe 1.
        seed: seed of sampling; default: the recipe's. Equal arguments give equal ids and seeds.
        dialect: how the model writes calls and answers; default: that of the engine.
        limits: limits of a trajectory, such as `{"turns": 6, "tool_seconds": 10}`.
        sandbox: isolation of tools that are source text: `strict`, `process`, `unsafe`, or a recipe's section.
        concurrency: maximum number of concurrent trajectories.
        tokenizer: the tokenizer of an engine that takes token ids and does not have it as its attribute `tokenizer`.
        recipe: a recipe (a file, its sections, or `rw.Run(…).recipe`); the arguments above take precedence.
        on_done: called with each trajectory when it ends.
        progress: show a progress bar.

    Returns:
        The trajectories in the order of the tasks, `samples` per task. A failed call of a tool is a result in it, and
        an infrastructure failure of a single trajectory is its `failure`.

    Raises:
        InputError: a mistake in the arguments.
        EngineError, SandboxError, ToolError: all trajectories failed for this reason.
        ServerError: the server behind a search tool does not answer.

    Example:
        ```python
        trajectories = await rw.rollout(
            tasks, model="Qwen/Qwen3-8B", base_url="http://localhost:8000/v1", tools=[get_weather], samples=4
        )
        ```
    """
    chosen = recipe_with(
        recipe,
        model=model,
        base_url=base_url,
        tokenizer=tokenizer,
        seed=seed,
        dialect=dialect,
        limits=limits,
        sandbox=as_sandbox(sandbox),
        synth__n=1 if samples is None and recipe is None else samples,
        synth__temperature=1.0 if temperature is None and recipe is None else temperature,
        synth__top_p=1.0 if top_p is None and recipe is None else top_p,
        synth__concurrency=concurrency,
    )
    with session(chosen, as_task_list(tasks), tools=as_tools(tools)) as opened, hidden_bars(not progress):
        await synthesise(opened, label="rollouts", on_done=on_done)
        return list(opened.run.trajectories)


def as_sandbox(sandbox: SandboxLike | None) -> Any:
    """Return the section `sandbox` of a recipe; a text is its level."""
    return (
        sandbox
        if sandbox is None or isinstance(sandbox, SandboxSettings)
        else ({"level": sandbox} if isinstance(sandbox, str) else sandbox)
    )


rollout_sync = synchronous(rollout)
