"""Tools that are functions of the program: they run in this process, because the user has given the function itself.

A coroutine function runs in the event loop, any other function in a thread of its own. There is no sandbox: a function
that exceeds its deadline is abandoned, not stopped.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar, overload

import msgspec

from rewright.core.errors import InputError
from rewright.core.records import ToolCall, ToolResult, ToolSpec
from rewright.core.settings import MAX_NUMBER
from rewright.sandbox.errors import ErrorKind, error_result, refused_call
from rewright.sandbox.worker.harness import Refused, as_text, check_arguments, failure
from rewright.tools.signatures import read_signature

__all__ = ["OWN_KIND", "OwnTools", "Tool", "tool"]

P = ParamSpec("P")
R = TypeVar("R")

OWN_KIND: Final = "own"
"""The `kind` of the specification of such a tool in a task."""
DEFAULT_SECONDS: Final = 5.0


class Tool(Generic[P, R]):
    """A Python function as a tool. It can still be called as the function that it was made of.

    Args:
        function: the function; it may be a coroutine function.
        name: name that the model calls; None: the function's.
        description: what the tool does; None: the function's docstring up to its first section.
        schema: an OpenAI function schema; None: made from signature, type hints and docstring.
        timeout: time limit of one call, in seconds; None: that of the rollout (`limits.tool_seconds`).

    Raises InputError as `rewright.tools.signatures.read_signature` does.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        schema: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        if not callable(function):
            raise InputError(f"tool: got a {type(function).__name__}, expected a function")
        self.function = function
        self.timeout = timeout
        self._arguments: type[msgspec.Struct] | None = None
        self._positional: tuple[str, ...] = ()
        if schema is None:
            self.schema, self._arguments, self._positional = read_signature(function, name, description)
        else:
            self.schema = _given_schema(schema, name, description)
        self.name = str(self.schema["function"]["name"])
        if timeout is not None and not 0 < timeout <= MAX_NUMBER:
            raise InputError(f"tool {self.name}: timeout is {timeout}, expected a positive number of seconds")
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Tool({self.name!r})"

    @property
    def spec(self) -> ToolSpec:
        """The tool as it stands in a task. The function itself is not stored."""
        return ToolSpec(schema=self.schema, kind=OWN_KIND)

    async def run(self, arguments: dict[str, Any], *, seconds: float = DEFAULT_SECONDS) -> ToolResult:
        """Run one call of a model. Every failure is a result with an error; the function's value becomes text.

        `seconds` is the time limit if the tool has none of its own.
        """
        limit = seconds if self.timeout is None else self.timeout
        started = time.perf_counter()
        work = asyncio.ensure_future(self._outcome(arguments))
        try:
            await asyncio.wait({work}, timeout=limit)
        finally:
            late = not work.done()
            work.cancel()
        spent = time.perf_counter() - started
        if late:
            return error_result("timeout", f"no result after {limit:g} s", seconds=spent)
        result = work.result()
        return msgspec.structs.replace(result, seconds=spent)

    async def _outcome(self, arguments: dict[str, Any]) -> ToolResult:
        try:
            value = await self._value(arguments)
            return ToolResult(as_text(value))
        except (Exception, SystemExit, asyncio.CancelledError) as problem:
            if isinstance(problem, asyncio.CancelledError) and _is_cancelled():
                raise
            refused = failure(problem)
            kind: ErrorKind = refused.kind  # type: ignore[assignment]
            return error_result(kind, refused.message)

    async def _value(self, arguments: dict[str, Any]) -> Any:
        positional, keywords = self._bound(arguments)
        call = functools.partial(self.function, *positional, **keywords)
        if _is_coroutine_function(self.function):
            value: Any = call()
        else:
            value = await _in_thread(call)
        return await value if inspect.isawaitable(value) else value

    def _bound(self, arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and keyword arguments. Raises `Refused` for arguments that the function does not take."""
        if self._arguments is None:
            check_arguments(self.name, self.function, (), arguments)
            return [], arguments
        try:
            struct = _converted(arguments, self._arguments)
        except msgspec.ValidationError as problem:
            reason, _, path = str(problem).partition(" - at `$")
            reason = reason.replace("Object missing required field", "missing argument")
            reason = reason.replace("Object contains unknown field", "unknown argument")
            at = f"argument {path.strip('.`')}: " if path.strip("`") else ""
            raise Refused("arguments", f"{self.name}(): {at}{reason}; expected: {self._expected()}") from None
        given = {
            field: value for field in struct.__struct_fields__ if (value := getattr(struct, field)) is not msgspec.UNSET
        }
        positional = []
        for name in self._positional:
            if name not in given:
                break
            positional.append(given.pop(name))
        return positional, given

    def _expected(self) -> str:
        parameters = self.schema["function"]["parameters"]
        required = parameters.get("required", ())
        names = [name if name in required else f"{name} (optional)" for name in parameters["properties"]]
        return ", ".join(names) or "no arguments"


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    schema: dict[str, Any] | None = None,
    timeout: float | None = None,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a Python function, as a decorator or a call.

    The schema that the model reads comes from the signature, the type hints and the docstring (Google, numpy or Sphinx
    style: the text before the first section describes the tool, the entries of `Args:` the parameters). The function
    runs in this process, in a thread of its own or, if it is a coroutine function, in the event loop. What it returns
    is what the model reads: text as it is, anything else as JSON. An exception is an error that the model reads, too.

    Args:
        function: the function.
        **options: `name`, `description` and `schema` replace what the function says; `timeout` is the time limit of one
            call in seconds (default: `limits.tool_seconds` of the rollout).

    Returns:
        The `Tool`, or a decorator if no function is given. A tool can be called like the function.

    Raises:
        InputError: a parameter has no type hint or a type that JSON cannot hold; `*args` or `**kwargs`.

    Example:
        ```python
        @rw.tool
        def get_weather(city: str, unit: Literal["C", "F"] = "C") -> str:
            \"""The weather of today.

            Args:
                city: name of the city
                unit: unit of the temperature
            \"""
            return f"21 {unit} in {city}"
        ```
    """
    unknown = options.keys() - {"name", "description", "schema", "timeout"}
    if unknown:
        raise TypeError(f"tool() got an unexpected keyword argument {min(unknown)!r}")
    if function is None:
        return lambda decorated: Tool(decorated, **options)
    return Tool(function, **options)


class OwnTools:
    """A `ToolsetFactory` of `Tool` objects, found by the names of the specifications. Nothing is kept between calls."""

    def __init__(self, tools: Iterable[Tool[..., Any]], *, wall_seconds: float = DEFAULT_SECONDS) -> None:
        self._tools = {one.name: one for one in tools}
        self._seconds = wall_seconds

    def open(self, tools: Sequence[ToolSpec]) -> _OwnToolset:
        """Create a toolset for one trajectory. Raises InputError for a tool whose function was not given."""
        for spec in tools:
            if spec.name not in self._tools:
                raise InputError(
                    f"tool {spec.name}: its function is not stored with the task: expected it among the tools given"
                )
        return _OwnToolset({spec.name: self._tools[spec.name] for spec in tools}, self._seconds)

    async def close(self) -> None:
        """Nothing is open."""


class _OwnToolset:
    """The tools of one trajectory. Calls run one at a time, in order."""

    def __init__(self, tools: dict[str, Tool[..., Any]], seconds: float) -> None:
        self._tools, self._seconds = tools, seconds
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def call(self, call: ToolCall, *, wall_seconds: float | None = None) -> ToolResult:
        """Run one call. Malformed calls, unknown tools and wrong arguments give a result with an error."""
        refused = refused_call(call, self._tools)
        if refused is not None:
            return refused
        found = self._tools[call.name]
        if not isinstance(call.arguments, dict):
            return error_result("arguments", f"{call.name}(): the arguments must be a JSON object")
        async with self._turn:
            return await found.run(call.arguments, seconds=self._seconds if wall_seconds is None else wall_seconds)


def _given_schema(schema: Any, name: str | None, description: str | None) -> dict[str, Any]:
    function = schema.get("function", schema) if isinstance(schema, dict) else None
    if not isinstance(function, dict) or not (name or function.get("name")):
        raise InputError("tool: schema has no function.name, expected an OpenAI function schema")
    given = {"name": name, "description": description}
    return {"type": "function", "function": {**function, **{key: value for key, value in given.items() if value}}}


def _converted(arguments: dict[str, Any], kind: type[msgspec.Struct]) -> Any:
    """Convert the arguments of a call. JSON does not tell 3 from 3.0, so a whole number is taken for an integer."""
    try:
        return msgspec.convert(arguments, kind)
    except msgspec.ValidationError:
        return msgspec.convert(_with_integers(arguments), kind)


def _with_integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_integers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_coroutine_function(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _is_cancelled() -> bool:
    """Return True if this task itself was cancelled, and not something that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _in_thread(call: Callable[[], Any]) -> Awaitable[Any]:
    """Run a call in a new daemon thread, which does not keep the program alive if it never ends.

    (The threads of `asyncio.to_thread` are joined when the program ends, and a few hanging calls occupy them all.)
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def finish(value: Any, problem: BaseException | None) -> None:
        if future.done():  # abandoned
            return
        if problem is None:
            future.set_result(value)
        else:
            future.set_exception(problem if isinstance(problem, Exception) else _Left(problem))

    def work() -> None:
        value, problem = None, None
        try:
            value = context.run(call)
        except BaseException as raised:
            problem = raised
        try:
            loop.call_soon_threadsafe(finish, value, problem)
        except RuntimeError:  # the loop was closed meanwhile
            return

    threading.Thread(target=work, name="rewright-tool", daemon=True).start()
    return future


class _Left(Refused):
    """What is not an `Exception` (SystemExit, KeyboardInterrupt of the tool) and would end the event loop."""

    def __init__(self, problem: BaseException) -> None:
        refused = failure(problem)
        super().__init__(refused.kind, refused.message)
