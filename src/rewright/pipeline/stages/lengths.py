"""Leave out the rows of a set that are longer than a training takes (`max_length`), and say how many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewright.core.progress import say

__all__ = ["within_length"]


def within_length(
    stage: str, what: str, rows: Sequence[dict[str, Any]], limit: int | None, *columns: str
) -> list[dict[str, Any]]:
    """Return the rows whose `columns` (token ids) have at most `limit` tokens each, and print how many have more.

    If all have more, all are returned: the trainer refuses them.

    Args:
        stage: stage that trains on them; the limit is its `max_length`.
        what: what they are, in the message: "rows", "pairs".
        rows: rows of a set.
        limit: maximum number of tokens; None: no limit.
        columns: the columns that hold token ids.
    """
    if limit is None:
        return list(rows)
    fitting = [row for row in rows if all(len(row[column]) <= limit for column in columns)]
    left_out = len(rows) - len(fitting)
    if not fitting or not left_out:
        return list(rows)
    verb = "is" if left_out == 1 else "are"
    say(f"{stage}: {left_out} of {len(rows)} {what} {verb} left out: longer than {stage}.max_length, {limit} tokens")
    return fitting
