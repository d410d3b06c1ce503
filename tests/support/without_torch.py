"""A pytest plug-in that leaves out the tests that need torch, for environments that have none.

    PYTHONPATH=tests pytest -p support.without_torch

A file needs torch if it, or a module of tests/support that it imports, imports torch, a trainer or a room of Rewright
that loads models; or if it runs the command line on a model. Single tests that do are marked `needs_torch`.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MODULES = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors", "tokenizers", "verl",
    "rewright.training.trl", "rewright.integrations", "rewright.engines.hf", "rewright.engines.slot_cache",
)  # fmt: skip
RUN_A_MODEL = {TESTS / "cli" / "test_bad_input.py"}
NAMES = "|".join(map(re.escape, MODULES))
NEEDS = re.compile(rf"^\s*(?:from|import) (?:{NAMES})\b|^pytest\.importorskip\(\"(?:{NAMES})\"", re.MULTILINE)
SUPPORT = re.compile(r"^\s*from support(?:\.(\w+)| import ([\w, ]+))", re.MULTILINE)


@cache
def needs_torch(path: Path) -> bool:
    """Whether a test file, or a support module, needs torch."""
    text = path.read_text("utf-8")
    modules = [name for one, several in SUPPORT.findall(text) for name in (one or several).replace(" ", "").split(",")]
    files = [TESTS / "support" / f"{name}.py" for name in modules]
    if path in RUN_A_MODEL or NEEDS.search(text):
        return True
    return any(file.exists() and file != path and needs_torch(file) for file in files)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what cannot be imported."""
    if collection_path.is_file() and collection_path.suffix == ".py" and needs_torch(collection_path):
        return True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the marked tests of the other files."""
    for item in items:
        if item.get_closest_marker("needs_torch"):
            item.add_marker(pytest.mark.skip(reason="needs torch"))
