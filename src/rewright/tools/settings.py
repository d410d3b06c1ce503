"""Settings of the tools that every task gets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from rewright.core.settings import PositiveInt, Settings

__all__ = ["ToolSettings"]


class ToolSettings(Settings, frozen=True):
    """Tools that every task gets, beside its own."""

    python: bool = False
    """The Python tool (AutoTraj section 2)."""
    python_state: Literal["call", "trajectory"] = "call"
    """How long a program's names live."""
    output_characters: PositiveInt = 400
    """Of the Python tool's output, the rest is cut out of the middle."""
    search: str | None = None
    """The search tool: the folder of an index, the address of a search server, or `almanac` (the embedded corpus)."""
    passages: PositiveInt = 1
    """How many passages a search shows."""

    def addresses(self) -> dict[str, str]:
        """The address of the search server, where `search` is meant as one."""
        return {"search": self.search} if self.search is not None and _is_address(self.search) else {}


def _is_address(search: str) -> bool:
    """True for a server's address, with its scheme or without; False for a folder."""
    return "://" in search or (re.match(r"[\w.\-]+:\d+(/|$)|\[", search) is not None and not Path(search).exists())
