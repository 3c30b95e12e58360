"""The UDP relay, with plain UDP sockets at its ends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from kcpsocket.relay import Relay

WAIT = 10.0  # s: nothing here takes nearly as long


def udp(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(WAIT)
    sock.bind((host, 0))
    return sock


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with udp() as sock:
        yield sock


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with udp() as sock:
        yield sock


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits until `condition()` holds, for what the relay's own thread counts."""
    tick = threading.Event()  # never set: its time-out paces the looks
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        tick.wait(0.002)


def through(relay: Relay, client: socket.socket, server: socket.socket, count: int) -> list[int]:
    """Sends `count` numbered datagrams from client to server; returns the numbers that came, in their order."""
    arrived = []
    for number in range(count):
        client.sendto(number.to_bytes(4, "big"), relay.address)
        if number % 50 == 49 or number == count - 1:  # few enough at once for the server's own buffer
            sent = number + 1
            wait_for(lambda: relay.upstream.received == sent)  # noqa: B023  (called only here)
            server.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    arrived.append(int.from_bytes(server.recv(100), "big"))
            server.settimeout(WAIT)
    relay.loss = relay.duplicate = relay.reorder = relay.jitter_ms = 0
    relay.delay_ms += 50  # so that the last one comes behind all that is still held back
    client.sendto(b"last", relay.address)
    while (datagram := server.recv(100)) != b"last":
        arrived.append(int.from_bytes(datagram, "big"))
    return arrived


def test_relays_both_ways_and_gives_each_client_its_own_peer_address(server: socket.socket) -> None:
    with Relay(server.getsockname()) as relay, udp() as one, udp() as two:
        peers = []
        for client, payload in ((one, b"from one"), (two, b"from two")):
            client.sendto(payload, relay.address)
            datagram, peer = server.recvfrom(100)
            assert datagram == payload
            peers.append(peer)
        assert peers[0] != peers[1]
        server.sendto(b"to two", peers[1])
        server.sendto(b"to one", peers[0])
        assert one.recvfrom(100) == (b"to one", relay.address)
        assert two.recvfrom(100) == (b"to two", relay.address)
    assert relay.upstream.forwarded == relay.downstream.forwarded == 2
    assert relay.forwarded == 4
    assert relay.upstream.received_bytes == 16


def test_keeps_the_order_without_jitter(server: socket.socket, client: socket.socket) -> None:
    for delay_ms in (0, 5):
        with Relay(server.getsockname(), delay_ms=delay_ms) as relay:
            assert through(relay, client, server, 500) == list(range(500))


def test_loses_the_share_it_was_told(server: socket.socket, client: socket.socket) -> None:
    with Relay(server.getsockname(), loss=0.3, seed=1) as relay:
        arrived = through(relay, client, server, 2000)
    assert len(arrived) == 2000 - relay.dropped
    assert 500 < relay.dropped < 700


def test_a_seed_repeats_the_same_losses(server: socket.socket, client: socket.socket) -> None:
    runs = []
    for seed in (7, 7, 8):
        with Relay(server.getsockname(), loss=0.2, seed=seed) as relay:
            runs.append(through(relay, client, server, 300))
    assert runs[0] == runs[1] != runs[2]


def test_loses_what_comes_back_too(server: socket.socket, client: socket.socket) -> None:
    with Relay(server.getsockname(), seed=2) as relay:
        client.sendto(b"hello", relay.address)
        _, peer = server.recvfrom(100)
        relay.loss = 1
        server.sendto(b"lost", peer)
        wait_for(lambda: relay.downstream.dropped == 1)
        relay.loss = 0
        server.sendto(b"found", peer)
        assert client.recv(100) == b"found"


def test_delays_no_datagram_by_less_than_it_was_told(server: socket.socket, client: socket.socket) -> None:
    with Relay(server.getsockname(), delay_ms=30) as relay:
        began = time.monotonic()
        client.sendto(b"ping", relay.address)
        _, peer = server.recvfrom(100)
        server.sendto(b"pong", peer)
        assert client.recv(100) == b"pong"
        assert time.monotonic() - began >= 0.06  # a lower bound, which no load on the machine can break


def test_jitter_lets_datagrams_overtake_each_other(server: socket.socket, client: socket.socket) -> None:
    with Relay(server.getsockname(), delay_ms=20, jitter_ms=20, seed=3) as relay:
        arrived = through(relay, client, server, 300)
    assert arrived != sorted(arrived) == list(range(300))


def test_reorders_some(server: socket.socket, client: socket.socket) -> None:
    with Relay(server.getsockname(), reorder=0.1, seed=4) as relay:
        arrived = through(relay, client, server, 500)
    assert arrived != sorted(arrived) == list(range(500))
    assert 25 < relay.reordered < 85


def test_duplicates_some(server: socket.socket, client: socket.socket) -> None:
    with Relay(server.getsockname(), duplicate=0.5, seed=5) as relay:
        arrived = through(relay, client, server, 400)
    assert len(arrived) == 400 + relay.duplicated
    assert set(arrived) == set(range(400))
    assert 140 < relay.duplicated < 260


def test_survives_a_target_that_is_not_there(client: socket.socket) -> None:
    with udp() as gone:
        target = gone.getsockname()
    with Relay(target) as relay:
        client.sendto(b"anyone?", relay.address)
        wait_for(lambda: relay.upstream.unreachable > 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.settimeout(WAIT)
            back.bind(target)
            client.sendto(b"and now?", relay.address)
            assert back.recv(100) == b"and now?"


def test_the_client_silent_for_longest_gives_way(
    server: socket.socket, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcpsocket.relay._CLIENT_LIMIT", 2)
    with Relay(server.getsockname()) as relay, contextlib.ExitStack() as stack:
        peers = []
        for sock in (client, *(stack.enter_context(udp()) for _ in range(3)), client):
            sock.sendto(b"hello", relay.address)
            peers.append(server.recvfrom(100)[1])
        server.sendto(b"still here", peers[-1])
        assert client.recv(100) == b"still here"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 on this machine")
def test_ipv6() -> None:
    with udp("::1") as server, Relay(server.getsockname()[:2]) as relay, udp("::1") as client:
        client.sendto(b"six", relay.address)
        datagram, peer = server.recvfrom(100)
        server.sendto(datagram, peer)
        assert client.recv(100) == b"six"


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"loss": 1.5}, "loss=1.5"), ({"duplicate": -0.1}, "duplicate=-0.1"), ({"delay_ms": -1}, "delay_ms=-1")],
)
def test_refuses_settings_out_of_range(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Relay(("127.0.0.1", 9), **settings)  # type: ignore[arg-type]


def test_close_leaves_no_thread_and_no_descriptor(server: socket.socket, client: socket.socket) -> None:
    relay = Relay(server.getsockname(), delay_ms=60_000)
    client.sendto(b"never arrives", relay.address)
    wait_for(lambda: relay.upstream.received == 1)
    thread, address = relay._thread, relay.address
    relay.close()
    relay.close()
    assert not thread.is_alive()
    assert thread not in threading.enumerate()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(address)  # EADDRINUSE if it were still open
    assert relay.forwarded == 0
