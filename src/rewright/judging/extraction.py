r"""Extractors: which part of the model's answer is compared with the gold answer.

An answer in `<answer>` tags is short, and needs none. In the dialect `chat` the answer is a whole message, such as "She
has **12** apples left.", and each judge names the extractor that fits it (`AnswerJudge.extractor`). A task
(`Task.extractor`) and the recipe (`extractor`) override it, in this order and in every dialect.

An extractor is a function `(text, golds) -> str | None` (None: the text has no such part), registered by name
(`rewright.core.registry`, kind `extractor`) or given by import path. It may use the form of the gold answers (a number,
a date), never their values. `json.FIELD` is the extractor `json` for another field than `answer`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from rewright.core.answer_text import boxed, final_answer, option_letter, parse_plain_number
from rewright.core.registry import find
from rewright.core.strict_json import STRICT
from rewright.judging.prose import plain, sentence, short_answer, statements
from rewright.judging.prose_numbers import stated_number

__all__ = [
    "Extractor",
    "by_gold",
    "find_extractor",
    "in_box",
    "json_field",
    "last_number",
    "number_or_text",
    "whole_text",
]

Extractor = Callable[[str, Sequence[str]], str | None]

_DATE: Final = re.compile(r"(?<![0-9-])[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?![0-9-])")
_CLOSED: Final = (frozenset({"yes", "no"}), frozenset({"true", "false"}))
_LEADING_LETTER: Final = re.compile(r"\(?([A-Za-z])(?:[).:]|\s*$)")
_NAMED_LETTER: Final = re.compile(r"\b(?:option|choice)\s+\(?([A-Za-z])\b|\(([A-Z])\)", re.I)
_MEASURE: Final = re.compile(r"([$€£¥])?\s?[-+]?[0-9][0-9,]*(?:\.[0-9]+)?\s?(%|(?:[^\W\d_]+(?: [^\W\d_]+)?)?)")
_FORMULA: Final = re.compile(
    r"\$\$(.{1,1000}?)\$\$|\\\[(.{1,1000}?)\\\]|\$([^$\n]{1,1000})\$|\\\((.{1,1000}?)\\\)", re.DOTALL
)
LONGEST: Final = 20_000
"""Number of characters at the end of an answer in which prose is read."""
_JSON_CHARACTERS: Final = 50_000
_JSON_STARTS: Final = 500


def find_extractor(name: str, packages: Sequence[str] | None = None, setting: str | None = None) -> Extractor:
    """Return the extractor with that name, `json.FIELD`, or import path.

    `packages`: the packages that may be imported, for a name from a task file; None: any. Raises InputError.
    """
    if name.startswith("json.") and ":" not in name and len(name) > len("json."):
        return partial(json_field, field=name.removeprefix("json."))
    found: Extractor = find("extractor", name, packages=packages, setting=setting)
    return found


def whole_text(text: str, golds: Sequence[str]) -> str | None:
    """`text`: the whole answer; only the content of a box, if there is one."""
    return final_answer(text)


def last_number(text: str, golds: Sequence[str]) -> str | None:
    """`last_number`: the number that the answer states, else its last one (`rewright.judging.prose_numbers`)."""
    box = boxed(text)
    return _number(text if box is None else box, golds)


def in_box(text: str, golds: Sequence[str]) -> str | None:
    r"""`boxed`: the content of the last `\\boxed{}`.

    Without a box: the number that is stated, with its percent sign, if a gold answer is a number, else the last
    statement of the answer, else the last formula, else the whole text.
    """
    box = boxed(text)
    if box is not None:
        return box
    text = text[-LONGEST:]
    if _are_numbers(golds) and (stated := stated_number(text)) is not None:
        return stated.value + ("%" if stated.is_percent else "")
    said = statements(plain(text.replace("\\(", "$").replace("\\)", "$")))
    if said:
        return said[-1]
    formulas = [next(part for part in one.groups() if part is not None) for one in _FORMULA.finditer(text)]
    return formulas[-1].strip() if formulas else final_answer(text)


def by_gold(text: str, golds: Sequence[str]) -> str | None:
    """`auto`: the content of a box; else what has the form of the gold answers.

    A number, a number with a unit, a date (ISO), yes or no, or the letter of an option; a short text otherwise.
    """
    box = boxed(text)
    if box is not None:
        return box
    text = text[-LONGEST:]
    golds = [gold.strip() for gold in golds if gold.strip()]
    for fits, extract in _FORMS:
        if golds and fits(golds) and (found := extract(text, golds)) is not None:
            return found
    return short_answer(text)


def number_or_text(text: str, golds: Sequence[str]) -> str | None:
    """`number_or_text`: the number that is stated if a gold answer is a number, else the whole text."""
    if boxed(text) is None and _are_numbers(golds) and (found := _number(text, golds)) is not None:
        return found
    return final_answer(text)


def json_field(text: str, golds: Sequence[str], field: str = "answer") -> str | None:
    """`json`: the field `answer` of the last JSON object in the text that has it; `json.FIELD`: another field.

    Dots in FIELD lead into inner objects. A value that is not a text is returned as JSON.
    """
    found: str | None = None
    text = text[-_JSON_CHARACTERS:]
    position, starts = text.find("{"), 0
    while position >= 0 and starts < _JSON_STARTS:
        starts += 1
        try:
            value, end = STRICT.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            held = _at(value, field)
            if held is not None:
                found = held if isinstance(held, str) else json.dumps(held, ensure_ascii=False)
        position = text.find("{", end)
    return found


def _at(value: Any, field: str) -> Any:
    if isinstance(value, dict) and field in value:
        return value[field]
    for part in field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _are_numbers(golds: Sequence[str]) -> bool:
    return any(parse_plain_number(gold) is not None for gold in golds)


def _number(text: str, golds: Sequence[str]) -> str | None:
    found = stated_number(text[-LONGEST:])
    return None if found is None else found.value


def _are_measures(golds: Sequence[str]) -> bool:
    return all(_MEASURE.fullmatch(gold) for gold in golds)


def _measure(text: str, golds: Sequence[str]) -> str | None:
    """Return the number that is stated, with its currency, and as many words behind it as the gold answer has."""
    found, form = stated_number(text), _MEASURE.fullmatch(golds[0])
    if found is None or form is None:
        return None
    shown = found.shown if form[1] else found.shown.lstrip("$€£¥ ")
    if form[2] == "%":
        return shown + ("%" if found.is_percent else "")
    words = re.match(r"\s?" + r"\s?".join([r"[^\W\d_]+"] * len(form[2].split())), found.after) if form[2] else None
    return shown + (words[0] if words is not None else "")


def _are_dates(golds: Sequence[str]) -> bool:
    return all(_DATE.fullmatch(gold) for gold in golds)


def _date(text: str, golds: Sequence[str]) -> str | None:
    for part in (*statements(plain(text))[-1:], text):
        found = _DATE.findall(part)
        if found:
            return str(found[-1] if part is text else found[0])
    return None


def _are_closed(golds: Sequence[str]) -> bool:
    return any({gold.casefold().rstrip(".") for gold in golds} <= words for words in _CLOSED)


def _closed(text: str, golds: Sequence[str]) -> str | None:
    words = next(words for words in _CLOSED if golds[0].casefold().rstrip(".") in words)
    bare = plain(text)
    pattern = re.compile(rf"\b(?:{'|'.join(sorted(words))})\b", re.I)
    for part in (*statements(bare)[-1:], sentence(bare.lstrip())):
        lead = re.match(r"\W*(?:it is |it's )?", part, re.I)
        found = pattern.match(part, lead.end() if lead else 0)
        if found is not None:
            return found[0]
    every = pattern.findall(bare)
    return str(every[-1]) if every else None


def _are_letters(golds: Sequence[str]) -> bool:
    return all(option_letter(gold) is not None for gold in golds)


def _letter(text: str, golds: Sequence[str]) -> str | None:
    bare = plain(text)
    for part in (*statements(bare)[-1:], bare.strip()):
        found = _LEADING_LETTER.match(part.lstrip(" $")) or re.match(r"(?:option|choice)\s+\(?([A-Za-z])\b", part, re.I)
        if found is not None:
            return found[1]
        if part is not bare and (only := re.match(r"\(?([A-Z])\b(?!')", part)) and statements(bare):
            return only[1]
    named = [first or second for first, second in _NAMED_LETTER.findall(bare)]
    return named[-1] if named else None


_FORMS: Final = (
    (_are_numbers, _number),
    (_are_dates, _date),
    (_are_closed, _closed),
    (_are_letters, _letter),
    (_are_measures, _measure),
)
"""The forms of gold answers, and how each is found in an answer."""
