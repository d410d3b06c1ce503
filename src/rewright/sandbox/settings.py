"""Settings of the sandbox."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from rewright.core.settings import PositiveFloat, PositiveInt, Settings, UnusedKey
from rewright.core.trust import check_trusted_packages

__all__ = ["SandboxSettings", "unused_keys"]


def unused_keys(section: Mapping[str, Any]) -> Iterator[UnusedKey]:
    """Yield the keys that a `sandbox:` section ignores."""
    if section.get("url") is not None:
        yield UnusedKey("network", "url", section["url"], ": the code has the isolation of that server")


class SandboxSettings(Settings, frozen=True):
    """Execution of tools that are source text."""

    level: Literal["strict", "process", "unsafe"] = "strict"
    """Isolation of tool processes: `strict`, `process` or `unsafe` (docs/security.md)."""
    wall_seconds: PositiveFloat | None = None
    """Wall-clock limit of every execution, in seconds; default: `limits.tool_seconds`."""
    memory_mb: PositiveInt = 512
    """Memory limit of one tool process, in MiB."""
    network: bool = False
    """Allow code in the sandbox to use the host's network, without restriction of hosts."""
    url: str | None = None
    """Address of a remote sandbox with SandboxFusion's protocol. Sources and programs run there, with its
    isolation."""
    trusted: tuple[str, ...] = ()
    """Your own packages. Their importable tools (`target`) run as your code, outside the sandbox."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_trusted_packages("trusted", self.trusted)

    def addresses(self) -> dict[str, str]:
        """The address of the remote sandbox."""
        return {} if self.url is None else {"url": self.url}
