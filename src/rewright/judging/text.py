"""Reading answers as text: boxed content, plain numbers, dates, and the two normalisations every judge shares.

All functions are pure and take linear time: an answer is model output and may be a megabyte of braces.
"""

from __future__ import annotations

import re
import string
import unicodedata
from decimal import Decimal

__all__ = [
    "boxed",
    "exact_form",
    "final_answer",
    "option_letter",
    "plain_number",
    "squad_form",
    "without_text_commands",
]

_BOXED = re.compile(r"\\f?boxed\s*\{|\\f?boxed\s+(?=[^\s{])")
_BRACES = re.compile(r"\\[{}]|[{}]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,4})?")
_DATE = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})")
_MINUS = str.maketrans({"−": "-", "–": "-", "‒": "-", "﹣": "-", "－": "-"})
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "`": "`"}
_NUMBER_LIMIT = 1000
"""Characters of a plain number: longer digit strings are compared as text, not as numbers."""


def boxed(text: str) -> str | None:
    r"""The content of the last `\\boxed{...}` whose braces close, or None. An inner box counts as part of its outer."""
    last: str | None = None
    position = 0
    while (opening := _BOXED.search(text, position)) is not None:
        if not opening.group().endswith("{"):
            word = re.compile(r"\S+").match(text, opening.end())
            last = word.group().rstrip("$.") if word else last
            position = opening.end()
            continue
        depth = 1
        end = None
        for brace in _BRACES.finditer(text, opening.end()):
            if brace.group() == "{":
                depth += 1
            elif brace.group() == "}":
                depth -= 1
                if depth == 0:
                    end = brace.start()
                    break
        if end is None:
            # The box never closes, so no later one can hold the rest of it open: look for the last closed one inside.
            return _last_closed_box(text, opening.end()) or last
        last = text[opening.end() : end]
        position = end
    return last


def _last_closed_box(text: str, start: int) -> str | None:
    """The last closed box at or after `start`, in one pass with a stack (the outer box is known not to close)."""
    openings = {match.end() - 1 for match in _BOXED.finditer(text, start) if match.group().endswith("{")}
    stack: list[int] = []
    last: tuple[int, int] | None = None
    for brace in _BRACES.finditer(text, start):
        if brace.group() == "{":
            stack.append(brace.start())
        elif brace.group() == "}" and stack:
            opened = stack.pop()
            if opened in openings:
                last = (opened + 1, brace.start())
    return text[last[0] : last[1]] if last else None


def final_answer(text: str | None) -> str:
    """What is judged of an answer: the last boxed content if there is one, else all of it. "" for no answer."""
    if text is None:
        return ""
    content = boxed(text)
    return (text if content is None else content).strip()


def plain_number(text: str) -> Decimal | None:
    """The value of a plain number (`1,000`, `5.0`, `-3`, `.5`, `1e3`), else None. Never NaN or infinite."""
    text = text.strip().translate(_MINUS)
    if len(text) > _NUMBER_LIMIT or not any("0" <= character <= "9" for character in text):
        return None
    if _NUMBER.fullmatch(text) is None or not any("0" <= character <= "9" for character in re.split("[eE]", text)[0]):
        return None
    return Decimal(text.replace(",", ""))


def exact_form(text: str) -> str:
    """Form in which two exact answers are compared.

    Unicode compatibility form, lower case, single spaces, no space around commas and inside brackets, no enclosing
    quotes and no final full stop; ISO dates get two-digit months and days.
    """
    text = unicodedata.normalize("NFKC", text).translate(_MINUS).casefold()
    text = " ".join(text.split())
    text = re.sub(r" ?, ?", ",", text)
    text = re.sub(r"(?<=[(\[{]) | (?=[)\]}])", "", text)
    for _ in range(3):  # a quote around a full stop around a quote; more is not an answer's decoration
        if len(text) > 1 and text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
        if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
            text = text[1:-1].strip()
    return _DATE.sub(lambda date: f"{date[1]}-{int(date[2]):02d}-{int(date[3]):02d}", text)


_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_OPTION = re.compile(r"\(?([a-zA-Z])\)?\.?")


def without_text_commands(text: str) -> str:
    r"""`text` with the contents of `\\text{}` and its kin in their place."""
    return _TEXT_COMMAND.sub(lambda command: command[1], text)


def option_letter(text: str) -> str | None:
    r"""The letter of a text that is one letter, as options are named: `C`, `(C)`, `C.`, `\\textbf{(C)}`; else None."""
    letter = _OPTION.fullmatch(without_text_commands(text).strip(" *$"))
    return letter[1] if letter is not None else None


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_form(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single spaces (Rajpurkar et al., 2016)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
