"""Settings of the comparison of predicted and gold calls, for arguments that can be written in several ways.

    Comparison(defaults=True, unordered_lists=True, numbers_as_text=True,
               tool_names={"functions.get_weather": "get_weather"}, argument_names={"get_weather": {"town": "city"}},
               arguments={"get_weather": {"city": "casefold"}, "*": {"note": "ignore", "price": {"number": 0.01}}})

The defaults compare values as JSON, as `rewright.credit.similarity` does. The rules are applied to both sides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from rewright.core.import_paths import load_function
from rewright.core.settings import Settings, convert
from rewright.credit.comparer import RULES, is_path

__all__ = ["Comparison"]


class Comparison(Settings, frozen=True, kw_only=True):
    """How arguments are compared. The defaults are MatchTIR's rule: equal as JSON.

    Raises ValueError for an unknown rule. Tool names are compared without regard to case.
    """

    defaults: bool | dict[str, dict[str, Any]] = False
    """An argument that has its default may be left out, by either side. True: the defaults in the schemas of the tools.
    For sources without schemas: tool name -> argument -> default."""
    unordered_lists: bool = False
    """Lists are compared without their order (how often an item occurs counts)."""
    numbers_as_text: bool = False
    """A text that is a JSON number equals the number: "5" and "5.0" equal 5."""
    tool_names: dict[str, str] = msgspec.field(default_factory=dict)
    """Other names of tools: alias -> name."""
    argument_names: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    """Other names of arguments: tool name (or "*") -> alias -> name."""
    arguments: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    """Rules of single arguments: tool name (or "*") -> argument -> `exact` (equal as JSON, whatever the settings above
    say), `casefold` (texts without case and surrounding spaces), `number` (numbers and texts of numbers, equal up to
    rounding), `{number: 0.01}` (up to 0.01), `set` (lists without order and repetition), `comma_set` (texts of items
    separated by commas, without order and repetition), `ignore` (not compared), or your function of the predicted and
    the gold value, `package.module:function`, which returns a boolean or a number in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for tool, rules in self.arguments.items():
            for argument, rule in rules.items():
                if callable(rule) or (isinstance(rule, str) and (rule in RULES or is_path(rule))):
                    continue
                if isinstance(rule, dict) and rule.keys() == {"number"} and _is_tolerance(rule["number"]):
                    continue
                raise ValueError(
                    f"arguments must have known rules, got {rule!r:.60} for {tool}.{argument}: expected one of "
                    f"{', '.join(RULES)}, {{number: TOLERANCE}}, or package.module:function"
                )

    @classmethod
    def of(cls, given: Comparison | Mapping[str, Any] | None) -> Comparison:
        """Build settings from a mapping; None gives the defaults. Raises ValueError for an invalid value."""
        if isinstance(given, Comparison):
            return given
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"compare is {given!r:.200}: expected a mapping, such as {{'unordered_lists': True}}")
        try:
            return convert(dict(given or {}), cls)
        except msgspec.ValidationError as problem:
            raise ValueError(f"compare: {problem}") from None

    def code(self) -> Iterator[str]:
        """Yield the import paths of your functions."""
        for rules in self.arguments.values():
            yield from (rule for rule in rules.values() if isinstance(rule, str) and is_path(rule))

    def load(self) -> None:
        """Import your functions. Raises ValueError for a path that does not name a function."""
        for path in self.code():
            load_function(path, "compare")

    @property
    def is_parity(self) -> bool:
        """Whether values are compared as JSON and nothing else, which needs no `Comparer`."""
        return self == _PARITY


_PARITY: Final = Comparison()


def _is_tolerance(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
