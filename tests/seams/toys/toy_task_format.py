"""A format of tasks in one file: rows such as `{"numbers": [2, 3]}`, which ask for the sum, with their judge."""

from __future__ import annotations

from rewright.core.records import Gold, Task
from rewright.core.registry import register
from rewright.tasks.formats import RowFormat
from rewright.tasks.rows import Row


def to_task(row: Row) -> Task:
    """The task of one row."""
    numbers = row.decoded("numbers", list)
    if not all(isinstance(number, int) for number in numbers):
        raise row.fail(f"'numbers' is {numbers}, expected whole numbers")
    return sum_task(f"sum-{row.index}", numbers)


def sum_task(identity: str, numbers: list[int]) -> Task:
    """A task that asks for the sum of `numbers`."""
    question = f"{' + '.join(map(str, numbers))} = ?"
    return Task(
        id=identity,
        messages=({"role": "user", "content": question},),
        gold=Gold(answers=(str(sum(numbers)),)),
        metadata={"calls": 1},
    )


register("task_format", "toy_sums", RowFormat(to_task, columns=("numbers",), judge="toy_near"))
