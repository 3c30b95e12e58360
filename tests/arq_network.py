"""A network that loses, doubles, reorders, delays and damages datagrams, on a clock of its own."""

from __future__ import annotations

import dataclasses
import heapq
import random

from arq_endpoint import HEADER, IN_FLUSH, PUSH, Endpoint, Settings, decode

from kcpsocket._native import lib


@dataclasses.dataclass(frozen=True)
class Path:
    """One direction. Probabilities from 0 to 1, times in ms."""

    loss: float = 0.0
    duplicate: float = 0.0
    damage: float = 0.0
    delay: int = 10
    jitter: int = 0
    calm: int = 0
    rough: int = 1
    rate: int = 0  # bytes/ms of the bottleneck before it all; 0: none
    queue: int = 100  # ms of waiting for the bottleneck, beyond which a datagram is dropped
    change: tuple[int, int] | None = None  # at (ms), to (bytes/ms): the bottleneck becomes faster or slower

    def late(self, now: int, rng: random.Random) -> int:
        """What is added to the delay: `jitter` only counts in the last `rough` ms of every `calm` + `rough`."""
        if self.jitter == 0 or now % (self.calm + self.rough) < self.calm:
            return 0
        return rng.randrange(self.jitter)


def damage(datagram: bytes, rng: random.Random) -> bytes:
    """Damage of the kind that needs no checksum to be seen: cut short, another conv, an unknown command, a wrong
    length."""
    kind = rng.randrange(4)
    if kind == 0:
        return datagram[: rng.randrange(HEADER)]
    broken = bytearray(datagram)
    if kind == 1:
        broken[rng.randrange(4)] ^= 1 << rng.randrange(8)
    elif kind == 2:
        broken[4] = rng.choice([0, 80, 86, 255])
    else:
        broken[20 + rng.randrange(2)] ^= 1 << rng.randrange(8)
    return bytes(broken)


class Peer:
    """An application on an endpoint: writes `data` and finishes, reads until the other's end.

    `appetite` is how many bytes it reads at a time and `pause` how long it waits in between, ms; None reads all at
    once."""

    def __init__(self, endpoint: Endpoint, data: bytes, appetite: int | None = None, pause: int = 0) -> None:
        self.endpoint = endpoint
        self.data = data
        self.received = bytearray()
        self.appetite = appetite
        self.pause = pause
        self.next_read = endpoint.now
        self.written = 0

    def write(self) -> None:
        endpoint = self.endpoint
        room = lib.kcp_room(endpoint.kcp)
        taken = endpoint.send(self.data[self.written : self.written + max(room, 1)])
        assert taken == min(room, len(self.data) - self.written)
        self.written += taken
        if self.written == len(self.data):
            assert lib.kcp_finish(endpoint.kcp)

    def wants_to_read(self) -> bool:
        state = self.endpoint.state()
        return self.appetite is not None and state.rcv_head != state.rcv_nxt and not lib.kcp_at_end(self.endpoint.kcp)

    def read(self) -> None:
        if self.appetite is None:
            self.received += self.endpoint.recv()
        elif self.due():
            self.received += self.endpoint.recv(self.appetite)
            self.next_read = (self.endpoint.now + self.pause) % 2**32

    def due(self) -> bool:
        return (self.endpoint.now - self.next_read) % 2**32 < 2**31

    def done(self) -> bool:
        return (
            self.written == len(self.data)
            and lib.kcp_unacked(self.endpoint.kcp) == 0
            and lib.kcp_at_end(self.endpoint.kcp)
        )


class Network:
    """Two peers and a path each way."""

    def __init__(self, peers: tuple[Peer, Peer], paths: tuple[Path, Path], rng: random.Random) -> None:
        self.peers = peers
        self.paths = paths
        self.rng = rng
        self.elapsed = 0
        self.datagrams = 0
        self.lost = [0, 0]  # PUSHes of each peer
        self.bytes = [0, 0]  # given to each bottleneck
        self.overflows = [0, 0]  # datagrams that found its queue full
        self.limits: list[int] = []  # packets in flight that the first peer took the path to carry, each time it sent
        self._free = [0.0, 0.0]  # ms: when each bottleneck has sent all it was given
        self.counters: list[dict[str, int]] = []  # of each peer, at the end
        self._on_the_way: list[tuple[int, int, int, bytes, bool]] = []

    def run(self, limit: int) -> None:
        """Runs until both are done and at rest. AssertionError after `limit` ms of the simulated clock."""
        for number in (0, 1):
            self._work(number)
        while True:
            wait = self._until_next()
            if wait is None:
                break
            self.elapsed += wait
            assert self.elapsed < limit, "the transfer got stuck"
            for peer in self.peers:
                peer.endpoint.advance(wait)
            self._deliver()
        assert all(peer.done() for peer in self.peers), "at rest before all was delivered"

    def _until_next(self) -> int | None:
        waits = [self._on_the_way[0][0] - self.elapsed] if self._on_the_way else []
        for peer in self.peers:
            deadline = peer.endpoint.deadline()
            if deadline >= 0:
                waits.append(deadline)
            if peer.wants_to_read():
                waits.append(0 if peer.due() else (peer.next_read - peer.endpoint.now) % 2**32)
        return min(waits) if waits else None

    def _deliver(self) -> None:
        while self._on_the_way and self._on_the_way[0][0] <= self.elapsed:
            _, _, number, datagram, damaged = heapq.heappop(self._on_the_way)
            peer = self.peers[number]
            result = peer.endpoint.lend(datagram)
            assert (result < 0) == damaged
            if result >= 0 and result & IN_FLUSH and self.rng.random() < 0.5:
                self._work(number)
        for number in (0, 1):
            self._work(number)

    def _work(self, number: int) -> None:
        """A turn, as the engine does it."""
        peer = self.peers[number]
        peer.read()
        assert peer.endpoint.settle()
        peer.write()
        if peer.endpoint.deadline() == 0:
            self._send(number, peer.endpoint.flush_raw())

    def _send(self, number: int, datagrams: list[bytes]) -> None:
        path = self.paths[number]
        rng = self.rng
        for datagram in datagrams:
            assert len(datagram) <= lib.kcp_settings_of(self.peers[number].endpoint.kcp).mtu
            for _ in range(2 if rng.random() < path.duplicate else 1):
                wait = self._bottleneck(number, len(datagram))
                if wait is None:
                    continue
                if rng.random() < path.loss:
                    self.lost[number] += sum(segment.cmd == PUSH for segment in decode(datagram))
                    continue
                damaged = rng.random() < path.damage
                arrival = self.elapsed + wait + path.delay + path.late(self.elapsed, rng)
                self.datagrams += 1
                sent = damage(datagram, rng) if damaged else datagram
                heapq.heappush(self._on_the_way, (arrival, self.datagrams, 1 - number, sent, damaged))

    def _bottleneck(self, number: int, length: int) -> int | None:
        """The ms until a datagram of `length` bytes has passed the bottleneck; None: dropped."""
        path = self.paths[number]
        if path.rate == 0:
            return 0
        self.bytes[number] += length
        if number == 0:
            self.limits.append(self.peers[0].endpoint.state().bdp_limit)
        changed = path.change is not None and self.elapsed >= path.change[0]
        rate = path.change[1] if path.change is not None and changed else path.rate
        begin = max(self._free[number], self.elapsed)
        if begin - self.elapsed > path.queue:
            self.overflows[number] += 1
            return None
        self._free[number] = begin + length / rate
        return int(self._free[number] - self.elapsed)


def transfer(
    settings: tuple[Settings, Settings],
    data: tuple[bytes, bytes],
    paths: tuple[Path, Path],
    seed: int = 0,
    clocks: tuple[int, int] = (0, 0),
    sns: tuple[int, int] = (0, 0),
    appetite: int | None = None,
    pause: int = 0,
    limit: int = 20_000_000,
) -> Network:
    """Sends `data` both ways, ends both streams, and checks that all arrived, nothing is left and nothing moves."""
    endpoints = (
        Endpoint(settings[0], clocks[0], sns[0], sns[1]),
        Endpoint(settings[1], clocks[1], sns[1], sns[0]),
    )
    peers = (Peer(endpoints[0], data[0]), Peer(endpoints[1], data[1], appetite, pause))
    network = Network(peers, paths, random.Random(seed))
    network.run(limit)
    for number, peer in enumerate(peers):
        assert bytes(peer.received) == data[1 - number]
        state = peer.endpoint.state()
        assert peer.endpoint.deadline() == -1
        assert state.snd_una == state.snd_nxt == state.snd_end
        assert state.counters.bytes_sent == len(data[number])
        assert state.counters.bytes_received == len(data[1 - number])
        assert lib.pool_in_use(peer.endpoint.pool) == 0
        assert state.snd_ring <= 16
        assert state.rcv_ring <= 16
        assert not lib.kcp_peer_restarted(peer.endpoint.kcp, peer.endpoint.now)
        network.counters.append({name: getattr(state.counters, name) for name in dir(state.counters)})
        peer.endpoint.free()
    return network
