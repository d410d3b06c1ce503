"""Export to verl: parquet tables for multi-turn SFT and for RL (0.9.1, `utils/dataset/`). Requires pyarrow.

A parquet column has one type. A list of different schemas or arguments would be read back with the fields of all of
them, filled with nulls that the chat template writes into the prompt. Therefore tools and gold calls are JSON text
(`rewright.integrations.verl.sft` decodes the tools), and an assistant's calls are part of its text in the run's
dialect, exactly as the model writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from rewright.core.errors import InputError, StorageError
from rewright.core.records import Message, Task
from rewright.core.storage import encode_line, refuse_special, write_atomically
from rewright.dialects import get_dialect
from rewright.exports.base import ExportSets, Written
from rewright.exports.llama_factory import OBSERVATIONS, flattened
from rewright.recipe.schema import Recipe
from rewright.rollout.episodes import EpisodeSettings, to_text
from rewright.tasks.settings import task_sources

__all__ = [
    "AGENT",
    "AGENT_LOOP",
    "episode_settings",
    "export",
    "exported_settings",
    "prompt_row",
    "sft_row",
    "write_agent_loop",
    "write_parquet",
]

AGENT: Final = "rewright_task_agent"
"""Agent loop that plays a row's own task (`rewright.integrations.verl.agent_loop`)."""
AGENT_LOOP: Final = "rewright.integrations.verl.agent_loop.TaskAgentLoop"


def export(sets: ExportSets, out: Path) -> list[Written]:
    """Write the SFT set, the training and held-out tasks of the run, and the settings of the agent loop."""
    run = sets.run
    recipe = run.recipe()
    tables: dict[str, list[Mapping[str, Any]]] = {
        "sft": [sft_row(row) for row in sets.sft],
        "rl_train": [prompt_row(recipe, task, index) for index, task in enumerate(run.tasks)],
        "rl_test": [prompt_row(recipe, task, index, stage="eval") for index, task in enumerate(run.eval_tasks)],
    }
    written = [
        Written(write_parquet(out / f"{name}.parquet", rows), len(rows)) for name, rows in tables.items() if rows
    ]
    if tables["rl_train"] or tables["rl_test"]:
        written.append(Written(write_agent_loop(out / "agent_loop.yaml", exported_settings(recipe)), 1))
    return written


def episode_settings(recipe: Recipe) -> EpisodeSettings:
    """Return the settings with which verl's agent loop plays the tasks of a recipe as its own RL does.

    The settings of turn rewards and advantages (`rl.credit`) are not among them: verl reads `algorithm.rewright`.
    """
    sources = [source for tasks in (recipe.tasks, recipe.rl.tasks) if tasks for _, source in task_sources(tasks, "")]
    return EpisodeSettings(
        dialect=recipe.dialect,
        limits=recipe.limits,
        tools=recipe.tools,
        sandbox=recipe.sandbox,
        template_options=recipe.model.template_options,
        seed=recipe.seed,
        judges=recipe.judges,
        package_tasks=any(source.format == "verifiers" for source in sources),
        judge_seconds=recipe.judge_seconds,
        outcome=recipe.rl.outcome,
        trajectory_reward=recipe.rl.trajectory_reward,
        call_weight=recipe.rl.call_weight,
    )


def exported_settings(recipe: Recipe) -> EpisodeSettings:
    """Return `episode_settings` without the code that the recipe allows to run: a stored run is not trusted."""
    settings = episode_settings(recipe)
    level = "strict" if recipe.sandbox.level == "unsafe" else recipe.sandbox.level
    sandbox = msgspec.structs.replace(recipe.sandbox, trusted=(), level=level)
    return msgspec.structs.replace(settings, judges=(), package_tasks=False, sandbox=sandbox)


def write_agent_loop(path: Path, settings: EpisodeSettings) -> Path:
    """Write the file of `actor_rollout_ref.rollout.agent.agent_loop_config_path`. Raises StorageError."""
    entry = {"name": AGENT, "_target_": AGENT_LOOP, "settings": to_text(settings)}
    write_atomically(path, [yaml.safe_dump([entry], sort_keys=False, width=2**20).encode()])
    return path


def sft_row(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the SFT table: `messages` with role and content, `tools` as JSON text."""
    messages: list[dict[str, str]] = []
    for message in given["messages"]:
        if message["role"] == "tool" and messages and messages[-1]["role"] == "tool":
            # verl renders every message separately, which breaks templates that merge adjacent results.
            messages[-1]["content"] += OBSERVATIONS + _text(message)
        else:
            messages.append({"role": message["role"], "content": _text(message)})
    return {"messages": messages, "tools": json.dumps(given["tools"], ensure_ascii=False)}


def prompt_row(recipe: Recipe, task: Task, index: int, *, stage: str = "rl") -> dict[str, Any]:
    """Return a row of the RL table: the prompt in the run's dialect, the gold answer and gold calls, and the task.

    `stage`: the stage of the trajectories, with which their ids begin.
    """
    dialect = get_dialect(recipe.dialect)
    answers = list(task.gold.answers or ())
    calls = [{"name": call.name, "arguments": call.arguments} for call in task.gold.calls or ()]
    return {
        "data_source": task.source or "rewright",
        "agent_name": AGENT,
        "prompt": [{"role": message["role"], "content": _text(message)} for message in dialect.messages(task)],
        "ability": "tool use",
        "reward_model": {"style": "rule", "ground_truth": answers[0] if answers else ""},
        "extra_info": {
            "index": index,
            "stage": stage,
            "task": encode_line(task).decode().rstrip("\n"),
            "task_id": task.id,
            "split": task.split,
            "judge": task.judge,
            "answers": answers,
            "gold_calls": msgspec.json.encode(calls).decode() if task.gold.calls is not None else None,
            "tool_selection": [tool.name for tool in task.tools],
            "tools": json.dumps(task.schemas, ensure_ascii=False),
        },
    }


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write a table atomically and return its path. Raises InputError without pyarrow, StorageError on failure."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError('verl reads parquet, which needs pyarrow: pip install "rewright[bench]"') from None
    refuse_special(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        pq.write_table(pa.Table.from_pylist([_clean(row) for row in rows]), temporary)
        temporary.replace(path)
    except OSError as problem:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {problem.strerror or problem}") from problem
    return path


def _text(message: Message) -> str:
    return flattened([message]) if message.get("tool_calls") else str(message.get("content") or "")


def _clean(value: Any) -> Any:
    """Replace lone surrogates, which models may generate and Arrow rejects."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {key: _clean(part) for key, part in value.items()}
    return [_clean(part) for part in value] if isinstance(value, list) else value
