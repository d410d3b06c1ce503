"""The `math` judge: mathematical equality by math-verify, behind guards of our own.

What is decided here without sympy: plain numbers (by value), words such as "even" or "Evelyn" (by spelling, since
sympy would read them as products of letters: "listen" = "silent"), physical units that contradict each other.
Everything else is compared by math-verify in a process of its own (`rewright.judging.process`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from rewright.judging.base import Judgement, shown
from rewright.judging.text import exact_form, final_answer, plain_number

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

_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[^\W\d_](?:[^\W\d_]|[ .,'’&-]){2,}")
_LETTERS = re.compile(r"[^\W\d_]{3}")
_LETTER = re.compile(r"\(?([a-zA-Z])\)?\.?")
_UNIT = re.compile(r"[0-9})]\s*(?:\\[,;:! ]\s*)?(\\(?:text|textrm|mbox|mathrm)\s*\{\s*)?([a-zA-Z]+)\.?\s*(\^|\}|$)")
_GROUPED = re.compile(r"(?<=[0-9])(?:\{,\}|\\[,!; ]|,\\!|~)(?=[0-9]{3}(?![0-9]))")
_SPACED_GROUPS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?: [0-9]{3})+(?![0-9 ])")
_MIXED = re.compile(r"(?<![0-9.])([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)")
_BASED = re.compile(r"([0-9a-zA-Z]+)_\{?([0-9]{1,2})\}?")
_COUNTED = re.compile(
    r"([-+]?(?:[0-9][0-9.,/]*|\\[dt]?frac\{[0-9]+\}\{[0-9]+\}))\s+[a-zA-Z]{2,}(?:\s+[a-zA-Z]+){0,3}\.?"
)
_LOOSE_DIGITS = re.compile(r"[0-9]\s+[0-9]")
_CURRENCY = re.compile(r"(?:\\[$€£¥]|[€£¥]|^\$(?=[^$]*$))\s*(?=[-0-9.])")
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
    return _MIXED.sub(r"\1\\frac{\2}{\3}", text)


def _unit(text: str) -> str | None:
    """The known physical unit at the end of `text` (with its power), or None."""
    units = list(_UNIT.finditer(text))
    if not units:
        return None
    last = units[-1]
    word = last[2].lower()
    unit = _UNITS.get(word) or _UNITS.get(word.removesuffix("s"))
    # A single letter is a unit inside \text{} only: "5 m" may be a product.
    if unit is None or (len(word) == 1 and not last[1]):
        return None
    power = re.match(r"[}\s]*\^?\{?([0-9]?)", text[last.end() - 1 :])
    return unit + (power[1] if power else "")


def _words(text: str) -> str | None:
    """`text` as words where it is nothing but words (or one option letter), in the form to compare; else None."""
    plain = _TEXT_COMMAND.sub(lambda command: command[1], text).strip()
    if (letter := _LETTER.fullmatch(plain)) is not None:
        return letter[1]
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


def _same_text(answer: str, gold: str) -> bool:
    r"""True where both are the same text with words in it, such as "June 20"; nothing that holds a command is text."""
    plain, gold_plain = (_TEXT_COMMAND.sub(lambda command: command[1], text) for text in (answer, gold))
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
    unit, gold_unit = _unit(answer), _unit(gold)
    if unit is not None and gold_unit is not None and unit != gold_unit:
        return False, f"its unit is {unit}, expected {gold_unit}"
    based, gold_based = _BASED.fullmatch(answer), _BASED.fullmatch(gold)
    if based is not None and gold_based is not None:
        return _based_value(based) == _based_value(gold_based), "not equal"
    if (counted := _COUNTED.fullmatch(answer)) is not None:
        answer = counted[1]  # "1/2 cup": the words would be read as a product of letters
    if gold[0] in "([" and gold[-1] in ")]" and "," in gold and "," in answer and answer[0] not in "([{\\$":
        # "3,4" for the pair (3,4): the order counts, so it must not be read as the set {3, 4}.
        answer = gold[0] + answer + gold[-1]
    if _LOOSE_DIGITS.search(answer) and not _PROSE.search(answer):
        return False, "it holds numbers side by side"
    return _verify(answer, gold)


@lru_cache(maxsize=8192)
def _verify(answer: str, gold: str) -> tuple[bool, str]:
    from rewright.judging import process

    wrapped = _DELIMITED.search(answer) is None and _PROSE.search(answer) is None
    reply = process.ask("math", {"answer": answer, "gold": gold, "wrapped": wrapped})
    return reply["outcome"] == 1.0, reply["reason"]
