"""Progress bars on a terminal."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from rewright.core import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_two_bars_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "console", Console(file=terminal, force_terminal=True, color_system=None))
    with progress.Bar("first", 2) as first, progress.Bar("second", 3) as second:
        second.step()
        first.step(2)
    assert "first: 2/2 in" in terminal.getvalue()
    assert "second: 1/3 in" in terminal.getvalue()


def test_hidden_bars_show_nothing_and_notes_are_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.hidden_bars(), progress.Bar("hidden", 1) as bar:
        bar.step()
        progress.say("a note")
    assert capfd.readouterr().err.splitlines() == ["a note"]
