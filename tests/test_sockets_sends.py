"""A send may be done by its caller, be left for a busy engine or go through the stream: the order is one."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from loopback import PATIENCE, Pair

from kcpsocket import Config, KCPSocket


@contextlib.contextmanager
def busy_engine(connect: Callable[..., Pair], listener: KCPSocket) -> Iterator[None]:
    """Keeps the engine's thread at work, and its lock taken most of the time: by a transfer, and by questions."""
    client, server = connect(listener)
    stop = threading.Event()

    def pour() -> None:
        with contextlib.suppress(OSError):  # the end closes it
            while not stop.is_set():
                client.sendall(bytes(100_000))

    def drain() -> None:
        buffer = bytearray(1 << 20)
        while server.recv_into(buffer):
            pass

    def ask() -> None:
        while not stop.is_set():
            client.kcp_info()

    threads = [threading.Thread(target=work) for work in (pour, drain, ask)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        threads[0].join(PATIENCE)
        threads[2].join(PATIENCE)
        client.close()
        threads[1].join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)


def read_all(sock: socket.socket, into: list[bytes]) -> threading.Thread:
    def read() -> None:
        into.extend(iter(lambda: sock.recv(65536), b""))

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def write_somehow(sock: KCPSocket, data: bytes, chance: random.Random) -> None:
    way = chance.randrange(8)
    if way == 0:
        sock.sendmsg([data[:5], data[5:]])
    elif way == 1 and len(data) < 4096:
        os.write(sock.fileno(), data)
    elif way == 2:
        sock.sendall(bytearray(data))
    else:
        sock.sendall(data)


@pytest.mark.parametrize("sndwnd", [4, 16, 1024])
def test_bytes_keep_their_order_whatever_way_they_go(
    listener: KCPSocket, connect: Callable[..., Pair], sndwnd: int
) -> None:
    chance = random.Random(sndwnd)
    client, server = connect(listener, Config(mode="fast3", sndwnd=sndwnd))
    sizes = [chance.choice([1, 10, 300, 1400, 3000, 16384, 16385, 40_000]) for _ in range(1500)]
    sent = chance.randbytes(sum(sizes))
    got: list[bytes] = []
    with busy_engine(connect, listener):
        reader = read_all(server, got)
        at = 0
        for size in sizes:
            write_somehow(client, sent[at : at + size], chance)
            at += size
        client.close()
        reader.join(PATIENCE * 3)
    assert b"".join(got) == sent


def test_a_close_comes_after_what_was_sent_before_it(listener: KCPSocket, connect: Callable[..., Pair]) -> None:
    with busy_engine(connect, listener):
        for count in range(60):
            client, server = connect(listener)
            sent = [bytes([i]) * 100 for i in range(count % 20)]
            for piece in sent:
                client.sendall(piece)
            client.close()
            got: list[bytes] = []
            read_all(server, got).join(PATIENCE)
            assert b"".join(got) == b"".join(sent)
            server.close()


def test_after_a_shutdown_nothing_is_sent_past_the_stream(listener: KCPSocket, connect: Callable[..., Pair]) -> None:
    with busy_engine(connect, listener):
        for _ in range(30):
            client, server = connect(listener)
            client.sendall(b"before")
            client.shutdown(socket.SHUT_WR)
            with pytest.raises(BrokenPipeError):
                client.sendall(b"after")
            got: list[bytes] = []
            read_all(server, got).join(PATIENCE)
            assert b"".join(got) == b"before"
            client.close()
            server.close()


def test_a_child_and_its_parent_write_in_turn(listener: KCPSocket, connect: Callable[..., Pair]) -> None:
    """The child's bytes go through the stream, the parent's mostly past it."""
    client, server = connect(listener)
    ours, theirs = socket.socketpair()
    with busy_engine(connect, listener):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                for number in range(100):
                    theirs.recv(1)
                    client.sendall(f"child {number:3}.".encode())
                    theirs.sendall(b".")
            os._exit(0)
        try:
            ours.settimeout(PATIENCE)
            for number in range(100):
                client.sendall(f"parent {number:3}.".encode())
                ours.sendall(b".")
                assert ours.recv(1) == b"."
        finally:
            ours.close()
            theirs.close()
            os.waitpid(child, 0)
        client.close()
        got: list[bytes] = []
        read_all(server, got).join(PATIENCE)
    assert b"".join(got).decode() == "".join(f"parent {number:3}.child {number:3}." for number in range(100))
