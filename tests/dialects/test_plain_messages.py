"""Messages without tags, and texts that end with calls: read at once, and as if they were taken apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rewright.core.records import ToolCall
from rewright.dialects.chat import Chat
from rewright.dialects.hermes import Hermes

CALL = '<tool_call>\n{"name": "f", "arguments": {"x": "y"}}\n</tool_call>'
PIECES = st.lists(
    st.sampled_from(
        [
            CALL,
            "<tool_call>",
            "</tool_call>",
            "<think>",
            "</think>",
            "<answer>",
            "</answer>",
            "hm",
            "\n",
            " ",
            '"',
            "<",
            "{",
        ]
    ),
    max_size=8,
).map("".join)


@given(PIECES)
def test_the_content_of_a_message_is_its_text_without_the_calls(text: str) -> None:
    dialect = Hermes()
    kept = "".join(piece.text for piece in dialect.pieces(text) if piece.kind != "call")
    message = dialect.assistant_message(text, [ToolCall("f", {}, raw="")], malformed=True)
    assert message["content"] == kept.rstrip()


@given(PIECES)
def test_a_turn_of_the_chat_dialect_is_read_as_its_parts_say(text: str) -> None:
    dialect = Chat()
    pieces = dialect.pieces(text)
    assert "".join(piece.text for piece in pieces) == text
    parsed = dialect.parse(text)
    assert parsed.whole is not any(piece.calls for piece in pieces)
    if not parsed.calls and "<answer>" not in text:
        said = "".join(piece.text for piece in pieces if piece.kind == "text").strip()
        assert parsed.answer == (said or None)
        assert parsed.open == ("answer" if said else None)
        assert parsed.rest == "".join(piece.shown for piece in pieces if piece.kind != "thought")
