r"""The `math` judge: mathematical equality of two formulas. docs/judges.md lists what it accepts and rejects.

Decided here without sympy: plain numbers (by value), words such as "even", "Evelyn" or "AB" (by spelling, because a
parser would read them as products of letters, so that "listen" = "silent"), and contradicting units. Everything else
is parsed and compared in a worker process (`rewright.judging.math_worker`): `formula_reading` uses math-verify's
parser, `formula_equality` uses sympy. An answer that is parsed only in part is always wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache

from rewright.core.answer_text import (
    closing_brace,
    final_answer,
    normalize_exact,
    option_letter,
    parse_plain_number,
    shown,
    strip_text_commands,
)
from rewright.judging.base import AnswerJudge, Judgement
from rewright.judging.guarded import compare
from rewright.judging.notation import TRIGONOMETRIC, braced, depths, first_formula, has_prose, to_ascii, to_latex
from rewright.judging.units import Unit, measured, same_unit

__all__ = ["JUDGE", "MAX_ANSWER_CHARACTERS", "mathematics", "unreadable"]

MAX_ANSWER_CHARACTERS = 2000
"""Maximum length in characters of an answer (without its box). Longer answers are wrong without being parsed."""

_NAMED_CONSTANTS = frozenset({"inf", "infinity", "infty"})
_PERCENT: Unit = (("%", 1),)

_WORDS = re.compile(r"[^\W\d_](?:[^\W\d_]|[ .,'’&-]){2,}")
_LETTERS = re.compile(r"[^\W\d_]{3}")
_CAPITALS = re.compile(r"[A-Z]{2,}")
_GROUPED = re.compile(r"(?<=[0-9])(?:\{,\}|\\[,!; ]|,\s*\\!\s*|~)(?=[0-9]{3}(?![0-9]))")
_SPACED_GROUPS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?: [0-9]{3})+(?![0-9 ])")
_BRACKETED = re.compile(r"(?:\\left\s*)?(?:[(\[{]|\\\{)")
_LISTED_SET = re.compile(r"(?:\\left\s*)?\\\{.*\\\}", re.DOTALL)
_MIXED = re.compile(r"(?<![0-9.])([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)")
_BASED = re.compile(r"([0-9a-zA-Z]+)_\{?([0-9]{1,2})\}?")
_MEMBER = re.compile(r"^[a-zA-Z]\s*\\in\s*(?=[\[({\\])")
_SET_BUILDER = re.compile(
    r"\\?\{\s*([a-zA-Z])\s*(?:\\mid|\\vert|[|:])\s*(\1\s*(?:[<>]|\\[lg]e|\\in).*?)\s*\\?\}", re.DOTALL
)
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\overline\s*(?:\{([0-9]+)\}|([0-9]))")
_GROUPS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_EXPONENT = re.compile(r"([-+]?[0-9.]+)[eE]\+?(-?[0-9]+)")
_INNER_EXPONENT = re.compile(r"(?<![0-9a-zA-Z.])([0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE]([+-]?[0-9]{1,4})(?![0-9a-zA-Z.])")
_PYTHON_POWER = re.compile(r"(?<=[0-9a-zA-Z)}])( ?)\*\*\1(?:(-?[0-9]+)|\((-?[0-9]+)\)|(?=[a-zA-Z(\\]))")
_PYTHON_PI = re.compile(r"(?<![a-zA-Z\\])pi(?![a-zA-Z])")
_NAMED = re.compile(
    r"(?:\\frac\s*\{d[a-z]\}\s*\{d[a-z]\}|d[a-z]/d[a-z]|m?\s*\\(?:angle|triangle)\s*[A-Z]{1,3}|\\text\s*\{[^{}=]*\}|[A-Z]{2,4}|[a-zA-Z]\s*\^\s*\{?\s*-1\s*\}?\s*\([a-z]\)|"
    r"[a-zA-Z]{3,}(?:\s[a-zA-Z]{2,}){0,3})\s*=\s*(?=[^=])"
)
_ALTERNATIVES = re.compile(
    r"\s*,?\s*(?:\\(?:text|mbox|quad)\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![a-zA-Z])(?:and|or)(?![a-zA-Z]))\s*"
)
_OR_BEFORE = re.compile(r"\w[\"'’)]*,?\s+or\s+(?:(?:maybe|perhaps|possibly|else|it is)\s+)?\$*\Z", re.IGNORECASE)
_OR_AFTER = re.compile(r"\$*,?\s+or\s+(?!so\b|more\b|less\b|fewer\b|higher\b|lower\b|later\b|earlier\b)", re.IGNORECASE)
_LEAD = re.compile(
    r"\s*(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:the|my)?\s*(?:final|correct)?\s*\b(?:answer|result)\s*"
    r"(?:is\s*:?|:|(?=\$|\\\(|\\\[))\s*(?:(?:approximately|about|exactly|simply)\s+)?(?=\S)",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"([0-9]{1,2})(?::([0-9]{2}))?\s*(?:([ap])\.?\s*m\.?)?", re.IGNORECASE)
_NUMBER_WORDS = {
    word: Decimal(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")
    )
}  # fmt: skip
_FLOAT_DIGITS = 15


def mathematics(answer: str, golds: Sequence[str]) -> Judgement:
    """Return outcome 1.0 if `answer` is mathematically equal to one of `golds`, else 0.0."""
    reason = "no gold answer"
    for gold in golds:
        equal, reason = _compare(answer.strip(), (final_answer(gold) or gold).strip())
        if equal:
            return Judgement(1.0, f"{shown(answer)} equals the gold answer {shown(gold)}")
    return Judgement(0.0, f"{shown(answer)} is not the gold answer {shown(golds[0])}: {reason}")


def unreadable(gold: str) -> str | None:
    """Return why a gold answer can't be parsed completely, or None. Such a gold answer only matches verbatim."""
    text = (final_answer(gold) or gold).strip()
    if len(text) > MAX_ANSWER_CHARACTERS:
        return f"it is longer than {MAX_ANSWER_CHARACTERS} characters"
    if (time := _clock(text)) is not None and time[2]:
        return None
    formula = _formula(text)
    if formula is None:
        return "it states no number or formula, or several"
    if parse_plain_number(formula) is not None or _words(formula) is not None:
        return None
    formula = _latex(formula)
    measurement = _unit(formula) or measured(formula, letters=True)
    reason = _verify(formula, formula)[1]
    if reason == "equal" or (measurement is not None and _verify(measurement[0], measurement[0])[1] == "equal"):
        return None
    return reason.removeprefix("the gold answer cannot be parsed: ")


def _is_sentence(text: str) -> bool:
    """Return True if the text contains prose besides a lead such as "the answer is"."""
    text = _LEAD.sub("", _numbers(to_ascii(text)), count=1)
    return has_prose(text) and not _is_measured(text) and _words(to_latex(text)) is None


def _formula(text: str) -> str | None:
    """Return the part of an answer to compare, normalised, or None for a sentence without exactly one formula."""
    text = _unwrapped(_LEAD.sub("", _numbers(to_ascii(text)), count=1))
    if has_prose(text) and not _is_measured(text) and _words(to_latex(text)) is None:
        formula = first_formula(text, _is_measured)
        if formula is None or _hedged(text, formula):
            return None
        text = _numbers(formula)
    text = to_latex(text)
    text = _ALTERNATIVES.sub(", ", text) if not _WORDS.fullmatch(text) else text
    if (builder := _SET_BUILDER.fullmatch(text)) is not None:
        text = builder[2]
    return _REPEATING.sub(_fraction, _MEMBER.sub("", text))


def _hedged(text: str, formula: str) -> bool:
    """Return True if prose offers something else beside its only formula, as "Bob or 7" does."""
    before, found, after = text.partition(formula)
    return bool(found) and (_OR_BEFORE.search(before) is not None or _OR_AFTER.match(after) is not None)


def _is_measured(text: str) -> bool:
    measurement = measured(to_latex(text))
    return measurement is not None and not has_prose(measurement[0])


def _numbers(text: str) -> str:
    """Normalise thousands separators and mixed numbers."""
    text = _SPACED_GROUPS.sub(lambda group: group[0].replace(" ", ""), _GROUPED.sub("", text))
    return _MIXED.sub(r"\1\\frac{\2}{\3}", text)


def _fraction(number: re.Match[str]) -> str:
    """Rewrite a repeating decimal as a fraction, because the parser would read its digits as a product."""
    first, repeated = number[1] + number[2], number[3] or number[4]
    below = (10 ** len(repeated) - 1) * 10 ** len(number[2])
    return rf"\frac{{{int(first + repeated) - int(first or 0)}}}{{{below}}}"


def _latex(text: str) -> str:
    """Rewrite Python's powers, exponents and pi as LaTeX: the parser would read pi as p times i, and e as 2.718."""
    if parse_plain_number(text) is not None:
        return _EXPONENT.sub(r"\1\\times 10^{\2}", text)
    text = _INNER_EXPONENT.sub(lambda number: rf"{number[1]}\times 10^{{{int(number[2])}}}", text)
    return _PYTHON_PI.sub(r"\\pi ", braced(_PYTHON_POWER.sub(_power, text))).strip()


def _power(operator: re.Match[str]) -> str:
    """Rewrite Python's power operator (not the markers of bold text) with its exponent if that is a number."""
    exponent = operator[2] or operator[3]
    return f"^{{{exponent}}}" if exponent else "^"


def _without_groups(text: str) -> str:
    """Remove thousands separators, as in (1,000, 2) and x = 1,000, unless a bracketed list would lose its commas."""
    plain = _GROUPS.sub(lambda group: group[0].replace(",", ""), text)
    return plain if "," in plain or _BRACKETED.match(text) is None else text


def _words(text: str) -> str | None:
    """Normalise a text that consists of words, capitals or one option letter, for comparison; else None."""
    plain = strip_text_commands(text).strip()
    if (letter := option_letter(plain)) is not None:
        return letter
    if _CAPITALS.fullmatch(plain):
        return plain
    if (word := plain.lower().rstrip(".")) in ("no", "yes"):
        return word
    if _WORDS.fullmatch(plain) is None or _LETTERS.search(plain) is None or plain.lower() in _NAMED_CONSTANTS:
        return None
    return normalize_exact(plain)


def _based_value(number: re.Match[str]) -> int | tuple[str, str]:
    """Return the value of a number with a base, such as `2516_8`, or (digits, base) if it is invalid."""
    digits, base = number[1], int(number[2])
    try:
        return int(digits, base) if base >= 2 else (digits, number[2])
    except ValueError:
        return (digits, number[2])


def _same_text(answer: str, gold: str) -> bool:
    r"""Return True for equal texts that contain words, such as "June 20". Texts with LaTeX commands never match."""
    plain, gold_plain = strip_text_commands(answer), strip_text_commands(gold)
    if "\\" in plain + gold_plain or _LETTERS.search(gold_plain) is None:
        return False
    return normalize_exact(plain) == normalize_exact(gold_plain)


def _clock(text: str) -> tuple[int, int, str] | None:
    """Return (hour, minute, "a" or "p" or "") of a time of day, or None."""
    match = _CLOCK.fullmatch(strip_text_commands(to_latex(text)))
    return (int(match[1]), int(match[2] or 0), (match[3] or "").lower()) if match is not None else None


def _same_time(answer: str, gold: str) -> bool | None:
    """Compare two times of day; one of them may omit a.m. or p.m. Returns None if they are not times."""
    time, gold_time = _clock(answer), _clock(gold)
    if time is None or gold_time is None or not (time[2] or gold_time[2]):
        return None
    return time[:2] == gold_time[:2] and (time[2] == gold_time[2] or not (time[2] and gold_time[2]))


def _same_number(left: Decimal, right: Decimal) -> bool:
    """Return True if equal up to float printing: 0.30000000000000004 equals 0.3."""
    if left == right:
        return True
    printed = any(
        isinstance(number.as_tuple().exponent, int)
        and int(number.as_tuple().exponent) < 0
        and len(number.as_tuple().digits) >= _FLOAT_DIGITS
        for number in (left, right)
    )
    size = max(abs(left), abs(right))
    return printed and abs(left - right) <= size * Decimal("1e-14")


def _compare(answer: str, gold: str) -> tuple[bool, str]:
    """Return (equal, reason) for two answers. Symmetric."""
    if not answer:
        return False, "the answer is empty"
    if answer == gold:
        return True, "equal"
    if len(answer) > MAX_ANSWER_CHARACTERS or len(gold) > MAX_ANSWER_CHARACTERS:
        return False, f"it is longer than {MAX_ANSWER_CHARACTERS} characters"
    left, right = parse_plain_number(answer), parse_plain_number(gold)
    if left is not None and right is not None:
        return _same_number(left, right), "not equal"
    if _same_text(answer, gold):
        return True, "equal"
    if (same := _same_time(answer, gold)) is not None:
        return same, "not equal"
    if _is_sentence(answer) and _is_sentence(gold):
        return False, "both are sentences"
    formula, gold_formula = _formula(answer), _formula(gold)
    if formula is None or gold_formula is None:
        side = "answer" if formula is None else "gold answer"
        return False, f"the {side} states no number or formula, or several"
    words, gold_words = _words(formula), _words(gold_formula)
    if gold_words is not None and words is not None:
        case = str.lower if "\\text" in answer + gold or len(gold_words) > 1 else str
        return case(words) == case(gold_words), "not equal"
    for text, number in ((words, parse_plain_number(gold_formula)), (gold_words, parse_plain_number(formula))):
        if text is not None and len(text) > 1 and number is not None:
            return _NUMBER_WORDS.get(text) == number, "not equal"
    if ("=" in formula) != ("=" in gold_formula):
        formula, gold_formula = _NAMED.sub("", formula, count=1), _NAMED.sub("", gold_formula, count=1)
    return _compare_formulas(_latex(formula), _latex(gold_formula))


def _compare_formulas(answer: str, gold: str) -> tuple[bool, str]:
    """Return (equal, reason) for two formulas that may have units."""
    if answer == gold:
        return True, "equal"
    measurement, gold_measurement = _unit(answer), _unit(gold)
    # "5 m" may be a product. It is read as a length if the other side has a unit, or is a number and "5 m" has a space.
    if measurement is None and (
        gold_measurement is not None or (parse_plain_number(gold) is not None and " " in answer)
    ):
        measurement = measured(answer, letters=True)
    if gold_measurement is None and (
        measurement is not None or (parse_plain_number(answer) is not None and " " in gold)
    ):
        gold_measurement = measured(gold, letters=True)
    if measurement is not None and gold_measurement is not None and not same_unit(measurement[1], gold_measurement[1]):
        return False, f"its unit is {_unit_text(measurement[1])}, expected {_unit_text(gold_measurement[1])}"
    answer, unit = measurement or (answer, None)
    gold, gold_unit = gold_measurement or (gold, None)
    answer, gold = _latex(answer), _latex(gold)
    left, right = parse_plain_number(answer), parse_plain_number(gold)
    if left is not None and right is not None:
        if _same_number(left, right):
            return True, "equal"
        # A percentage equals both readings of a number without the sign: 12.5% equals 12.5 and 0.125.
        percent = (unit == _PERCENT) - (gold_unit == _PERCENT)
        return percent != 0 and left * (1 if percent < 0 else Decimal("0.01")) == right * (
            Decimal("0.01") if percent < 0 else 1
        ), "not equal"
    if unit == _PERCENT and gold_unit != _PERCENT:
        return _either(answer, gold, rf"\frac{{{answer}}}{{100}}", gold)
    if gold_unit == _PERCENT and unit != _PERCENT:
        return _either(answer, gold, answer, rf"\frac{{{gold}}}{{100}}")
    based, gold_based = _BASED.fullmatch(answer), _BASED.fullmatch(gold)
    if based is not None and gold_based is not None:
        return _based_value(based) == _based_value(gold_based), "not equal"
    if based is not None or gold_based is not None:
        digits = (based[1] if based is not None else answer, gold_based[1] if gold_based is not None else gold)
        if digits[0] == digits[1] and digits[0].isdecimal():
            return True, "equal"  # the base may be omitted, like a unit
    if (_LISTED_SET.fullmatch(gold) and _is_ordered(answer)) or (_LISTED_SET.fullmatch(answer) and _is_ordered(gold)):
        return False, "one is a set, which has no order"
    answer, gold = _with_brackets(answer, gold), _with_brackets(gold, answer)
    equal, reason = _verify(answer, gold)
    if not equal and (plain := (_without_groups(answer), _without_groups(gold))) != (answer, gold):
        return _verify(*plain)
    return equal, reason


def _unit(text: str) -> tuple[str, Unit] | None:
    """Return (value, unit). The degrees in a trigonometric argument are not a unit of the whole formula."""
    return None if TRIGONOMETRIC.search(text) else measured(text)


def _either(answer: str, gold: str, other_answer: str, other_gold: str) -> tuple[bool, str]:
    equal, reason = _verify(answer, gold)
    return (equal, reason) if equal else _verify(other_answer, other_gold)


def _unit_text(unit: Unit) -> str:
    if isinstance(unit, str):
        return unit
    return " ".join(name if power == 1 else f"{name}^{power}" for name, power in unit)


def _unwrapped(text: str) -> str:
    r"""Convert braces as printed by Python and some data sets: `{18}` to 18, and `{1, 2}` to the set \{1, 2\}."""
    if not text.startswith("{") or closing_brace(text, 1) != len(text) - 1:
        return text
    inner = text[1:-1].strip()
    if "," in inner and not re.search(r"[:\\]", inner):
        return rf"\{{{inner}\}}"
    return text if re.match(r"[a-zA-Z]\w*\s*(?:[:|]|\\mid)", inner) else inner


def _is_ordered(text: str) -> bool:
    return "," in text and re.match(r"(?:\\left\s*)?[(\[]", text) is not None and _BRACKETED.match(text) is not None


def _with_brackets(text: str, other: str) -> str:
    """Add the brackets of `other` to a bare list such as "3,4", so that both are compared as ordered."""
    if not _is_ordered(other) or other[-1:] not in (")", "]") or re.search(r"[=<>]|\\[lg]e(?![a-zA-Z])", text):
        return text
    if any(depth == 0 for depth in depths(other, "([", ")]")[:-1]):  # several bracketed parts, such as a union
        return text
    if "," not in text or re.search(r"[()\[\]{}\\]", text[:1] + text[-1:]) is not None:
        return text
    return other[0] + text + other[-1]


@lru_cache(maxsize=8192)
def _verify(answer: str, gold: str) -> tuple[bool, str]:
    reply = compare("rewright.judging.math_worker", {"answer": answer, "gold": gold})
    return reply["outcome"] == 1.0, reply["reason"]


JUDGE = AnswerJudge(mathematics, gold_problem=unreadable, extractor="boxed")
