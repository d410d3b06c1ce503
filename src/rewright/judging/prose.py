"""Read answers in prose: statements such as "The answer is Paris.", emphasis, the sentence that gives the answer."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["plain", "sentence", "short_answer", "statements", "without_offers"]

_EMPHASIS: Final = re.compile(
    r"(?<![\w*])\*{1,3}(?=[^\s*])|(?<=\S)\*{1,3}(?![\w*])|`+|(?<![^\W_])_{1,3}(?=\S)|(?<=\S)_{1,3}(?![^\W_{])|\\[()\[\]]"
)
"""Markdown's `*`, `_` and backticks around words (not in 3*4 and 2**3), and LaTeX's `\\(` and `\\[`."""
_STATEMENT: Final = re.compile(
    r"\banswer\b(?:[^.!?\n:=]{0,80}?\b"
    r"(?:is|was|are|were|equals|(?:would|should|must|will|can only) be|comes(?: out)? to)\b\s*:?"
    r"|[^.!?\n:=]{0,60}[:=])\s*(?=\S)"
    r"|^[ \t]*#{1,6}[ \t]*(?:the[ \t]+)?(?:final[ \t]+)?answer[ \t]*\n+(?=\s*\S)"
    r"|^[ \t]*(?:the[ \t]+)?(?:final[ \t]+)?answer[ \t]*\n+(?=\s*\S)"
    r"|^[ \t]*####[ \t]*(?=\S)",
    re.IGNORECASE | re.MULTILINE,
)
_NO_ANSWER: Final = re.compile(
    r"not\b|(?:more |very )?(?:helpful|useful|clear|correct|right|wrong|incorrect|based|unclear|unknown)\b", re.I
)
_END: Final = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)")
_ABBREVIATIONS: Final = frozenset({
    "st", "mr", "mrs", "ms", "dr", "jr", "sr", "vs", "prof", "no", "mt", "ft", "gen", "col", "lt", "sgt", "rev", "hon",
    "inc", "ltd", "co", "corp", "approx", "ca", "al", "ave", "blvd",
})  # fmt: skip
_BOLD: Final = re.compile(r"\*\*(?=\S)([^*\n]{1,80}?)\*\*")
_COPULA: Final = re.compile(
    r"(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:the|it|this|that|his|her|their|its|your|my|she|he|they)\b[^.!?\n]{0,120}?"
    r"\b(?:is|are|was|were)\b(?:\s+(?:called|named))?:?\s+(?P<said>\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_BREAK: Final = re.compile(r"[.!?][\"'”’)\]*]*\s+|\n+")
_OFFER: Final = re.compile(
    r"(?:please )?let me know\b|(?:please )?feel free\b|(?:i )?hope (?:this|that)\b|happy to help\b"
    r"|i(?:'d| would| am|'m) (?:be )?happy to\b|if you(?:'d like| have| need| want| would)\b|just ask\b",
    re.I,
)
_EMOJI: Final = re.compile(r"[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f\u200d\s]+\Z")
MOST_OFFERS: Final = 4
"""Maximum number of sentences that are removed from the end of an answer."""
LONGEST: Final = 1000
"""Maximum length in characters of a sentence that is taken apart."""
MOST: Final = 20
"""Number of statements at the end of a text that are considered."""
_DECORATION: Final = " \t\r\n\"'“”‘’"


def plain(text: str) -> str:
    """Remove Markdown emphasis and LaTeX's delimiters of formulas."""
    return _EMPHASIS.sub("", text)


def statements(text: str) -> list[str]:
    """Return what every statement of an answer says, in order: the rest of its sentence. `text` has no emphasis.

    Recognised are "the (final) answer (…) is …", "Answer: …", a heading "Answer" above it, and "#### …". A statement of
    what the answer is not, and remarks such as "I hope this answer is helpful", are left out.
    """
    found = []
    for match in [*_STATEMENT.finditer(text)][-MOST:]:
        clause = sentence(text[match.end() : match.end() + LONGEST].lstrip())
        if clause and not _NO_ANSWER.match(clause):
            found.append(clause)
    return found


def sentence(text: str) -> str:
    """Return the first sentence of `text`, without its full stop. A line break ends it."""
    line = text.split("\n", 1)[0]
    for end in _END.finditer(line):
        word = line[max(0, end.start() - 20) : end.start()].rpartition(" ")[2].lstrip("(\"'“‘").casefold()
        short = word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word != "i") or "." in word
        if end[0] == "." and short and end.end() < len(line.rstrip()) and not word[:1].isdigit():
            continue
        return line[: end.start()].strip()
    return line.strip()


def without_offers(text: str) -> str:
    """Remove what does not belong to the answer from its end: a question to the user, an offer of help, an emoji.

    A text of nothing else is returned unchanged.
    """
    kept = text[:-LONGEST] + _EMOJI.sub("", text[-LONGEST:])
    for _ in range(MOST_OFFERS):
        start = max((found.end() for found in _BREAK.finditer(kept, max(0, len(kept) - LONGEST))), default=0)
        last = kept[start:].strip()
        asks = last.rstrip("\"'”’)]*").endswith("?")
        if not start or not (asks or _OFFER.match(last)):
            break
        kept = kept[:start].rstrip()
    return kept or text


def short_answer(text: str) -> str:
    """Return the answer that a text in prose gives, as the text to be compared with a gold answer.

    In this order: the last statement, the only text in bold, the end of a single sentence such as "The capital is
    Paris.", else the whole text.
    """
    said = statements(plain(text))
    if said:
        return _undecorated(said[-1])
    bold = [span for span in _BOLD.findall(text) if not span.rstrip().endswith(":")]
    if len(bold) == 1:
        return _undecorated(bold[0])
    bare = without_offers(plain(text)).strip()
    first = sentence(bare[:LONGEST])
    copula = _COPULA.fullmatch(first) if len(bare) <= len(first) + 2 else None
    return _undecorated(copula["said"]) if copula is not None else bare


def _undecorated(text: str) -> str:
    text = text.strip().strip(_DECORATION)
    inner = re.fullmatch(r"\$+([^$]+)\$+\.?", text)
    return (inner[1] if inner is not None else text).strip(_DECORATION).removesuffix(".").strip(_DECORATION) or text
