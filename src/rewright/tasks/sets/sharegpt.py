"""Conversations in ShareGPT's shape: a list of `{"from": …, "value": …}`. What several sets share."""

from __future__ import annotations

from collections.abc import Mapping

from rewright.tasks.rows import Row

__all__ = ["parts_of"]


def parts_of(row: Row, roles: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (role, text) of each part of `conversations`; `roles` maps the names in the set. Raises InputError."""
    conversation = row.decoded("conversations", list)
    if not conversation:
        raise row.fail("'conversations' is empty, expected at least one message")
    parts = []
    for number, part in enumerate(conversation):
        speaker = part.get("from") if isinstance(part, dict) else None
        text = part.get("value") if isinstance(part, dict) else None
        if not isinstance(speaker, str) or not isinstance(text, str):
            raise row.fail(f"'conversations'[{number}] is not a message, expected an object with from and value")
        if speaker not in roles:
            raise row.fail(f"'conversations'[{number}] is from {speaker!r}, expected one of {', '.join(roles)}")
        parts.append((roles[speaker], text))
    return parts
