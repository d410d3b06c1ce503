"""Compare calls with the settings of a `rewright.credit.comparison.Comparison`.

Most settings have a form of a value in which equal values are equal. Tolerances, users' functions and defaults need
pairs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rewright.core.import_paths import load_function
from rewright.core.strict_json import STRICT
from rewright.credit.allowed import Allowed, any_of, read_allowed
from rewright.credit.calls import ReadCall, Values, fields_of, freeze, read_call
from rewright.credit.formula import Weights, formula

if TYPE_CHECKING:
    from rewright.credit.comparison import Comparison

__all__ = ["ANY_TOOL", "RULES", "Comparer", "comparer_of", "is_path"]

ANY_TOOL: Final = "*"
"""The name that stands for every tool without a rule of its own for an argument."""
RULES: Final = ("exact", "casefold", "number", "set", "comma_set", "ignore")
_RELATIVE: Final = 1e-9
"""Relative tolerance of the rule `number`."""
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_MAX_DIGITS: Final = 300


def is_path(rule: str) -> bool:
    """Whether a rule is an import path, `package.module:function`."""
    module, separator, function = rule.partition(":")
    return bool(separator and module and function.isidentifier())


def comparer_of(compare: Comparison | Mapping[str, Any] | None, tools: Sequence[Any] | None) -> Comparer | None:
    """Return the comparer of settings; None for MatchTIR's comparison, which needs none. Raises ValueError."""
    if compare is None:
        return None
    from rewright.credit.comparison import Comparison  # imported lazily: the comparison of MatchTIR needs no settings

    comparison = Comparison.of(compare)
    return None if comparison.is_parity else Comparer(comparison, tools)


class Pairwise(NamedTuple):
    """A value whose rule compares pairs: a number with a tolerance, or one for a user's function."""

    key: Hashable
    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pairwise) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


Rule = Callable[[Any, Any], float]


class Comparer:
    """Reads calls into the form in which equal values are equal, and scores pairs of values that need it.

    Args:
        comparison: the settings.
        tools: schemas of the tools, for `defaults: true`.

    Raises ValueError for a function that cannot be imported.
    """

    def __init__(self, comparison: Comparison, tools: Sequence[Any] | None = None) -> None:
        self._settings = comparison
        self._tool_names = {alias.lower(): name.lower() for alias, name in comparison.tool_names.items()}
        self._argument_names = {tool.lower(): names for tool, names in comparison.argument_names.items()}
        self._rules = {tool.lower(): rules for tool, rules in comparison.arguments.items()}
        self._pairwise: dict[tuple[str, Hashable], Rule] = {}
        for tool, rules in self._rules.items():
            for argument, rule in rules.items():
                if (function := _pair_rule(rule)) is not None:
                    self._pairwise[tool, argument] = function
        given = comparison.defaults
        raw = _schema_defaults(tools or ()) if given is True else (given or {})
        self.defaults: dict[str, dict[Hashable, Hashable]] = {}
        for name, values in raw.items():
            tool = self._tool(name)
            self.defaults[tool] = {
                argument: value for argument, value in self._values(tool, values).items() if value is not _IGNORED
            }

    def read(self, call: Any) -> ReadCall | None:
        """Read a call as `rewright.credit.calls.read_call` does. Never raises for model output."""
        parity = read_call(call)
        if parity is None:
            return None
        try:
            name, arguments, _ = fields_of(call)
            if isinstance(arguments, str):
                arguments = STRICT.decode(arguments)
            tool = self._tool(name)
            return tool, self._values(tool, arguments)
        except Exception:  # as in `read_call`: values that only parity can read are compared as it does
            return self._tool(parity[0]), parity[1]

    def read_gold(self, call: Any) -> tuple[str, Allowed] | None:
        """Read a gold call, one with allowed values included; None for a malformed one. Raises as `read_allowed`."""
        read = self.read(call)
        if read is not None:
            return read[0], any_of(read[1])
        found = read_allowed(call, self._frozen)
        if found is None:
            return None
        tool, aliases = self._tool(found[0]), self._aliases(self._tool(found[0]))
        values = {aliases.get(argument, argument): allowed for argument, allowed in found[1].values.items()}
        values = {argument: allowed for argument, allowed in values.items() if _IGNORED not in allowed}
        return tool, Allowed(values, frozenset(aliases.get(argument, argument) for argument in found[1].optional))

    def similarity(self, tool: str, pred: Values, gold: Allowed, weights: Weights) -> float:
        """Return the similarity of two calls of one tool. An argument that one side leaves out has its default there.

        Raises ValueError as `score` does.
        """
        defaults = self.defaults.get(tool, {})
        golds = {name: values for name, values in gold.values.items() if name in pred or name not in gold.optional}
        given = {**{name: defaults[name] for name in golds if name in defaults}, **pred}
        golds = {**{name: frozenset((defaults[name],)) for name in pred if name in defaults}, **golds}
        equal = sum(self.score(tool, name, value, golds[name]) for name, value in given.items() if name in golds)
        return formula(frozenset(given), frozenset(golds), equal, weights)

    def score(self, tool: str, argument: Hashable, value: Hashable, allowed: frozenset[Hashable]) -> float:
        """Return 1.0 if a predicted value is one of the allowed gold values, else 0.0 or the score of its function.

        Raises ValueError for a function that raises or returns neither a boolean nor a number in [0, 1].
        """
        if value in allowed and not isinstance(value, Pairwise):
            return 1.0
        rule = self._pairwise.get((tool, argument), self._pairwise.get((ANY_TOOL, argument)))
        if rule is None or not isinstance(value, Pairwise):
            return float(value in allowed)
        return max((rule(value.value, gold.value) for gold in allowed if isinstance(gold, Pairwise)), default=0.0)

    def compares_pairs(self, tool: str) -> bool:
        """Whether calls of a tool have to be compared pair by pair."""
        return tool in self.defaults or any(owner in (tool, ANY_TOOL) for owner, _ in self._pairwise)

    def _tool(self, name: str) -> str:
        lower = name.lower()
        return self._tool_names.get(lower, lower)

    def _aliases(self, tool: str) -> dict[Any, str]:
        return {**self._argument_names.get(ANY_TOOL, {}), **self._argument_names.get(tool, {})}

    def _values(self, tool: str, arguments: Mapping[Any, Any]) -> dict[Hashable, Hashable]:
        aliases = self._aliases(tool)
        values: dict[Hashable, Hashable] = {}
        for argument, value in arguments.items():
            name = aliases.get(argument, argument)
            if name != argument and name in arguments:
                name = argument  # both names are given: the alias is one argument too many
            frozen = self._frozen(tool, name, value)
            if frozen is not _IGNORED:
                values[name] = frozen
        return values

    def _frozen(self, tool: str, argument: Any, value: Any) -> Hashable:
        """The form of a value in which values that the settings call equal are equal."""
        tool = self._tool(tool)
        argument = self._aliases(tool).get(argument, argument)
        rule = self._rules.get(tool, {}).get(argument, self._rules.get(ANY_TOOL, {}).get(argument))
        if rule == "exact":
            return freeze(value)
        if rule == "ignore":
            return _IGNORED
        settings = self._settings
        if (rule is not None and rule not in RULES) or rule == "number":
            return Pairwise(freeze(value), value)
        if rule == "comma_set" and isinstance(value, str):
            return ("set", frozenset(part.strip() for part in value.split(",")))
        try:
            return _canonical(
                value,
                numbers=settings.numbers_as_text,
                unordered=settings.unordered_lists,
                fold=rule == "casefold",
                once=rule == "set",
            )
        except RecursionError:
            return freeze(value)


class _Ignored:
    """The value of an argument that is not compared."""


_IGNORED: Final = _Ignored()


def _canonical(value: Any, *, numbers: bool, unordered: bool, fold: bool, once: bool) -> Hashable:
    if not isinstance(value, (str, Mapping, list, tuple)) and callable(plain := getattr(value, "tolist", None)):
        value = plain()  # numpy scalars and arrays
    if isinstance(value, str):
        if numbers and (number := _number_in(value)) is not None:
            return number
        return value.strip().casefold() if fold else value
    parts = {"numbers": numbers, "unordered": unordered, "fold": fold, "once": once}
    if isinstance(value, Mapping):
        return ("{", frozenset((key, _canonical(inner, **parts)) for key, inner in value.items()))
    if isinstance(value, (list, tuple)):
        items = [_canonical(inner, **parts) for inner in value]
        if once:
            return ("set", frozenset(items))
        return ("[", frozenset(Counter(items).items()) if unordered else tuple(items))
    return freeze(value)


def _number_in(text: str) -> int | float | None:
    """The number that a text is in JSON's grammar, surrounding spaces ignored; None if it is none."""
    text = text.strip()
    if len(text) > _MAX_DIGITS or not _NUMBER.fullmatch(text):
        return None
    if not re.search(r"[.eE]", text):
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else None


def _pair_rule(rule: Any) -> Rule | None:
    """Return the function of a rule that compares pairs, else None."""
    if rule == "number":
        return lambda value, gold: _same_number(value, gold, _RELATIVE, 0.0)
    if isinstance(rule, dict):
        return lambda value, gold: _same_number(value, gold, 0.0, float(rule["number"]))
    if callable(rule):
        return _checked(rule, getattr(rule, "__qualname__", repr(rule)))
    if isinstance(rule, str) and is_path(rule):
        return _checked(load_function(rule, "compare"), rule)
    return None


def _same_number(value: Any, gold: Any, relative: float, absolute: float) -> float:
    """1.0 if both are numbers (or texts of numbers, or lists of them) within the tolerance, or equal as JSON."""
    if isinstance(value, (list, tuple)) and isinstance(gold, (list, tuple)) and len(value) == len(gold):
        return float(all(_same_number(one, other, relative, absolute) for one, other in zip(value, gold, strict=True)))
    left, right = _as_number(value), _as_number(gold)
    if left is None or right is None:
        return float(freeze(value) == freeze(gold))
    if left == right:
        return 1.0
    try:
        near = math.isclose(left, right, rel_tol=relative, abs_tol=absolute * (1 + _RELATIVE))
    except OverflowError:
        near = False
    return float(near)


def _as_number(value: Any) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _number_in(value)
    if callable(plain := getattr(value, "tolist", None)):
        value = plain()
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _checked(function: Callable[..., Any], name: str) -> Rule:
    """Wrap a user's function so that its result is checked."""

    def score(value: Any, gold: Any) -> float:
        try:
            result = function(value, gold)
        except Exception as problem:  # user code can raise anything
            raise ValueError(f"compare: {name} failed: {type(problem).__name__}: {problem}") from problem
        try:
            number = float(result)
        except (TypeError, ValueError):
            number = math.nan
        if not 0.0 <= number <= 1.0:
            raise ValueError(f"compare: {name} returned {result!r:.60}: expected a boolean or a number in [0, 1]")
        return number

    return score


def _schema_defaults(tools: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """The defaults in OpenAI function schemas, by tool and argument."""
    found: dict[str, dict[str, Any]] = {}
    for schema in tools:
        function = schema.get("function", schema) if isinstance(schema, Mapping) else {}
        parameters = function.get("parameters") if isinstance(function, Mapping) else None
        properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
        if not isinstance(properties, Mapping):
            continue
        defaults = {
            name: kind["default"]
            for name, kind in properties.items()
            if isinstance(kind, Mapping) and "default" in kind
        }
        if defaults:
            found[str(function.get("name"))] = defaults
    return found
