"""MCP servers whose tools have names that clash, that model servers refuse, or that are too long."""

from __future__ import annotations

try:
    from mcp.server.mcpserver import MCPServer
except ImportError:
    from mcp.server.fastmcp import FastMCP as MCPServer  # type: ignore[no-redef]

__all__ = ["files", "notes"]


def files() -> MCPServer:
    """Every tool returns its own name."""
    return _server("files", "files.read", "files_read", "read", "_stat", "find_" + "x" * 120, "find_" + "x" * 119 + "y")


def notes() -> MCPServer:
    """Another server with `read`."""
    return _server("notes", "read", "write")


def _server(title: str, *names: str) -> MCPServer:
    server = MCPServer(title)
    for name in names:
        server.add_tool(lambda name=name: name, name=name, description="d")
    return server
