"""What a client of the benchmark asks of the server at the start of a connection.

An order is 32 bytes of ASCII: a verb and numbers, separated by spaces, padded with spaces, a newline last. kcp-go's
side (compat_tests/benchpeer) speaks the same.

    sink BYTES          the server reads so many bytes and answers with one byte
    source BYTES        the server sends so many bytes
    echo                the server sends back what it reads
    drain MS BYTES      the server reads until the time is over or so many bytes have come (0: the time alone ends it),
                        and reports what came
    stamps COUNT SIZE   the server reads so many messages and reports how long each was under way; a message begins with
                        the time at which it was to be sent: 8 bytes, little-endian, ns of CLOCK_MONOTONIC
"""

from __future__ import annotations

import socket
import struct
from typing import Final

LENGTH: Final = 32  # bytes of an order
STAMP: Final = struct.Struct("<q")  # the beginning of a message


def order(verb: str, *numbers: int) -> bytes:
    """The bytes of an order."""
    text = " ".join((verb, *map(str, numbers)))
    if len(text) >= LENGTH:
        raise ValueError(f"order too long: {text!r}")
    return text.ljust(LENGTH - 1).encode("ascii") + b"\n"


def parse(data: bytes) -> tuple[str, list[int]]:
    """The verb and the numbers of an order. ValueError when it is none."""
    verb, *numbers = data.decode("ascii").split()
    return verb, [int(number) for number in numbers]


def read_exactly(stream: socket.socket, count: int) -> bytes:
    """So many bytes of the stream. ConnectionError when it ends before."""
    data = b""
    while len(data) < count:
        part = stream.recv(count - len(data))
        if not part:
            raise ConnectionError(f"the stream ended after {len(data)} of {count} bytes")
        data += part
    return data
