"""Addresses of servers as people write them, checked before anything is sent."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from rewright.core.errors import InputError

__all__ = ["normalize_base_url", "server_address", "without_password"]


def normalize_base_url(base_url: str) -> str:
    """`base_url` without a trailing slash; `/v1` is added to a bare host. Raises InputError."""
    text = base_url.strip()
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"base_url {text!r} is not a URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InputError(f"base_url {text!r}: expected http://HOST:PORT/v1 or https://…")
    if parts.query or parts.fragment:
        raise InputError(f"base_url {text!r}: expected no '?' and no '#'")
    path = parts.path.rstrip("/")
    if path.endswith("/completions"):
        raise InputError(
            f"base_url {without_password(text)!r}: expected the part before /chat/completions or /completions"
        )
    return urlunsplit((parts.scheme, parts.netloc, path or "/v1", "", ""))


def server_address(url: str, name: str, *paths: str) -> str:
    """The address of a helper server, without a trailing path of `paths`. Raises InputError for no HTTP address."""
    text = url.strip().rstrip("/")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"{name}: {url!r} is not an address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InputError(f"{name}: expected an address such as http://127.0.0.1:8080, not {url!r}")
    for path in paths:
        text = text.removesuffix(path)
    return text.rstrip("/")


def without_password(url: str) -> str:
    """`url` without the user and password that it may carry."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
