"""An MCP server of a small shop with a stock and orders, which are separate for each session. For mcp 1.x and 2.x.

As a program: `mcp_shop.py stdio`, or `mcp_shop.py http PORT`, `mcp_shop.py sse PORT`. As an object in this process:
`support.mcp_shop:make`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from typing import Any

import uvicorn

try:
    from mcp.server.mcpserver import Context, MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
except ImportError:
    from mcp.server.fastmcp import Context  # type: ignore[no-redef]
    from mcp.server.fastmcp import FastMCP as MCPServer  # type: ignore[no-redef]
    from mcp.server.fastmcp.exceptions import ToolError  # type: ignore[no-redef]

TOOLS = ["search_items", "get_stock", "place_order", "cancel_order", "list_orders"]
PRICES = {"lamp": 30, "desk": 120, "chair": 45}


class Shop:
    """The state of one session."""

    def __init__(self) -> None:
        self.stock = {"lamp": 5, "desk": 1, "chair": 8}
        self.orders: dict[str, dict[str, Any]] = {}


def session_of(context: Context) -> str:
    """The id of the session over HTTP. A process over stdio, and a server object that `make` made, have one session."""
    request = getattr(context.request_context, "request", None)
    if request is None:
        return ""
    return request.headers.get("mcp-session-id") or request.query_params.get("session_id", "")


def make() -> MCPServer:
    """Make the server."""
    server = MCPServer("shop")
    shops: dict[str, Shop] = {}

    def shop(context: Context) -> Shop:
        return shops.setdefault(session_of(context), Shop())

    @server.tool()
    def search_items(context: Context, text: str) -> list[str]:
        """Find items whose name contains a text."""
        return [name for name in PRICES if text in name]

    @server.tool()
    def get_stock(context: Context, item: str) -> dict[str, Any]:
        """The number and the price of an item."""
        return {"item": item, "stock": shop(context).stock.get(item, 0), "price": PRICES.get(item)}

    @server.tool()
    def place_order(context: Context, item: str, count: int) -> str:
        """Order an item, and return the number of the order."""
        own = shop(context)
        if own.stock.get(item, 0) < count:
            raise ToolError(f"only {own.stock.get(item, 0)} of {item} left")
        own.stock[item] -= count
        number = f"o{len(own.orders) + 1}"
        own.orders[number] = {"item": item, "count": count}
        return number

    @server.tool()
    def cancel_order(context: Context, number: str) -> str:
        """Cancel an order."""
        order = shop(context).orders.pop(number)
        shop(context).stock[order["item"]] += order["count"]
        return "cancelled"

    @server.tool()
    def list_orders(context: Context) -> dict[str, Any]:
        """All orders of this session."""
        return shop(context).orders

    if os.environ.get("SHOP_FAULTS"):
        _add_faults(server)
    return server


def _add_faults(server: MCPServer) -> None:
    """Tools that misbehave."""

    @server.tool()
    def die() -> str:
        """End the server's process."""
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    @server.tool()
    def hang() -> str:
        """Never return."""
        time.sleep(3600)
        return ""

    @server.tool()
    def read_variable(name: str) -> str:
        """An environment variable of the server."""
        return os.environ.get(name, "not set")

    @server.tool()
    def repeat(text: str, count: int) -> str:
        """A long text."""
        return text * count

    @server.tool()
    def picture() -> Any:
        """A picture."""
        try:
            from mcp.server.mcpserver import Image
        except ImportError:
            from mcp.server.fastmcp import Image  # type: ignore[no-redef]
        return ["a lamp", Image(data=b"\x89PNG", format="png")]


def main() -> None:
    print("shop: starting", file=sys.stderr, flush=True)
    logging.disable(logging.ERROR)  # the test reads standard error up to one line only
    transport = sys.argv[1]
    if transport == "stdio":
        make().run("stdio")
        return
    server = make()
    application = server.streamable_http_app() if transport == "http" else server.sse_app()
    asyncio.run(serve(application, int(sys.argv[2])))


async def serve(application: Any, port: int) -> None:
    """Serve on loopback, and say so on standard error when connections are accepted."""

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            print("shop: listening", file=sys.stderr, flush=True)

    await Server(uvicorn.Config(application, host="127.0.0.1", port=port, log_level="critical")).serve()


if __name__ == "__main__":
    main()
