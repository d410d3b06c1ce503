"""What reads bytes or JSON that nobody vouches for, and what must hold whatever it is given.

Each target takes anything and returns nothing: an exception other than the documented one is a defect. Shared by the
property tests (`tests/test_hostile_input.py`) and by the coverage-guided fuzzer (`fuzz/parsers.py`).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rewright.core.answer_text import boxed, final_answer
from rewright.core.errors import InputError
from rewright.core.records import Trajectory
from rewright.core.registry import known
from rewright.core.storage import RecordFile, encode_line, read_jsonl
from rewright.credit import advantages, turn_rewards
from rewright.credit.messages import turns_of_messages
from rewright.dialects import get_dialect
from rewright.dialects.hermes import split_thought
from rewright.dialects.tags_format import validate_text
from rewright.engines.replies import read_chat, read_completion
from rewright.engines.wire import read_arguments
from rewright.judging import judge_answer
from rewright.net.endpoint import Fault
from rewright.recipe.loader import load_recipe
from rewright.repair.quality import score
from rewright.reports.credit_table import credit_as_json
from rewright.reports.stored_credit import credit, read_gold, read_stored
from rewright.tasks.formats import RowFormat, find_format
from rewright.tasks.loading import iterate_tasks

__all__ = ["FILES", "TEXTS", "VALUES"]

_folder = Path(tempfile.mkdtemp(prefix="rewright-hostile-"))


def one_line(problem: InputError) -> None:
    """A person's mistake is said in one line."""
    assert "\n" not in str(problem), str(problem)
    assert len(str(problem)) < 5000, str(problem)[:5000]


def parse(text: str, dialect_name: str) -> None:
    """What a model wrote: every call has a name or an error, and all of it can be stored."""
    dialect = get_dialect(dialect_name)
    parsed = dialect.parse(text)
    encode_line(parsed)
    for call in parsed.calls:
        assert call.name or call.error is not None
    for malformed in (True, False):
        encode_line(dialect.assistant_message(text, parsed.calls, malformed=malformed))
    split_thought(text)


def judges(text: str) -> None:
    """Outcomes lie in [0, 1]."""
    boxed(text)
    final_answer(text)
    for judge in ("exact", "qa", "token_set_f1"):
        for gold in ("5", "Paris", text):
            if gold.strip():
                assert 0 <= judge_answer(judge, text, [gold]).outcome <= 1


def quality(text: str) -> None:
    """Scores lie in [0, 1]."""
    validate_text(text)
    found = score(text, 3)
    for value in (found.confidence, found.length, found.repetition, found.total, *found.extra.values()):
        assert 0 <= value <= 1


def arguments(value: Any) -> None:
    """Arguments of a call, as a server or a log gives them."""
    found, error = read_arguments(value)
    encode_line(found)
    assert error is None or not found


def replies(value: Any) -> None:
    """A server's reply is a generation or a typed fault, and no log-probability is NaN."""
    for read in (read_chat, partial(read_completion, prompt=(1, 2))):
        with suppress(Fault):
            generation = read(value, model=None)
            encode_line(generation)
            assert not any(math.isnan(number) for number in generation.log_probs or ())


def calls(value: Any) -> None:
    """Calls and gold calls of any shape give finite rewards and advantages."""
    turns = value if isinstance(value, list) else [value]
    turns = [turn if isinstance(turn, list) else [turn] for turn in turns]
    golds = [call for turn in turns for call in turn][::-1]
    for assignment in ("optimal", "greedy", "ot"):
        rewards = turn_rewards(turns, golds, outcome=1.0, assignment=assignment)  # type: ignore[arg-type]
        assert np.isfinite(rewards).all()
        found = advantages([rewards, rewards[:-1]], ["a", "a"])
        assert all(np.isfinite(row).all() for row in found)


def messages(value: Any) -> None:
    """A conversation of any shape gives finite rewards: what is no call is a malformed one, or none."""
    spoken = [{"role": "assistant", "content": value, "tool_calls": value, "function_call": value}, value]
    for drop_nulls in (False, True):
        turns = turns_of_messages(spoken, drop_nulls=drop_nulls)  # two, where the value is a message of the model
        assert np.isfinite(turn_rewards(turns, [{"name": "find", "arguments": {}}])).all()


def recipe(data: bytes) -> None:
    """A recipe is read or refused in one line."""
    path = _put("recipe.yaml", data)
    try:
        load_recipe(path)
    except InputError as problem:
        one_line(problem)


FORMATS = [name for name in known("task_format") if isinstance(find_format(name), RowFormat)]


def tasks(data: bytes) -> None:
    """Every row of a task file, in every format, is a task or one line."""
    for name in ("tasks.jsonl", "tasks.json", "tasks.jsonl.gz", "tasks.parquet"):
        path = _put(name, data)
        for task_format in FORMATS if name == "tasks.jsonl" else ("rewright",):
            try:
                for loaded in iterate_tasks(path, task_format):
                    if isinstance(loaded.task, InputError):
                        one_line(loaded.task)
                    else:
                        encode_line(loaded.task)
            except InputError as problem:
                one_line(problem)


def logs(data: bytes) -> None:
    """Trajectories and gold calls out of any file: finite credit, or one line."""
    path = _put("log.jsonl", data)
    for gold in (None, path):
        try:
            found = credit(read_stored(path), read_gold(gold) if gold is not None else None)
        except InputError as problem:
            one_line(problem)
            continue
        for one in found:
            assert np.isfinite(one.rewards).all()
            assert np.isfinite(one.advantages).all()
            encode_line(credit_as_json(one))


def records(data: bytes) -> None:
    """A file of our own records, read and then gone on with."""
    path = _put("trajectories.jsonl", data)
    file = RecordFile(path, Trajectory, lambda one: one.id)
    try:
        before = [one for _, one in read_jsonl(path, Trajectory)]
    except InputError as problem:
        one_line(problem)
        return
    file.append(Trajectory(id="new", task_id="t", stage="s", index=0, turns=(), stop_reason="no_answer"))
    file.close()
    assert file.keys_in_order() == [*(one.id for one in before), "new"]
    for one in before:
        encode_line(one)


def _put(name: str, data: bytes) -> Path:
    path = _folder / name
    path.write_bytes(data)
    return path


TEXTS: dict[str, Callable[[str], None]] = {
    "hermes": lambda text: parse(text, "hermes"),
    "tags": lambda text: parse(text, "tags"),
    "judges": judges,
    "quality": quality,
}
VALUES: dict[str, Callable[[Any], None]] = {
    "arguments": arguments,
    "replies": replies,
    "calls": calls,
    "messages": messages,
}
FILES: dict[str, Callable[[bytes], None]] = {"recipe": recipe, "tasks": tasks, "logs": logs, "records": records}
