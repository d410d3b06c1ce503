"""The tools that MCP servers listed when a run began, in its mcp_tools.json.

Later stages show the model the same tools, also if a server lists others by then. Stages without rollouts need no
server.
"""

from __future__ import annotations

from typing import Final

import msgspec

from rewright.core.errors import InputError
from rewright.core.files import read_bounded
from rewright.pipeline.run_directory import MCP_FILE, Run
from rewright.recipe.loader import recipe_hash
from rewright.recipe.schema import Recipe
from rewright.rollout.toolsets import MCPListing
from rewright.tools.mcp.listing import ListedTool

__all__ = ["store_listing", "stored_listing"]


class _Stored(msgspec.Struct, frozen=True):
    """The file. `recipe`: hash of the section `tools` with which the servers were asked."""

    recipe: str
    servers: dict[str, list[ListedTool]]


_SECTIONS: Final = ("tools",)


def stored_listing(run: Run, recipe: Recipe) -> MCPListing | None:
    """What the servers listed when the run began; None if nothing is stored for these settings.

    Raises InputError for a file that is no such listing.
    """
    path = run.file(MCP_FILE)
    if not path.exists():
        return None
    try:
        stored = msgspec.json.decode(read_bounded(path), type=_Stored)
    except msgspec.DecodeError as problem:
        what = f"{path}: not a listing of MCP tools: {problem}: expected the file that the run has written"
        raise InputError(what) from None
    return stored.servers if stored.recipe == recipe_hash(recipe, _SECTIONS) else None


def store_listing(run: Run, recipe: Recipe, listed: MCPListing) -> None:
    """Store what the servers list, if nothing is stored for these settings."""
    if stored_listing(run, recipe) is None:
        servers = {name: list(tools) for name, tools in listed.items()}
        run.write_json(MCP_FILE, msgspec.to_builtins(_Stored(recipe_hash(recipe, _SECTIONS), servers)))
