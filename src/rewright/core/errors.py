"""The exceptions of Rewright. User errors are raised; errors of a model or a tool are data on the trajectory.

`InputError` is a user error (recipe, file, flag). Its message is one line: what is wrong, where, and what was
expected. The command line prints it and exits with code 2.

The other classes are infrastructure failures and name the component that failed. Such a failure ends one trajectory,
is stored on it as a `Failure` and is counted in the report; the other trajectories continue. `ServerError` is the
exception: a search server or a reward model is shared by all trajectories, so the stage stops. `--resume` continues it.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "DeadlineError",
    "EngineError",
    "InputError",
    "JudgeError",
    "MissingDataError",
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
    """Base class of all exceptions of Rewright. `kind` is the word that is stored on a trajectory."""

    kind: ClassVar[str] = "error"


class InputError(RewrightError, ValueError):
    """An error in a recipe, a file or a flag. One line: what is wrong, where, and what was expected."""

    kind = "input"


class MissingDataError(InputError):
    """The tasks cannot be read because their file, their set on the hub or their package is not here."""


class EngineError(RewrightError, RuntimeError):
    """A model call failed after its retries (provider down, refused request, deadline passed)."""

    kind = "engine"
    cause: str | None = None
    """The cause in one word, if the engine gives one (`rewright.net.endpoint.Cause`)."""


class ServerError(RewrightError, RuntimeError):
    """A request to a shared server (reward model, retriever) failed after its retries. Stops the stage."""

    kind = "server"


class ToolError(RewrightError, RuntimeError):
    """A toolset could not be opened. (A failed call is a `ToolResult` with `error`, not an exception.)"""

    kind = "tool"


class SandboxError(RewrightError, RuntimeError):
    """The sandbox could not start, or the machine does not support the requested isolation level."""

    kind = "sandbox"


class DeadlineError(RewrightError, TimeoutError):
    """A stage exceeded the time limit of the recipe. Its finished work is saved."""

    kind = "deadline"


class JudgeError(RewrightError, RuntimeError):
    """A judge failed on an answer."""

    kind = "judge"


class WorkerError(RewrightError, RuntimeError):
    """A worker process (`rewright.workers.pool`) could not start, or got no CPU time."""

    kind = "worker"


class TrainingError(RewrightError, RuntimeError):
    """A training stage made no step, changed no weight, or produced NaN or infinite weights. Nothing is saved."""

    kind = "training"


class StorageError(RewrightError, OSError):
    """A file cannot be written (disk full, no permission). Files that were written before stay valid.

    The command line exits with code 2 if the path is the cause (a file where a folder is expected, or no permission),
    and with code 1 for a full or failing disk.
    """

    kind = "storage"


class RunLockedError(InputError):
    """Another process holds the lock of this run directory."""
