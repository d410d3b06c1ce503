"""What a file of `rewright view --static` holds."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

__all__ = ["page_data"]


class _Data(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.inside, self.text = False, ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "script" and dict(attributes).get("id") == "data"

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        self.text += data if self.inside else ""


def page_data(page: Path) -> Any:
    """The data of the page, read as a browser finds them: {"runs": [...], "comparisons": {...}}."""
    return json.loads(_Data(page.read_text("utf-8")).text)
