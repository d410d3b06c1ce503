"""verl's data of an RL job: one row per task, with the whole task as JSON, and the settings of the agent loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from rewright.core.errors import InputError, StorageError
from rewright.core.records import Task
from rewright.rendering.renderer import Renderer
from rewright.rollout.episodes import EpisodeSettings, to_text
from rewright.training.backend import RLJob

__all__ = ["AGENT", "LOOP", "longest_prompt", "task_row", "write_agent_loops", "write_tasks"]

AGENT: Final = "rewright_task_agent"
"""Name of the agent loop that opens the tools of each task."""
LOOP: Final = "rewright.integrations.verl.agent_loop.TaskAgentLoop"


def task_row(task: Task, index: int, messages: Sequence[Any]) -> dict[str, Any]:
    """A row of verl's table. `messages`: the prompt in the dialect of the run.

    JSON text, since all rows of a parquet column have one type: calls would get the arguments of all others.
    """
    calls = None if task.gold.calls is None else msgspec.json.encode(task.gold.calls).decode()
    answers = list(task.gold.answers or ())
    return {
        "data_source": task.source or "rewright",
        "agent_name": AGENT,
        "prompt": [{"role": one["role"], "content": str(one.get("content") or "")} for one in messages],
        "ability": "tool use",
        "reward_model": {"style": "rule", "ground_truth": answers[0] if answers else ""},
        "extra_info": {
            "index": index,
            "task_id": task.id,
            "gold_calls": calls,
            "tool_selection": [tool.name for tool in task.tools],
            "task": msgspec.json.encode(task).decode(),
        },
    }


def write_tasks(path: Path, job: RLJob) -> None:
    """Write the tasks of a job. Raises InputError without pyarrow, StorageError if it cannot be written."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError("rl.backend is verl: it reads parquet, which needs pyarrow: pip install pyarrow") from None
    rows = [task_row(task, index, job.dialect.messages(task)) for index, task in enumerate(job.tasks)]
    temporary = path.with_name(path.name + ".tmp")
    try:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
        temporary.replace(path)
    except OSError as problem:
        raise StorageError(f"cannot write {path}: {problem.strerror or problem}") from problem


def write_agent_loops(path: Path, job: RLJob, rollouts: Path | None) -> None:
    """Write verl's list of agent loops: ours, with the settings that it needs. `rollouts`: folder for trajectories."""
    rl = job.settings
    settings = EpisodeSettings(
        dialect=job.dialect.name,
        limits=job.limits,
        tools=job.tool_settings,
        sandbox=job.sandbox,
        template_options=job.template_options or {},
        seed=job.seed,
        judges=job.judges,
        package_tasks=True,  # the tasks were read by this run, which has checked them
        judge_seconds=job.judge_seconds,
        outcome=rl.outcome,
        trajectory_reward=rl.trajectory_reward,
        call_weight=rl.call_weight,
        rollouts=None if rollouts is None else str(rollouts),
    )
    loops = [{"name": AGENT, "_target_": LOOP, "settings": to_text(settings)}]
    try:
        path.write_text(yaml.safe_dump(loops), "utf-8")
    except OSError as problem:
        raise StorageError(f"cannot write {path}: {problem.strerror or problem}") from problem


def longest_prompt(job: RLJob, tokenizer: Any) -> int:
    """The length of the longest prompt in tokens. Raises InputError for a prompt that the chat template rejects."""
    renderer = Renderer(tokenizer, job.dialect, template_options=job.template_options)
    return max(len(renderer.task_prompt_ids(task)) for task in job.tasks)
