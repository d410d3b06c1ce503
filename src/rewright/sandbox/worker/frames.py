"""Framing between a session and its child: four bytes of length (big endian), then JSON in ASCII. Never pickle."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

__all__ = ["HEADER", "encode", "receive", "receive_with_descriptors"]

HEADER = struct.Struct(">I")


def encode(message: dict[str, Any]) -> bytes:
    """Encode one frame. Non-ASCII characters are escaped, so that lone surrogates can be represented."""
    body = json.dumps(message, ensure_ascii=True).encode("ascii")
    return HEADER.pack(len(body)) + body


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Receive the next frame from a blocking socket; None if the other side has closed it."""
    return _receive_rest(connection, b"")


def receive_with_descriptors(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Receive the next frame and the file descriptors sent with it."""
    start, descriptors, _, _ = socket.recv_fds(connection, HEADER.size, 4)
    return (_receive_rest(connection, start) if start else None), descriptors


def _receive_rest(connection: socket.socket, start: bytes) -> dict[str, Any] | None:
    rest = _exactly(connection, HEADER.size - len(start))
    if rest is None:
        return None
    header = start + rest
    body = _exactly(connection, HEADER.unpack(header)[0])
    if body is None:
        return None
    message: dict[str, Any] = json.loads(body)
    return message


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)
