"""A UDP relay that loses, delays, reorders and duplicates datagrams: a bad network on one machine, for demo and tests.

It stands between clients and one server. Each client address gets an upstream socket of its own, so the server sees its
clients as distinct peers; both directions are treated alike. One thread does everything; datagrams that wait lie in a
heap ordered by when they are due, and the earliest of them is the time-out of the next ``select``.
"""

from __future__ import annotations

import heapq
import random
import selectors
import socket
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

Address = tuple[Any, ...]

_DATAGRAM_LIMIT = 65536  # bytes: no UDP datagram is larger
_BATCH = 256  # datagrams read from one socket before the others get their turn
_WAITING_LIMIT = 65536  # datagrams under way at once; a router's memory is finite too
_CLIENT_LIMIT = 256  # client addresses known at once; the one silent for longest gives way
_SOCKET_BUFFER = 8 << 20  # bytes
_REORDER_HOLD = (2.0, 10.0)  # ms that a reordered datagram is held back, at least and at most
_SO_RCVBUFFORCE = 33  # Linux: beyond net.core.rmem_max, for those who may; no name in the socket module


@dataclass
class RelayCounters:
    """What became of the datagrams of one direction."""

    received: int = 0  #: datagrams that arrived at the relay
    received_bytes: int = 0  #: their payload in bytes
    forwarded: int = 0  #: datagrams sent on, second copies included
    dropped: int = 0  #: lost on purpose
    duplicated: int = 0  #: sent twice on purpose
    reordered: int = 0  #: held back on purpose
    overflowed: int = 0  #: lost because too many were under way, or the system had no room
    unreachable: int = 0  #: ICMP errors met in this direction: nobody is there to receive


class _Path:
    """One direction of one client's traffic: where its datagrams go and how they are counted."""

    __slots__ = ("counters", "destination", "rng", "sock")

    def __init__(
        self, sock: socket.socket, destination: Address | None, counters: RelayCounters, rng: random.Random
    ) -> None:
        self.sock = sock
        self.destination = destination  # None: the socket is connected
        self.counters = counters
        self.rng = rng

    def send(self, datagram: bytes) -> None:
        """Puts a datagram on the network now."""
        try:
            if self.destination is None:
                self.sock.send(datagram)
            else:
                self.sock.sendto(datagram, self.destination)
        except BlockingIOError:
            self.counters.overflowed += 1
        except OSError:
            # A connected UDP socket reports the ICMP error of an earlier datagram here; a closed one (its client gave
            # way to others) fails too. Either way this datagram met nobody.
            self.counters.unreachable += 1
        else:
            self.counters.forwarded += 1


class Relay:
    """Relays UDP to `target`, a (host, port), over a network as bad as the arguments say.

    `loss`, `reorder` and `duplicate` are probabilities from 0 to 1, each for every datagram in either direction.
    `delay_ms` is one way, and `jitter_ms` the most by which a datagram's own delay differs from it, so jitter alone
    lets datagrams overtake each other. A reordered datagram is held back for 2 to 10 ms more. With `seed` the same
    sequence of datagrams meets the same fate. These settings are attributes too and may be changed while the relay
    runs: `loss = 1` cuts the wire.

    The relay works from construction until `close()`, which a ``with`` block calls. Clients talk to `address`. Raises
    ValueError for settings out of range, OSError when the target's host is unknown or no socket can be had.
    """

    def __init__(
        self,
        target: tuple[str, int],
        loss: float = 0.0,
        delay_ms: float = 0.0,
        jitter_ms: float = 0.0,
        reorder: float = 0.0,
        duplicate: float = 0.0,
        seed: int | None = None,
    ) -> None:
        for name, probability in (("loss", loss), ("reorder", reorder), ("duplicate", duplicate)):
            if not 0 <= probability <= 1:
                raise ValueError(f"{name}={probability}: must be from 0 to 1")
        for name, duration in (("delay_ms", delay_ms), ("jitter_ms", jitter_ms)):
            if not 0 <= duration < float("inf"):
                raise ValueError(f"{name}={duration}: must be 0 or more")
        self.loss = loss
        self.delay_ms = delay_ms
        self.jitter_ms = jitter_ms
        self.reorder = reorder
        self.duplicate = duplicate
        self.upstream = RelayCounters()  #: from the clients to the target
        self.downstream = RelayCounters()  #: from the target to the clients

        family, _, _, _, resolved = socket.getaddrinfo(*target, type=socket.SOCK_DGRAM)[0]
        self._family: int = family
        self._target: Address = resolved
        # A generator for each direction: what one side sends does not change what happens to the other's.
        seeds = random.Random(seed)
        self._up_rng = random.Random(seeds.getrandbits(64))
        self._down_rng = random.Random(seeds.getrandbits(64))
        self._clients: dict[Address, _Path] = {}  # by client address, the one silent for longest first
        self._waiting: list[tuple[float, int, _Path, bytes]] = []  # a heap: due (s, monotonic), order, path, datagram
        self._order = 0  # of arrival, since datagrams due at the same time must not be compared
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._front = self._udp_socket()
        self._wake_reader, self._wake_writer = socket.socketpair()
        try:
            self._front.bind(("::1" if self._family == socket.AF_INET6 else "127.0.0.1", 0))
            self._address: Address = self._front.getsockname()
            self._selector.register(self._front, selectors.EVENT_READ, None)
            self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
            self._thread = threading.Thread(target=self._run, name="kcpsocket-relay", daemon=True)
            self._thread.start()
        except BaseException:
            self._release()
            raise

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) for clients to send to, on the loopback interface."""
        return self._address[0], self._address[1]

    @property
    def forwarded(self) -> int:
        """Datagrams sent on, both directions."""
        return self.upstream.forwarded + self.downstream.forwarded

    @property
    def dropped(self) -> int:
        """Datagrams lost on purpose, both directions."""
        return self.upstream.dropped + self.downstream.dropped

    @property
    def duplicated(self) -> int:
        """Datagrams sent twice on purpose, both directions."""
        return self.upstream.duplicated + self.downstream.duplicated

    @property
    def reordered(self) -> int:
        """Datagrams held back on purpose, both directions."""
        return self.upstream.reordered + self.downstream.reordered

    @property
    def overflowed(self) -> int:
        """Datagrams lost for lack of room, both directions."""
        return self.upstream.overflowed + self.downstream.overflowed

    def close(self) -> None:
        """Stops the relay; what is still under way is lost. May be called again."""
        if self._closing:
            return
        self._closing = True
        self._wake_writer.send(b"\0")
        self._thread.join()
        self._release()

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _release(self) -> None:
        for path in self._clients.values():
            path.sock.close()
        self._clients.clear()
        self._waiting.clear()
        for sock in (self._front, self._wake_reader, self._wake_writer):
            sock.close()
        self._selector.close()

    def _udp_socket(self) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        # A burst of a whole send window must not drown in the relay's buffers: it is to lose only what it was told to.
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _SOCKET_BUFFER)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        return sock

    def _run(self) -> None:
        while not self._closing:
            timeout = max(self._waiting[0][0] - time.monotonic(), 0.0) if self._waiting else None
            for key, _ in self._selector.select(timeout):
                if key.fileobj is self._front:
                    self._read_clients()
                elif isinstance(key.data, _Path):
                    self._read_target(key.fd, key.data)
            self._send_due()

    def _send_due(self) -> None:
        waiting = self._waiting
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, path, datagram = heapq.heappop(waiting)
            path.send(datagram)

    def _read_clients(self) -> None:
        for _ in range(_BATCH):
            try:
                datagram, address = self._front.recvfrom(_DATAGRAM_LIMIT)
            except BlockingIOError:
                return
            path = self._clients.pop(address, None)
            if path is None:
                try:
                    path = self._new_client(address)
                except OSError:  # no descriptor left, or no route: the next datagram tries again
                    self.upstream.overflowed += 1
                    continue
            self._clients[address] = path  # the latest to speak stands last
            self._treat(path, datagram)

    def _new_client(self, address: Address) -> _Path:
        while len(self._clients) >= _CLIENT_LIMIT:
            oldest = self._clients.pop(next(iter(self._clients)))
            self._selector.unregister(oldest.sock)
            oldest.sock.close()
        sock = self._udp_socket()
        try:
            sock.connect(self._target)
        except BaseException:
            sock.close()
            raise
        answers = _Path(self._front, address, self.downstream, self._down_rng)
        self._selector.register(sock, selectors.EVENT_READ, answers)
        return _Path(sock, None, self.upstream, self._up_rng)

    def _read_target(self, fd: int, answers: _Path) -> None:
        key = self._selector.get_map().get(fd)
        if key is None or key.data is not answers:
            return  # its client gave way to another in this same round
        sock = key.fileobj
        assert isinstance(sock, socket.socket)
        for _ in range(_BATCH):
            try:
                datagram = sock.recv(_DATAGRAM_LIMIT)
            except BlockingIOError:
                return
            except OSError:
                self.upstream.unreachable += 1
                continue
            self._treat(answers, datagram)

    def _treat(self, path: _Path, datagram: bytes) -> None:
        """Decides what becomes of a datagram."""
        counters, rng = path.counters, path.rng
        counters.received += 1
        counters.received_bytes += len(datagram)
        if self.loss and rng.random() < self.loss:
            counters.dropped += 1
            return
        copies = 1
        if self.duplicate and rng.random() < self.duplicate:
            counters.duplicated += 1
            copies = 2
        for _ in range(copies):
            delay = self.delay_ms
            if self.jitter_ms:
                delay = max(delay + rng.uniform(-self.jitter_ms, self.jitter_ms), 0.0)
            if self.reorder and rng.random() < self.reorder:
                counters.reordered += 1
                delay += rng.uniform(*_REORDER_HOLD)
            if delay <= 0:
                path.send(datagram)
            elif len(self._waiting) >= _WAITING_LIMIT:
                counters.overflowed += 1
            else:
                self._order += 1
                heapq.heappush(self._waiting, (time.monotonic() + delay / 1000, self._order, path, datagram))
