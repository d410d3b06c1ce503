"""The command line in an empty directory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rewright.cli import main as cli
from support.logs import Rewright


@pytest.fixture
def rewright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rewright:
    """Run a command in an empty directory: exit code, standard output, lines of standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["rewright", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err.splitlines()

    return run
