"""MCP servers with other versions of the package mcp: 2.0 of .venv/peers, and 1.x in a folder of its own.

The folder is made by `pip install --target FOLDER 'mcp<2'` and named by the variable REWRIGHT_MCP1.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import peers

ROOT = Path(__file__).parents[2]
FOLDER = os.environ.get("REWRIGHT_MCP1")
SCRIPT = """
import asyncio, importlib.metadata, sys
from rewright.core.records import ToolCall
from rewright.tools.mcp.listing import list_tools, offered_tools
from rewright.tools.mcp.settings import MCPServerSettings
from rewright.tools.mcp.toolset import MCPTools

LIMITS = {"start_seconds": 300.0, "call_seconds": 300.0}
SHOP = {"command": (sys.executable, sys.argv[1], "stdio")}, {"server": "support.mcp_shop:make"}
ORDER = ToolCall("place_order", {"item": "desk", "count": 1})

async def visit(settings):
    servers = {"shop": settings}
    tools = MCPTools(servers)
    async with tools.open(offered_tools(servers, list_tools(servers))) as toolset:
        found = [await toolset.call(ORDER), await toolset.call(ORDER)]
    await tools.close()
    return [(one.content[:60], (one.error or "").partition(":")[0]) for one in found]

print(importlib.metadata.version("mcp"))
for place in SHOP:
    print(asyncio.run(visit(MCPServerSettings(**place, **LIMITS))))
"""
EXPECTED = "[('o1', ''), ('Error executing tool place_order: only 0 of desk left', 'exception')]"


@peers.needs_peers
def test_mcp_2_0_lists_and_calls() -> None:
    version, *visits = peers.run(SCRIPT, ROOT / "tests/support/mcp_shop.py").splitlines()
    assert version.startswith("2.0")
    assert visits == [EXPECTED, EXPECTED]


@pytest.mark.skipif(FOLDER is None, reason="no folder with mcp 1.x: set REWRIGHT_MCP1")
def test_mcp_1_lists_and_calls(tmp_path: Path) -> None:
    # A command does not get PYTHONPATH; the interpreter of this test finds mcp 1.x by a file in its place.
    shop = tmp_path / "shop.py"
    shop.write_text(
        f"import sys; sys.path[:0] = [{FOLDER!r}, {str(ROOT / 'tests')!r}]\n"
        "import runpy; runpy.run_module('support.mcp_shop', run_name='__main__')\n"
    )
    path = os.pathsep.join([str(FOLDER), str(ROOT / "src"), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(shop)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, *visits = done.stdout.splitlines()
    assert version.startswith("1.")
    assert visits == [EXPECTED, EXPECTED]
