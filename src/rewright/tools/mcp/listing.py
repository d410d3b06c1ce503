"""The tools of MCP servers as tools of a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from rewright.core.errors import InputError, ToolError
from rewright.core.records import ToolSpec
from rewright.core.tool_names import is_valid_name, valid_name
from rewright.tools.mcp.background import wait_in_background
from rewright.tools.mcp.session import Session, Source, check_package
from rewright.tools.mcp.settings import MCPServerSettings

__all__ = ["KIND", "ListedTool", "for_task", "list_tools", "missing_tool", "offered_tools", "place_of", "task_of"]

KIND: Final = "mcp"


class ListedTool(msgspec.Struct, frozen=True):
    """A tool that a server has listed."""

    server: str
    """Name of the server in `tools.mcp`."""
    name: str
    """The name that the server knows."""
    shown: str
    """The name that the model calls."""
    description: str
    parameters: dict[str, Any]
    """JSON Schema of the arguments."""

    def spec(self) -> ToolSpec:
        """The tool as it stands in a task; its `data` say which server executes it."""
        function = {"name": self.shown, "description": self.description, "parameters": self.parameters}
        data = {"server": self.server, "tool": self.name}
        return ToolSpec(schema={"type": "function", "function": function}, kind=KIND, data=data)


def list_tools(
    servers: Mapping[str, MCPServerSettings], given: Mapping[str, Any] | None = None
) -> dict[str, list[ListedTool]]:
    """Start or reach each server, and return its tools by the server's name. Blocks; the sessions are closed.

    `given`: server objects of a program, by name.

    Names that OpenAI-style servers refuse are changed, and those of one server are unique. Raises InputError, in one
    line, for a server that cannot be reached, for a command that cannot be run without a task, for a name in `tools`
    that the server lacks, and for two tools of one name among those that are added to every task.
    """
    listed: dict[str, list[ListedTool]] = {}
    for name, settings in servers.items():
        try:
            source = Source(name, settings.for_task(""), (given or {}).get(name))
        except ValueError as problem:
            raise InputError(f"tools.mcp.{name}: {problem}") from None
        check_package(source.key)
        try:
            rows = wait_in_background(_rows(source))
        except ToolError as problem:
            raise InputError(f"{problem}: expected an MCP server that lists its tools") from None
        listed[name] = _listed(source, rows)
        known = [tool.name for tool in listed[name]]
        unknown = [one for one in settings.tools or () if one not in known]
        if unknown:
            raise InputError(
                f"{source.key}.tools: the server has no tool {unknown[0]!r}: expected one of {_names(known)}"
            )
    _check_names(servers, listed)
    return listed


def offered_tools(
    servers: Mapping[str, MCPServerSettings], listed: Mapping[str, Sequence[ListedTool]]
) -> list[ToolSpec]:
    """The tools that are added to every task: those in `tools` of each server, else all."""
    return [tool.spec() for tool in _offered(servers, listed)]


def _offered(
    servers: Mapping[str, MCPServerSettings], listed: Mapping[str, Sequence[ListedTool]]
) -> Iterator[ListedTool]:
    for name, settings in servers.items():
        yield from (tool for tool in listed.get(name, ()) if _is_offered(tool.name, settings))


def _is_offered(name: str, settings: MCPServerSettings) -> bool:
    return settings.tools is None or name in settings.tools


def for_task(tool: ToolSpec, task: str, servers: Mapping[str, MCPServerSettings]) -> ToolSpec:
    """The tool as it stands in the task of the id `task`, which a server with a command or address per task needs.

    Raises InputError as `place_of`.
    """
    if tool.kind != KIND or not any(one.per_task for one in servers.values()):
        return tool
    server, name = place_of(tool, servers)
    if not servers[server].per_task:
        return tool
    return msgspec.structs.replace(tool, data={"server": server, "tool": name, "task": task})


def task_of(tool: ToolSpec) -> str:
    """The id of the task of a tool; empty unless `for_task` has set it."""
    return str(tool.data.get("task", "")) if isinstance(tool.data, dict) else ""


def missing_tool(tool: ToolSpec, listed: Mapping[str, Sequence[ListedTool]]) -> str | None:
    """Say that no server has a task's tool of kind `mcp`; None if one has."""
    server, name = place_of(tool, listed)
    known = [one.name for one in listed[server]]
    return (
        None if name in known else f"tool {tool.name}: tools.mcp.{server} has no tool {name!r}: it has {_names(known)}"
    )


def place_of(tool: ToolSpec, servers: Iterable[str]) -> tuple[str, str]:
    """Return the server of a tool, and the tool's name there. Raises InputError for a server that the recipe lacks."""
    data = tool.data if isinstance(tool.data, dict) else {}
    known = list(servers)
    server, name = data.get("server"), data.get("tool", tool.name)
    if server is None and len(known) == 1:
        server = known[0]
    if server not in known or not isinstance(name, str):
        what = "its data name no server" if server is None else f"there is no server {server!r} in tools.mcp"
        raise InputError(
            f"tool {tool.name} of kind 'mcp': {what}: expected data.server to be one of {', '.join(known) or 'none'}"
        )
    return str(server), name


async def _rows(source: Source) -> list[dict[str, Any]]:
    session = Session(source)
    try:
        await session.open()
        return await session.list_tools()
    finally:
        await session.close()


def _listed(source: Source, rows: Sequence[Mapping[str, Any]]) -> list[ListedTool]:
    shown = _shown_names([str(row["name"]) for row in rows], source.settings)
    tools = []
    for name, row in zip(shown, rows, strict=True):
        schema = row.get("inputSchema")
        # Some servers write null for what a schema does not have, such as properties. Servers of models refuse it.
        parameters = {key: value for key, value in schema.items() if value is not None} if schema else {}
        parameters.setdefault("type", "object")
        parameters.setdefault("properties", {})
        tools.append(ListedTool(source.name, str(row["name"]), name, str(row.get("description") or ""), parameters))
    return tools


def _shown_names(names: Sequence[str], settings: MCPServerSettings) -> list[str]:
    """Return valid and unique names, in the order of a server's names.

    A valid name stays as it is. Of two that become equal, tools that are added to every task come first.
    """
    prefixed = [settings.prefix + name for name in names]
    order = sorted(
        range(len(names)),
        key=lambda place: (not _is_offered(names[place], settings), not is_valid_name(prefixed[place])),
    )
    shown: dict[int, str] = {}
    taken: set[str] = set()
    for place in order:
        name = prefixed[place]
        shown[place] = name if is_valid_name(name) and name not in taken else valid_name(name, taken)
        taken.add(shown[place])
    return [shown[place] for place in range(len(names))]


def _check_names(servers: Mapping[str, MCPServerSettings], listed: Mapping[str, Sequence[ListedTool]]) -> None:
    """Raise InputError for two tools of one name among those that are added to every task."""
    owners: dict[str, ListedTool] = {}
    known: set[tuple[str, str]] = set()
    for tool in _offered(servers, listed):
        if (tool.server, tool.name) in known:
            raise InputError(f"tools.mcp.{tool.server}: two of its tools have the name {tool.name!r}")
        known.add((tool.server, tool.name))
        other = owners.setdefault(tool.shown, tool)
        if other is not tool:
            raise InputError(
                f"tools.mcp: the servers {other.server} and {tool.server} both have a tool {tool.shown!r}: expected "
                f"a prefix, such as tools.mcp.{tool.server}.prefix={tool.server}_"
            )


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
