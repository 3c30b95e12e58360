"""Floods, replays and leaks: what a listener and a client must shrug off."""

from __future__ import annotations

import gc
import os
import random
import resource
import select
import socket
import struct
import threading

from life import PATIENCE, connect, listen, pair, settle

from kcpsocket import engine

HEADER = struct.Struct("<IBBHIIII")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def one_exchange(address: tuple[object, ...], listener: socket.socket) -> None:
    with connect(address) as client:
        server, _ = listener.accept()
        with server:
            client.sendall(b"ping")
            assert server.recv(10) == b"ping"
            server.sendall(b"pong")
            assert client.recv(10) == b"pong"


def test_a_thousand_connections_leave_nothing_behind() -> None:
    with listen() as listener:
        address = listener.getsockname()
        for _ in range(50):
            one_exchange(address, listener)
        settle()
        gc.collect()
        before = (descriptors(), threading.active_count(), len(os.listdir("/proc/self/task")))
        memory = resident()
        for _ in range(1000):
            one_exchange(address, listener)
        settle()
        gc.collect()
        assert (descriptors(), threading.active_count(), len(os.listdir("/proc/self/task"))) == before
        usage = engine.usage()
        assert (usage["sessions"], usage["pool_in_use"]) == (0, 0)
        assert resident() - memory < 4 << 20


def test_random_datagrams_open_nothing_and_cost_nothing() -> None:
    rng = random.Random(1)
    with listen() as listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flooder:
        address = listener.getsockname()
        one_exchange(address, listener)
        settle()
        memory = resident()
        for _ in range(20_000):
            flooder.sendto(rng.randbytes(rng.randrange(0, 200)), address)
        # Well-formed but meaningless: every command, absurd numbers, lengths that lie.
        for _ in range(20_000):
            cmd = rng.choice((81, 82, 84, 85, rng.randrange(256)))
            header = HEADER.pack(
                rng.getrandbits(32), cmd, rng.randrange(256), rng.getrandbits(16), rng.getrandbits(32),
                rng.getrandbits(32) | 1, rng.getrandbits(32) | 1, rng.choice((0, 5, 2000, 0xFFFFFFFF)),
            )  # fmt: skip
            flooder.sendto(header + rng.randbytes(5), address)
        one_exchange(address, listener)
        assert select.select([listener], [], [], 0)[0] == []
        assert resident() - memory < 8 << 20
    settle()


def test_garbage_from_the_peers_own_address_harms_no_connection() -> None:
    rng = random.Random(2)
    with listen() as listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.connect(listener.getsockname())
        peer.settimeout(PATIENCE)
        conv = 77
        peer.send(HEADER.pack(conv, 83, 0, 128, 1, 0, 0, 0))
        assert peer.recv(100)[4] == 84
        server, _ = listener.accept()
        with server:
            for _ in range(5000):
                cmd = rng.choice((81, 82, 83, 84, 85, rng.randrange(256)))
                length = rng.choice((0, 3, 5, 50, 2**31))
                sn, una = rng.getrandbits(32) | 1 << 20, rng.getrandbits(32) | 1 << 20
                peer.send(HEADER.pack(conv, cmd, 0, 0, 0, sn, una, length) + rng.randbytes(5))
            peer.send(HEADER.pack(conv, 81, 0, 128, 5, 0, 0, 5) + b"valid")
            server.settimeout(PATIENCE)
            assert server.recv(100) == b"valid"
    settle()


def test_a_late_copy_of_an_old_connection_opens_no_ghost() -> None:
    with listen() as listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.connect(listener.getsockname())
        peer.settimeout(PATIENCE)
        first = HEADER.pack(9, 81, 0, 128, 1, 0, 0, 5) + b"hello"
        peer.send(first)
        server, _ = listener.accept()
        server.settimeout(PATIENCE)
        assert server.recv(10) == b"hello"
        peer.send(HEADER.pack(9, 81, 0, 128, 2, 1, 0, 0))  # the end of our stream
        assert server.recv(10) == b""
        server.close()
        closing = peer.recv(100)
        while closing[4] != 81:
            closing = peer.recv(100)
        sn = HEADER.unpack_from(closing)[5]
        peer.send(HEADER.pack(9, 82, 0, 128, HEADER.unpack_from(closing)[4], sn, sn + 1, 0))
        settle()
        peer.send(first)
        answer = peer.recv(100)
        while answer[4] == 81:
            answer = peer.recv(100)
        assert answer[4] == 82, "a late copy of what was received is acknowledged"
        assert select.select([listener], [], [], 0.2)[0] == []
        assert engine.usage()["sessions"] == 0


def test_a_slow_reader_stops_the_writer_and_memory_stays_bounded() -> None:
    with pair() as (ours, theirs):
        ours.setblocking(False)
        sent = 0
        chunk = b"s" * 65536
        while select.select([], [ours], [], 0.5)[1]:
            sent += ours.send(chunk)
            assert sent < 64 << 20, "nothing pushes back"
        assert engine.usage()["pool_bytes"] < 16 << 20
        ours.setblocking(True)
        ours.settimeout(PATIENCE)
        closer = threading.Thread(target=ours.shutdown, args=(socket.SHUT_WR,))
        closer.start()
        received = 0
        while data := theirs.recv(1 << 20):
            received += len(data)
        closer.join()
        assert received == sent
    settle()


def test_running_out_of_descriptors_is_an_error_not_a_crash() -> None:
    with listen() as listener:
        address = listener.getsockname()
        one_exchange(address, listener)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = descriptors() + 6
        held: list[socket.socket] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            failed = False
            for _ in range(20):
                try:
                    held.append(connect(address))
                except OSError:
                    failed = True
                    break
            assert failed
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for one in held:
                one.close()
        while select.select([listener], [], [], 0.2)[0]:
            server, _ = listener.accept()
            server.close()
        one_exchange(address, listener)
    settle()
