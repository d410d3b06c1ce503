"""MCP server objects that a program gives, which run in this process."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from rewright.core.records import ToolSpec
from rewright.tools.mcp.listing import list_tools, offered_tools
from rewright.tools.mcp.settings import MCPServerSettings

__all__ = ["GivenServer", "ask_server", "is_server"]


class GivenServer(msgspec.Struct, frozen=True):
    """A server object, its name among those of the program, and its tools."""

    name: str
    server: Any
    settings: MCPServerSettings
    specs: tuple[ToolSpec, ...]


def is_server(one: Any) -> bool:
    """Return True for a server object of the package `mcp`: `MCPServer`, `FastMCP`, `Server`, or a subclass of one."""
    modules = [kind.__module__ for kind in type(one).__mro__]
    return any(module.startswith("mcp.server") for module in modules) and hasattr(one, "name")


def ask_server(server: Any, taken: Collection[str] = ()) -> GivenServer:
    """List the tools of a server object; its name gets a number if it is in `taken`. Raises as `list_tools`."""
    name = str(server.name)
    number = 2
    while name in taken:
        name, number = f"{server.name}-{number}", number + 1
    settings = {name: MCPServerSettings(server=f"{type(server).__module__}:{type(server).__qualname__}")}
    specs = offered_tools(settings, list_tools(settings, {name: server}))
    return GivenServer(name, server, settings[name], tuple(specs))
