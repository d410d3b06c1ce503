r"""Parse a formula to sympy objects. Runs only in the judge's worker process.

`readings` returns every interpretation of a text: as LaTeX (latex2sympy2_extended, the parser of math-verify) and as
sympy output (`8*I - 15`, `Matrix([[1], [2]])`). A text must be parsed completely. math-verify's own `parse` returns
the last part that it understands, so that it reads `1-\frac{1}{\mathrm{e}}` as 1.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from latex2sympy2_extended.sets import FiniteSet

from rewright.judging.notation import TRIGONOMETRIC, depths

__all__ = ["UnreadableFormulaError", "readings"]

_MAX_POWER_BITS = 200_000
_MAX_FACTORIAL = 5_000
_MAX_DEPTH = 40
_NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=False, nits=True, boxed="none", equations=False
)
_CONVERSION = ConversionConfig(lowercase_symbols=False)


class UnreadableFormulaError(ValueError):
    """The text is not a formula, or only a part of it is."""


def readings(text: str) -> list[Any]:
    """Return all readings of a normalised text, at least one. Raises `UnreadableFormulaError` if there is none."""
    if max(depths(text, "([{", ")]}"), default=0) > _MAX_DEPTH:
        raise UnreadableFormulaError("it is nested too deep")
    expressions: list[Any] = []
    problem = "it is not a mathematical expression"
    for reader in (_python, _latex):
        try:
            expressions.append(evaluated(reader(text)))
        except UnreadableFormulaError as unreadable:
            problem = str(unreadable)
        except RecursionError:
            problem = "it is nested too deep"
        except MemoryError:
            raise
        except Exception as failure:  # the parser raises plain exceptions, sympy many kinds
            lines = str(failure).splitlines() or [type(failure).__name__]
            problem = f"only a part of it could be parsed: {lines[0][:100]}"
    if not expressions:
        raise UnreadableFormulaError(problem)
    return expressions


# LaTeX

_SPACED_NUMBERS = re.compile(r"(?<![_^])[0-9]\s+[0-9]|(?<![_^])[0-9]\s*\{\s*[0-9]")
_BROKEN = re.compile(r"\\text\s*\{[^{}]*[,;][^{}]*\}|\\not(?![a-zA-Z])")
_LETTERS = re.compile(r"(?<![a-zA-Z\\{])(?!(?:arc|ar)(?:sin|cos|tan)h?|floor|ceil)[a-zA-Z]{4,}(?![a-zA-Z}])")
_SUBSCRIPTED_NUMBER = re.compile(r"(?:(?<![a-zA-Z}\\])[0-9]+|\))\s*_")
_DROPPED = re.compile(r"\\[lc]?dots(?![a-zA-Z])|\.\.\.|\\phantom|[$\"]|\\top(?![a-zA-Z])|\\prime")
_DERIVATIVE = re.compile(r"\\frac\s*\{\s*(?:d|\\partial)[^{}]*\}\s*\{\s*(?:d|\\partial)\s*[a-z]")
_PRIME = re.compile(r"(?<=[a-zA-Z])('+)")
# The parser reads I as the identity matrix, an exponent T as a transpose, and gamma as Euler's constant.
_SPECIAL = re.compile(
    r"(?<![a-zA-Z\\{])(I)(?![a-zA-Z])|(?<=\^)\s*\{?\s*(T)\s*(?:\}|(?![a-zA-Z]))|"
    r"\\(gamma|Gamma)(?![a-zA-Z]|\s*\()"
)
_CLOSED_AT_INFINITY = re.compile(r"[\[]\s*[-+]?\s*\\infty|\\infty\s*(?:\\right\s*)?\]")
_SQRT = re.compile(r"\\sqrt\s*(\[[^\]]*\])?\s*([0-9a-zA-Z])")
_FRACTION = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|([0-9a-zA-Z]))\s*(?:\{([^{}]*)\}|([0-9a-zA-Z]))")
_MULTI_DIGIT = re.compile(r"\\log\s*_\s*([0-9])\s*(?=[0-9])")


def _latex(text: str) -> Any:
    text = _SQRT.sub(r"\\sqrt\1{\2}", _MULTI_DIGIT.sub(r"\\log_{\1} ", text))
    text = _FRACTION.sub(
        lambda part: (
            f"\\frac{{{part[1] if part[1] is not None else part[2]}}}{{{part[3] if part[3] is not None else part[4]}}}"
        ),
        text,
    )
    for pattern, what in (
        (_SPACED_NUMBERS, "it contains numbers side by side"),
        (_BROKEN, "it contains text"),
        (_DROPPED, "it contains symbols that are not mathematical"),
        (_DERIVATIVE, "it contains a derivative"),
        (_LETTERS, "it contains words"),
        (_SUBSCRIPTED_NUMBER, "it contains a number with an index"),
        (_CLOSED_AT_INFINITY, "it contains an interval that is closed at infinity"),
    ):
        if pattern.search(text):
            raise UnreadableFormulaError(what)
    text = _PRIME.sub(lambda primes: f"_{{{'prime' * len(primes[1])}}}", text)
    text = _SPECIAL.sub(_named, text)
    complex_numbers = re.search(r"(?<![a-zA-Z\\])i(?![a-zA-Z])", text) is not None
    return latex2sympy(
        normalize_latex(text, _NORMALIZATION).strip(),
        is_real=not complex_numbers,
        convert_degrees=TRIGONOMETRIC.search(text) is not None,
        normalization_config=None,
        conversion_config=_CONVERSION,
    )


def _named(match: re.Match[str]) -> str:
    """Rewrite a letter with a special meaning to the parser as a variable name."""
    return rf"{{\text{{{match[2]}}}}}" if match[2] else rf"\text{{{match[1] or match[3] + 'letter'}}}"


# Output of sympy and Python

_PYTHON_MARK = re.compile(
    r"\*|(?<![a-zA-Z\\])(?:oo|I|pi|Matrix|Rational|FiniteSet|Interval|Union|Eq|Tuple|Abs|binomial|factorial|sqrt|exp|log|floor|ceil|"
    r"ceiling)(?![a-zA-Z])|\[\s*[\[(]|\{\s*[a-zA-Z]\w*\s*:|[0-9]j(?![a-zA-Z])"
)
_NAMES: dict[str, Any] = {"oo": sympy.oo, "I": sympy.I, "pi": sympy.pi, "E": sympy.E, "e": sympy.E,
                          "EmptySet": sympy.S.EmptySet, "Reals": sympy.S.Reals}  # fmt: skip


def _matrix(rows: Any) -> Any:
    return sympy.Matrix([list(row) if isinstance(row, (sympy.Tuple, tuple)) else row for row in rows])


def _open_interval(left: bool, right: bool) -> Callable[[Any, Any], Any]:
    return lambda start, end: sympy.Interval(start, end, left_open=left, right_open=right)


_SYMPY_NAMES = (
    "sqrt cbrt exp log sin cos tan cot sec csc asin acos atan sinh cosh tanh asinh acosh atanh floor ceiling Abs "
    "Rational Integer Eq Union binomial factorial Min Max gcd lcm Float conjugate re im"
)
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(sympy, name) for name in _SYMPY_NAMES.split()},
    "ceil": sympy.ceiling, "ln": sympy.log, "abs": sympy.Abs, "arcsin": sympy.asin, "arccos": sympy.acos,
    "arctan": sympy.atan,
    "Matrix": _matrix, "ImmutableMatrix": _matrix, "FiniteSet": FiniteSet, "Tuple": sympy.Tuple, "tuple": sympy.Tuple,
    "list": sympy.Tuple, "Interval": sympy.Interval, "Interval.open": _open_interval(True, True),
    "Interval.Lopen": _open_interval(True, False), "Interval.Ropen": _open_interval(False, True),
}  # fmt: skip
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.Div: lambda left, right: left / right,
    ast.Mod: lambda left, right: left % right,
}
_COMPARISONS: dict[type, Callable[..., Any]] = {
    ast.Lt: sympy.StrictLessThan,
    ast.LtE: sympy.LessThan,
    ast.Gt: sympy.StrictGreaterThan,
    ast.GtE: sympy.GreaterThan,
    ast.Eq: sympy.Eq,
    ast.NotEq: sympy.Ne,
}


def _python(text: str) -> Any:
    """Parse Python notation. The syntax tree is walked and never evaluated; only names in the tables are accepted."""
    text = text.replace(r"\infty", "oo").replace(r"\pi", "pi").replace(r"\sqrt", "sqrt").replace(r"\cup", "|")
    text = re.sub(r"\\(arc|a)?(sin|cos|tan|log|ln|exp|cot|sec|csc)h?(?![a-zA-Z])", lambda name: name[0][1:], text)
    text = re.sub(r"(?<=sqrt)\{([^{}]*)\}", r"(\1)", re.sub(r"(?<=\^)\{([^{}]*)\}", r"(\1)", text))
    if "\\" in text or _PYTHON_MARK.search(text) is None:
        raise UnreadableFormulaError("it is not a Python expression")
    try:
        tree = ast.parse(text.replace("^", "**").strip(), mode="eval")
    except (SyntaxError, ValueError) as problem:
        raise UnreadableFormulaError("it is not a Python expression") from problem
    return _convert_node(tree.body)


def _convert_node(node: ast.AST, nested: bool = False) -> Any:
    """Convert a syntax tree node. `nested`: the node is an argument or a row, where a list is not an interval."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, complex):
        if isinstance(node.value, complex):
            return sympy.Rational(repr(node.value.imag)) * sympy.I
        return sympy.Integer(node.value) if isinstance(node.value, int) else sympy.Rational(repr(node.value))
    if isinstance(node, ast.Name):
        if node.id in _NAMES:
            return _NAMES[node.id]
        if re.fullmatch(r"[a-zA-Z]_?[0-9]*", node.id):
            return sympy.Symbol(node.id)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _convert_node(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    elif isinstance(node, ast.BinOp):
        left, right = _convert_node(node.left), _convert_node(node.right)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if isinstance(node.op, ast.BitOr) and isinstance(left, sympy.Set) and isinstance(right, sympy.Set):
            return sympy.Union(left, right)
        if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](left, right)
    elif isinstance(node, ast.Compare):
        sides = [_convert_node(side) for side in (node.left, *node.comparators)]
        parts = [
            _COMPARISONS[type(operator)](left, right, evaluate=False)
            for left, operator, right in zip(sides, node.ops, sides[1:], strict=False)
            if type(operator) in _COMPARISONS
        ]
        if len(parts) == len(node.ops):
            return parts[0] if len(parts) == 1 else sympy.And(*parts, evaluate=False)
    elif isinstance(node, (ast.Tuple, ast.List)):
        items = [_convert_node(item, nested=True) for item in node.elts]
        if isinstance(node, ast.List) and items and all(isinstance(item, ast.List) for item in node.elts):
            return _matrix(items)
        if isinstance(node, ast.List) and len(items) == 2 and not nested and not isinstance(node.elts[0], ast.Tuple):
            raise UnreadableFormulaError("it is an interval, or a list")
        if isinstance(node, ast.List) and items and all(isinstance(item, ast.Tuple) for item in node.elts):
            return FiniteSet(*items)
        return sympy.Tuple(*items)
    elif isinstance(node, ast.Set):
        return FiniteSet(*(_convert_node(item) for item in node.elts))
    elif isinstance(node, ast.Dict):
        pairs = [(key, value) for key, value in zip(node.keys, node.values, strict=True) if key is not None]
        return FiniteSet(*(sympy.Eq(_convert_node(key), _convert_node(value), evaluate=False) for key, value in pairs))
    elif isinstance(node, ast.Call) and not node.keywords:
        function = _FUNCTIONS.get(ast.unparse(node.func))
        if function is not None:
            arguments = [_convert_node(argument, nested=True) for argument in node.args]
            if function in (sympy.factorial, sympy.binomial):
                _check_factorial(arguments[0])
            if function is _matrix and isinstance(arguments[0], sympy.MatrixBase):
                return arguments[0]
            return function(*arguments)
    raise UnreadableFormulaError(f"it contains {ast.unparse(node)[:40]!r}, which is not a formula")


# Evaluation


def _power(base: Any, exponent: Any) -> Any:
    """Return the power. Raises `UnreadableFormulaError` if the number would be too large."""
    if base.is_Rational and exponent.is_Rational and base not in (0, 1, -1):
        bits = max(abs(int(base.p)), int(base.q)).bit_length()
        if abs(exponent) * bits > _MAX_POWER_BITS:
            raise UnreadableFormulaError("it contains a number that is too large")
    return sympy.Pow(base, exponent)


def _check_factorial(value: Any) -> None:
    if value.is_Integer and value > _MAX_FACTORIAL:
        raise UnreadableFormulaError("it contains a number that is too large")


def _exact(number: sympy.Float) -> sympy.Rational:
    """Convert a decimal to its exact fraction: 0.1 is 1/10."""
    return sympy.Rational(str(number))


def evaluated(expression: Any, bound: frozenset[str] = frozenset()) -> Any:
    """Evaluate an expression: exact arithmetic, decimals as fractions, i as the imaginary unit, real variables."""
    if isinstance(expression, sympy.MatrixBase):
        return sympy.ImmutableMatrix(expression.applyfunc(lambda item: evaluated(item, bound)))
    if isinstance(expression, sympy.Float):
        return _exact(expression)
    if isinstance(expression, sympy.Symbol):
        return _symbol(expression.name, bound)
    if not isinstance(expression, sympy.Basic):
        raise UnreadableFormulaError("it is not a mathematical expression")
    if not expression.args:
        return expression
    limits = getattr(expression, "variables", ())
    bound |= {symbol.name for symbol in limits if isinstance(symbol, sympy.Symbol)}
    arguments = [evaluated(argument, bound) for argument in getattr(expression, "_unsorted_args", expression.args)]
    if any(argument in (sympy.nan, sympy.zoo) for argument in arguments):
        raise UnreadableFormulaError("it contains a division by zero")
    if isinstance(expression, sympy.Pow):
        return _power(*arguments)
    if isinstance(expression, sympy.FiniteSet):
        return FiniteSet(*arguments)
    if isinstance(expression, (sympy.core.relational.Relational, sympy.And)):
        return expression.func(*arguments, evaluate=False)
    if isinstance(expression, (sympy.factorial, sympy.binomial)):
        _check_factorial(arguments[0])
    if isinstance(expression, sympy.core.expr.UnevaluatedExpr):
        return arguments[0]
    done = expression.func(*arguments)
    if isinstance(
        expression, (sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Derivative, sympy.MatrixExpr)
    ):
        done = done.doit()
    if done in (sympy.nan, sympy.zoo):
        raise UnreadableFormulaError("it contains a division by zero")
    return done


def _symbol(name: str, bound: frozenset[str]) -> Any:
    plain = re.sub(r"[{}\s]", "", name).replace("_", "")
    if plain == "i" and name not in bound:
        return sympy.I
    return sympy.Symbol(plain, real=True)
