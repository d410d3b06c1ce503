"""Check a verl run before it starts: `python -m rewright.integrations.verl.check OVERRIDES`.

The overrides are those of `verl.trainer.main_ppo`. verl itself finds a wrong setting of the estimator, gold calls that
cannot be read, and tools that are missing after Ray and the models have started, and reports them per rollout.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rewright.core.errors import InputError
from rewright.credit.messages import gold_of
from rewright.integrations.verl.estimator import check_algorithm, check_loop
from rewright.integrations.verl.names import ESTIMATOR, TASK_AGENT, TOOL_AGENT
from rewright.rollout.episodes import EpisodeSettings, read_settings, read_task
from rewright.rollout.toolsets import open_toolsets

__all__ = ["check_config", "check_rows", "main"]


def check_config(config: Any) -> None:
    """Check a composed configuration of verl, and its data.

    Raises InputError for a setting of `algorithm.rewright` or of an agent loop that is wrong, for a signal that the
    agent loop of a row cannot compute, and as `check_rows`.
    """
    rollout = config.actor_rollout_ref.rollout
    if config.algorithm.adv_estimator == ESTIMATOR:
        _check_credit(config.algorithm)
    if not config.trainer.use_v1:
        raise InputError("trainer.use_v1 is false: expected true, since the old trainer keeps one reward per response")
    loops = _loops(rollout.agent.get("agent_loop_config_path"))
    settings = _settings(loops)
    tools = _tool_names(rollout.multi_turn)
    for key in ("train_files", "val_files"):
        files = config.data[key]
        for path in [files] if isinstance(files, str) else list(files or ()):
            default = str(rollout.agent.default_agent_loop)
            found = check_rows(_rows(path), path, settings, tools, default=default)
            for loop in sorted(found | ({default} & {TASK_AGENT, TOOL_AGENT})):
                _check_credit(config.algorithm, loop)


def check_rows(
    rows: Iterator[Mapping[str, Any]], path: str, settings: EpisodeSettings, tools: set[str], *, default: str = ""
) -> set[str]:
    """Check the rows that Rewright's agent loops play.

    Args:
        rows: the rows of a table, as mappings.
        path: the table's file, for messages.
        settings: settings of `rewright_task_agent`.
        tools: names of the tools that verl is configured with, for `rewright_tool_agent`.
        default: the loop of rows without `agent_name`.

    Returns which of Rewright's agent loops play them.

    Raises InputError, with file and row, for a task that cannot be played, gold calls that cannot be read, and names in
    `tool_selection` that verl does not have.
    """
    toolsets = open_toolsets(settings.tools, settings.sandbox)
    loops: set[str] = set()
    try:
        for number, row in enumerate(rows):
            place, info = f"{path}: row {number}", row.get("extra_info")
            loop = row.get("agent_name") or default
            if loop in (TASK_AGENT, TOOL_AGENT):
                loops.add(loop)
            try:
                if loop == TASK_AGENT:
                    task = read_task((info or {}).get("task"), settings, "extra_info.task")
                    toolsets.open(task.all_tools)
                elif loop == TOOL_AGENT:
                    gold_of(info, "extra_info")
                    _check_selection((info or {}).get("tool_selection") or (), tools)
            except ValueError as problem:
                raise InputError(f"{place}: {problem}") from None
    finally:
        asyncio.run(toolsets.close())
    return loops


def _check_credit(algorithm: Any, loop: str | None = None) -> None:
    """Check the settings of the estimator, and for one of Rewright's agent loops those of the signal. InputError."""
    try:
        credit = check_algorithm(algorithm)
        credit.check_functions()
        if loop is not None:
            check_loop(credit, loop)
    except ValueError as problem:
        where = "" if loop is None else f" (agent loop {loop})"
        raise InputError(f"algorithm.rewright: {problem}{where}") from None


def _check_selection(names: Any, tools: set[str]) -> None:
    missing = [name for name in names if name not in tools]
    if missing:
        raise ValueError(
            f"tool_selection names {', '.join(missing)}, which verl is not configured with: expected tools of "
            f"multi_turn.function_tool_path or tool_config_path ({', '.join(sorted(tools)) or 'none'}), or agent_name: "
            f"{TASK_AGENT}"
        )


def _loops(path: str | None) -> list[Any]:
    if not path:
        return []
    from omegaconf import OmegaConf
    from verl.utils.import_utils import resolve_config_path

    try:
        return list(OmegaConf.load(resolve_config_path(path)))
    except (OSError, ValueError) as problem:
        raise InputError(f"agent_loop_config_path: {problem}") from None


def _settings(loops: list[Any]) -> EpisodeSettings:
    from omegaconf import OmegaConf

    given = next((loop.get("settings") for loop in loops if loop.get("name") == TASK_AGENT), None)
    if given is None:
        return EpisodeSettings()
    read = given if isinstance(given, str) else OmegaConf.to_container(given, resolve=True)
    return read_settings(read, f"agent loop {TASK_AGENT}: settings")


def _tool_names(multi_turn: Any) -> set[str]:
    from verl.tools.tool_registry import load_all_tools
    from verl.utils.import_utils import resolve_config_path

    paths = {
        name: resolve_config_path(path)
        for name in ("tool_config_path", "function_tool_path")
        if (path := multi_turn.get(name))
    }
    return {tool.name for tool in load_all_tools(**paths)} if paths else set()


def _rows(path: str) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from verl.utils.fs import copy_to_local

    if not path.endswith(".parquet"):  # verl reads JSON too, which has no fixed columns
        return
    try:
        with pq.ParquetFile(copy_to_local(path)) as table:
            columns = [name for name in ("agent_name", "extra_info") if name in table.schema_arrow.names]
            for batch in table.iter_batches(batch_size=256, columns=columns):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowInvalid) as problem:
        raise InputError(f"{path}: {problem}") from None


def main(arguments: list[str]) -> int:
    """Check the run with these overrides. Returns 0, or 2 after one line on standard error."""
    import hydra

    if any(argument.startswith("-") for argument in arguments):  # Hydra's flags, such as --cfg: nothing is started
        return 0
    try:
        with hydra.initialize_config_module("verl.trainer.config", version_base=None):
            check_config(hydra.compose("ppo_trainer", overrides=arguments))
    except InputError as problem:
        print(f"rewright: {problem}", file=sys.stderr)
        return 2
    except hydra.errors.HydraException as problem:
        print(f"rewright: {' '.join(str(problem).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
