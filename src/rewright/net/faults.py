"""Failed attempts of a request, by cause."""

from __future__ import annotations

from typing import Literal

__all__ = ["Cause", "Fault"]

Cause = Literal[
    "status",  # an HTTP status other than 2xx
    "timeout",  # one attempt took longer than `timeout_seconds`
    "deadline",  # the deadline of the request has passed
    "connection",  # refused, reset, unresolved, or not HTTP
    "certificate",  # the server's TLS certificate is not trusted
    "body",  # the body is truncated, or larger than any valid reply to the request
    "json",  # the body is not JSON
    "reply",  # JSON of an unexpected form: no choices, no finish reason, an error object
    "impossible",  # values outside their valid range: more text or tokens than requested, invalid usage or scores
    "model",  # another model answered
    "filtered",  # the provider's content filter ended the generation
    "tokens",  # a token engine got no (or not matching) token ids
    "request",  # the request cannot be sent: not UTF-8, no token ids, engine closed
]


class Fault(Exception):  # noqa: N818 - internal: callers of an endpoint see EndpointError
    """One failed attempt.

    `retry`: the same request may succeed when it is sent again. `unreachable`: no connection could be made.
    """

    def __init__(
        self,
        cause: Cause,
        message: str,
        *,
        retry: bool,
        status: int | None = None,
        retry_after: float | None = None,
        detail: str = "",
        unreachable: bool = False,
    ) -> None:
        super().__init__(message)
        self.cause: Cause = cause
        self.retry = retry
        self.status = status
        self.retry_after = retry_after
        self.detail = detail
        self.unreachable = unreachable

    @property
    def label(self) -> str:
        """The name under which the fault is counted: `http_429`, `timeout`, …"""
        return f"http_{self.status}" if self.cause == "status" else self.cause
