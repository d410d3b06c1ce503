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

from rewright.core.errors import InputError, StorageError
from rewright.core.records import Message, Task
from rewright.core.storage import refuse_special
from rewright.dialects import get_dialect
from rewright.exports.base import ExportSets, Written
from rewright.exports.llama_factory import OBSERVATIONS, flattened
from rewright.recipe.schema import Recipe

__all__ = ["AGENT", "export", "prompt_row", "sft_row", "write_parquet"]

AGENT: Final = "rewright_tool_agent"
"""Agent loop that rewards matched calls (`rewright.integrations.verl.agent_loop`)."""


def export(sets: ExportSets, out: Path) -> list[Written]:
    """Write the SFT set and the training and held-out tasks of the run."""
    run = sets.run
    tables: dict[str, list[Mapping[str, Any]]] = {
        "sft": [sft_row(row) for row in sets.sft],
        "rl_train": [prompt_row(run.recipe(), task, index) for index, task in enumerate(run.tasks)],
        "rl_test": [prompt_row(run.recipe(), task, index) for index, task in enumerate(run.eval_tasks)],
    }
    return [Written(write_parquet(out / f"{name}.parquet", rows), len(rows)) for name, rows in tables.items() if rows]


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


def prompt_row(recipe: Recipe, task: Task, index: int) -> dict[str, Any]:
    """Return a row of the RL table: the prompt in the run's dialect, and the gold answer and gold calls of a task."""
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
