"""Dialects whose calls are tags with one value per argument: `qwen-xml` and `glm`.

Values are text; their types come from the tool's schema (`rewright.dialects.typed`). A value ends at its closing tag
in front of the next argument or the end of the call, so that a value may contain any tag elsewhere. A call whose end
is missing is malformed: arguments may be missing too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Final

from rewright.core.records import ToolCall
from rewright.dialects.native import THINK_WORDS, NativeDialect, as_json

__all__ = ["GLM", "QwenXML"]

RESPONSE_WORDS: Final = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


class _XMLValues(NativeDialect):
    """Calls as tags with a value per argument."""

    text_values = True
    key: ClassVar[str]
    """Regular expression from a key to the start of its value."""
    value_end: ClassVar[str]
    """Regular expression of the end of a value."""
    end: ClassVar[str]
    """Regular expression of the end of a call."""
    padding: ClassVar[str] = ""
    """What the template writes around a value."""

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
        return (
            re.compile(self.key, re.DOTALL),
            re.compile(self.value_end),
            re.compile(self.end),
        )

    def read_call(self, text: str, opening: re.Match[str]) -> tuple[tuple[ToolCall, ...], int]:
        """Read one call."""
        key, value_end, end = self._patterns
        name = self.read_name(text, opening)
        position = opening.end()
        arguments: dict[str, Any] = {}
        while found := key.match(text, position):
            stop = value_end.search(text, found.end())
            if stop is None:
                raise ValueError(f"the value of {found['key'].strip()!r:.40} is not closed")
            value = text[found.end() : stop.start()]
            if self.padding:
                value = value.removeprefix(self.padding).removesuffix(self.padding)
            arguments[found["key"].strip()] = value
            position = stop.end()
        closed = end.match(text, position)
        if closed is None:
            raise ValueError(f"expected an argument or the end of the call, got {text[position : position + 20]!r}")
        return (self.call(name, arguments, text[opening.start() : closed.end()]),), closed.end()

    def read_name(self, text: str, opening: re.Match[str]) -> str:
        """Return the tool's name. Raises ValueError."""
        name = opening["name"]
        if name is None or not name.strip():
            raise ValueError("the call has no name")
        return str(name).strip()

    def guess_name(self, raw: str) -> str:
        """Return the name that the call opens with."""
        found = re.match(self.opener, raw)
        return str(found["name"] or "").strip() if found else ""

    def value(self, value: Any) -> str:
        """Return a value as text."""
        return value if isinstance(value, str) else as_json(value)


class QwenXML(_XMLValues):
    r"""Qwen3-Coder, Qwen3.5 and later, Nemotron 3: `<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>…`.

    `<tool_call>` may be missing (Qwen3-Coder often leaves it out), and so may the closing tag of a value in front of
    the next argument.
    """

    name = "qwen-xml"
    control_words = (*RESPONSE_WORDS, "<function=", "</function>", "<parameter=", "</parameter>", *THINK_WORDS)
    opener = r"(?:<tool_call>\s*)?<function=(?P<name>[^>\n<]*)>|<tool_call>"
    closer = r"</tool_call>"
    key = r"\s*<parameter=(?P<key>[^>\n]*)>"
    value_end = r"</parameter>(?=\s*(?:<parameter=|</function>|</tool_call>))|\n(?=<parameter=[^>\n]*>\n)"
    end = r"\s*</function>(?:\s*</tool_call>)?|\s*</tool_call>"
    padding = "\n"

    def separator(self, text: str) -> str:
        """Two line breaks after text."""
        return "\n\n" if text.strip() and not text.endswith("\n\n") else ""

    def written(self, calls: Sequence[ToolCall]) -> str:
        """Return the calls, one after the other."""
        return "\n".join(
            f"<tool_call>\n<function={call.name}>\n"
            + "".join(
                f"<parameter={key}>\n{self.value(value)}\n</parameter>\n" for key, value in call.arguments.items()
            )
            + "</function>\n</tool_call>"
            for call in calls
        )


class GLM(_XMLValues):
    r"""GLM-4.5 and later: `<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>1</arg_value>\n</tool_call>`."""

    name = "glm"
    result_openers = ("<|observation|>",)
    control_words = (
        *RESPONSE_WORDS, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "[gMASK]", "<sop>", *THINK_WORDS,
    )  # fmt: skip
    opener = r"<tool_call>(?P<name>[^<\n]*)"
    closer = r"</tool_call>"
    key = r"\s*<arg_key>(?P<key>[^<]*)</arg_key>\s*<arg_value>"
    value_end = r"</arg_value>(?=\s*(?:<arg_key>|</tool_call>))"
    end = r"\s*</tool_call>"

    def separator(self, text: str) -> str:
        """A line break."""
        return "" if text.endswith("\n") else "\n"

    def written(self, calls: Sequence[ToolCall]) -> str:
        """Return the calls, one after the other."""
        return "\n".join(
            f"<tool_call>{call.name}\n"
            + "".join(
                f"<arg_key>{key}</arg_key>\n<arg_value>{self.value(value)}</arg_value>\n"
                for key, value in call.arguments.items()
            )
            + "</tool_call>"
            for call in calls
        )
