"""A bad long link between two TUN devices: ``python -m kcpsocket.bench.link PARAMETERS FD FD``.

Each direction is a transmitter with a rate and a queue that drops what does not fit, then the way itself: delay,
jitter, loss (independent, or in bursts by Gilbert and Elliott's two states), reordering. Each direction draws from a
generator of its own, so the n-th packet meets the same fate in every run.

On a line "counts" on standard input the process prints what it has counted; on "begin SEED" it forgets everything,
packets on the way included.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import random
import select
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

_READS: Final = 64  # packets taken from a device before the clock is looked at again
_PACKET: Final = 65536  # bytes; more than a device's MTU


@dataclass(frozen=True)
class Link:
    """The parameters of a link; both directions are alike."""

    rate: float = 20.0  # Mbit/s, IP headers included
    rtt: float = 100.0  # ms, when the queues are empty
    queue: float = 100.0  # ms that a packet may wait for the transmitter: beyond, it is dropped
    loss: float = 0.0  # probability that a packet is lost (in the good state, where there are two)
    jitter: float = 0.0  # ms by which a packet may come later than without; order is kept
    reorder: float = 0.0  # probability that a packet is held up and overtaken
    reorder_by: float = 10.0  # ms that it is held up
    burst_begin: float = 0.0  # probability at each packet that a burst of losses begins; 0: no bursts
    burst_end: float = 0.25  # probability at each packet that it ends: 1 / mean length in packets
    burst_loss: float = 0.8  # probability that a packet within it is lost

    def mean_loss(self) -> float:
        """The share of packets lost on the way, queues left out."""
        if not self.burst_begin:
            return self.loss
        bad = self.burst_begin / (self.burst_begin + self.burst_end)
        return bad * self.burst_loss + (1 - bad) * self.loss


class Direction:
    """One direction of a link: says of each packet when it arrives, if it does."""

    def __init__(self, link: Link, seed: object) -> None:
        self._link = link
        self._random = random.Random(f"{seed}")
        self._free = 0.0  # when the transmitter has sent all it was given
        self._last = 0.0  # when the latest packet arrives
        self._bad = False
        self.packets = self.bytes = 0  # given to the transmitter
        self.lost = 0  # on the way
        self.overflowed = 0  # for want of room in the queue

    def arrival(self, now: float, length: int) -> float | None:
        """When a packet of `length` bytes given at `now` (s) arrives; None: never."""
        link, draw = self._link, self._random.random
        self.packets += 1
        self.bytes += length
        begin = max(now, self._free)
        # Drawn for every packet, dropped ones too: the fate of the n-th does not depend on the queue.
        burst, fate, wobble, swap = draw(), draw(), draw(), draw()
        if link.burst_begin:
            self._bad = burst >= link.burst_end if self._bad else burst < link.burst_begin
        if begin - now > link.queue / 1000:
            self.overflowed += 1
            return None
        self._free = begin + length * 8 / (link.rate * 1e6)
        if fate < (link.burst_loss if self._bad else link.loss):
            self.lost += 1
            return None
        due = self._free + link.rtt / 2000
        if swap < link.reorder:
            return due + link.reorder_by / 1000
        self._last = max(self._last, due + wobble * link.jitter / 1000)
        return self._last

    def counts(self) -> dict[str, int]:
        """What it has seen so far."""
        return {"packets": self.packets, "bytes": self.bytes, "lost": self.lost, "overflowed": self.overflowed}


class Forwarder:
    """Carries packets between two TUN devices."""

    def __init__(self, link: Link, devices: tuple[int, int]) -> None:
        self._link = link
        self._devices = devices
        for device in devices:
            os.set_blocking(device, False)
        self.begin("0")

    def begin(self, seed: str) -> None:
        """Forgets everything."""
        self._directions = [Direction(self._link, f"{seed}/{index}") for index in (0, 1)]
        self._due: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._late = 0.0

    def counts(self) -> dict[str, Any]:
        """What was counted, in the order of the devices; "late": s that a packet left after its time, at worst."""
        return {"counts": [direction.counts() for direction in self._directions], "late": self._late}

    def run(self, commands: int) -> None:
        """Carries packets until the descriptor `commands` ends."""
        sources = [*self._devices, commands]
        text = b""
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            ready, _, _ = select.select(sources, [], [], wait)
            for fd in ready:
                if fd != commands:
                    self._take(self._devices.index(fd))
                    continue
                data = os.read(commands, 4096)
                if not data:
                    return
                *lines, text = (text + data).split(b"\n")
                for line in lines:
                    self._obey(line.decode())
            self._deliver()

    def _obey(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "begin":
            self.begin(rest)
            print(json.dumps({"begun": rest}), flush=True)
        elif word == "counts":
            print(json.dumps(self.counts()), flush=True)

    def _take(self, source: int) -> None:
        direction, device = self._directions[source], self._devices[source]
        now = time.monotonic()
        for _ in range(_READS):
            try:
                packet = os.read(device, _PACKET)
            except BlockingIOError:
                return
            if packet[0] >> 4 != 4:
                continue  # what IPv6 says of itself on a new device
            due = direction.arrival(now, len(packet))
            if due is not None:
                self._count += 1
                heapq.heappush(self._due, (due, self._count, 1 - source, packet))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, _, target, packet = heapq.heappop(self._due)
            self._late = max(self._late, now - due)
            os.write(self._devices[target], packet)


def main(arguments: list[str]) -> int:
    """Runs the process."""
    parameters, first, second = arguments
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # it plays hardware, which is not late because a processor is busy
    Forwarder(Link(**json.loads(parameters)), (int(first), int(second))).run(sys.stdin.fileno())
    return 0


def command(link: Link, first: int, second: int) -> list[str]:
    """The command line of a forwarder between two devices (to be passed on)."""
    return [sys.executable, "-m", "kcpsocket.bench.link", json.dumps(asdict(link)), str(first), str(second)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
