"""An engine in one file: it answers sums and differences right. Its settings are the `model:` section of a recipe."""

from __future__ import annotations

import re
from typing import Any

from rewright.core.registry import register
from rewright.engines.base import Engine, Generation, Request
from rewright.engines.settings import EngineSettings


class ToyEngine:
    """A message engine: it is given messages and returns text."""

    tokens = False

    def __init__(self, name: str, off_by: int) -> None:
        self.name, self.off_by = name, off_by

    async def generate(self, request: Request) -> Generation:
        """The value of the last question, plus `off_by`."""
        question = str([message for message in request.messages if message["role"] == "user"][-1]["content"])
        value = sum(int(number) for number in re.findall(r"-?\d+", question.replace("- ", "-").replace("+ ", "")))
        return Generation(f"I add them up. = {value + self.off_by}")

    async def release(self, session: str) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is held."""


class ToySettings(EngineSettings, frozen=True):
    """A model that can add."""

    engine: str = "toy"
    off_by: int = 0
    """What is added to every answer."""

    async def open(self) -> tuple[Engine, Any]:
        """The engine, which needs no tokenizer."""
        return ToyEngine(self.path, self.off_by), None

    @property
    def tokenizer_path(self) -> str | None:
        """There is none."""
        return None


register("engine", "toy", ToySettings)
