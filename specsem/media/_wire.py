"""Messages between the pool and its decoder processes: a length, JSON, and file descriptors beside it.

JSON and not pickle: a decoder that a hostile file took over must not be able to run code in the parent.
"""

import json
import os
import socket
import struct
from collections.abc import Sequence
from datetime import datetime
from typing import Any

__all__ = ["MAX_MESSAGE", "iso_time", "plain", "receive", "send"]

Message = dict[str, Any]

MAX_MESSAGE = 1 << 20
_HEADER = struct.Struct("!I")
_MAX_FDS = 4
_MAX_CHARACTERS = 200


def plain(text: object) -> str:
    """What a file says of itself, fit to be shown anywhere: without control characters, and not long."""
    return "".join(c for c in str(text)[: 2 * _MAX_CHARACTERS] if c.isprintable())[:_MAX_CHARACTERS].strip()


def iso_time(text: str | None) -> str | None:
    """A time that a file says, in one form (ISO 8601); None where it is none."""
    try:
        return datetime.fromisoformat(text).isoformat() if text else None
    except ValueError:
        return None


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message; the descriptors are duplicated into the other process."""
    body = json.dumps(message, separators=(",", ":")).encode()
    data = _HEADER.pack(len(body)) + body
    sent = socket.send_fds(sock, [data], list(fds)) if fds else sock.send(data)
    if sent < len(data):
        sock.sendall(data[sent:])


def receive(sock: socket.socket) -> tuple[Message, list[int]]:
    """The next message and its descriptors, which are the caller's to close.

    Raises: EOFError if the other side is gone, ValueError if it does not keep to the form.
    """
    head, fds, _, _ = socket.recv_fds(sock, _HEADER.size, _MAX_FDS)
    try:
        head += _exactly(sock, _HEADER.size - len(head)) if head else b""
        if not head:
            raise EOFError
        (length,) = _HEADER.unpack(head)
        if length > MAX_MESSAGE:
            raise ValueError("message too long")
        message = json.loads(_exactly(sock, length))
        if not isinstance(message, dict):
            raise ValueError("message is not an object")
        return message, fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _exactly(sock: socket.socket, n: int) -> bytes:
    parts = bytearray()
    while len(parts) < n:
        part = sock.recv(n - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
