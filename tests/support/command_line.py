"""The command line in processes of its own that start at once, and that die at a chosen moment of a chosen stage.

A fork server imports torch and the trainers once. What runs in its children is the real command line; the only things
added are a count of what each stage does (CPU seconds, writes of records, changes of names in the file system) and, if
asked for, the end of the process by the kernel: nothing is cleaned up, as with kill -9.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["WHOLE", "Finished", "Kill", "finished", "run", "start"]

WAIT_SECONDS = 1200

PRELOADED = (
    "rewright.cli.main",
    "rewright.pipeline.runner",
    "rewright.training.trl.rl",
    "rewright.training.trl.sft",
    "rewright.training.trl.reward_model",
    "trl.trainer.sft_trainer",
    "trl.trainer.reward_trainer",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "datasets",
    "rewright.reports.report",
)
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(PRELOADED))


@dataclass(frozen=True)
class Kill:
    """When the process dies: in `stage`, after so many CPU seconds of it, or in the middle of its so-many-eth write.

    `change`: before its so-many-eth renaming, removal or creation of a name (a folder is removed file by file), or the
    first one of a path that ends so. Those of the stage `WHOLE` are all of the command.
    """

    stage: str
    cpu_seconds: float | None = None
    write: int | None = None
    change: int | str | None = None


WHOLE = "the whole command"
CHANGES = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir")


@dataclass(frozen=True)
class Finished:
    """How a process ended. `costs`: (CPU seconds, writes) of every stage that it finished.

    `changes`: how many names were changed by each of them, and by the WHOLE command.
    """

    code: int
    output: str
    errors: str
    costs: dict[str, tuple[float, int]]
    changes: dict[str, int]


def run(arguments: list[str], folder: Path, kills: Sequence[Kill] = (), *, largest_file: int | None = None) -> Finished:
    """Run `rewright ARGUMENTS` to its end; what it prints goes to files in `folder`.

    It dies of the first of `kills` that its stage comes to. `largest_file`: the kernel writes no file beyond so many
    bytes, as if the disk were full.
    """
    return finished(start(arguments, folder, kills, largest_file=largest_file), folder)


def finished(process: Any, folder: Path) -> Finished:
    """Wait for the end of a process that `start` made."""
    process.join(WAIT_SECONDS)
    assert process.exitcode is not None, "the command does not end"
    costs = folder / "costs.jsonl"
    rows = [json.loads(line) for line in costs.read_text().splitlines()] if costs.exists() else []
    return Finished(
        process.exitcode,
        (folder / "output").read_text(),
        "" if (folder / "errors").is_fifo() else (folder / "errors").read_text(),
        {stage: (seconds, writes) for stage, seconds, writes, _ in rows},
        {stage: changes for stage, _, _, changes in rows},
    )


def start(arguments: list[str], folder: Path, kills: Sequence[Kill] = (), *, largest_file: int | None = None) -> Any:
    """Start it; returns the process (`pid`, `exitcode`). Where `folder/errors` is a FIFO, it must be read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "costs.jsonl").unlink(missing_ok=True)
    process = _context.Process(target=_child, args=(arguments, folder, kills, largest_file))
    process.start()
    return process


def _child(arguments: list[str], folder: Path, kills: Sequence[Kill], largest_file: int | None) -> None:
    for name, descriptor in (("output", 1), ("errors", 2)):
        opened = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        os.dup2(opened, descriptor)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    from rewright.cli import main as cli
    from rewright.core import progress

    progress.console.file = sys.stderr
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    count_changes = _watch(folder, kills)
    sys.argv = ["rewright", *arguments]
    try:
        cli.main()
    finally:
        _add_cost(folder, WHOLE, time.process_time(), 0, count_changes())


def _add_cost(folder: Path, *cost: Any) -> None:
    with (folder / "costs.jsonl").open("a") as file:
        file.write(json.dumps(cost) + "\n")


def _watch(folder: Path, kills: Sequence[Kill]) -> Callable[[], int]:
    """Count, and kill. Returns a function that returns how many names have been changed."""
    from rewright.core import storage
    from rewright.pipeline.runner import Pipeline

    process, writes = os.getpid(), {"count": 0, "last": -1}
    changes = {"stage": 0, "whole": 0}
    last = {"stage": None, "whole": next((kill.change for kill in kills if kill.stage == WHOLE), None)}

    def before_change(change: Any) -> Any:
        def changed(path: Any, *arguments: Any, **options: Any) -> Any:
            for part, end in last.items():
                changes[part] += 1
                wanted = str(path).endswith(end) if isinstance(end, str) else changes[part] == end
                if wanted and os.getpid() == process:  # its children change names, too
                    os.kill(process, signal.SIGKILL)
            return change(path, *arguments, **options)

        return changed

    for name in CHANGES:
        setattr(os, name, before_change(getattr(os, name)))

    def counted(data: bytes | None, write: Any) -> Any:
        writes["count"] += 1
        if writes["count"] == writes["last"]:
            if data is not None:
                os.write(write, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    def write(descriptor: int, data: bytes) -> int:
        counted(data, descriptor)
        return os.write(descriptor, data)

    def fsync(descriptor: int) -> None:
        counted(None, None)

    storage.os = types.SimpleNamespace(**{**vars(os), "write": write, "fsync": fsync})  # type: ignore[attr-defined]
    run_stage = Pipeline.run_stage

    def watched(self: Pipeline, stage: Any) -> None:
        started, writes["count"], changes["stage"] = time.process_time(), 0, 0
        kill = next((one for one in kills if one.stage == stage), None)
        if kill is not None:
            writes["last"], last["stage"] = kill.write or -1, kill.change
            signal.setitimer(signal.ITIMER_PROF, kill.cpu_seconds or 0)
        run_stage(self, stage)
        signal.setitimer(signal.ITIMER_PROF, 0)
        writes["last"], last["stage"] = -1, None
        _add_cost(folder, stage, time.process_time() - started, writes["count"], changes["stage"])

    Pipeline.run_stage = watched  # type: ignore[method-assign]
    return lambda: changes["whole"]
