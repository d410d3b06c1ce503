"""Equality of two parsed formulas. Symmetric. Runs only in the judge's worker process.

Constant expressions are compared at 30 digits, relative to their size. Expressions with variables are equal if they
agree at fixed rational points (false positives are negligibly rare), or by sympy's `simplify` if no point can be used.
Equations, inequalities, sets and tuples are compared by their parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import sympy
from latex2sympy2_extended.sets import FiniteSet
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

__all__ = ["equal"]

_DIGITS = 30
_RELATIVE_TOLERANCE = sympy.Rational(1, 10**20)
_FLOAT_TOLERANCE = sympy.Rational(1, 10**14)
"""Relative tolerance for printed floats, whose last of 15 to 17 digits may be wrong."""
_MIN_SIGNIFICANT_DIGITS = 6
_MAX_ITEMS = 200
_POINTS = (
    (2, 3, 5, 7, 11, 13, 17, 19),
    (31, 37, 41, 43, 47, 53, 59, 61),
    (71, 67, 83, 73, 89, 79, 101, 97),
    (-31, -17, -29, -13, -23, -11, -19, -37),
    (-5, 53, -7, 59, -3, 61, -2, 67),
    (43, -3, 41, -5, 37, -7, 31, -2),
)
_FIRST_DENOMINATOR = 10
_MAX_VARIABLES = 8


def equal(left: Any, right: Any) -> bool:
    """Return True if both are mathematically equal."""
    left, right = _same_case(left, right)
    if left == right:
        return True
    names, values = _assigned(left), _assigned(right)
    if names is not None and values is not None:
        if names.keys() != values.keys():
            return _sets(names, values) or _equations(left, right)
        return all(_equal_unordered(names[name], values[name]) for name in names)
    if names is not None or values is not None:
        assigned, other = (names, right) if names is not None else (values, left)
        assert assigned is not None
        return _values_are(assigned, other) or (isinstance(left, Relational) and _relations(left, right))
    if isinstance(left, (Relational, sympy.And)) or isinstance(right, (Relational, sympy.And)):
        return _relations(left, right)
    if _inequalities(left) != _inequalities(right):
        return _relations(left, right)
    return _objects(left, right)


def _inequalities(side: Any) -> bool:
    return isinstance(side, FiniteSet) and all(isinstance(part, (Relational, sympy.And)) for part in side.args)


def _same_case(left: Any, right: Any) -> tuple[Any, Any]:
    """Convert one-letter variables to lower case, unless two variables would become the same."""
    both = {symbol for side in (left, right) for symbol in _symbols(side)}
    letters = {symbol for symbol in both if len(symbol.name.rstrip("0123456789")) == 1}  # Delta and delta differ
    small = {symbol: sympy.Symbol(symbol.name.lower(), real=True) if symbol in letters else symbol for symbol in both}
    for side in (left, right):
        own = _symbols(side)
        if len({small[symbol] for symbol in own}) < len(own):
            return left, right
    changed = {symbol: to for symbol, to in small.items() if symbol != to}
    if not changed:
        return left, right
    return _replaced(left, changed), _replaced(right, changed)


def _symbols(side: Any) -> set[Any]:
    return set(side.atoms(sympy.Symbol))


def _replaced(side: Any, changed: dict[Any, Any]) -> Any:
    if isinstance(side, FiniteSet):
        return FiniteSet(*(_replaced(item, changed) for item in side._unsorted_args))
    if isinstance(side, (Relational, sympy.And)):
        return side.func(*(_replaced(part, changed) for part in side.args), evaluate=False)
    return side.xreplace(changed)


# Assignments


def _name(side: Any) -> str | None:
    """Return the name on the left of `x = 5` or `f(x) = 5`, "" for a number (`2 + 3 = 5`), else None."""
    if isinstance(side, (sympy.Symbol, AppliedUndef)):
        return str(side)
    return "" if isinstance(side, sympy.Expr) and not side.free_symbols and not side.atoms(sympy.I) else None


def _assigned(side: Any) -> dict[str, list[Any]] | None:
    """Return values by name if `side` consists of assignments (`x=5, y=3`; `x=1` or `x=2`; `(x,y)=(5,3)`)."""
    if isinstance(side, sympy.And) and all(isinstance(part, sympy.Eq) for part in side.args):
        parts = _chain(side)
        return None if parts is None else {parts[0]: [parts[1]]}
    equations = list(side._unsorted_args) if isinstance(side, FiniteSet) else [side]
    assignments: dict[str, list[Any]] = {}
    for equation in equations:
        if not isinstance(equation, sympy.Eq):
            return None
        pairs = [(equation.lhs, equation.rhs)]
        names, values = _ordered(equation.lhs), _ordered(equation.rhs)
        if names is not None and values is not None and len(names) == len(values):
            pairs = list(zip(names, values, strict=True))
        for left, right in pairs:
            name, other = _name(left), _name(right)
            turned = bool(other and not name)  # 5 = x
            if turned:
                name = other
            if name is None:
                return None
            assignments.setdefault(name, []).append(left if turned else right)
    return assignments


def _chain(side: Any) -> tuple[str, Any] | None:
    """Return (name, last value) of `x = a = b`, or None if the values differ."""
    equations = list(getattr(side, "_unsorted_args", side.args))
    values = [equations[0].lhs, *(equation.rhs for equation in equations)]
    name = _name(values[0])
    if name is None or not all(_objects(value, values[-1]) for value in values[1 if name else 0 : -1]):
        return None
    return name, values[-1]


def _values_are(assigned: dict[str, list[Any]], other: Any) -> bool:
    """Compare assigned values with `other`. Several are ordered by variable name: x=5, y=3 equals (5,3)."""
    if len(assigned) == 1:
        return _equal_unordered(next(iter(assigned.values())), other)
    items = _ordered(other)
    if items is None or len(items) != len(assigned) or any(len(values) > 1 for values in assigned.values()):
        return False
    return all(equal(assigned[name][0], item) for name, item in zip(sorted(assigned), items, strict=True))


def _equal_unordered(values: Any, other: Any) -> bool:
    """Compare the values of one variable with `other`, ignoring order."""
    left = values[0] if isinstance(values, list) and len(values) == 1 else FiniteSet(*values)
    right = other
    if isinstance(other, list):
        right = other[0] if len(other) == 1 else FiniteSet(*other)
    return _objects(left, right) if not isinstance(right, (Relational, sympy.And)) else False


def _sets(left: dict[str, list[Any]], right: dict[str, list[Any]]) -> bool:
    """Return True for an assignment and an evaluated expression with the same value: `x = 5` and `2+3 = 5`."""
    if len(left) == len(right) == 1 and ("" in left) != ("" in right):
        return _equal_unordered(next(iter(left.values())), next(iter(right.values())))
    return False


# Relations


def _equations(left: Any, right: Any) -> bool:
    """Return True if lhs - rhs of one equation is a constant non-zero multiple of the other's."""
    if not (isinstance(left, sympy.Eq) and isinstance(right, sympy.Eq)):
        return False
    try:
        ratio = sympy.simplify((left.lhs - left.rhs) / (right.lhs - right.rhs))
    except (TypeError, AttributeError):
        return False
    return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero and ratio != sympy.nan)


def _as_set(side: Any) -> Any:
    """Return the solution set of an inequality in one variable, a set unchanged, else None."""
    if isinstance(side, (Relational, sympy.And)):
        try:
            return side.as_set() if len(side.free_symbols) == 1 else None
        except Exception:  # sympy cannot solve it
            return None
    if _inequalities(side):
        parts = [_as_set(part) for part in side.args]
        if len(side.free_symbols) != 1 or any(part is None for part in parts):
            return None
        # The parser drops the "and" or "or" between inequalities. Disjoint parts are read as "or" ("x < -3 or x > 3"),
        # overlapping ones as "and" ("x > 3 and x < 5").
        apart = all(a.intersect(b).is_empty for a, b in itertools.combinations(parts, 2))
        return sympy.Union(*parts) if apart else sympy.Intersection(*parts)
    return side if isinstance(side, sympy.Set) else None


def _relations(left: Any, right: Any) -> bool:
    if isinstance(left, sympy.Eq) or isinstance(right, sympy.Eq):
        membership = [
            side.rhs for side in (left, right) if isinstance(side, sympy.Eq) and isinstance(side.rhs, sympy.Set)
        ]
        if len(membership) == 1:  # x in [1, 2), and 1 <= x < 2
            other = right if isinstance(left, sympy.Eq) else left
            solutions = _as_set(other)
            return solutions is not None and _objects(membership[0], solutions)
        return _equations(left, right)
    if isinstance(left, Relational) and isinstance(right, Relational):
        if left.free_symbols != right.free_symbols:
            return False
        if isinstance(left, sympy.Ne) or isinstance(right, sympy.Ne):
            same = isinstance(left, sympy.Ne) and isinstance(right, sympy.Ne)
            return same and _equations(sympy.Eq(*left.args, evaluate=False), sympy.Eq(*right.args, evaluate=False))
        strict = {isinstance(side, (sympy.StrictLessThan, sympy.StrictGreaterThan)) for side in (left, right)}
        if len(strict) == 1:
            difference, other_difference = left.gts - left.lts, right.gts - right.lts
            ratio = sympy.simplify(difference / other_difference) if other_difference != 0 else sympy.nan
            if ratio.is_number and ratio.is_positive:
                return True
    elif isinstance(left, sympy.And) and isinstance(right, sympy.And) and len(left.args) == len(right.args):
        if left.free_symbols != right.free_symbols:
            return False
        parts = [(a, b) for a, b in itertools.product(left.args, right.args) if _relations(a, b)]
        if len({a for a, _ in parts}) == len(left.args) == len({b for _, b in parts}):
            return True
    left_set, right_set = _as_set(left), _as_set(right)
    return left_set is not None and right_set is not None and _objects(left_set, right_set)


# Objects


def _ordered(side: Any) -> list[Any] | None:
    """Return the items of a tuple, or the ends of an open interval, which is how (1, 2) is parsed; else None."""
    if isinstance(side, sympy.Tuple):
        return list(side.args)
    if isinstance(side, sympy.Interval) and side.left_open and side.right_open:
        return [side.start, side.end]
    return None


def _objects(left: Any, right: Any) -> bool:
    if left == right:
        return True
    if isinstance(left, FiniteSet) or isinstance(right, FiniteSet):
        left_items, right_items = _items(left), _items(right)
        return left_items is not None and right_items is not None and _matched(left_items, right_items)
    if isinstance(left, sympy.Tuple) or isinstance(right, sympy.Tuple):
        left_items, right_items = _ordered(left), _ordered(right)
        if left_items is None or right_items is None or len(left_items) != len(right_items):
            return False
        return all(equal(a, b) for a, b in zip(left_items, right_items, strict=True))
    if isinstance(left, sympy.Interval) and isinstance(right, sympy.Interval):
        ends = (left.left_open, left.right_open) == (right.left_open, right.right_open)
        return ends and _objects(left.start, right.start) and _objects(left.end, right.end)
    if isinstance(left, sympy.Set) or isinstance(right, sympy.Set):
        return isinstance(left, sympy.Set) and isinstance(right, sympy.Set) and _same_sets(left, right)
    if isinstance(left, sympy.MatrixBase) or isinstance(right, sympy.MatrixBase):
        if not (isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase)):
            return False
        return left.shape == right.shape and all(_objects(a, b) for a, b in zip(left, right, strict=True))
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return False
    if not left.free_symbols and not right.free_symbols:
        return _numbers(left, right)
    return _formulas(left, right)


def _items(side: Any) -> list[Any] | None:
    if isinstance(side, FiniteSet):
        return list(side.args)
    return None if isinstance(side, (sympy.Set, sympy.Tuple, sympy.MatrixBase)) else [side]


def _matched(left: Sequence[Any], right: Sequence[Any]) -> bool:
    """Return True if the items can be matched one to one."""
    if len(left) != len(right) or len(left) > _MAX_ITEMS:
        return False
    rest = list(right)
    for item in left:
        index = next((position for position, other in enumerate(rest) if equal(item, other)), None)
        if index is None:
            return False
        del rest[index]
    return True


def _same_sets(left: Any, right: Any) -> bool:
    if type(left) is type(right) and len(left.args) == len(right.args) <= _MAX_ITEMS:
        rest = list(right.args)
        for part in left.args:
            index = next((position for position, other in enumerate(rest) if _objects(part, other)), None)
            if index is None:
                break
            del rest[index]
        else:
            return True
    try:
        return bool(left.symmetric_difference(right).is_empty)
    except Exception:  # sympy cannot decide it
        return False


# Numbers


def _decimal_places(value: Any) -> int | None:
    """Return the decimal places of a terminating decimal with at least six significant digits; else None."""
    rest, places = int(value.q), 0
    if rest == 1:
        return None
    while rest % 10 == 0 or rest % 2 == 0 or rest % 5 == 0:
        rest //= 10 if rest % 10 == 0 else 2 if rest % 2 == 0 else 5
        places += 1
    digits = abs(value.p) * 10**places // value.q
    return places if rest == 1 and len(str(digits)) >= _MIN_SIGNIFICANT_DIGITS else None


def _is_decimal(value: Any) -> bool:
    rest = int(value.q)
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _is_rounding_of(decimal: Any, exact: Any) -> bool:
    """Return True if `decimal` is `exact` rounded or truncated, with at least six significant digits."""
    places = _decimal_places(decimal)
    if places is None or not exact.is_real:
        return False
    scaled = exact * 10**places
    shown = decimal * 10**places
    if abs(sympy.N(scaled - shown, places + _DIGITS)) > 1:
        return False
    down = sympy.floor(scaled)
    if shown in (down, down + 1) and (shown == sympy.floor(scaled + sympy.S.Half) or shown == _truncated(scaled)):
        return True
    return len(str(abs(shown))) >= 15 and abs(sympy.N((exact - decimal) / decimal, _DIGITS)) < _FLOAT_TOLERANCE


def _truncated(scaled: Any) -> Any:
    return sympy.floor(scaled) if scaled > 0 else sympy.ceiling(scaled)


def _numbers(left: Any, right: Any) -> bool:
    """Compare two constants, relative to their size."""
    if left.is_Rational and right.is_Rational:
        if _is_decimal(left) and _is_decimal(right):
            return bool(left == right)
    elif _close(left, right):
        return True
    for decimal, exact in ((left, right), (right, left)):
        if decimal.is_Rational and _is_decimal(decimal) and not (exact.is_Rational and _is_decimal(exact)):
            return _is_rounding_of(decimal, exact)
    return False


def _close(left: Any, right: Any) -> bool:
    left_value, right_value = left.evalf(_DIGITS, maxn=400), right.evalf(_DIGITS, maxn=400)
    if not (_finite(left_value) and _finite(right_value)):
        return False
    size = max(abs(left_value), abs(right_value))
    if abs(left_value - right_value) <= size * _RELATIVE_TOLERANCE:
        return True
    if min(abs(left_value), abs(right_value)) > _RELATIVE_TOLERANCE * size:  # neither is an unevaluated zero
        return False
    return size < _RELATIVE_TOLERANCE and bool(sympy.simplify(left - right).is_zero)


def _finite(value: Any) -> bool:
    return bool(value.is_number) and not value.has(sympy.oo, -sympy.oo, sympy.zoo, sympy.nan)


def _formulas(left: Any, right: Any) -> bool:
    """Compare two expressions with variables."""
    names = sorted(left.free_symbols | right.free_symbols, key=str)
    usable = 0
    imaginary = left.has(sympy.I) or right.has(sympy.I)
    if len(names) <= _MAX_VARIABLES:
        for point in _POINTS:
            at = {name: sympy.Rational(point[index], _FIRST_DENOMINATOR + index) for index, name in enumerate(names)}
            left_at_point, right_at_point = left.subs(at), right.subs(at)
            left_value, right_value = left_at_point.evalf(_DIGITS, maxn=400), right_at_point.evalf(_DIGITS, maxn=400)
            if not (_finite(left_value) and _finite(right_value)):
                continue
            if not imaginary and not (left_value.is_real and right_value.is_real):
                continue
            if not _close(left_at_point, right_at_point):
                return False
            usable += 1
    if usable:
        return True
    return bool(sympy.simplify(left - right).is_zero)
