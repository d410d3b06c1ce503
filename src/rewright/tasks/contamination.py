"""Detect test questions that also occur in a training set (contamination).

- Exact match: the same words in the same order, ignoring case, punctuation, spacing, characters that are not seen and
  Markdown's emphasis. Arithmetic operators (2 + 3, 2 - 3) count as words. Questions of one or two words without a
  number ("Hello") do not count.
- Overlap: the fraction of the test question's word n-grams that occur in one training question (n = 8 by default).
  Questions shorter than n words are only matched exactly. In scripts without spaces between words, such as Chinese,
  each character is a word.

Time and memory are linear in the number of words of both sets. n-grams that many questions of a source share, such as
an instruction or FTRL's preamble, are ignored.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal

import msgspec

from rewright.core.records import Task

__all__ = ["Overlap", "find_overlaps", "question_text", "same_tasks"]

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Japanese and Chinese
)
"""Scripts that are written without spaces between words: each character counts as a word."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[+*/^=<>]|-(?=\s*[0-9])")
_FORMAT = re.compile(r"[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
"""Characters that are not seen, such as zero-width spaces and soft hyphens."""
_EMPHASIS = re.compile(r"(?<![\w*])(\*\*?|__?)(?=\S)([^*_\n]+)(?<=\S)\1(?![\w*])")
"""Emphasis in Markdown."""
_SAME = str.maketrans({"−": "-", "×": "*", "÷": "/", "\u2010": "-", "\u2011": "-"})
_MIN_EXACT_WORDS = 3
"""A question with fewer words, none of them a number, such as a greeting, is no evidence."""
_COMMON_SHARE_TEST = 0.02
_COMMON_SHARE_TRAIN = 0.5
_MIN_COMMON_COUNT = 10


class Overlap(msgspec.Struct, frozen=True):
    """A test task and its nearest training task. `share`: fraction of shared n-grams in [0, 1]; 1.0 if exact."""

    test_id: str
    train_id: str
    kind: Literal["exact", "n-gram"]
    share: float

    def __str__(self) -> str:
        """One line."""
        if self.kind == "exact":
            return f"test task {self.test_id} asks the same as training task {self.train_id}"
        return f"test task {self.test_id} shares {self.share:.0%} of its word runs with training task {self.train_id}"


def question_text(task: Task) -> str:
    """Return the text of the user messages, those of follow-ups included, joined by line breaks."""
    messages = (*task.messages, *(message for follow_up in task.follow_ups for message in follow_up.messages))
    texts = (message.get("content") for message in messages if message.get("role") == "user")
    return "\n".join(text for text in texts if isinstance(text, str))


def _words(text: str) -> list[str]:
    plain = _FORMAT.sub("", unicodedata.normalize("NFKC", text)).translate(_SAME)
    return _WORD.findall(_EMPHASIS.sub(r"\2", plain).casefold())


def _is_evidence(words: Sequence[str]) -> bool:
    """Whether a question says enough to count where another asks the same."""
    return len(words) >= _MIN_EXACT_WORDS or any(word[0].isdigit() for word in words)


def _grams(words: Sequence[str], n: int) -> set[int]:
    """Return hashes of the word n-grams, which take less memory than the words."""
    return {hash(tuple(words[start : start + n])) for start in range(len(words) - n + 1)}


def find_overlaps(train: Sequence[Task], test: Sequence[Task], *, n: int = 8, threshold: float = 0.5) -> list[Overlap]:
    """Find test tasks that occur in the training set, exactly or with at least `threshold` of their n-grams.

    Returns one overlap per contaminated test task, in the order of the test set, with its nearest training task (the
    first one for ties). n-grams that occur in more than 2% of the test questions, of those of the question's source
    (`Task.source`), or in half of the training questions, and in more than 10, count as a common preamble and are
    ignored. Raises ValueError for n < 1 or a threshold outside (0, 1].
    """
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}, expected a number above 0 and at most 1")
    train_words, test_words = ([_words(question_text(task)) for task in tasks] for tasks in (train, test))
    train_grams, test_grams = ([_grams(words, n) for words in each] for each in (train_words, test_words))
    common = _common(train_grams, _COMMON_SHARE_TRAIN) | _common(test_grams, _COMMON_SHARE_TEST)

    exact: dict[tuple[str, ...], int] = {}
    for number, words in enumerate(train_words):
        exact.setdefault(tuple(words), number)
    by_source: dict[str, list[set[int]]] = defaultdict(list)
    for task, grams in zip(test, test_grams, strict=True):
        by_source[task.source].append(grams)
    # Of a pool of several benchmarks, the preamble of one is in a small share of all questions.
    own_common = {source: common | _common(questions, _COMMON_SHARE_TEST) for source, questions in by_source.items()}
    wanted = set[int]().union(*test_grams) - common
    train_indices: dict[int, list[int]] = defaultdict(list)
    for number, grams in enumerate(train_grams):
        for gram in grams & wanted:
            train_indices[gram].append(number)

    overlaps: list[Overlap] = []
    for task, words, grams in zip(test, test_words, test_grams, strict=True):
        if _is_evidence(words) and (match := exact.get(tuple(words))) is not None:
            overlaps.append(Overlap(task.id, train[match].id, "exact", 1.0))
            continue
        distinctive = grams - own_common[task.source]
        shared = Counter(number for gram in distinctive for number in train_indices.get(gram, ()))
        if not shared:
            continue
        nearest = min(shared, key=lambda each: (-shared[each], each))
        share = shared[nearest] / len(distinctive)
        if share >= threshold:
            overlaps.append(Overlap(task.id, train[nearest].id, "n-gram", share))
    return overlaps


def same_tasks(train: Sequence[Task], test: Sequence[Task]) -> list[tuple[Task, Task]]:
    """Return the test tasks that are training tasks, each with the first of these.

    They ask the same, as in an exact match, with tools of the same names; or they have the same source, id and
    messages, where a question is no evidence. Tasks that were made from one template are not the same.
    """
    known: dict[object, Task] = {}
    for task in train:
        for key in _identities(task):
            known.setdefault(key, task)
    found = ((task, next((known[key] for key in _identities(task) if key in known), None)) for task in test)
    return [(task, same) for task, same in found if same is not None]


def _identities(task: Task) -> list[object]:
    words = tuple(_words(question_text(task)))
    tools = frozenset(tool.name for tool in task.all_tools)
    return [(task.source, task.id, repr(task.messages)), *([(words, tools)] if _is_evidence(words) else [])]


def _common(questions: Sequence[set[int]], share: float) -> set[int]:
    counts = Counter(gram for grams in questions for gram in grams)
    max_count = max(_MIN_COMMON_COUNT, share * len(questions))
    return {gram for gram, count in counts.items() if count > max_count}
