"""How long to wait before a request is made again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["backoff_seconds", "retry_after_seconds"]


def backoff_seconds(attempt: int, retry_after: float | None, *, first: float, max_wait: float, draw: float) -> float:
    """Return the wait in seconds after a failed attempt.

    Args:
        attempt: number of the failed attempt, from 1.
        retry_after: wait that the server requests, in seconds; None: it requests none.
        first: wait after the first attempt, in seconds.
        max_wait: longest wait, in seconds.
        draw: random number in [0, 1) for the jitter.

    Half of min(max_wait, first * 2^(attempt-1)) is fixed, half is multiplied by `draw`. `retry_after`, capped at
    `max_wait`, is a lower bound, plus a jitter of up to `first` so that many callers do not retry at the same time.
    """
    base = min(max_wait, first * 2.0 ** min(attempt - 1, 60))
    wait = base * (0.5 + 0.5 * draw)
    if retry_after is None:
        return wait
    return max(wait, min(retry_after, max_wait) + min(first, max_wait) * draw)


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Read `retry-after-ms` or `Retry-After` (seconds or an HTTP date). Returns seconds; None without such a header."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("Retry-After")
    try:
        seconds = float(milliseconds) / 1000 if milliseconds is not None else float(value or "")
    except ValueError:
        try:
            moment = parsedate_to_datetime(value or "")
        except (ValueError, TypeError, IndexError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return None if math.isnan(seconds) else max(0.0, seconds)
