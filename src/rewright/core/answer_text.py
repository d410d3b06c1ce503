"""Answer text: extract boxed content, plain numbers and dates, and normalise answers for comparison.

All functions are pure and run in linear time, because an answer is model output and may be a megabyte of braces.
"""

from __future__ import annotations

import re
import string
import unicodedata
from decimal import Decimal

__all__ = [
    "boxed",
    "closing_brace",
    "final_answer",
    "normalize_exact",
    "option_letter",
    "parse_plain_number",
    "qa_tokens",
    "shown",
    "strip_answer_prefix",
    "strip_text_commands",
]

_BOXED = re.compile(r"\\(?:f?boxed|fbox)\s*\{|\\f?boxed\s+(?=[^\s{])")
_BRACES = re.compile(r"\\[{}]|[{}]")
_BARE_BOX = re.compile(r"\S+")
_SEPARATOR = re.compile(r"and|or|,", re.IGNORECASE)
_BETWEEN = re.compile(
    r"[\s$.,;]*(?:\\(?:text|mbox|quad|qquad)\s*(?:\{\s*)?)?(?:,?\s*(?:and|or)\b)?[\s$.,;}]*(?:\\q?quad)?\s*",
    re.IGNORECASE,
)
_MAX_BETWEEN = 40
_MAX_BOXES = 20
_MAX_UNCLOSED = 200
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,4})?")
_DATE = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})")
_MINUS = str.maketrans({"−": "-", "–": "-", "‒": "-", "﹣": "-", "－": "-"})
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "`": "`"}
_NUMBER_LIMIT = 1000
"""Characters of a plain number: longer digit strings are compared as text, not as numbers."""


def boxed(text: str) -> str | None:
    r"""Return the content of the last `\\boxed{...}`, or None. A nested box is part of the outer box.

    Boxes separated only by "and", "or" or commas are one answer: `\\boxed{1} or \\boxed{2}` gives "1 or 2".
    """
    boxes: list[tuple[int, int, str]] = []
    position = 0
    while (opening := _BOXED.search(text, position)) is not None:
        if not opening.group().endswith("{"):
            word = _BARE_BOX.match(text, opening.end())
            position = opening.end()
            if word:
                position = word.end()
                boxes.append((opening.start(), position, word.group().rstrip("$.")))
            continue
        end = closing_brace(text, opening.end())
        if end is None:
            # This box is never closed, so every later box is nested in it: take the last closed one inside.
            closed = _last_closed_box(text, opening.end())
            if closed is not None:
                return closed
            return boxes[-1][2] if boxes else None
        boxes.append((opening.start(), end + 1, text[opening.end() : end]))
        position = end + 1
    if not boxes:
        return None
    content = boxes[-1][2]
    boxes = boxes[-_MAX_BOXES:]
    for (_, stop, earlier), (start, _, _) in zip(reversed(boxes[:-1]), reversed(boxes[1:]), strict=True):
        if start - stop > _MAX_BETWEEN or _BETWEEN.fullmatch(text, stop, start) is None:
            break
        if earlier != content:
            between = _SEPARATOR.search(text, stop, start)
            content = f"{earlier} {between[0]} {content}" if between and between[0] != "," else f"{earlier}, {content}"
    return content


def closing_brace(text: str, start: int) -> int | None:
    """Return the position of the brace that closes the one before `start`, or None. `\\{` and `\\}` do not count."""
    depth = 1
    for brace in _BRACES.finditer(text, start):
        if brace.group() == "{":
            depth += 1
        elif brace.group() == "}":
            depth -= 1
            if depth == 0:
                return brace.start()
    return None


def _unclosed(text: str) -> str | None:
    """Return the content of an unclosed last box: the rest of its line, if that is short enough."""
    opening = None
    for opening in _BOXED.finditer(text):  # noqa: B007
        pass
    if opening is None or not opening.group().endswith("{"):
        return None
    line = text[opening.end() : opening.end() + _MAX_UNCLOSED + 1].strip().split("\n", 1)[0].strip().rstrip("$").strip()
    return line if line and len(line) <= _MAX_UNCLOSED else None


def _last_closed_box(text: str, start: int) -> str | None:
    """Return the content of the last closed box at or after `start`, in one pass with a stack."""
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
    """Return the part of an answer that is judged: the last boxed content, else the whole text. "" for None.

    If the only box is never closed, its content is the rest of its line.
    """
    if text is None:
        return ""
    content = boxed(text)
    if content is None:
        content = _unclosed(text)
    return (text if content is None else content).strip()


def parse_plain_number(text: str) -> Decimal | None:
    """Parse a plain number (`1,000`, `5.0`, `-3`, `.5`, `1e3`). None for any other text. Never NaN or infinite."""
    text = text.strip().translate(_MINUS)
    if len(text) > _NUMBER_LIMIT or not any("0" <= character <= "9" for character in text):
        return None
    if _NUMBER.fullmatch(text) is None or not any("0" <= character <= "9" for character in re.split("[eE]", text)[0]):
        return None
    return Decimal(text.replace(",", ""))


def normalize_exact(text: str) -> str:
    """Normalise an answer for the `exact` comparison.

    Applies Unicode NFKC, lower case and single spaces. Removes spaces around commas and inside brackets, enclosing
    quotes and a final full stop. Pads the months and days of ISO dates to two digits.
    """
    text = unicodedata.normalize("NFKC", text).translate(_MINUS).casefold()
    text = " ".join(text.split())
    text = re.sub(r" ?, ?", ",", text)
    text = re.sub(r"(?<=[(\[{]) | (?=[)\]}])", "", text)
    for _ in range(3):  # quotes and full stops may be nested, but not more deeply than this in practice
        if len(text) > 1 and text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
        if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
            text = text[1:-1].strip()
    return _DATE.sub(lambda date: f"{date[1]}-{int(date[2]):02d}-{int(date[3]):02d}", text)


_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_OPTION = re.compile(r"\(?([a-zA-Z])\)?\.?")


def strip_text_commands(text: str) -> str:
    r"""Replace `\\text{}` and similar commands by their contents."""
    return _TEXT_COMMAND.sub(lambda command: command[1], text)


def option_letter(text: str) -> str | None:
    r"""Return the letter of a multiple-choice option: `C`, `(C)`, `C.`, `\\textbf{(C)}`. None for any other text."""
    letter = _OPTION.fullmatch(strip_text_commands(text).strip(" *$"))
    return letter[1] if letter is not None else None


_EMPHASIS = re.compile(r"(\*{1,3}|_{1,3}|`+)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)
_STATED = re.compile(
    r"(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:the|my)?\s*(?:final|correct)?\s*\banswer\s*(?:is\s*:?|:|=)\s*(?=\S)",
    re.IGNORECASE,
)


def strip_answer_prefix(text: str) -> str:
    """Return `text` without surrounding Markdown emphasis and a leading "The (final) answer is"."""
    for _ in range(3):
        text = text.strip()
        inner = _EMPHASIS.fullmatch(text.removesuffix("."))
        if inner is not None and inner[1] not in inner[2]:
            text = inner[2]
        elif (lead := _STATED.match(text)) is not None:
            text = text[lead.end() :]
        else:
            break
    return text.strip()


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER_TOKEN = re.compile(
    r"(?<![\w.])(?<![^\W\d_]-)([-+]?[$€£]?)"
    r"((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+)(?![\w]|\.[0-9])"
)
_DASHES = str.maketrans(dict.fromkeys("‐‑—―", "-"))
_ASCII_SYMBOLS = frozenset(string.punctuation)
_SPACED_PUNCTUATION = frozenset("、。，．：；！？「」『』【】《》〈〉・·")


def qa_tokens(text: str) -> list[str]:
    """Tokenise a text as SQuAD's evaluation script does, with three extensions. A number is one token.

    Full-width letters and digits, curly quotes and dashes are mapped to ASCII. CJK punctuation separates tokens. A
    number keeps its sign and decimal point, so that -3 differs from 3 and 1.5 from 15 (SQuAD deletes both).
    """
    text = "".join(" " if character in _SPACED_PUNCTUATION else character for character in text)
    text = unicodedata.normalize("NFKC", text).translate(_MINUS).translate(_DASHES).lower()
    words: list[str] = []
    position = 0
    for number in _NUMBER_TOKEN.finditer(text):
        words += _plain_words(text[position : number.start()])
        before = text[number.start() - 1 : number.start()]
        negative = number[1].startswith("-") and not (before.isalnum() or before in ("-", ")"))
        whole, point, decimals = number[2].replace(",", "").partition(".")
        value = (whole.lstrip("0") or "0") + (point + decimals).rstrip("0").rstrip(".")
        words.append(f"-{value}" if negative and value != "0" else value)
        position = number.end()
    return words + _plain_words(text[position:])


def _plain_words(text: str) -> list[str]:
    bare = "".join(
        character for character in text if character not in _ASCII_SYMBOLS and unicodedata.category(character)[0] != "P"
    )
    return _ARTICLES.sub(" ", bare).split()


_SHOWN_CHARACTERS = 80


def shown(text: str) -> str:
    """Quote `text` for a verdict's reason: one line, with the middle elided if it is long."""
    if len(text) > _SHOWN_CHARACTERS:
        half = _SHOWN_CHARACTERS // 2
        text = f"{text[:half]}…{text[-half:]}"
    return repr(" ".join(text.split()))
