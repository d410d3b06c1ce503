"""The command line in this process: quick, and with everything that is imported already."""

from __future__ import annotations

import io
import signal
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rewright.cli import main as cli

__all__ = ["Said", "rewright"]

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Said(NamedTuple):
    """How a command ended."""

    code: Any
    output: str
    errors: str

    def refused(self, words: str) -> None:
        """It was a mistake: exit code 2, the last line says `words`, and there is no traceback."""
        assert self.code == 2, self.errors
        assert self.errors.splitlines()[-1].startswith("error: ")
        assert words in self.errors.splitlines()[-1]
        assert "Traceback" not in self.errors


def rewright(folder: Path, *arguments: str) -> Said:
    """`rewright ARGUMENTS` in `folder`."""
    output, errors = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.chdir(folder)
        patch.setattr("sys.argv", ["rewright", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return Said(left.value.code, output.getvalue(), errors.getvalue())
