r"""Normalise formulas in plain text, Python, sympy or Unicode notation to the LaTeX that the parser accepts.

`to_latex` is text-based and runs in linear time except for bracket matching, which the judge's `MAX_ANSWER_CHARACTERS`
bounds. `first_formula` extracts a formula from a sentence. Equality is decided elsewhere.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable

__all__ = ["braced", "first_formula", "has_prose", "to_ascii", "to_latex"]

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ"
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₒₓₙ"
_SIGNS = {
    "×": r"\times ", "✕": r"\times ", "⨯": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ",
    "∗": "*", "÷": "/", "⁄": "/", "∕": "/", "−": "-", "–": "-", "‒": "-", "—": "-", "﹣": "-", "－": "-", "‑": "-",
    "≤": r"\le ", "⩽": r"\le ", "≦": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≧": r"\ge ", "≠": r"\ne ",
    "≈": r"\approx ", "±": r"\pm ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ",
    "∖": r"\setminus ", "°": r"^\circ ", "º": r"^\circ ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "∠": r"\angle ", "、": ",", "。": ".", "；": ";", "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "∶": ":", "或": " or ", "和": " and ", "且": " and ", "…": r"\ldots ", "ℯ": "e", "ⅈ": "i", "’": "'", "′": "'",
}  # fmt: skip
_INVISIBLE = re.compile("[\u200b-\u200d\u2060\ufeff\u00ad\u2061-\u2064]")
_SUPERSCRIPT_RUN = re.compile(f"[{_SUPERSCRIPTS}]+")
_SUBSCRIPT_RUN = re.compile(f"[{_SUBSCRIPTS}]+")
_ROOT = re.compile(r"([√∛∜])\s*(?:([0-9]+(?:\.[0-9]+)?|[a-zA-Z])|(?=[({\\]))")
_ROOT_INDEX = {"√": "", "∛": "[3]", "∜": "[4]"}

_FONTS = r"\\(?:math(?:rm|it|bf|sf|up|normal)|text(?:rm|it|normal|up)?|mbox|operatorname\*?|rm|up)"
_UPRIGHT_CONSTANT = re.compile(_FONTS + r"\s*\{\s*([eid]|\\pi|\\uppi)\s*\}|\{\s*\\rm\s+([eid])\s*\}")
_FUNCTIONS = (
    "arcsin|arccos|arctan|arccot|arcsec|arccsc|arcsinh|arccosh|arctanh|sinh|cosh|tanh|"
    "sin|cos|tan|cot|sec|csc|log|ln|exp|gcd|lcm|max|min|det"
)
_FONT_GROUP = re.compile(
    r"\\(?:(?:math(?:bf|it|sf|normal)|boldsymbol|bm)\s*\{([^{}]*)\}|(?:text(?:bf|it|rm)?|mbox|mathrm)\s*\{\s*([-+]?[0-9.,/]+)\s*\})"
)
_UPRIGHT_FUNCTION = re.compile(_FONTS + rf"\s*\{{\s*({_FUNCTIONS})\s*\}}")
_BARE_FUNCTION = re.compile(rf"(?<![a-zA-Z\\{{])({_FUNCTIONS})(?=\s*[({{\\^_0-9]|\s+[a-zA-Z](?![a-zA-Z]))")
_PYTHON_ARC = re.compile(r"(?<![a-zA-Z\\])a(sin|cos|tan|sinh|cosh|tanh)(?=\s*\()")
_ABSOLUTE = re.compile(r"(?<![a-zA-Z\\])abs(?=\s*\()", re.IGNORECASE)
_PAREN_ARGUMENT = re.compile(r"(\\sqrt|\^)\s*(?:\\left\s*)?\(")
_BARE_SQRT = re.compile(r"(?<![a-zA-Z\\])sqrt(?=\s*[({0-9a-z])")
_CBRT = re.compile(r"(?<![a-zA-Z\\])cbrt(?=\s*[({0-9a-z])")
_EMPTY_COMMANDS = re.compile(
    r"\\(?:displaystyle|textstyle|limits|nolimits|bigl?|bigr|Bigl?|Bigr|biggl?|biggr|Biggl?|Biggr)(?![a-zA-Z])\s*"
    r"|(?<!\\)\\[,;:!> ]|\\q?quad(?![a-zA-Z])|(?<!\\)~"
)
_SPELLINGS = (
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:left|right)\s*\."), ""),
    (re.compile(r"\\leq(?:slant|q)?(?![a-zA-Z])"), r"\\le "),
    (re.compile(r"\\geq(?:slant|q)?(?![a-zA-Z])"), r"\\ge "),
    (re.compile(r"\\neq(?![a-zA-Z])"), r"\\ne "),
    (re.compile(r"(?<!\\)<\s*="), r"\\le "),
    (re.compile(r"(?<!\\)>\s*="), r"\\ge "),
    (re.compile(r"!="), r"\\ne "),
    (re.compile(r"\\varnothing(?![a-zA-Z])"), r"\\emptyset "),
    (re.compile(r"\\(?:uppi|Pi(?=\b.*\\pi))(?![a-zA-Z])"), r"\\pi "),
    (re.compile(r"\\imath(?![a-zA-Z])"), "i"),
    (re.compile(r"\\backslash(?![a-zA-Z])"), r"\\setminus "),
    (re.compile(r"\\ast(?![a-zA-Z])"), "*"),
    (re.compile(r"\\(?:degree|textdegree)(?![a-zA-Z])"), r"^\\circ "),
    (re.compile(r"\^\s*\{\s*\\circ\s*\}"), r"^\\circ "),
    (re.compile(r"(?<![a-zA-Z\\])(?:oo|inf|infinity)(?![a-zA-Z])", re.IGNORECASE), r"\\infty "),
    (re.compile(r"\\lbrace(?![a-zA-Z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![a-zA-Z])"), r"\\}"),
    (re.compile(r"(?<![a-zA-Z\\])EmptySet(?![a-zA-Z])"), r"\\emptyset "),
    (re.compile(r"\\lg(?![a-zA-Z])"), r"\\log_{10} "),
    (re.compile(r"(?<=[0-9])\s*[xX]\s*(?=10\s*(?:\^|\*\*))"), r"\\times "),
    (re.compile(r"\\overline\s*\{\s*([A-Z]{2,})\s*\}"), r"\1"),
    (re.compile(r"\\langle(?![a-zA-Z])"), "("),
    (re.compile(r"\\rangle(?![a-zA-Z])"), ")"),
    (re.compile(r"\^\s*\{?\s*\\(?:text|mathrm)\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}?"), ""),
    (re.compile(r"\\cdotp(?![a-zA-Z])"), r"\\cdot "),
    (re.compile(r"(?<![a-zA-Z\\])U(?=\s*[(\[])"), r"\\cup "),
)
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(
    rf"(?<=[0-9])\s*(?:({'|'.join(_SCALES)})\b|\\text\s*\{{\s*({'|'.join(_SCALES)})\s*\}})", re.IGNORECASE
)
_STARS = re.compile(r"(\*\*|\*|__)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)
_OPENING = re.compile(r"^(?:#+\s+|(?:=|\\approx(?![a-zA-Z]))\s*(?=\S))")
_IN_WORDS = re.compile(r"(?<=[0-9])\s*\([a-zA-Z]{3,}(?:[ -][a-zA-Z]+)*\)$")
_WHOLE_TEXT = re.compile(r"\\(?:text|mbox)(?:bf|it|rm)?\s*\{\s*([-+]?[0-9$][^{}]*)\}")
_DELIMITED = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_BETWEEN = re.compile(r"[\s,;.]*(?:(?:and|or)\b)?[\s,;.]*", re.IGNORECASE)
_PROSE = re.compile(r"(?<![a-zA-Z\\{])[a-zA-Z]{2,}[.,:]?\s+[a-zA-Z]{2,}|\b(?:is|are|equals)\b", re.IGNORECASE)
_WORD_AND_NUMBER = re.compile(
    rf"(?<![a-zA-Z\\{{0-9}})])\s*(?!(?:{_FUNCTIONS}|and|or|sqrt|pi|oo|inf|mod|[a-z]?sin|[a-z]?cos|[a-z]?tan|lg|ceil|floor)\b)"
    r"[a-zA-Z][a-z]+[.:]?\s+[-+]?[0-9]"
)
_COMMAND = re.compile(r"\\(?:text|mbox|textbf|mathrm)\s*\{[^{}]*\}|\\[a-zA-Z]+")
_LEAD = re.compile(
    r"(?:.*\b(?:is|are|was|equals?|be|becomes?|gives|get|answer|approximately|about)\b\s*:?|.*:)\s*", re.DOTALL
)
_COMPARING = re.compile(
    r"\b(?:not|never|no|nor|neither|without|except|unless|least|most|more|less|fewer|greater|larger|smaller|over|under|"
    r"above|below|between|up to|exceeds?|within|if|than|divided|times|plus|minus|cannot|isn't|aren't|unknown|false|"
    r"impossible|wrong|january|february|march|april|may|june|july|august|september|october|november|december)\b|n't\b",
    re.IGNORECASE,
)
"""Words that change the meaning of a number in a sentence: "at least 5" is not 5."""
_NUMBER_IN_TEXT = re.compile(
    r"(?<![\w.,/^-])[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:\s*/\s*[0-9]+)?%?(?![\w/^*+=-])(?!\.[0-9])"
)


TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
"""A trigonometric function in LaTeX. Degrees in its argument are an angle, and not a unit of the formula."""


def depths(text: str, opening: str, closing: str) -> list[int]:
    """Return the nesting depth after each character of `text`, of brackets that `opening` and `closing` list."""
    return list(itertools.accumulate((sign in opening) - (sign in closing) for sign in text))


def has_prose(text: str) -> bool:
    """Return True if the text contains prose outside of LaTeX commands and formulas."""
    outside = _COMMAND.sub(" ", _DELIMITED.sub(" ", text))
    return any(words.search(outside) is not None for words in (_PROSE, _COMPARING, _WORD_AND_NUMBER))


def first_formula(text: str, is_one: Callable[[str], bool]) -> str | None:
    r"""Return the only formula or number in a sentence, without delimiters, or None if there is not exactly one.

    "The answer is $x=5$." gives x=5 and "there are 5 ways" gives 5. "3 apples and 4 oranges" and "at least 5" give
    None. `is_one` decides whether a remainder with words, such as "5 square feet", is a single value.
    """
    text = text.strip().rstrip(".。!").strip()
    outside = _DELIMITED.sub(" ", text)
    if _COMPARING.search(outside):
        return None
    formulas = [_content(match) for match in _DELIMITED.finditer(text)]
    lead = _LEAD.match(text)
    rest = text[lead.end() :].strip() if lead else ""
    if rest and (inner := _joined(rest)) is not None and (not has_prose(inner) or is_one(inner)):
        return inner
    if len(formulas) == 1 and not re.search(r"[0-9]", outside):
        return formulas[0]
    numbers = _NUMBER_IN_TEXT.findall(text)
    if len(numbers) == 1 and not formulas and len(re.findall(r"[0-9][0-9.,/]*", text)) == 1:
        return str(numbers[0])
    return None


def _joined(text: str) -> str | None:
    """Remove math delimiters if only commas, "and" and "or" are outside of them; else return None."""
    if _DELIMITED.search(text) is None:
        return text
    outside = _DELIMITED.split(text)[::5]
    if any(_BETWEEN.fullmatch(part) is None for part in outside):
        return None
    return _DELIMITED.sub(_content, text)


def to_latex(text: str) -> str:
    """Normalise `text` to ASCII and LaTeX commands, without delimiters, markup and a final full stop."""
    text = _undecorated(to_ascii(text))
    text = _UPRIGHT_CONSTANT.sub(lambda match: f" {match[1] or match[2]} ".replace("uppi", "pi"), text)
    text = _FONT_GROUP.sub(lambda match: match[1] if match[2] is None else match[2], text)
    text = _UPRIGHT_FUNCTION.sub(r"\\\1 ", text)
    for spelling, replacement in _SPELLINGS:
        text = spelling.sub(replacement, text)
    text = _SCALE.sub(lambda match: rf"\times 10^{{{_SCALES[(match[1] or match[2]).lower()]}}} ", text)
    text = _EMPTY_COMMANDS.sub(" ", text)
    text = _CBRT.sub(r"\\sqrt[3]", _BARE_SQRT.sub(r"\\sqrt", text))
    text = _BARE_FUNCTION.sub(r"\\\1 ", _PYTHON_ARC.sub(r"arc\1", text))
    text = _absolute(text)
    return re.sub(r" {2,}", " ", braced(text)).strip()


def to_ascii(text: str) -> str:
    """Replace full-width, superscript, fraction and other Unicode characters by ASCII and LaTeX."""
    text = _INVISIBLE.sub("", text)
    if text.isascii():
        return text
    text = _SUPERSCRIPT_RUN.sub(lambda run: f"^{{{unicodedata.normalize('NFKC', run[0]).replace('−', '-')}}}", text)
    text = _SUBSCRIPT_RUN.sub(lambda run: f"_{{{unicodedata.normalize('NFKC', run[0]).replace('−', '-')}}}", text)
    text = re.sub(
        "[¼½¾⅐-⅞↉]",
        lambda sign: r"\frac{%s}{%s}" % tuple(unicodedata.normalize("NFKC", sign[0]).split("⁄")),  # noqa: UP031
        text,
    )
    text = _ROOT.sub(_root, text)
    return "".join(_sign(character) for character in text)


def _root(match: re.Match[str]) -> str:
    under = f"{{{match[2]}}}" if match[2] else ""
    return rf"\sqrt{_ROOT_INDEX[match[1]]}{under}"


def _sign(character: str) -> str:
    if character < "\x80":
        return character
    if character in _SIGNS:
        return _SIGNS[character]
    words = unicodedata.name(character, "").split()
    if words[:1] == ["GREEK"] and words[2:3] == ["LETTER"] and len(words) == 4:
        name = words[3].lower().replace("lamda", "lambda")
        return f"\\{name if words[1] == 'SMALL' else name.capitalize()} "
    plain = unicodedata.normalize("NFKC", character)
    return "".join(_SIGNS.get(part, part) for part in plain)


def _undecorated(text: str) -> str:
    """Remove bold markers, math delimiters and trailing punctuation."""
    for _ in range(4):
        before = text
        text = text.strip()
        if (stars := _STARS.fullmatch(text)) is not None and "*" not in stars[2]:
            text = stars[2]
        if len(text) > 2 and text[0] == text[-1] and text[0] in '`"':
            text = text.strip(text[0])
        text = _OPENING.sub("", text)
        text = _IN_WORDS.sub("", text)
        if (whole := _WHOLE_TEXT.fullmatch(text)) is not None:
            text = whole[1]
        if (joined := _joined(text)) is not None:
            text = joined
        elif text.count("$") == 1 and text.endswith("$") and not text.endswith(r"\$"):
            text = text[:-1]
        if len(text) > 1 and text[-1] in ".,;:" and not text.endswith(("..", r"\;", r"\,", r"\:", r"\.")):
            text = text[:-1]
        if text == before:
            break
    return _DELIMITED.sub(_content, text)


def _content(match: re.Match[str]) -> str:
    """Return the text between math delimiters."""
    return next(group for group in match.groups() if group)


def _closing(text: str, start: int, opening: str, closing: str) -> int | None:
    """Return the position of the bracket that closes the one before `start`, or None."""
    depth = 1
    for position in range(start, len(text)):
        if text[position] == opening:
            depth += 1
        elif text[position] == closing:
            depth -= 1
            if depth == 0:
                return position
    return None


def braced(text: str) -> str:
    r"""Rewrite `\sqrt(...)` and `^(...)` with the braces that the parser requires."""
    position = 0
    while (match := _PAREN_ARGUMENT.search(text, position)) is not None:
        end = _closing(text, match.end(), "(", ")")
        if end is None:
            return text
        inner = text[match.end() : end]
        stop = len(inner) - len(r"\right") if inner.endswith(r"\right") else len(inner)
        text = f"{text[: match.start()]}{match[1]}{{{inner[:stop]}}}{text[end + 1 :]}"
        position = match.start() + len(match[1])
    return text


def _absolute(text: str) -> str:
    """Rewrite Python's `abs(...)` as `|...|`."""
    while (match := _ABSOLUTE.search(text)) is not None:
        start = text.index("(", match.end()) + 1
        end = _closing(text, start, "(", ")")
        if end is None:
            return text
        text = f"{text[: match.start()]}|{text[start:end]}|{text[end + 1 :]}"
    return text
