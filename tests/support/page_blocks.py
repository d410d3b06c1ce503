"""Blocks of code in the pages of docs/, and the commands in them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["blocks", "commands", "json_values", "lines", "placed"]


def blocks(text: str, language: str) -> list[str]:
    """The contents of the blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """The words of every command of the `bash` blocks, in their order; `a && b` are two commands."""
    found = []
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                end = words.index("&&")
                found.append(words[:end])
                words = words[end + 1 :]
            found.append(words)
    return [words for words in found if words]


def placed(words: list[str], values: Mapping[str, str]) -> list[str]:
    """The words of a command with the reader's own addresses and names in the place of those of the page."""
    names = "|".join(map(re.escape, sorted(values, key=len, reverse=True)))
    return [re.sub(rf"(?<![\w.])({names})(?![\w.])", lambda found: values[found[0]], word) for word in words]


def json_values(block: str) -> list[Any]:
    """The values of a block that holds several, one after the other."""
    decoder, found, rest = json.JSONDecoder(), [], block.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found


def lines(path: Path, values: list[Any]) -> None:
    """Write one value per line."""
    path.write_text("".join(json.dumps(value) + "\n" for value in values), "utf-8")
