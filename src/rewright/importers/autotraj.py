"""Import records of AutoTraj and Tool-Star: a question and a trajectory as one tagged text.

Files are JSON or JSON Lines. The question is in `question`, or in `input` (else `instruction`) of an SFT row. The text
is in `output`, `trajectory` or `react_trajectory`, or several are in `trajectories`. The exporter is
`rewright.exports.autotraj`.

Tool results are taken from the record and not verified. A record with calls or results in other tags (`<information>`,
`<interpreter>`, `<tool_call>`) is rejected, because they would be parsed as text of the model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory
from rewright.dialects import Tags
from rewright.dialects.base import read_turn
from rewright.importers.base import Importer
from rewright.tasks.rows import Row, read_rows

__all__ = ["IMPORTER", "read_trajectories"]

_OTHER_TAG: Final = re.compile(
    r"<(information|interpreter|observation|output|documents?|tool|tool_call|tool_response|tool_result|function_call|"
    r"function_results?|execution_results?)>",
    re.IGNORECASE,
)
"""Tags that other projects use for calls and results."""
_ANY_TAG: Final = re.compile(r"<(\w[\w-]*)[^<>]*>")

TEXTS: Final = ("output", "trajectory", "react_trajectory", "trajectories")


def read_trajectories(path: Path | str, tasks: Sequence[Task]) -> Iterator[Trajectory]:
    """Yield every attempt in a file as a trajectory of the task with the same question. Ids number the attempts.

    Raises InputError for a row without question or text, whose question matches no task, or whose text is not in the
    dialect's tags.
    """
    dialect = Tags()
    asked: dict[str, Task] = {}
    for task in tasks:
        asked.setdefault(_plain(_question_of(task)), task)
    count: Counter[str] = Counter()
    for record in read_rows(path):
        if record.problem is not None:
            raise InputError(record.problem)
        task = _task_of(record, asked)
        for text in _texts(record):
            turns = dialect.turns(text)
            if problem := _problem(dialect, text, turns[-1].text):
                raise record.fail(problem)
            answer = read_turn(dialect, turns[-1].text, turns[-1].stop).answer
            index = count[task.id]
            count[task.id] += 1
            yield Trajectory(
                id=f"import/{task.id}/{index}",
                task_id=task.id,
                stage="import",
                index=index,
                turns=turns,
                stop_reason="answered" if answer is not None else "no_answer",
                answer=answer,
            )


def _task_of(record: Row, asked: dict[str, Task]) -> Task:
    keys = ("question", "input", "instruction")
    given = [key for key in keys if record.values.get(key)]
    question = _plain(record.text(*(given or keys)))
    if question in asked:
        return asked[question]
    # Some rows have instruction and question in one text, with the question last.
    for known, task in asked.items():
        if known and question.endswith(known):
            return task
    raise record.fail(f"no task asks {question[:60]!r}: expected a question of the recipe's tasks")


def _texts(record: Row) -> list[str]:
    for key in TEXTS:
        value = record.values.get(key)
        found = [one.get("react_trajectory") if isinstance(one, dict) else one for one in _as_list(value)]
        texts = [text for text in found if isinstance(text, str) and text.strip()]
        if texts and len(texts) == len(found):
            return texts
    raise record.fail(f"no text of a trajectory: expected one under {', '.join(map(repr, TEXTS))}")


def _problem(dialect: Tags, text: str, last: str) -> str | None:
    """Return why a text is not in the dialect, or None. `last` is its last turn, which contains all unparsed text."""
    if not any(word in text for word in dialect.control_words):
        return f"no tag of the dialect in it: expected <think>, <search>, <code>, <result>, <answer>; got {text!r:.100}"
    parsed = dialect.parse(last)
    behind = last[len(dialect.truncate_at_stop(last)) :].strip() if parsed.calls else ""
    if behind:
        tag = _ANY_TAG.match(behind)
        found = f"<{tag[1]}>" if tag is not None else repr(behind[:60])
        closing = " (closed by </result>)" if found == "<result>" else ""
        return f"behind a call stands {found}: expected what the tool returned, in <result></result>{closing}"
    other = _OTHER_TAG.search(parsed.rest.partition("<answer>")[0]) if not parsed.calls else None
    return f"holds the tag {other[0]}: expected calls in <search> or <code>, results in <result>" if other else None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _question_of(task: Task) -> str:
    return next((str(message["content"]) for message in reversed(task.messages) if message["role"] == "user"), "")


def _plain(text: str) -> str:
    return " ".join(text.split())


IMPORTER: Final = Importer(trajectories=read_trajectories, dialect="tags")
