"""An MCP server whose tools exit, block the thread that they are called in, or never return."""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading

try:
    from mcp.server.mcpserver import MCPServer
except ImportError:
    from mcp.server.fastmcp import FastMCP as MCPServer  # type: ignore[no-redef]

__all__ = ["entered", "exits", "make", "release"]

entered = threading.Event()
"""Set when a tool blocks."""
release = threading.Event()
"""Lets the tools that block return."""


def make() -> MCPServer:
    """Make the server. It counts the calls of `count`."""
    server = MCPServer("blocks")
    calls: list[None] = []
    meeting: list[asyncio.Event] = []

    @server.tool()
    def count() -> str:
        """The number of calls."""
        calls.append(None)
        return str(len(calls))

    @server.tool()
    def parse() -> str:
        """Parse bad arguments with argparse, which exits."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--number", type=int)
        return str(parser.parse_args(["--number", "x"]))

    @server.tool()
    async def leave() -> str:
        """Exit."""
        sys.exit(3)

    @server.tool()
    async def interrupt() -> str:
        """Raise as Ctrl-C does."""
        raise KeyboardInterrupt

    @server.tool()
    async def block() -> str:
        """Block the event loop."""
        entered.set()
        release.wait()
        return "released"

    @server.tool()
    def hold() -> str:
        """Block the thread of a function."""
        release.wait()
        return "released"

    @server.tool()
    async def thread() -> str:
        """Wait for a thread of asyncio that blocks."""
        await asyncio.to_thread(release.wait)
        return "released"

    @server.tool()
    async def meet() -> str:
        """Return when another call has begun, too."""
        meeting.append(asyncio.Event())
        if len(meeting) == 2:
            for one in meeting:
                one.set()
        await meeting[0].wait()
        return "met"

    return server


def exits() -> MCPServer:
    """Exit instead of making a server."""
    sys.exit("no licence")
