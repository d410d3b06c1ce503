"""The child's side of a session: execute sources, targets and programs, and reply with frames.

Everything here runs in the same interpreter as untrusted code, so nothing here is a security boundary. The parent
treats every frame as untrusted (limited in size, parsed as JSON, validated) and kills the process at the deadline. This
module provides correctness: each source has its own module scope, and every failure becomes a frame with a kind and a
message.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import json
import mmap
import os
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

from . import frames

__all__ = ["Refused", "Tools", "run_program", "serve", "truncate_middle"]


MEMORY_RESERVE_BYTES = 8 * 1024 * 1024


class Refused(Exception):  # noqa: N818 - becomes an error result
    """A call that was rejected or failed: a kind of `rewright.sandbox.errors` and a message for the model."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def describe(error: BaseException) -> str:
    """Return the last line of the traceback of `error`, as Python prints it.

    Only the message, if the exception says so with the attribute `plain = True`: it is the tool's own wording.
    """
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:
        text = "(its message cannot be shown)"
    if text and getattr(error, "plain", None) is True:
        return text
    return f"{name}: {text}" if text else name


def failure(error: BaseException) -> Refused:
    """Convert an exception of a tool to `Refused`."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, MemoryError):
        return Refused("memory", "MemoryError: the memory limit is reached")
    if isinstance(error, SystemExit):
        return Refused("exited", f"the code called exit({error.code!r})")
    return Refused("exception", describe(error))


class Tools:
    """The functions of one session. A source is compiled and executed at its first call, in its own module."""

    def __init__(
        self, sources: dict[str, str], targets: dict[str, str], data: dict[str, Any], within: dict[str, list[str]]
    ) -> None:
        self.sources = sources
        self.targets = targets
        self.data = data
        self.within = within
        self.ready: dict[str, Callable[..., Any]] = {}

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call `name` with keyword arguments. Returns its value as text; raises `Refused`."""
        function = self.ready.get(name)
        if function is None:
            function = self.ready[name] = self._load(name)
        bound = (self.data[name],) if name in self.data else ()
        check_arguments(name, function, bound, arguments)
        return as_text(function(*bound, **arguments))

    def load(self, name: str) -> None:
        """Load the function `name` without calling it. Raises `Refused`, of kind `import` for its module."""
        module_name = self.targets.get(name, "").partition(":")[0]
        if module_name:
            try:
                importlib.import_module(module_name)
            except BaseException as error:  # a module can raise anything, SystemExit too
                raise Refused("import", f"module {module_name!r} cannot be imported: {describe(error)}") from error
        self.ready[name] = self._load(name)

    def _load(self, name: str) -> Callable[..., Any]:
        if name in self.targets:
            module_name, _, attribute = self.targets[name].partition(":")
            value: Any = importlib.import_module(module_name)
            for part in attribute.split("."):
                value = getattr(value, part)
            module_path = str(getattr(value, "__module__", ""))
            within = self.within.get(name)
            if within is not None and not any(
                module_path == package or module_path.startswith(f"{package}.") for package in within
            ):
                raise Refused(
                    "source", f"the target of {name} is not defined in a trusted package, but in {module_path!r}"
                )
        elif name in self.sources:
            # Registered in sys.modules because dataclasses, pickle and inspect look a class's module up there.
            module = types.ModuleType(f"tool_{len(self.ready)}")
            sys.modules[module.__name__] = module
            try:
                exec(compile(self.sources[name], f"<{name}>", "exec"), module.__dict__)
            except SyntaxError as error:
                raise Refused("source", f"the source of {name} is not valid Python: {describe(error)}") from error
            value = module.__dict__.get(name)
        else:
            raise Refused("unknown_tool", f"unknown tool '{name}'")
        if not callable(value):
            raise Refused("source", f"the source of {name} defines no function of that name")
        function: Callable[..., Any] = value
        return function


def check_arguments(name: str, function: Callable[..., Any], bound: tuple[Any, ...], arguments: dict[str, Any]) -> None:
    """Raise `Refused` if `arguments` do not match the signature. The message lists the expected parameters."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have no signature: the call itself will fail
        return
    try:
        signature.bind(*bound, **arguments)
    except TypeError as error:
        names = [
            parameter.name if parameter.default is parameter.empty else f"{parameter.name} (optional)"
            for parameter in list(signature.parameters.values())[len(bound) :]
        ]
        expected = ", ".join(names) or "no arguments"
        raise Refused("arguments", f"{name}(): {error}; expected: {expected}") from error


def as_text(value: Any) -> str:
    """Return a string unchanged; any other value as JSON, or by `str` if it is not serialisable.

    Dataclasses are objects with their fields. (The source of this function is sent to remote sandboxes.)
    """
    if isinstance(value, str):
        return str(value)
    try:
        fields = lambda one: {name: getattr(one, name) for name in one.__dataclass_fields__}  # noqa: E731
        return json.dumps(value, ensure_ascii=False, default=fields)
    except (TypeError, ValueError, RecursionError, AttributeError):
        return str(value)


def run_program(source: str, scope: dict[str, Any]) -> str | None:
    """Execute a program in `scope`. Returns the value of the last statement as text if it is an expression."""
    tree = ast.parse(source, "<program>", "exec")
    last: ast.Expression | None = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
    exec(compile(tree, "<program>", "exec"), scope)
    if last is None:
        return None
    value = eval(compile(last, "<program>", "eval"), scope)
    return None if value is None else str(value)


def serve(connection: socket.socket, output_chars: int, names: dict[str, Any]) -> None:
    """Process the frames of one session until the connection closes.

    Args:
        connection: the socket to the trainer.
        output_chars: maximum length of a result; longer ones are truncated.
        names: variables that every program has, such as preloaded modules.
    """
    connection.sendall(frames.encode({"id": 0}))
    setup, descriptors = frames.receive_with_descriptors(connection)
    if setup is None:
        return
    for descriptor in descriptors:  # the output file, which the parent can read even after a crash
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    tools = Tools(setup["sources"], setup["targets"], setup["data"], setup["within"])
    scope: dict[str, Any] | None = None
    # Local names, because a tool may overwrite module attributes.
    send, flush, truncate = connection.sendall, _flush, truncate_middle
    reserve: mmap.mmap | None = None  # address space that is released to report a MemoryError
    while (request := frames.receive(connection)) is not None:
        reply: dict[str, Any] = {"id": request["id"]}
        value: str | None = None
        with contextlib.suppress(OSError):
            reserve = reserve or mmap.mmap(-1, MEMORY_RESERVE_BYTES)
        try:
            if "source" in request:
                if scope is None or not request["keep"]:
                    scope = {"__name__": "__main__", "__builtins__": __builtins__, **names}
                value = run_program(request["source"], scope)
            elif "load" in request:
                tools.load(request["load"])
            else:
                value = tools.call(request["name"], request["arguments"])
            reply["value"], reply["length"] = truncate(value or "", output_chars), len(value or "")
        except BaseException as error:
            if reserve is not None and isinstance(error, MemoryError):
                reserve.close()
                reserve = None
            refused = failure(error)
            reply["kind"] = refused.kind
            reply["message"] = truncate(refused.message, output_chars)
        flush()
        send(frames.encode(reply))


def truncate_middle(text: str, limit: int, mark: str = "\n[... cut ...]\n") -> str:
    """Return `text`; if it is longer than `limit`, its first and last `limit` / 2 characters joined by `mark`."""
    if len(text) <= limit:
        return text
    return text[: limit - limit // 2] + mark + text[len(text) - limit // 2 :]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(BaseException):
            stream.flush()  # type: ignore[union-attr]


def exit_immediately(status: int) -> None:
    """End the process without running exit handlers that a tool has registered."""
    os._exit(status)
