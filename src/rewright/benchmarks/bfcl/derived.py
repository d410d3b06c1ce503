"""Training tasks made out of the training rows of the split: with other values, and several rows in one question.

There are few training rows, and most have one call. A small model learns their values by heart instead of copying those
of the question, and hardly sees questions that ask for several things. `varied` has every row with new values where the
question has them word for word, `joined` puts two or three such rows into one question, whose calls are all right in
any order. Both use the training part of `python` only. The checker is given the possible answers of the new task
(`metadata.possible`), so that everything that trains on rows of BFCL trains on these too.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rewright.benchmarks.bfcl.entries import category_of, entries, possible_answers
from rewright.benchmarks.bfcl.gold import gold_calls
from rewright.benchmarks.bfcl.single_turn import GOLD_REFUSED, declared_tools, renamed_tools
from rewright.benchmarks.bfcl.split import split
from rewright.core.records import Gold, Task

__all__ = ["DERIVED", "derived_tasks"]

DERIVED: Final = ("python:varied", "python:joined")
MOST_CHARACTERS: Final = 4000
"""Of the functions and the question of a joined task, as JSON: about a thousand tokens."""
_MARKS: Final = 0xE000
"""The first of Unicode's private characters: they stand for values while a question is changed."""
_GENERAL: Final = frozenset({"name", "type", "format", "platform", "query", "unit"})
"""Names of arguments that mean something else in every function."""
_CONNECTIVES: Final = (" ", " Also, ", " And then: ", "\n", " Besides that: ")

_Allowed = list[Any]
_Answer = dict[str, dict[str, _Allowed]]


class _Row(NamedTuple):
    """A training row: the question is the only message."""

    identity: str
    question: str
    functions: Sequence[dict[str, Any]]
    possible: list[_Answer]


def derived_tasks(name: str, seed: int = 0) -> Iterator[Task]:
    """Yield the tasks of one of `DERIVED`. The same seed gives the same tasks."""
    rows = _rows()
    values = _values(rows)
    if name == "python:varied":
        for row in rows:
            chance = random.Random(f"{seed}/{row.identity}")
            if (changed := _varied(row, values, chance)).question != row.question:
                yield _task([changed], f"varied-{seed}", chance)
        return
    chance = random.Random(seed)
    for group in _groups(rows, chance):
        yield _task([_varied(row, values, chance) for row in group], f"joined-{seed}", chance)


def _rows() -> list[_Row]:
    found = []
    for category, identities in split("python:train").items():
        for identity in identities:
            entry = entries(category)[identity]
            messages = [message for turn in entry["question"] for message in turn]
            if len(messages) == 1 and messages[0]["role"] == "user" and identity not in GOLD_REFUSED:
                possible = possible_answers(category)[identity]
                found.append(_Row(identity, messages[0]["content"], entry["function"], possible))
    return found


def _task(rows: Sequence[_Row], kind: str, chance: random.Random) -> Task:
    category = "parallel_multiple" if len(rows) > 1 else category_of(rows[0].identity)
    functions = [function for row in rows for function in row.functions]
    possible = [answer for row in rows for answer in row.possible]
    tools, names = declared_tools(functions, category)
    entry = "+".join(row.identity for row in rows)
    question = rows[0].question + "".join(chance.choice(_CONNECTIVES) + row.question for row in rows[1:])
    return Task(
        id=f"bfcl-{kind}-{entry}",
        messages=({"role": "user", "content": question},),
        tools=tools,
        gold=Gold(calls=gold_calls(functions, possible, category, names)),
        source="bfcl",
        split="train",
        judge="bfcl-ast",
        metadata={"category": category, "entry": entry, "possible": possible, **renamed_tools(names)},
    )


def _groups(rows: Sequence[_Row], chance: random.Random) -> Iterator[list[_Row]]:
    """Every row that is short enough, twice, in groups of two or three rows without a common function."""
    short = [row for row in rows if _length([row]) <= MOST_CHARACTERS // 2]
    waiting = list(itertools.chain.from_iterable(chance.sample(short, len(short)) for _ in range(2)))
    while waiting:
        group, wanted = [waiting.pop()], chance.choice((2, 2, 3))
        for row in waiting[-40:][::-1]:
            if len(group) < wanted and _fits([*group, row]):
                group.append(row)
                waiting.remove(row)
        if len(group) > 1:
            yield group


def _fits(group: Sequence[_Row]) -> bool:
    names = [function["name"] for row in group for function in row.functions]
    calls = sum(len(row.possible) for row in group)
    return len(set(names)) == len(names) and calls <= 5 and _length(group) <= MOST_CHARACTERS


def _length(group: Sequence[_Row]) -> int:
    return sum(len(json.dumps(row.functions)) + len(row.question) for row in group)


def _values(rows: Sequence[_Row]) -> dict[str, list[str]]:
    """The texts that arguments of each name have in the questions of the rows."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        for key, allowed, schema in _arguments(row):
            if _open(schema) and isinstance(text := _said(allowed, row.question), str):
                found[key][text] = None
    return {key: list(texts) for key, texts in found.items()}


def _arguments(row: _Row) -> Iterator[tuple[str, _Allowed, Mapping[str, Any]]]:
    documents = {function["name"]: function["parameters"]["properties"] for function in row.functions}
    for answer in row.possible:
        for name, arguments in answer.items():
            for key, allowed in arguments.items():
                yield key, allowed, documents[name].get(key, {})


def _open(schema: Mapping[str, Any]) -> bool:
    """Whether an argument can have other values: it has no list of them."""
    return "enum" not in schema and schema.get("type") in ("string", "integer", "float")


def _pattern(value: float | str) -> re.Pattern[str]:
    """Finds a value as a whole word. A number is not found inside a date, a time or a longer number."""
    text = re.escape(str(value))
    around = r"[\w.,:/$-]" if not isinstance(value, str) else r"\w"
    return re.compile(rf"(?<!{around}){text}(?!\w|[.,:/-]\w)")


def _said(allowed: _Allowed, question: str) -> float | str | None:
    """The allowed value that the question has word for word; None if there is none."""
    if not isinstance(allowed, list):
        return None
    for value in allowed:
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            continue
        if isinstance(value, str) and (len(value) < 3 or any(letter.isdigit() for letter in value)):
            continue
        if _pattern(value).search(question):
            return value
    return None


def _varied(row: _Row, values: Mapping[str, list[str]], chance: random.Random) -> _Row:
    """The row with new values in its question and in its possible answers, where that changes nothing else."""
    possible = copy.deepcopy(row.possible)
    changed = row._replace(possible=possible)
    question = row.question
    wanted: dict[str, tuple[float | str, list[_Allowed], set[str]]] = {}
    for key, allowed, schema in _arguments(changed):
        value = _said(allowed, row.question) if _open(schema) else None
        if value is not None:
            wanted.setdefault(str(value), (value, [], set()))[1].append(allowed)
            wanted[str(value)][2].add(key)
    replaced: dict[str, float | str] = {}
    for text, (value, arguments, keys) in wanted.items():
        others = [allowed for _, allowed, _ in _arguments(changed) if not any(allowed is one for one in arguments)]
        if any(_mentions(other, value) for other in others):
            continue
        new = _number(value, chance) if not isinstance(value, str) else _text(value, keys, values, question, chance)
        if new is None or str(new) in wanted or _pattern(new).search(question):
            continue
        replaced[text] = new
        for allowed in arguments:
            allowed[:] = [new]
    marks = {text: chr(_MARKS + position) for position, text in enumerate(replaced)}
    for text, mark in marks.items():  # two steps, so that no new value is replaced again
        question = _pattern(wanted[text][0]).sub(mark, question)
    for text, mark in marks.items():
        question = question.replace(mark, str(replaced[text]))
    return changed._replace(question=question)


def _mentions(allowed: Any, value: float | str) -> bool:
    """Whether a value occurs in the allowed values of another argument, whole or as a part of one."""
    return str(value).casefold() in json.dumps(allowed, ensure_ascii=False).casefold()


def _number(value: float, chance: random.Random) -> float | None:
    """Another number with as many digits; a year for a year."""
    if isinstance(value, float):
        whole, _, decimals = str(value).partition(".")
        if not whole.isdigit() or not decimals.isdigit():
            return None
        new_whole = chance.randrange(1, 10 ** len(whole)) if int(whole) else 0
        return float(f"{new_whole}.{chance.randrange(1, 10 ** len(decimals)):0{len(decimals)}}")
    if value < 2:
        return None
    if 1500 <= value <= 2030:
        return chance.randrange(1950, 2025)
    digits = len(str(value))
    zeros = len(str(value)) - len(str(value).rstrip("0"))  # 5000 becomes 7000, not 7316
    low = 2 if digits - zeros == 1 else 10 ** (digits - zeros - 1)
    return chance.randrange(low, 10 ** (digits - zeros)) * int(10**zeros)


def _text(
    value: str, keys: set[str], values: Mapping[str, list[str]], question: str, chance: random.Random
) -> str | None:
    """A text that an argument of the same name has in another row."""
    if len(keys) != 1 or keys & _GENERAL:
        return None
    similar = [
        one for one in values.get(next(iter(keys)), ()) if one != value and one[0].isupper() == value[0].isupper()
    ]
    return chance.choice(similar) if similar else None
