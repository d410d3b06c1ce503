"""What a command prints: text for people, or with `--json` one JSON value and nothing else on standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import msgspec

from rewright.core.progress import say

__all__ = ["as_text", "print_json", "stdout_for_json"]


def as_text(as_json: bool) -> Callable[[str], None]:
    """The function that prints a line of text: to standard output, or with `--json` to standard error."""
    return say if as_json else print


def print_json(value: Any) -> None:
    """Print one JSON value on one line. Numbers that are not finite become null, since JSON has none."""
    print(msgspec.json.encode(value, enc_hook=str).decode())


@contextmanager
def stdout_for_json(as_json: bool) -> Iterator[None]:
    """With `--json`, send what other code prints inside the block (stages and judges of your own) to standard error."""
    if not as_json:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield
