"""Validate and normalize server addresses."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

from rewright.core.errors import InputError

__all__ = ["keyed_addresses", "normalize_base_url", "server_address", "without_password"]


def keyed_addresses(key: str, urls: str | Sequence[str] | None) -> dict[str, str]:
    """Return the addresses in a setting, which may be one, a list or None, by the dotted key of each."""
    if urls is None or isinstance(urls, str):
        return {} if urls is None else {key: urls}
    return {f"{key}[{number}]": url for number, url in enumerate(urls)}


def normalize_base_url(base_url: str) -> str:
    """Return `base_url` without a trailing slash, with `/v1` if it has no path. Raises InputError if it is invalid."""
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
    """Return the address of a server, without a trailing slash or a trailing path of `paths`.

    `name` is the setting to name in errors. Raises InputError if `url` is not an HTTP address.
    """
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
    """Return `url` without its user and password, if any."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
