"""What a model is shown of an MCP result: text, structured content as JSON, and a description of anything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from rewright.core.records import ToolResult
from rewright.sandbox.errors import error_result
from rewright.sandbox.session import truncate_middle

__all__ = ["MAX_CHARACTERS", "as_result"]

MAX_CHARACTERS: Final = 100_000
"""Maximum length of a result, as of function tools. (`limits.tool_characters` cuts further.)"""


def as_result(result: Mapping[str, Any], *, max_characters: int = MAX_CHARACTERS) -> ToolResult:
    """Convert a result with the keys of the protocol.

    Text blocks and the text of embedded resources are joined by line breaks. Without any text, the structured content
    is shown as JSON. Images, audio and binary resources are described, and are an error of the kind `output`.
    """
    texts, unread = [], []
    for block in result.get("content") or ():
        text, problem = _block(block)
        texts.append(text)
        if problem is not None:
            unread.append(problem)
    structured = result.get("structuredContent")
    content = "\n".join(texts)
    if not content and structured is not None:
        content = json.dumps(structured, ensure_ascii=False)
    if len(content) > max_characters:
        message = f"the result has {len(content)} characters, more than {max_characters}"
        return error_result("output", message, content=truncate_middle(content, max_characters))
    if result.get("isError"):
        message = " ".join(content.split())[:500] or "the tool reports an error without a text"
        return error_result("exception", message, content=content or f"Error: {message}")
    if unread:
        return error_result("output", f"the tool returned {' and '.join(unread)}, which is not text", content=content)
    return ToolResult(content)


def _block(block: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the text of a content block, and what it is if a model cannot read it."""
    kind = block.get("type")
    if kind == "text":
        return str(block.get("text", "")), None
    if kind == "resource_link":
        return f"[resource {block.get('name') or ''} at {block.get('uri')}]".replace("  ", " "), None
    resource = block.get("resource") or {}
    if kind == "resource" and resource.get("text") is not None:
        return str(resource["text"]), None
    type_of_data = block.get("mimeType") or resource.get("mimeType") or "of unknown type"
    what = f"{'a resource' if kind == 'resource' else f'content of type {kind}'} ({type_of_data})"
    return f"[{what}, not shown]", what
