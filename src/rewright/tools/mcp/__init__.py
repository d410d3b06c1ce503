"""Tools of MCP servers (Model Context Protocol): servers by command, by URL, or in this process.

`settings.py` is what a recipe says, `listing.py` makes a task's tools of what a server lists, and `toolset.py` executes
their calls over the sessions of `session.py`, which alone imports the package `mcp`.
"""
