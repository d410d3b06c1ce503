"""The kinds of error that a tool result can have.

`ToolResult.error` is `"kind: message"`; `error_kind` reads the kind back, so that reports can count failures.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal, get_args

from rewright.core.records import ToolCall, ToolResult

__all__ = ["ERROR_KINDS", "ErrorKind", "ends_worker", "error_kind", "error_result", "refused_call"]

ErrorKind = Literal[
    "arguments",  # the arguments do not match the function's signature
    "cpu",  # the limit on CPU seconds
    "crashed",  # the process died of a signal (segmentation fault, abort)
    "exception",  # the tool raised
    "exited",  # the code ended its own process
    "import",  # the module of a target cannot be imported (when it is loaded before any call)
    "malformed",  # the call itself could not be parsed
    "memory",  # the memory limit
    "not_recorded",  # a tool that cannot be run, and a log has no result of this call
    "output",  # the result is longer than allowed
    "protocol",  # the worker answered with something that is not a frame: its code modified the connection
    "sandbox",  # no worker could be started
    "source",  # the tool's source is not valid Python, or does not define a function with its name
    "timeout",  # the wall-clock limit
    "unknown_tool",  # no tool of that name
]

ERROR_KINDS: tuple[str, ...] = get_args(ErrorKind)
_NOT_MADE: Final = ("malformed", "not_recorded", "unknown_tool")
_KEEPS_WORKER: Final = (None, "arguments", "exception", "output", "other")


def error_result(kind: ErrorKind, message: str, *, content: str | None = None, seconds: float = 0.0) -> ToolResult:
    """Create a result with an error. The model is shown `content`; by default "Error: " and the message."""
    return ToolResult(
        content=f"Error: {message}" if content is None else content, error=f"{kind}: {message}", seconds=seconds
    )


def error_kind(result: ToolResult) -> str | None:
    """Return the kind of a result's error; None on success, `"other"` for an error of another component."""
    if result.error is None:
        return None
    kind = result.error.partition(":")[0]
    return kind if kind in ERROR_KINDS else "other"


def ends_worker(result: ToolResult) -> bool:
    """Return True for a call that ended its worker, as one that exceeds a limit: the state of the tools is lost."""
    return error_kind(result) not in (*_NOT_MADE, *_KEEPS_WORKER)


def refused_call(call: ToolCall, names: Collection[str]) -> ToolResult | None:
    """Return the result of a call that is malformed or to a tool that is not in `names`; None if it can be made."""
    if call.error is not None:
        return error_result("malformed", call.error)
    if call.name not in names:
        return error_result("unknown_tool", f"unknown tool '{call.name}'; available: {', '.join(names) or 'none'}")
    return None
