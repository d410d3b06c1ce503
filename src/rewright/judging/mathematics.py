"""The `math` judge: mathematical equality by math-verify, behind guards of our own.

What is decided here without sympy: plain numbers (by value), words such as "even" or "Evelyn" (by spelling, since
sympy would read them as products of letters: "listen" = "silent"), physical units that contradict each other.
Everything else is compared by math-verify in a process of its own (`rewright.judging.process`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache

from rewright.judging.base import Judgement, shown
from rewright.judging.text import exact_form, final_answer, option_letter, plain_number, without_text_commands

__all__ = ["LONGEST_ANSWER", "mathematics", "unreadable"]

LONGEST_ANSWER = 2000
"""Characters of an answer (after its box is opened) beyond which it is wrong without being read."""

_UNITS = {
    alias: unit
    for unit, aliases in {
        "mm": "mm millimeter millimetre", "cm": "cm centimeter centimetre", "m": "m meter metre",
        "km": "km kilometer kilometre", "in": "in inch inches", "ft": "ft foot feet", "yd": "yd yard",
        "mi": "mi mile", "mg": "mg milligram", "g": "g gram", "kg": "kg kilogram", "lb": "lb pound", "oz": "oz ounce",
        "ml": "ml milliliter millilitre", "l": "l liter litre", "s": "s sec second", "min": "min minute",
        "h": "h hr hour", "day": "day", "week": "week", "month": "month", "year": "year", "mph": "mph",
        "kph": "kph kmh",         "dollar": "dollar", "cent": "cent", "euro": "euro", "degree": "degree",
        "radian": "rad radian", "hz": "hz",
        "n": "n newton", "j": "j joule", "w": "w watt", "kw": "kw kilowatt", "pa": "pa pascal", "v": "v volt",
    }.items()
    for alias in aliases.split()
}  # fmt: skip
_NAMED_CONSTANTS = frozenset({"inf", "infinity", "infty"})

_WORDS = re.compile(r"[^\W\d_](?:[^\W\d_]|[ .,'’&-]){2,}")
_LETTERS = re.compile(r"[^\W\d_]{3}")
_POWER = r"(?:\s*\^\s*\{?([1-4])\}?)?"
_MEASURED = re.compile(
    rf"(.*[0-9}})])\s*(?:\\[,;:! ]\s*)*(\\(?:text|textrm|mbox|mathrm)\s*\{{\s*)?([a-zA-Z]+){_POWER}"
    rf"(?:\s*(?:/|\s+per\s+)\s*([a-zA-Z]+){_POWER})?\s*\.?\s*\}}?{_POWER}\.?",
    re.DOTALL,
)
_SPEEDS = {"km/h": "kph", "mi/h": "mph"}
_GROUPED = re.compile(r"(?<=[0-9])(?:\{,\}|\\[,!; ]|,\\!|~)(?=[0-9]{3}(?![0-9]))")
_SPACED_GROUPS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?: [0-9]{3})+(?![0-9 ])")
_BRACKETED = re.compile(r"(?:\\left\s*)?(?:[(\[{]|\\\{)")
_ORDERED = re.compile(r"(?:\\left\s*)?[(\[][^()\[\]]*,")
_LISTED_SET = re.compile(r"(?:\\left\s*)?\\\{[^|:]*,[^|:]*\\\}")
_MIXED = re.compile(r"(?<![0-9.])([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)")
_BASED = re.compile(r"([0-9a-zA-Z]+)_\{?([0-9]{1,2})\}?")
_COUNTED = re.compile(
    r"([-+]?(?:[0-9][0-9.,/]*|\\[dt]?frac\{[0-9]+\}\{[0-9]+\}))\s+[a-zA-Z]{2,}(?:\s+[a-zA-Z]+){0,3}\.?"
)
_LOOSE_DIGITS = re.compile(r"(?<![_^])[0-9]\s+[0-9]")
_MEMBER = re.compile(r"^[a-zA-Z]\s*\\in\s*(?=[\[({\\])")
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\overline\s*(?:\{([0-9]+)\}|([0-9]))")
_GROUPS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_CURRENCY = re.compile(r"(?:\\[$€£¥]|[€£¥]|^\$(?=[^$]*$))\s*(?=[-0-9.])")
_PERCENT = re.compile(r"(.*[0-9])\s*(?:\\?%|\bpercent)\.?", re.DOTALL)
_EXPONENT = re.compile(r"(.*[0-9.])[eE]\+?(-?[0-9]+)")
_PYTHON_POWER = re.compile(r"(?<=[0-9a-zA-Z)}])( ?)\*\*\1(?:(-?[0-9]+)|\((-?[0-9]+)\)|(?=[a-zA-Z(\\]))")
_PYTHON_PI = re.compile(r"(?<![a-zA-Z\\])pi(?![a-zA-Z])")
_PROSE = re.compile(r"[a-zA-Z]{2,}[.,:]?\s+[a-zA-Z]{2,}|\b(?:is|are)\b")
_DELIMITED = re.compile(r"\$|\\\(|\\\[")


def mathematics(answer: str, golds: Sequence[str]) -> Judgement:
    """Outcome 1.0 where `answer` is mathematically equal to one of `golds`, else 0.0."""
    reason = "no gold answer"
    for gold in golds:
        equal, reason = _compare(_prepared(answer), _prepared(final_answer(gold) or gold))
        if equal:
            return Judgement(1.0, f"{shown(answer)} equals the gold answer {shown(gold)}")
    return Judgement(0.0, f"{shown(answer)} is not the gold answer {shown(golds[0])}: {reason}")


def unreadable(gold: str) -> str | None:
    """Why math-verify can't read a gold answer, or None: such a gold equals only what is written exactly like it."""
    text = _prepared(final_answer(gold) or gold)
    if plain_number(text) is not None or _words(text) is not None:
        return None
    if len(text) > LONGEST_ANSWER:
        return f"it is longer than {LONGEST_ANSWER} characters"
    equal, reason = _verify(text, text)
    return None if equal else reason


def _prepared(text: str) -> str:
    """Thousands groups, currency signs and mixed numbers in the way math-verify reads them."""
    if len(text) > LONGEST_ANSWER:
        return text
    text = text.strip()
    if len(text) > 4 and text.startswith("**") and text.endswith("**"):
        text = text[2:-2].strip()
    if len(text) > 2 and text[0] == text[-1] == "$" and "$" not in text[1:-1]:
        text = text[1:-1].strip()
    text = _CURRENCY.sub("", _GROUPED.sub("", text))
    text = _SPACED_GROUPS.sub(lambda group: group[0].replace(" ", ""), text)
    text = _REPEATING.sub(_fraction, _MEMBER.sub("", text.replace(r"\varnothing", r"\emptyset")))
    return _MIXED.sub(r"\1\\frac{\2}{\3}", text)


def _fraction(number: re.Match[str]) -> str:
    """A repeating decimal as a fraction: math-verify takes its digits for a product."""
    first, repeated = number[1] + number[2], number[3] or number[4]
    below = (10 ** len(repeated) - 1) * 10 ** len(number[2])
    return rf"\frac{{{int(first + repeated) - int(first or 0)}}}{{{below}}}"


def _latex(text: str) -> str:
    """Python's notation, which models copy from their tool, as LaTeX: math-verify reads pi as p times i, e as 2.7."""
    if plain_number(text) is not None:
        return _EXPONENT.sub(r"\1\\times 10^{\2}", text)
    return _PYTHON_PI.sub(r"\\pi ", _PYTHON_POWER.sub(_power, text)).strip()


def _power(operator: re.Match[str]) -> str:
    """Python's power sign (not the two stars of bold text), with its exponent where that is a number."""
    exponent = operator[2] or operator[3]
    return f"^{{{exponent}}}" if exponent else "^"


def _without_groups(text: str) -> str:
    """A text without the commas inside its numbers, as in (1,000, 2) and x = 1,000; a list of one would be no list."""
    plain = _GROUPS.sub(lambda group: group[0].replace(",", ""), text)
    return plain if "," in plain or _BRACKETED.match(text) is None else text


def _measured(text: str, *, letters: bool = False) -> tuple[str, str] | None:
    """(value, unit) of a text that ends with a known physical unit, such as 12 km/h or 12 cm^2; else None.

    A single letter is a unit inside \\text{} or over another one; elsewhere ("5 m" may be a product) with `letters`.
    """
    found = _MEASURED.fullmatch(text)
    if found is None:
        return None
    value, in_text, name, power, below, below_power, outer = found.groups()
    unit, divisor = _unit(name), _unit(below) if below else None
    plain_letter = len(name) == 1 and not in_text and not below
    if unit is None or (below and divisor is None) or (plain_letter and not letters):
        return None
    if below and divisor is not None:
        unit = f"{unit}{power or ''}/{divisor}{below_power or outer or ''}"
        return value, _SPEEDS.get(unit, unit)
    return value, unit + (power or outer or "")


def _unit(name: str) -> str | None:
    """The unit that a word names, or None."""
    name = name.lower()
    return _UNITS.get(name) or _UNITS.get(name.removesuffix("s"))


def _words(text: str) -> str | None:
    """`text` as words where it is nothing but words (or one option letter), in the form to compare; else None."""
    plain = without_text_commands(text).strip()
    if (letter := option_letter(plain)) is not None:
        return letter
    if _WORDS.fullmatch(plain) is None or _LETTERS.search(plain) is None or plain.lower() in _NAMED_CONSTANTS:
        return None
    return exact_form(plain)


def _based_value(number: re.Match[str]) -> int | tuple[str, str]:
    """The value of a number written with its base, such as `2516_8`; its parts where it has none."""
    digits, base = number[1], int(number[2])
    try:
        return int(digits, base) if base >= 2 else (digits, number[2])
    except ValueError:
        return (digits, number[2])


def _percent(text: str) -> Decimal | None:
    """The number in front of a percent sign, or None."""
    found = _PERCENT.fullmatch(text)
    return plain_number(found[1]) if found is not None else None


def _same_text(answer: str, gold: str) -> bool:
    r"""True where both are the same text with words in it, such as "June 20"; nothing that holds a command is text."""
    plain, gold_plain = without_text_commands(answer), without_text_commands(gold)
    if "\\" in plain + gold_plain or _LETTERS.search(gold_plain) is None:
        return False
    return exact_form(plain) == exact_form(gold_plain)


def _compare(answer: str, gold: str) -> tuple[bool, str]:
    """(equal, reason) of two prepared expressions."""
    if not answer:
        return False, "the answer is empty"
    if answer == gold:
        return True, "equal"
    if len(answer) > LONGEST_ANSWER or len(gold) > LONGEST_ANSWER:
        return False, f"it is longer than {LONGEST_ANSWER} characters"
    left, right = plain_number(answer), plain_number(gold)
    if left is not None and right is not None:
        return left == right, "not equal"
    words, gold_words = _words(answer), _words(gold)
    if gold_words is not None and words is not None:
        case = str.lower if "\\text" in answer + gold or len(gold_words) > 1 else str
        return case(words) == case(gold_words), "not equal"
    if _same_text(answer, gold):
        return True, "equal"
    answer, gold = _latex(answer), _latex(gold)
    gold_measured = _measured(gold)
    measured = _measured(answer, letters=gold_measured is not None)
    if measured is not None and gold_measured is None:
        gold_measured = _measured(gold, letters=True)
    if measured is not None and gold_measured is not None:
        if measured[1] != gold_measured[1]:
            return False, f"its unit is {measured[1]}, expected {gold_measured[1]}"
        gold = gold_measured[0].strip()
    if measured is not None:
        answer = measured[0].strip()
    left, right = plain_number(answer), plain_number(gold)
    if left is not None and right is not None:
        return left == right, "not equal"
    percent, gold_percent = _percent(answer), _percent(gold)
    left, right = left if percent is None else percent, right if gold_percent is None else gold_percent
    if left is not None and left == right:
        return True, "equal"  # 12.5% and 12.5; math-verify finds that it is 0.125 too
    based, gold_based = _BASED.fullmatch(answer), _BASED.fullmatch(gold)
    if based is not None and gold_based is not None:
        return _based_value(based) == _based_value(gold_based), "not equal"
    if (counted := _COUNTED.fullmatch(answer)) is not None:
        answer = counted[1]  # "1/2 cup": the words would be read as a product of letters
    if gold[0] in "([" and gold[-1] in ")]" and "," in gold and "," in answer and answer[0] not in "([{\\$":
        # "3,4" for the pair (3,4): the order counts, so it must not be read as the set {3, 4}.
        answer = gold[0] + answer + gold[-1]
    if _ORDERED.match(gold) is not None and _LISTED_SET.fullmatch(answer) is not None:
        return False, "it is a set, which has no order"
    if _LOOSE_DIGITS.search(answer) and not _PROSE.search(answer):
        return False, "it holds numbers side by side"
    equal, reason = _verify(answer, gold)
    if not equal and (plain := (_without_groups(answer), _without_groups(gold))) != (answer, gold):
        return _verify(*plain)
    return equal, reason


@lru_cache(maxsize=8192)
def _verify(answer: str, gold: str) -> tuple[bool, str]:
    from rewright.judging import process

    wrapped = _DELIMITED.search(answer) is None and _PROSE.search(answer) is None
    reply = process.ask("math", {"answer": answer, "gold": gold, "wrapped": wrapped})
    return reply["outcome"] == 1.0, reply["reason"]
