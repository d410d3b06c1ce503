r"""Find the number that a text in prose gives as its answer: "She has **12** apples.", "3 + 9 = 12", `x = \frac{1}{2}`.

In this order: the number of the last statement ("the answer is …", "Answer: …", "#### …"), a first line that is only a
number, the only number in bold, the last number outside parentheses and before a closing question or offer of help.
Times, dates, versions, list markers and digits inside words ("H2O") are not numbers. "minus 5" and "negative 5" are -5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Final, NamedTuple

from rewright.core.answer_text import parse_plain_number, strip_text_commands
from rewright.judging.prose import plain, statements, without_offers

__all__ = ["Number", "stated_number"]

_MINUS: Final = str.maketrans("−–‒﹣－", "-----")
_DIGITS: Final = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_TOKEN: Final = re.compile(
    r"(?P<skipped>[0-9]+(?:\.[0-9]+){2,}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?![0-9])|[0-9]{1,2}/[0-9]{1,2}/[0-9]{2,4}"
    r"|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?(?![0-9])|(?<![A-Za-z])[A-Za-z]+[0-9][A-Za-z0-9]*)"
    r"|(?P<sign>(?<![\w)\]}])(?<![0-9)\]}]\s)[-+](?=[$€£¥\\.0-9]))?(?P<currency>[$€£¥])?\s?(?P<inner>(?<=[$€£¥])[-+])?(?:"
    r"(?P<latex>\\[dt]?frac\s*\{\s*(?P<over>[-+]?[0-9]+)\s*\}\s*\{\s*(?P<under>[0-9]+)\s*\})"
    r"|(?:(?P<whole>[0-9]+)[ ]+)?(?P<top>[0-9]+)\s?/\s?(?P<bottom>[0-9]+)(?![0-9/.])"
    rf"|(?P<digits>{_DIGITS})(?P<power>[eE][-+]?[0-9]{{1,3}}(?![\w])"
    r"|\s*(?:\\times|\\cdot|×|·|x|\*)\s*10\s*\^\s*\{?\s*[-+]?[0-9]{1,3}\s*\}?)?)"
)
_EXPONENT: Final = re.compile(r"[-+]?[0-9]{1,3}(?=\s*\}?$)")
_GROUPED: Final = re.compile(r"(?<=[0-9])(?:\{,\}|\\[,!;: ]|,\s*\\!\s*|[~\u00a0\u202f\u2009])(?=[0-9]{3}(?![0-9]))")
_SIGN_WORD: Final = re.compile(
    r"(^|[:=(,*$]\s*|\b(?:is|was|are|were|be|of|to|at|by|equals|about|around|approximately|roughly|nearly|almost)\s+\**)"
    r"(?:minus|negative)\s+(?=[$€£¥]?\.?[0-9])",
    re.I | re.M,
)
"""A sign in words. Behind anything else, as in "10 minus 5", it is an operator."""
_PERCENT: Final = re.compile(r"\s{0,2}(?:%|per ?cent\b)", re.I)
_MARKER: Final = re.compile(
    r"^[ \t>]*(?:#{1,6}[ \t]*)?([0-9]{1,3})[.)](?=[ \t]+\S)|\bstep[ \t]+([0-9]{1,3})\b", re.M | re.I
)
_PARENTHESES: Final = re.compile(r"(?<!\\)\([^()]*\)")
_REASON: Final = re.compile(r"[,;]?\s{1,3}(?:because|since|which|given that)\b|\s\(", re.I)
_BOLD: Final = re.compile(r"\*\*(?=\S)([^*\n]{1,80}?)\*\*")
_ONE_NUMBER_LINE: Final = re.compile(
    r"[\s$\\(\[]*[-+]?[$€£¥]?\s?[-+]?[0-9][0-9,]*(?:\.[0-9]+)?\s?%?[\s$\\)\]]*(?:[^\W\d]+)?\.?\s*"
)
_BOLD_MARKER: Final = re.compile(r"(?:step\s+)?[0-9]+\s*[.):]|step\s+[0-9]+.*", re.I)
LINE: Final = 80
"""Maximum length in characters of a line that is only a number."""
_MAX_DIGITS: Final = 400


class Number(NamedTuple):
    """A number found in a text. `value` is plain ("1,200" is "1200"); `shown` is as written, with currency and sign.

    `after` is the text that follows it.
    """

    value: str
    shown: str
    after: str

    @property
    def is_percent(self) -> bool:
        """Whether the number is a percentage."""
        return _PERCENT.match(self.after) is not None


def stated_number(text: str) -> Number | None:
    """Return the number that `text` gives as its answer; None if it holds no number. See the module's docstring."""
    marked = _readable(text)
    bare = plain(marked)
    for clause in reversed(statements(bare)):
        if (found := _of_statement(clause)) is not None:
            return found
    lines = [line for line in bare.splitlines() if line.strip()]
    if len(lines) > 1 and len(lines[0]) <= LINE and _ONE_NUMBER_LINE.fullmatch(lines[0]):
        return next(_numbers(lines[0]), None)
    bold = [numbers[0] for span in _bold(marked) if len(numbers := list(_numbers(plain(span)))) == 1]
    if len(bold) == 1:
        return bold[0]
    bare = without_offers(_without_markers(bare))
    for part in (_PARENTHESES.sub(" ", bare), bare):
        main = _REASON.split(part.rstrip().rpartition("\n")[2] or part)[0]
        for piece in (main, part):
            numbers = list(_numbers(piece))
            if numbers:
                return numbers[-1]
    return None


def _readable(text: str) -> str:
    """Write LaTeX and typographic notation of numbers plainly."""
    text = strip_text_commands(text.translate(_MINUS))
    text = _SIGN_WORD.sub(r"\1-", _GROUPED.sub(",", text))
    return text.replace("\\$", "$").replace("\\%", "%")


def _bold(text: str) -> Iterator[str]:
    """Yield the spans in bold, without markers such as "**Step 1:**" in front of text."""
    for span in _BOLD.finditer(text):
        behind = text[span.end() : span.end() + 200].split("\n", 1)[0]
        if not (_BOLD_MARKER.fullmatch(span[1]) and behind.strip()):
            yield span[1]


def _without_markers(text: str) -> str:
    """Remove the numbers of a list that starts at 1, and of steps."""
    found = [one[1] or one[2] for one in _MARKER.finditer(text)]
    return _MARKER.sub(" ", text) if "1" in found else text


def _of_statement(clause: str) -> Number | None:
    clause = _REASON.split(clause)[0] if any(_numbers(_REASON.split(clause)[0])) else clause
    left, equals, _ = clause.partition("=")
    if equals:
        right = clause.rpartition("=")[2]
        before, after = list(_numbers(left)), list(_numbers(right))
        if after and not (len(before) == 1 and len(after) > 1):
            return after[0]
        if before:
            return before[0]
    return next(_numbers(clause), None)


def _numbers(text: str) -> Iterator[Number]:
    """Yield the numbers of a text in order."""
    for token in _TOKEN.finditer(text):
        value = None if token["skipped"] else _value(token)
        if value is not None:
            yield Number(value, token[0].strip(), text[token.end() : token.end() + 80])


def _value(token: re.Match[str]) -> str | None:
    negative = "-" in (token["sign"] or "") + (token["inner"] or "")
    if token["digits"] is None:
        over, under = int(token["over"] or token["top"]), int(token["under"] or token["bottom"])
        if not under:
            return None
        over += int(token["whole"] or 0) * under
        return _quotient(-over if negative else over, under)
    digits = token["digits"].replace(",", "")
    if len(digits) > _MAX_DIGITS:
        return None
    power = _EXPONENT.search(token["power"]) if token["power"] else None
    number = parse_plain_number(("-" if negative else "") + digits)
    if number is None or power is None:
        return None if number is None else str(number)
    return f"{number * Decimal(10) ** int(power[0]):f}"


def _quotient(over: int, under: int) -> str:
    """Return the quotient as a decimal if it has a finite one, else as a fraction."""
    rest = under
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    exact = over % rest == 0
    return f"{Decimal(over) / Decimal(under):f}" if exact and under < 10**9 else f"{over}/{under}"
