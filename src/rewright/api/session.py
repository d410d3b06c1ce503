"""The stages on tasks and trajectories in memory, in a run directory that lasts as long as the call.

What the functions of the API do is what the stages of a run do, by the same code. Files are written to a temporary
folder and read back, so that results are those of a run to the last bit.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from rewright.core.errors import InputError
from rewright.core.records import Task, ToolSpec, Trajectory
from rewright.core.registry import names_in_order
from rewright.dialects import Dialect, get_dialect
from rewright.pipeline.context import Context
from rewright.pipeline.run_directory import Run
from rewright.recipe.schema import Recipe
from rewright.rendering.renderer import Renderer
from rewright.tools import ToolsetFactory
from rewright.tools.mcp.given import GivenServer, ask_server, is_server
from rewright.tools.mcp.listing import KIND as MCP
from rewright.tools.mcp.toolset import MCPTools
from rewright.tools.own import OWN_KIND, OwnTools, Tool

__all__ = ["Session", "ToolLike", "as_tools", "checked", "dialect_of", "session"]

ToolLike = Any
"""A function, what `rw.tool` made of it, the specification of a tool as it stands in a task file, or an MCP server
object (`MCPServer`, `FastMCP`)."""

T = TypeVar("T")
SAMPLE: Final = 64
"""Number of trajectories from whose texts the dialect is found."""


class Session(Context):
    """A context with tasks in memory, and with tools that are functions of the program."""

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        tasks: Iterable[Task] = (),
        *,
        tools: Sequence[Tool[..., Any] | ToolSpec | GivenServer] = (),
        renders: bool = True,
    ) -> None:
        super().__init__(Run(folder), recipe)
        self._functions = [one for one in tools if isinstance(one, Tool)]
        self._renders = renders
        self._servers = [one for one in tools if isinstance(one, GivenServer)]
        specs = [spec for one in tools for spec in _specs(one)]
        self._tasks["tasks"] = self.prepare(_with_tools(task, specs) for task in tasks)
        self.run.tasks.rewrite(self._tasks["tasks"])

    def other_executors(self) -> dict[str, ToolsetFactory]:
        """The executors of the program's own functions and MCP servers."""
        seconds = self.recipe.limits.tool_seconds
        found: dict[str, ToolsetFactory] = {OWN_KIND: OwnTools(self._functions, wall_seconds=seconds)}
        if self._servers:
            settings = {**self.recipe.tools.mcp, **{one.name: one.settings for one in self._servers}}
            given = {one.name: one.server for one in self._servers}
            found[MCP] = MCPTools(settings, wall_seconds=seconds, given=given)
        return found

    def policy_renderer(self) -> Renderer | None:
        """The policy's renderer; None if no model was given."""
        return super().policy_renderer() if self._renders else None


@contextmanager
def session(recipe: Recipe, tasks: Iterable[Task] = (), **options: Any) -> Iterator[Session]:
    """Open a session in a temporary folder, which is removed at the end. Options are those of `Session`."""
    with tempfile.TemporaryDirectory(prefix="rewright-") as folder:
        opened = Session(Path(folder), recipe, tasks, **options)
        try:
            yield opened
        finally:
            opened.run.close()


def as_tools(tools: Iterable[ToolLike]) -> list[Tool[..., Any] | ToolSpec | GivenServer]:
    """Convert functions to tools, and ask MCP servers for theirs. Raises InputError for two tools of one name."""
    if callable(tools):
        raise InputError("tools is a function: expected a list of functions")
    found: list[Tool[..., Any] | ToolSpec | GivenServer] = []
    for one in tools:
        if is_server(one):
            found.append(ask_server(one, [given.name for given in found if isinstance(given, GivenServer)]))
        else:
            found.append(one if isinstance(one, Tool | ToolSpec) else Tool(one))
    names = Counter(spec.name for one in found for spec in _specs(one))
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise InputError(f"tools: {twice[0]!r} is given twice: expected names of their own, as rw.tool(f, name=…)")
    return found


def _specs(tool: Tool[..., Any] | ToolSpec | GivenServer) -> Sequence[ToolSpec]:
    if isinstance(tool, GivenServer):
        return tool.specs
    return [tool.spec if isinstance(tool, Tool) else tool]


def _with_tools(task: Task, specs: Sequence[ToolSpec]) -> Task:
    """Add tools to a task. A tool of the program replaces the task's tool of the same name, at its place."""
    given = {spec.name: spec for spec in specs}
    if not given:
        return task
    placed = {tool.name for tool in task.all_tools}
    tools = [given.get(tool.name, tool) for tool in task.tools]
    follow_ups = tuple(
        msgspec.structs.replace(part, tools=tuple(given.get(tool.name, tool) for tool in part.tools))
        for part in task.follow_ups
    )
    tools += [spec for spec in specs if spec.name not in placed]
    return msgspec.structs.replace(task, tools=tuple(tools), follow_ups=follow_ups)


def checked(trajectories: Iterable[Trajectory], tasks: Iterable[Task] | None = None) -> list[Trajectory]:
    """Return the trajectories as a list. Raises InputError for an id that is given twice, and for an unknown task."""
    if isinstance(trajectories, Trajectory):
        raise InputError("trajectories is a Trajectory: expected a list of trajectories")
    found = list(trajectories)
    for one in found:
        if not isinstance(one, Trajectory):
            raise InputError(f"trajectories: got a {type(one).__name__}, expected trajectories, as rw.rollout returns")
    twice = [name for name, count in Counter(one.id for one in found).items() if count > 1]
    if twice:
        raise InputError(f"trajectories: the id {twice[0]!r} is given twice: expected every trajectory once")
    if tasks is not None:
        known = {task.id for task in tasks}
        stray = next((one for one in found if one.task_id not in known), None)
        if stray is not None:
            raise InputError(f"trajectory {stray.id}: its task {stray.task_id!r} is not among the {len(known)} tasks")
    return found


def dialect_of(trajectories: Sequence[Trajectory], given: str | None = None) -> str:
    """Return the dialect that reads the stored calls and answers out of the texts of the trajectories.

    `given` is returned unchanged. Of several dialects that do, it is the default of the kind of engine. Raises
    InputError if no registered dialect does.
    """
    if given is not None:
        return given
    telling = [one for one in trajectories if one.answer is not None or one.calls][:SAMPLE]
    dialects = {name: get_dialect(name) for name in names_in_order("dialect")}
    counts = {name: sum(_reads(dialect, one) for one in telling) for name, dialect in dialects.items()}
    served = not any(one.prompt_ids is not None for one in telling)
    usual = "chat" if served and "chat" in dialects else Recipe().dialect
    best = max(counts, key=lambda name: (counts[name], name == usual))
    if telling and not counts[best]:
        raise InputError(
            f"dialect: none of {', '.join(dialects)} reads the calls and answers of the trajectories in their texts: "
            "expected dialect="
        )
    return best


def _reads(dialect: Dialect, trajectory: Trajectory) -> bool:
    """Return True if the dialect finds the stored calls, and the stored answer in the last turn."""
    answer = None
    for turn in trajectory.turns:
        parsed = dialect.parse(turn.opening + turn.text)
        if [(call.name, call.arguments) for call in parsed.calls] != [
            (call.name, call.arguments) for call in turn.calls
        ]:
            return False
        answer = parsed.answer
    return trajectory.answer is None or answer == trajectory.answer
