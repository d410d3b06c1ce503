"""What the processes of a training compute together in an RL step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from rewright.training.launch import as_portable

__all__ = ["Group"]

T = TypeVar("T")


class Group:
    """The processes of a trainer, by its accelerator."""

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator
        self.failed = False
        """Whether a rollout or its scoring has failed, which all processes then know."""

    def rows(self, compute: Callable[[], list[T]]) -> list[T]:
        """The rows that `compute` returns in all processes, in their order: a group may be divided over several.

        If it raises in one process, the same exception is raised in all of them, so that none waits for another.
        """
        if self._accelerator.num_processes == 1:
            return compute()
        from accelerate.utils import gather_object

        rows: list[T] = []
        problem: Exception | None = None
        try:
            rows = compute()
        except Exception as raised:
            problem = as_portable(raised)
        parts = gather_object([(rows, problem)])
        problems = [problem for _, problem in parts if problem is not None]
        if problems:
            self.failed = True
            raise problems[0]
        return [row for rows, _ in parts for row in rows]
