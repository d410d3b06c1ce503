"""Settings of the tools that are added to every task."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from rewright.core.settings import PositiveInt, Settings, UnusedKey
from rewright.tools.mcp.settings import MCPServerSettings

__all__ = ["ToolSettings", "unused_keys"]


def unused_keys(section: Mapping[str, Any]) -> Iterator[UnusedKey]:
    """Yield the keys that a `tools:` section ignores."""
    if not section.get("python"):
        yield from (UnusedKey(key, "python", "false") for key in ("python_state", "output_characters"))
    if section.get("search") is None:
        yield UnusedKey("passages", "search", "null")


class ToolSettings(Settings, frozen=True):
    """Tools that are added to every task."""

    python: bool = False
    """Add the Python tool (AutoTraj section 2)."""
    python_state: Literal["call", "trajectory"] = "call"
    """Lifetime of a program's variables."""
    output_characters: PositiveInt = 400
    """Maximum length of the Python tool's output, in characters; the middle of longer output is removed."""
    search: str | None = None
    """Add the search tool: the folder of an index, the address of a search server, or `almanac` (embedded corpus)."""
    passages: PositiveInt = 1
    """Number of passages in a search result."""
    mcp: dict[str, MCPServerSettings] = msgspec.field(default_factory=dict)
    """MCP servers by name, whose tools are added."""

    def addresses(self) -> dict[str, str]:
        """The addresses of the search server, if `search` is an address, and of MCP servers."""
        found = {"search": self.search} if self.search is not None and _is_address(self.search) else {}
        return found | {f"mcp.{name}.url": server.url for name, server in self.mcp.items() if server.url is not None}


def _is_address(search: str) -> bool:
    """True for a server's address, with its scheme or without; False for a folder."""
    return "://" in search or (re.match(r"[\w.\-]+:\d+(/|$)|\[", search) is not None and not Path(search).exists())
