"""Failed attempts of a request, by cause."""

from __future__ import annotations

import errno
import os
from typing import Literal

__all__ = ["Cause", "Fault", "connection_problem"]

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


def connection_problem(error: Exception) -> str:
    """Return what happened to a connection and what was expected, for an exception of aiohttp or the system.

    The caller names the address.
    """
    import aiohttp

    reason = _reason(error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"the server's TLS certificate is not trusted ({reason}): expected one of a known authority"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"no TLS connection ({reason}): expected a server with TLS at an address with https, else http"
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ServerTimeoutError):
        return f"cannot connect ({reason}): expected a running server at this address"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without a reply: expected a running HTTP server at this address"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the reply is not HTTP ({reason}): expected an HTTP server at this address (http, or https with TLS)"
    if isinstance(error, OSError):
        return f"the connection was lost ({reason}): expected a reply"
    return f"{type(error).__name__}: {error}"


def _reason(error: Exception) -> str:
    """The cause in words: that of the system or of TLS, without the address, which aiohttp repeats."""
    cause = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(cause, ConnectionResetError) and not cause.args:
        return os.strerror(errno.ECONNRESET)
    words = getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or getattr(cause, "message", None)
    number = getattr(cause, "errno", None)
    if words is None and isinstance(number, int) and number > 0:
        words = os.strerror(number)
    text = " ".join(str(words or getattr(cause, "strerror", None) or cause).split())
    return text or type(cause).__name__
