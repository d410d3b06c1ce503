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
    r"""The content of the last `\\boxed{...}`, or None. An inner box counts as part of its outer.

    Boxes with nothing but "and", "or" or commas between them are one answer: `\\boxed{1} or \\boxed{2}` is "1 or 2".
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
            # The box never closes, so no later one can hold the rest of it open: look for the last closed one inside.
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
    """The position of the brace that closes the one before `start`, or None. `\\{` and `\\}` are no braces."""
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
    """What a last box without an end holds: the rest of its line, where that is short and holds no box itself."""
    opening = None
    for opening in _BOXED.finditer(text):  # noqa: B007
        pass
    if opening is None or not opening.group().endswith("{"):
        return None
    line = text[opening.end() : opening.end() + _MAX_UNCLOSED + 1].strip().split("\n", 1)[0].strip().rstrip("$").strip()
    return line if line and len(line) <= _MAX_UNCLOSED else None


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
    """What is judged of an answer: the last boxed content if there is one, else all of it. "" for no answer.

    A box that was never closed holds the rest of its line, where no other box is there.
    """
    if text is None:
        return ""
    content = boxed(text)
    if content is None:
        content = _unclosed(text)
    return (text if content is None else content).strip()


def parse_plain_number(text: str) -> Decimal | None:
    """The value of a plain number (`1,000`, `5.0`, `-3`, `.5`, `1e3`), else None. Never NaN or infinite."""
    text = text.strip().translate(_MINUS)
    if len(text) > _NUMBER_LIMIT or not any("0" <= character <= "9" for character in text):
        return None
    if _NUMBER.fullmatch(text) is None or not any("0" <= character <= "9" for character in re.split("[eE]", text)[0]):
        return None
    return Decimal(text.replace(",", ""))


def normalize_exact(text: str) -> str:
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


def strip_text_commands(text: str) -> str:
    r"""`text` with the contents of `\\text{}` and its kin in their place."""
    return _TEXT_COMMAND.sub(lambda command: command[1], text)


def option_letter(text: str) -> str | None:
    r"""The letter of a text that is one letter, as options are named: `C`, `(C)`, `C.`, `\\textbf{(C)}`; else None."""
    letter = _OPTION.fullmatch(strip_text_commands(text).strip(" *$"))
    return letter[1] if letter is not None else None


_EMPHASIS = re.compile(r"(\*{1,3}|_{1,3}|`+)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)
_STATED = re.compile(
    r"(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:the|my)?\s*(?:final|correct)?\s*\banswer\s*(?:is\s*:?|:|=)\s*(?=\S)",
    re.IGNORECASE,
)


def strip_answer_prefix(text: str) -> str:
    """`text` without Markdown emphasis around it and without "The (final) answer is" before it."""
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
    """SQuAD's words of a text, with three additions of ours. A number stays one word.

    Full-width letters and digits, curly quotes and dashes count as their ASCII forms; CJK punctuation ends a word; a
    number keeps its sign and its decimal point, so that -3 is not 3 and 1.5 not 15 (SQuAD deletes both).
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
    """`text` quoted for a reason: one line, cut in the middle where it is long."""
    if len(text) > _SHOWN_CHARACTERS:
        half = _SHOWN_CHARACTERS // 2
        text = f"{text[:half]}…{text[-half:]}"
    return repr(" ".join(text.split()))
