"""Settings of the sandbox."""

from __future__ import annotations

from typing import Literal

from rewright.core.settings import PositiveFloat, PositiveInt, Settings
from rewright.core.trust import check_trusted_packages

__all__ = ["SandboxSettings"]


class SandboxSettings(Settings, frozen=True):
    """How tools that are source text are executed."""

    level: Literal["strict", "process", "unsafe"] = "strict"
    wall_seconds: PositiveFloat | None = None
    """Bound of every execution; default: `limits.tool_seconds`."""
    memory_mb: PositiveInt = 512
    network: bool = False
    """The host's network, every host of it, for what runs in the sandbox."""
    url: str | None = None
    """A sandbox elsewhere that speaks SandboxFusion's protocol: sources and programs run there, with its isolation."""
    trusted: tuple[str, ...] = ()
    """Packages of your own: their importable tools (`target`) run as your code, outside of the sandbox."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_trusted_packages("trusted", self.trusted)

    def addresses(self) -> dict[str, str]:
        """The address of the remote sandbox."""
        return {} if self.url is None else {"url": self.url}
