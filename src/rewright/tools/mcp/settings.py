"""Settings of one MCP server, an entry of `tools.mcp`."""

from __future__ import annotations

import shlex
from typing import Final, Literal, Self
from urllib.parse import quote

import msgspec

from rewright.core.settings import PositiveFloat, PositiveInt, Settings

__all__ = ["TASK", "MCPServerSettings"]

TASK: Final = "{task}"
"""Placeholder in `command` and `url` for the id of the trajectory's task."""


class MCPServerSettings(Settings, frozen=True):
    """A server of the Model Context Protocol, named by exactly one of `command`, `url` and `server`."""

    command: str | tuple[str, ...] | None = None
    """Program and arguments that start the server, which speaks over its standard input and output (stdio).

    `{task}` in it, and in `url`, stands for the id of the trajectory's task. While tools are listed, words of the
    command with it are left out, and it is empty in the address. So it stands in options, such as `--task={task}`.
    """
    url: str | None = None
    """Address of a server, such as http://127.0.0.1:8000/mcp."""
    server: str | None = None
    """Import path of a server object that runs in this process, or of a function that makes one for each session."""
    transport: Literal["http", "sse"] = "http"
    """How the server at `url` is spoken to: `http` (streamable HTTP) or `sse`."""
    env: tuple[str, ...] = ()
    """Names of environment variables that the command gets, besides PATH, HOME and a few more without secrets."""
    api_key_env: str | None = None
    """Environment variable with the bearer token for `url`."""
    session: Literal["trajectory", "shared"] = "trajectory"
    """`trajectory`: a session (of a command: a process) for each trajectory; `shared`: one for all."""
    prefix: str = ""
    """Put before the names of the server's tools."""
    tools: tuple[str, ...] | None = None
    """The server's tools that are added to every task. Default: all."""
    call_seconds: PositiveFloat | None = None
    """Time limit of one call, in seconds. Default: `limits.tool_seconds`."""
    start_seconds: PositiveFloat = 30.0
    """Time limit to start the server and to list its tools, in seconds."""
    sessions: PositiveInt = 256
    """Maximum number of open sessions; further trajectories wait."""
    concurrency: PositiveInt = 16
    """Maximum number of calls that the server executes at once; further calls wait, outside of their time limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("command", "url", "server") if getattr(self, name) is not None]
        if len(given) != 1:
            what = " and ".join(given) or "none of command, url and server"
            raise ValueError(f"an MCP server has {what}: expected exactly one of command, url and server")
        if self.server is not None and not all(self.server.partition(":")):
            raise ValueError(f"server is {self.server!r}: expected an import path such as package.module:server")
        if self.command is not None and not self.argv:
            raise ValueError("command is empty: expected a program and its arguments")
        if self.command is None and self.env:
            raise ValueError("env has no effect without command")
        if self.url is None and self.api_key_env is not None:
            raise ValueError("api_key_env has no effect without url")
        if self.url is None and self.transport != "http":
            raise ValueError("transport has no effect without url")
        if self.per_task and self.session == "shared":
            raise ValueError(f"session is shared, and {TASK} names a task: expected session: trajectory")
        if self.prefix and not self.prefix.replace("-", "_").isidentifier():
            raise ValueError(f"prefix is {self.prefix!r}: expected letters, digits, _ and -")

    @property
    def per_task(self) -> bool:
        """Return True if each task has a command or an address of its own."""
        return any(TASK in word for word in (*self.argv, self.url or ""))

    def for_task(self, task: str) -> Self:
        """The settings with the id of a task in the place of the placeholder.

        Without a task, words of the command with the placeholder are left out, and it is empty in the address. Raises
        ValueError if the program or its first argument that is no option is such a word: what is left would start
        something else, such as an interpreter that reads its program from the standard input.
        """
        if not self.per_task:
            return self
        if not task and self.argv:
            program, *arguments = self.argv
            first = next((word for word in arguments if not word.startswith("-")), "")
            if TASK in program or TASK in first:
                word = program if TASK in program else first
                raise ValueError(
                    f"command needs the word {word!r} to list the server's tools, and words with {TASK} are left out "
                    f"there: expected {TASK} in an option, such as --task={TASK}"
                )
        if self.url is not None:
            return msgspec.structs.replace(self, url=self.url.replace(TASK, quote(task, safe="")))
        words = [word.replace(TASK, task) for word in self.argv if task or TASK not in word]
        return msgspec.structs.replace(self, command=tuple(words))

    @property
    def argv(self) -> tuple[str, ...]:
        """Program and arguments of `command`. Raises ValueError for a text with an open quotation mark."""
        if self.command is None:
            return ()
        return tuple(shlex.split(self.command)) if isinstance(self.command, str) else self.command

    @property
    def shown(self) -> str:
        """The command, address or import path, for messages."""
        return shlex.join(self.argv) if self.command is not None else str(self.url or self.server)
