r"""Detect repairs that refer to text the student never sees: the attempt, its correction, or the shown answer.

A repair becomes a training example with the task's prompt, which does not contain the attempt. "The attempt above
misread the year" would teach the student to refer to missing text.

There are two lists, because "the previous attempt" is legitimate after a call of the repair itself.

- `REFUSED_PHRASES` are refused in any turn.
- `REFUSED_FIRST_PHRASES` are refused in the first turn only. They are not searched if the task contains an assistant
  message, to which "your previous answer" may refer.

In a recipe (`repair.refused_phrases`, `repair.refused_first_phrases`) the entry `default` stands for these lists.
A phrase that occurs verbatim in the task's messages or in an earlier tool result is never refused. Patterns are regular
expressions of Python's `re`. The search ignores case and is done on normalized text: single spaces, straight quotes and
no emphasis (`*`, backticks, double quotes). The default patterns are English.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from rewright.core.records import Message, Task, Trajectory

__all__ = ["DEFAULT", "REFUSED_FIRST_PHRASES", "REFUSED_PHRASES", "compiled", "unseen_reference"]

DEFAULT: Final = "default"
"""Entry of a list of phrases that stands for the default list."""

_FAULT: Final = (
    r"(?:wrong|incorrect|fail(?:s|ed)?|mistakes?|mistaken(?:ly)?|errors?|misread|misunderst\w+|misus\w+|confus\w+|"
    r"forg[eo]t\w*|overlook\w*|redundan\w+|verbose|unclear|repetitive|not (?:right|correct)|off by)"
)
_ACTION: Final = r"(?: to (?:call|use|run|search|query|fetch|look|find|open|read|reach|connect|get|load|access)\b)"
_SECRET: Final = r"(?:right|correct|true|gold(?:en)?|expected|known|reference)"

REFUSED_PHRASES: Final[tuple[str, ...]] = (
    # The attempt.
    r"\battempt (?:(?:shown|given|provided|listed|quoted) )?(?:above|in question)\b",
    r"\battempt (?:that |which )?(?:I|we) (?:was|were|am|are|have been|'ve been) (?:given|shown)\b",
    r"\b(?:above|above-mentioned|aforementioned|given|provided|original|student'?s|user'?s|assistant'?s|model'?s|"
    r"candidate'?s) attempt\b(?!" + _ACTION + ")",
    r"\bin (?:the|that) attempt\b(?! to\b)",
    r"\b(?:the|previous|prior|earlier|first|last|initial) attempt (?!to\b)[^.!?\n]{0,60}?\b"
    r"(?:wrong answer|misread|misunderstood|ends? (?:with|in)|ended (?:with|in)|concluded|answered)\b",
    r"\b(?:previous|prior|earlier|original|initial|given|provided) (?:solution|response|reasoning|answer|trajectory)\b"
    r"[^.!?\n]{0,40}?\b" + _FAULT + r"\b",
    r"\b(?:solution|response|reasoning|answer|trajectory) (?:above|(?:provided|given|shown) (?:earlier|before|above))\b"
    r"[^.!?\n]{0,40}?\b" + _FAULT + r"\b",
    r"\battempted (?:solution|answer)\b",
    r"\b(?:original|above|provided|flawed) (?:answer|trajectory)\b(?! choices?\b| options?\b)",
    r"\b(?:student|assistant|model|candidate)'s (?:solution|trajectory|reasoning|answer|mistake|error)\b",
    r"\bthe (?:\w+ )?(?:student|assistant|model|agent|solver|candidate) (?:misread|misunderstood|forgot|confused|"
    r"miscalculated|overlooked|should have|made (?:an?|the|several|some) (?:\w+ )?(?:mistake|error|slip)s?)\b",
    # Its correction.
    r"\b(?:repair|correct|fix|improv|revis|rewrit|rework|rewrot)(?:e|s|ed|es|ing|ten)? (?:the|this|that|your) "
    r"(?:attempt|trajectory)\b",
    r"\b(?:corrected|repaired) (?:answer|attempt|trajectory|solution|response)\b",
    r"\b(?:I|we) (?:was|were|am|are|have been|'ve been|'m) (?:asked|told|instructed) to (?:solve (?:it|this|the \w+) "
    r"again|redo|repair|correct|fix|improve|rewrite|revise)\b",
    r"\b(?:mention|refer|referr)(?:s|ing)?(?: to)? (?:the|any|an) (?:attempt|given answer)\b",
    r"\b(?:allowed|permitted|limited to|may (?:make|use))(?: \w+){0,3} calls\b",
    # The answer that was shown.
    r"\b(?:given|provided|supplied|gold(?:en)?|reference|ground[- ]truth|(?<!no )known|target) "
    r"(?:(?:right|correct|final) )?answer\b(?! (?:choice|option)s?\b)",
    r"\b" + _SECRET + r" answer,? (?:(?:that|which) )?(?:(?:was|is|has been) )?(?:given|provided|supplied|told|shown|"
    r"revealed|disclosed)(?: (?:to (?:me|us)|above|here|as|beforehand|in the (?:prompt|request)))\b",
    r"\banswer,? (?:that |which )?(?:I|we) (?:was|were|am|are|have been|'ve been|had been) "
    r"(?:given|told|shown|provided|supplied)\b",
    r"\banswer,? (?:(?:as|was) (?:given|told|provided|supplied)\b(?! by\b)|that was shown\b)",
    r"\bthe (?:hint|user|prompt|request|instructions?|teacher) (?:says?|said|states?|tells?|told|gives?|gave|claims?) "
    r"(?:me |us )?(?:that )?the (?:" + _SECRET + r" |final )?answer\b",
    r"\banswer,? (?:that |which )?you (?:gave|have given|told|provided|supplied|showed)\b",
    r"\b(?:told|informed|shown|given) (?:me )?(?:that )?the " + _SECRET + r" answer\b",
    r"\b(?:I|we) (?:already )?know (?:that )?the " + _SECRET + r" answer (?:is|to be|must be|should be)\b",
    r"\b(?:since|because|as|given that) the " + _SECRET + r" answer (?:is|was|should be|has to be)\b"
    r"(?! (?:an?|among|one|in|not|the|either)\b)",
    r"\b(?:match|equal|agree|coincide|confirm|compar|differ|consistent|line|same)\w*(?: \w+){0,3}? the "
    r"(?:" + _SECRET + r" answer|ground[- ]truth)\b",
    r"\b(?:ground[- ]truth|gold(?:en)?) (?:answer|solution|label|calls?|is|says)\b",
    r"\b(?:answer key|reference solution)\b",
)
"""Refused in any turn of a repair."""

REFUSED_FIRST_PHRASES: Final[tuple[str, ...]] = (
    r"(?<!\bif )(?<!\bshould )(?<!\bwhen )(?<!\bonce )(?<!\bcase )\b(?:the|this|that|my|your) "
    r"(?:(?:previous|prior|earlier|last|first|initial|failed|wrong|incorrect|flawed|faulty|bad) )?attempt\b"
    r"(?!" + _ACTION + ")",
    r"\b(?:previous|prior|earlier) (?:attempts?|tr(?:y|ies)|answer|solution|response|reasoning|conclusion|trajectory)"
    r"\b(?!" + _ACTION + ")",
    r"\bthe (?:wrong|incorrect) answer (?:was|is|came|comes|of|above)\b",
    r"\bthe mistake (?:was|is|lies|lay|made|spreads|above|there|here)\b",
    r"\bthe (?:error|slip|flaw|fault) (?:was|lies|lay|spreads|came from|comes from|is that)\b",
    r"\b(?:correct|fix|repair|undo)(?:s|ed|es|ing)? (?:the|this|that|its|these|those) "
    r"(?:\w+ )?(?:mistake|error|slip|flaw|fault)s?\b",
    r"\bthis time(?:,| I\b| we\b| around\b| let\b)",
    r"\b(?:solve|solving|answer|do|try|work through) (?:the (?:task|problem|question)|it|this|that) again\b",
    r"\bre-?(?:do|solve|solving|attempt|try)(?:ing)? (?:the|this|it)\b",
    r"\b(?:start(?:ing)? over|again from the (?:start|beginning))\b",
    r"\b(?:improved|rewritten|revised|polished|more concise|cleaner|clearer|shorter) version\b",
)
"""Refused in the first turn of a repair, which has no earlier call or answer to refer to."""

_QUOTES: Final = str.maketrans(dict.fromkeys("‘’ʼ", "'") | dict.fromkeys('*`"“”„', ""))


@lru_cache(maxsize=64)
def compiled(patterns: tuple[str, ...], standard: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """Compile patterns; the entry `default` is replaced by the patterns of `standard`.

    Raises ValueError for an invalid regular expression, and for one that matches the empty text (and so every repair).
    """
    expressions = []
    for pattern in (text for entry in patterns for text in (standard if entry == DEFAULT else (entry,))):
        try:
            expression = re.compile(pattern, re.IGNORECASE)
        except (re.error, OverflowError, RecursionError) as problem:
            raise ValueError(f"{pattern!r} is not a regular expression: {problem}") from problem
        if expression.search(""):
            raise ValueError(f"{pattern!r} matches the empty text, so every repair would be refused")
        expressions.append(expression)
    return tuple(expressions)


def unseen_reference(
    task: Task,
    repaired: Trajectory,
    phrases: Sequence[str] = (DEFAULT,),
    first_phrases: Sequence[str] = (DEFAULT,),
) -> str | None:
    """Return the first phrase of a repair that refers to text the student does not see, or None.

    Args:
        task: the task as seen by the student.
        repaired: the repair. All generated text (thoughts, calls, answers) is searched; tool results are not.
        phrases: patterns for all turns.
        first_phrases: patterns for the first turn.

    Raises ValueError for an invalid pattern.
    """
    asked = () if repaired.opening is None else repaired.opening.messages
    seen = _normalize("\n".join(_texts((*task.messages, *asked))))
    anywhere = compiled(tuple(phrases), REFUSED_PHRASES)
    first = compiled(tuple(first_phrases), REFUSED_FIRST_PHRASES)
    has_assistant_message = any(message.get("role") == "assistant" for message in task.messages)
    for index, turn in enumerate(repaired.turns):
        patterns = anywhere if index or has_assistant_message else (*anywhere, *first)
        text = _normalize(turn.opening + turn.text)
        phrases_found = (match[0] for pattern in patterns for match in pattern.finditer(text))
        refused = next((phrase for phrase in phrases_found if phrase.casefold() not in seen.casefold()), None)
        if refused is not None:
            return refused
        shown = [result.content for result in turn.results]
        if turn.follow_up is not None:
            shown += _texts(turn.follow_up.messages)
        seen += _normalize("\n".join(["", *shown]))
    return None


def _texts(messages: Iterable[Message]) -> list[str]:
    return [str(message.get("content") or "") for message in messages]


def _normalize(text: str) -> str:
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).translate(_QUOTES))
