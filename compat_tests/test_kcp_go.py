"""Against kcp-go itself: either side as server, bulk both ways, server-speaks-first, and over a lossy network."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from gopeer import GoPeer

from kcpsocket import Config, KCPSocket, snmp
from kcpsocket.relay import Relay

BULK = 50_000_000  # bytes
LOSSY = 5_000_000  # bytes, where a tenth of all datagrams is lost
WAIT = 60.0  # s without progress after which a test fails
CHUNK = 1 << 16

T = TypeVar("T")

# What both sides are set to. Windows, modes and MTU need not agree; crypt, key and shards must.
SETTINGS = [
    pytest.param({}, {}, id="null"),
    pytest.param({"crypt": "none", "key": "secret"}, {"crypt": "none", "key": "secret"}, id="none"),
    pytest.param(
        {"mode": "fast3", "mtu": 1200, "sndwnd": 256, "rcvwnd": 256},
        {"mtu": 900, "sndwnd": 300, "rcvwnd": 500, "interval": 40, "nodelay": 0},
        id="unequal",
    ),
    pytest.param({"nc": 0, "mode": "normal"}, {"nc": 0, "interval": 40, "nodelay": 0}, id="congestion-control"),
]


def payload(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def socket_class(settings: dict[str, Any]) -> type[KCPSocket]:
    """KCPSocket with settings of its own."""
    return type("Configured", (KCPSocket,), {"config": Config(**settings)})


def connect(address: tuple[str, int], **settings: Any) -> KCPSocket:
    sock = socket_class(settings)(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(WAIT)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def listening(**settings: Any) -> Iterator[KCPSocket]:
    with socket_class(settings)(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.settimeout(WAIT)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


def accept(listener: KCPSocket) -> socket.socket:
    sock, _ = listener.accept()
    sock.settimeout(WAIT)
    return sock


def read_exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        received = sock.recv_into(view)
        assert received, f"the stream ended {len(view)} bytes early"
        view = view[received:]
    return bytes(data)


def read_line(sock: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        line += read_exactly(sock, 1)
    return bytes(line)


@contextmanager
def beside(work: Callable[[], T]) -> Iterator[Future[T]]:
    """Does `work` in a thread meanwhile; the Future has its result, and the block's end waits for it."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield future
    finally:
        thread.join()


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Sends `data` while reading as much back."""
    with beside(lambda: sock.sendall(data)) as sent:
        received = read_exactly(sock, len(data))
    sent.result(WAIT)
    return received


def send_and_compare(sock: socket.socket, data: bytes) -> None:
    """Plays source to a sink: sends `data`, then reads the digest of what arrived."""
    sock.sendall(data)
    assert read_line(sock).decode().strip() == digest(data)


def receive_and_tell(sock: socket.socket, size: int) -> str:
    """Plays sink to a source: reads `size` bytes, then sends their digest, which it returns."""
    received = digest(read_exactly(sock, size))
    sock.sendall(received.encode() + b"\n")
    return received


@pytest.mark.parametrize(("ours", "theirs"), SETTINGS)
def test_our_client_has_its_bytes_echoed(kcpgo: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    data = payload(1_000_000)
    with GoPeer(kcpgo, "echo", bytes=len(data), **theirs) as peer:
        with connect(peer.address, **ours) as sock:
            assert exchange(sock, data) == data
        assert peer.report()["sha256"] == digest(data)


@pytest.mark.parametrize(("ours", "theirs"), SETTINGS)
def test_its_client_echoes_to_our_server(kcpgo: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    data = payload(1_000_000)
    with (
        listening(**ours) as listener,
        GoPeer(kcpgo, "echo", dial=listener.getsockname(), bytes=len(data), **theirs) as peer,
    ):
        with accept(listener) as sock:
            assert read_line(sock) == b"hello\n"
            assert exchange(sock, data) == data
        assert peer.report()["sha256"] == digest(data)


def test_our_client_hears_a_server_that_speaks_first(kcpgo: Path) -> None:
    with GoPeer(kcpgo, "greet", banner="220 at your service") as peer, connect(peer.address) as sock:
        assert read_line(sock) == b"220 at your service\n"
        for line in (b"one\n", b"two\n", b"x" * 5000 + b"\n"):
            sock.sendall(line)
            assert read_line(sock) == line


def test_our_server_serves_a_client_that_speaks_first_and_hears_it_at_once(kcpgo: Path) -> None:
    with listening() as listener, GoPeer(kcpgo, "greet", dial=listener.getsockname()), accept(listener) as sock:
        assert read_line(sock) == b"kcpgo ready\n"
        sock.sendall(b"back\n")
        assert read_line(sock) == b"back\n"


def test_our_client_sends_in_bulk(kcpgo: Path) -> None:
    data = payload(BULK)
    with GoPeer(kcpgo, "sink", bytes=len(data)) as peer:
        with connect(peer.address) as sock:
            send_and_compare(sock, data)
        assert peer.report()["sha256"] == digest(data)


def test_our_client_receives_in_bulk(kcpgo: Path) -> None:
    with GoPeer(kcpgo, "source", bytes=BULK) as peer, connect(peer.address) as sock:
        received = receive_and_tell(sock, BULK)
        assert peer.report()["sha256"] == received


def test_our_server_receives_in_bulk(kcpgo: Path) -> None:
    with (
        listening() as listener,
        GoPeer(kcpgo, "source", dial=listener.getsockname(), bytes=BULK) as peer,
        accept(listener) as sock,
    ):
        received = receive_and_tell(sock, BULK)
        assert peer.report()["sha256"] == received


def test_our_server_sends_in_bulk(kcpgo: Path) -> None:
    data = payload(BULK)
    with listening() as listener, GoPeer(kcpgo, "sink", dial=listener.getsockname(), bytes=BULK) as peer:
        with accept(listener) as sock:
            assert read_line(sock) == b"hello\n"
            send_and_compare(sock, data)
        assert peer.report()["sha256"] == digest(data)


def test_bulk_both_ways_at_once(kcpgo: Path) -> None:
    data = payload(BULK)
    with GoPeer(kcpgo, "echo", bytes=BULK) as peer:
        with connect(peer.address) as sock:
            assert digest(exchange(sock, data)) == digest(data)
        assert peer.report()["bytes"] == BULK


def test_what_was_sent_before_a_close_arrives(kcpgo: Path) -> None:
    data = payload(3_000_000)
    with GoPeer(kcpgo, "sink", bytes=len(data)) as peer:
        with connect(peer.address) as sock:
            sock.sendall(data)
        assert peer.report()["sha256"] == digest(data)


def test_what_was_sent_before_a_half_close_arrives_and_the_answer_too(kcpgo: Path) -> None:
    data = payload(1_000_000)
    with GoPeer(kcpgo, "sink", bytes=len(data)) as peer, connect(peer.address) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert read_line(sock).decode().strip() == digest(data)
        assert peer.report()["bytes"] == len(data)


def test_many_clients_of_ours_at_one_listener(kcpgo: Path) -> None:
    data = payload(200_000)
    with GoPeer(kcpgo, "echo", bytes=len(data)) as peer:
        socks = [connect(peer.address) for _ in range(10)]
        try:
            assert all(exchange(sock, data) == data for sock in socks)
        finally:
            for sock in socks:
                sock.close()
        assert {peer.report()["sha256"] for _ in socks} == {digest(data)}


def test_many_clients_of_its_at_our_listener(kcpgo: Path) -> None:
    data = payload(200_000)
    with listening() as listener:
        for _ in range(3):
            with GoPeer(kcpgo, "sink", dial=listener.getsockname(), bytes=len(data)) as peer:
                with accept(listener) as sock:
                    assert read_line(sock) == b"hello\n"
                    send_and_compare(sock, data)
                peer.report()


@contextmanager
def bad_network(target: tuple[str, int]) -> Iterator[Relay]:
    """A tenth of all datagrams lost, some doubled and reordered, 10 ms (give or take 3) one way."""
    with Relay(target, loss=0.1, delay_ms=10, jitter_ms=3, reorder=0.02, duplicate=0.02, seed=11) as relay:
        yield relay


def test_kcp_go_reaches_itself_over_the_lossy_network(kcpgo: Path) -> None:
    """If this fails, then the network is to blame for what fails below."""
    with (
        GoPeer(kcpgo, "source", bytes=LOSSY) as server,
        bad_network(server.address) as relay,
        GoPeer(kcpgo, "sink", dial=relay.address, bytes=LOSSY) as client,
    ):
        assert server.report()["sha256"] == client.report()["sha256"]
        assert relay.dropped > 0


def test_our_client_over_a_lossy_network(kcpgo: Path) -> None:
    data = payload(LOSSY)
    before = snmp()
    with GoPeer(kcpgo, "echo", bytes=LOSSY) as peer, bad_network(peer.address) as relay:
        with connect(relay.address) as sock:
            assert digest(exchange(sock, data)) == digest(data)
        assert peer.report()["bytes"] == LOSSY
        assert relay.dropped > 0
        assert peer.release()["RetransSegs"] > 0
    assert snmp()["RetransSegs"] > before["RetransSegs"]


def test_our_server_over_a_lossy_network(kcpgo: Path) -> None:
    data = payload(LOSSY)
    with (
        listening() as listener,
        bad_network(listener.getsockname()) as relay,
        GoPeer(kcpgo, "echo", dial=relay.address, bytes=LOSSY) as peer,
    ):
        with accept(listener) as sock:
            assert read_line(sock) == b"hello\n"
            assert digest(exchange(sock, data)) == digest(data)
        assert peer.report()["bytes"] == LOSSY


def test_a_closed_peer_is_refused_at_once(kcpgo: Path) -> None:
    with GoPeer(kcpgo, "echo") as peer:
        address = peer.address
    with pytest.raises(ConnectionRefusedError):
        connect(address)
