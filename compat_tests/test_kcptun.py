"""Debian's kcptun (2021), an independent build of an older kcp-go, as listener and as dialler.

kcptun speaks smux above KCP; just enough of it is written here by hand to move data both ways, so that handshake,
cipher and error correction are proved by bytes that arrive.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
from test_kcp_go import WAIT, accept, connect, listening, payload, read_exactly

pytestmark = pytest.mark.skipif(
    not (shutil.which("kcptun-server") and shutil.which("kcptun-client")),
    reason="kcptun is not installed (Debian's package kcptun)",
)

SIZE = 300_000
FRAME = struct.Struct("<BBHI")  # version, command, length, stream
SYN, FIN, PSH, NOP = range(4)
SETTINGS = [
    pytest.param("aes", 10, 3, id="aes 10/3"),
    pytest.param("salsa20", 10, 3, id="salsa20 10/3"),
    pytest.param("xor", 0, 0, id="xor"),
    pytest.param("none", 2, 2, id="none 2/2"),
    pytest.param("twofish", 70, 30, id="twofish 70/30"),
    pytest.param("sm4", 0, 0, id="sm4"),
]


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def kcptun(program: str, *arguments: str) -> Iterator[None]:
    """A kcptun process without compression, ended with the block."""
    process = subprocess.Popen(
        [program, *arguments, "--nocomp", "--quiet"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
        assert process.poll() is None, "kcptun has ended"
    finally:
        process.kill()
        process.wait(WAIT)


def shared(crypt: str, data: int, parity: int) -> tuple[str, ...]:
    return "--crypt", crypt, "--key", "secret", "--datashard", str(data), "--parityshard", str(parity)


def send_stream(sock: socket.socket, stream: int, data: bytes) -> None:
    for start in range(0, len(data), 32768):
        part = data[start : start + 32768]
        sock.sendall(FRAME.pack(1, PSH, len(part), stream) + part)


def read_stream(sock: socket.socket, stream: int, count: int) -> bytes:
    """The next `count` bytes of the stream; frames of other kinds are passed over."""
    data = bytearray()
    while len(data) < count:
        version, command, length, number = FRAME.unpack(read_exactly(sock, FRAME.size))
        assert version == 1
        part = read_exactly(sock, length)
        if command == PSH:
            assert number == stream
            data += part
    return bytes(data)


def echo(listener: socket.socket) -> None:
    conn, _ = listener.accept()
    with conn:
        while data := conn.recv(65536):
            conn.sendall(data)


T = TypeVar("T")


def when_up(attempt: Callable[[], T]) -> T:
    """What `attempt` gives as soon as it is not refused: kcptun does not say when it listens."""
    deadline = time.monotonic() + WAIT
    while True:
        try:
            return attempt()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "kcptun does not listen"


@pytest.mark.parametrize(("crypt", "data", "parity"), SETTINGS)
def test_kcptun_server_carries_our_stream_to_its_target(crypt: str, data: int, parity: int) -> None:
    port = free_port(socket.SOCK_DGRAM)
    with (
        socket.create_server(("127.0.0.1", 0)) as target,
        kcptun(
            "kcptun-server",
            *("--listen", f"127.0.0.1:{port}", "--target", f"127.0.0.1:{target.getsockname()[1]}"),
            *shared(crypt, data, parity),
        ),
        when_up(
            lambda: connect(("127.0.0.1", port), crypt=crypt, key="secret", datashard=data, parityshard=parity)
        ) as sock,
    ):
        target.settimeout(WAIT)
        sock.sendall(FRAME.pack(1, SYN, 0, 1))
        send_stream(sock, 1, b"hello")
        conn, _ = target.accept()
        with conn:
            conn.settimeout(WAIT)
            assert read_exactly(conn, 5) == b"hello"
            send_stream(sock, 1, payload(SIZE))
            assert read_exactly(conn, SIZE) == payload(SIZE)
            conn.sendall(payload(SIZE)[::-1])
            assert read_stream(sock, 1, SIZE) == payload(SIZE)[::-1]


@pytest.mark.parametrize(("crypt", "data", "parity"), SETTINGS)
def test_kcptun_client_brings_its_stream_to_us(crypt: str, data: int, parity: int) -> None:
    port = free_port(socket.SOCK_STREAM)
    with (
        listening(crypt=crypt, key="secret", datashard=data, parityshard=parity) as listener,
        kcptun(
            "kcptun-client",
            *("--localaddr", f"127.0.0.1:{port}", "--remoteaddr", f"127.0.0.1:{listener.getsockname()[1]}"),
            *shared(crypt, data, parity),
        ),
        when_up(lambda: socket.create_connection(("127.0.0.1", port))) as user,
    ):
        user.settimeout(WAIT)
        user.sendall(b"hello")
        with accept(listener) as sock:
            command = NOP
            while command != SYN:
                _, command, length, stream = FRAME.unpack(read_exactly(sock, FRAME.size))
                read_exactly(sock, length)
            assert read_stream(sock, stream, 5) == b"hello"
            user.sendall(payload(SIZE))
            assert read_stream(sock, stream, SIZE) == payload(SIZE)
            send_stream(sock, stream, payload(SIZE)[::-1])
            assert read_exactly(user, SIZE) == payload(SIZE)[::-1]
