"""The log formats as importers, registered by name in `rewright.builtin`."""

from __future__ import annotations

from functools import partial
from typing import Final

from rewright.importers.base import Importer
from rewright.importers.log_files import read_conversations

__all__ = [
    "ANTHROPIC", "ATIF", "AUTOTRAJ", "GEMINI", "HERMES", "INSPECT", "LANGCHAIN", "MS_SWIFT", "OPENAI", "RESPONSES",
    "SEARCH_R1", "SHAREGPT", "TRL", "VERIFIERS",
]  # fmt: skip


def _importer(name: str) -> Importer:
    return Importer(conversations=partial(read_conversations, name=name), dialect=_DIALECTS.get(name))


_DIALECTS: Final = {"search-r1": "tags", "autotraj": "tags"}

ANTHROPIC: Final = _importer("anthropic")
ATIF: Final = _importer("atif")
AUTOTRAJ: Final = _importer("autotraj")
GEMINI: Final = _importer("gemini")
HERMES: Final = _importer("hermes")
INSPECT: Final = _importer("inspect")
LANGCHAIN: Final = _importer("langchain")
MS_SWIFT: Final = _importer("ms-swift")
OPENAI: Final = _importer("openai")
RESPONSES: Final = _importer("responses")
SEARCH_R1: Final = _importer("search-r1")
SHAREGPT: Final = _importer("sharegpt")
TRL: Final = _importer("trl")
VERIFIERS: Final = _importer("verifiers")
