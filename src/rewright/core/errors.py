"""The errors of Rewright. A person's mistake is raised; a model's or a tool's mistake is data on the trajectory.

`InputError` is what a person caused (recipe, file, flag): one line that says what, where and what was expected; the
command line prints it and exits with 2. Every other class here names the part that failed: it ends one trajectory,
is stored on it as a `Failure`, is counted in the report, and leaves the siblings running. Except `ServerError`: a
search server or a reward model that is gone is gone for all, so it stops the stage, which `--resume` goes on with.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "DeadlineError",
    "EngineError",
    "InputError",
    "JudgeError",
    "RewrightError",
    "RunLockedError",
    "SandboxError",
    "ServerError",
    "StorageError",
    "ToolError",
    "TrainingError",
    "WorkerError",
]


class RewrightError(Exception):
    """Base of everything that Rewright raises on purpose. `kind` is the word stored on a trajectory."""

    kind: ClassVar[str] = "error"


class InputError(RewrightError, ValueError):
    """A mistake in a recipe, a file or a flag. One line: what is wrong, where, and what was expected."""

    kind = "input"


class EngineError(RewrightError, RuntimeError):
    """A model call failed after its retries (provider down, refused request, deadline passed)."""

    kind = "engine"
    cause: str | None = None
    """One word for what happened, where the engine has one (`rewright.net.endpoint.Cause`)."""


class ServerError(RewrightError, RuntimeError):
    """A helper server (reward model, retriever) failed after its retries. It stops the stage."""

    kind = "server"


class ToolError(RewrightError, RuntimeError):
    """A toolset could not be opened. (A failing call is a `ToolResult` with `error`, not an exception.)"""

    kind = "tool"


class SandboxError(RewrightError, RuntimeError):
    """The sandbox could not start, or the machine does not allow the asked isolation."""

    kind = "sandbox"


class DeadlineError(RewrightError, TimeoutError):
    """A stage took longer than the recipe allows. What it had done is saved."""

    kind = "deadline"


class JudgeError(RewrightError, RuntimeError):
    """A judge failed on an answer it should have been able to read."""

    kind = "judge"


class WorkerError(RewrightError, RuntimeError):
    """A worker process (`rewright.workers.pool`) could not start, or got no processor time."""

    kind = "worker"


class TrainingError(RewrightError, RuntimeError):
    """A training stage made no step, changed no weight, or left weights that are no numbers. Nothing is saved."""

    kind = "training"


class StorageError(RewrightError, OSError):
    """Something cannot be written: no space, no permission. What was written before is whole.

    At the command line the exit code is 2 where the path is to blame (a file in the place of a folder, say, or no
    permission), and 1 for a full or failing disk.
    """

    kind = "storage"


class RunLockedError(InputError):
    """Another process is writing into this run directory."""
