"""Bodies of HTTP requests and replies: JSON encoded and decoded, read up to a maximum; the message of an error."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rewright.net.faults import Fault

if TYPE_CHECKING:
    import aiohttp

__all__ = ["PLAIN", "decode_json", "encode_json", "error_detail", "read_body", "too_large"]

PLAIN: Final = msgspec.json.Decoder()
"""Decodes to plain values: dicts, lists, strings and numbers."""


def error_detail(content: bytes) -> str:
    """Return the message of an error body in any of the usual formats; else its text."""
    text = content[: 64 * 1024].decode("utf-8", "replace")
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return text
    for key in ("error", "detail", "message"):
        if isinstance(value, dict) and value.get(key):
            value = value[key]
    return value if isinstance(value, str) else text


async def read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read the body. Raises Fault if it is longer than `max_bytes`."""
    stream = response.content
    if stream.is_eof():  # the usual case: the whole reply came with its head
        whole = stream.read_nowait()
        if len(whole) <= max_bytes:
            return whole
        raise too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    async for chunk in stream.iter_any():
        size += len(chunk)
        if size > max_bytes:
            raise too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def too_large(max_bytes: int) -> Fault:
    """The fault of a reply that is longer than `max_bytes`."""
    return Fault("body", f"the reply is larger than {max_bytes} bytes", retry=False)


def encode_json(body: Mapping[str, Any]) -> bytes:
    """Encode a request's body, or a part of it. Raises Fault."""
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise Fault("request", f"the request cannot be written as JSON: {error}", retry=False) from None


def decode_json(content: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    """The value of a reply, by `decoder` where it fits, else in plain values. Raises Fault if it is not JSON."""
    if decoder is not PLAIN:
        with suppress(ValueError, RecursionError):
            return decoder.decode(content)
    try:
        return PLAIN.decode(content)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        shown = " ".join(content[:60].decode("utf-8", "replace").split())
        raise Fault("json", f"the reply is not JSON ({error}): {shown!r}", retry=True) from None
