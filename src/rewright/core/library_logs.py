"""Send the log messages of libraries to a file of the run, and off the terminal.

Clients of servers log every retry (`httpx`, `openai`, `huggingface_hub`, `tenacity` …). Rewright counts failed attempts
itself and says so once, so these lines belong into a file that one reads if a server misbehaves.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["LIBRARIES", "LOG_FILE", "current_log", "library_logs"]

LIBRARIES: Final = (
    "aiohttp", "asyncio", "datasets", "filelock", "fsspec", "httpcore", "httpx", "httpx2", "huggingface_hub", "mcp",
    "openai", "requests", "tenacity", "urllib3", "vllm", "rewright.engines", "rewright.net",
)  # fmt: skip
"""The loggers whose messages go to the file."""
LOG_FILE: Final = "libraries.log"
_open_logs: list[Path] = []


def current_log() -> Path | None:
    """Return the file of the current `library_logs` block, which may not exist yet; None outside of a block."""
    return _open_logs[-1] if _open_logs else None


class _File(logging.FileHandler):
    """A log file that is made with its first message, and that stops neither a run nor its process."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name of logging
        """Drop a message that cannot be written, on a full disk for example."""


@contextmanager
def library_logs(folder: Path) -> Iterator[None]:
    """Inside the block, messages of `LIBRARIES` go to `folder/libraries.log` instead of the terminal."""
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler = _File(folder / LOG_FILE, delay=True, encoding="utf-8")
    handler.setFormatter(form)
    before = []
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        before.append((logger, logger.propagate, logger.handlers[:]))
        logger.propagate, logger.handlers = False, [handler]
    _open_logs.append(folder / LOG_FILE)
    try:
        yield
    finally:
        _open_logs.pop()
        for logger, propagate, handlers in before:
            logger.propagate, logger.handlers = propagate, handlers
        handler.close()
