"""``python -m kcpsocket demo``: the standard library's HTTP server and client over KCP, across a bad network.

Neither `http.server` nor `urllib` knows of it. Between the two stands a relay (`kcpsocket.relay`) that loses and delays
packets, so the demo shows on one machine what KCP is for.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import http.server
import math
import os
import random
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from . import KCPInfo, KCPSocket, patched, snmp
from .relay import Relay

MEGABYTE = 1_000_000
_CHUNK = 256 << 10  # bytes read at a time
_STALL = 60.0  # s without a byte after which the demo gives up
_BAR = 40  # characters
_TCP_SEGMENT = 1460  # bytes of payload in a full TCP segment on Ethernet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `demo` on `parser`."""
    parser.description = (
        "Serves a file with http.server, fetches it with urllib, both as the standard library has them, over KCP and "
        "across a bad network, and says how it went. The exit code is 0 when every byte arrived."
    )
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--size", type=_number(0.001, 10_000), default=32, metavar="MB", help="what to fetch, in MB")
    parser.add_argument(
        "--loss", type=_number(0, 90), default=5, metavar="PERCENT", help="packets lost, in each direction"
    )
    parser.add_argument("--delay", type=_number(0, 5000), default=20, metavar="MS", help="delay one way, in ms")
    parser.add_argument(
        "--jitter", type=_number(0, 5000), default=2, metavar="MS", help="most by which a packet's delay varies, in ms"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the file's bytes and of the losses")


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: must be a number from {least:g} to {most:g}")
        return value

    return parse


def main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Runs the demo; returns the exit code."""
    network = f"{options.loss:g} % of the packets lost each way, {options.delay:g} ms to cross one way"
    if options.jitter:
        network += f" (give or take {options.jitter:g} ms)"
    print("http.server and urllib, both as the standard library has them, over KCP:\n")
    print("    urllib --- UDP --- a relay that plays a bad network --- UDP --- http.server\n")
    print(f"The network: {network}.", flush=True)
    try:
        outcome = _fetch(options)
    except OSError as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    _explain(options, outcome)
    return 0 if outcome.intact else 1


@dataclass
class _Outcome:
    """What the demo saw."""

    received: int = 0  # bytes
    seconds: float = 0.0  # from the request to the last byte
    served_digest: str = ""
    received_digest: str = ""
    info: KCPInfo | None = None  # the server's end of the connection, as it finished
    counters: dict[str, int] = field(default_factory=dict)  # what the transfer added to snmp()
    relayed: int = 0  # datagrams that the relay was given
    lost: int = 0  # of these, dropped by it
    overflowed: int = 0

    @property
    def intact(self) -> bool:
        return self.received_digest == self.served_digest


class _Handler(http.server.SimpleHTTPRequestHandler):
    """The standard handler, which keeps no log and lets the demo look at its connection before it is closed."""

    outcome: _Outcome

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the demo tells what happens."""

    def finish(self) -> None:
        if isinstance(self.connection, KCPSocket):
            self.outcome.info = self.connection.kcp_info()
        super().finish()


def _fetch(options: argparse.Namespace) -> _Outcome:
    outcome = _Outcome()
    size = round(options.size * MEGABYTE)
    with tempfile.TemporaryDirectory(prefix="kcpsocket-demo-") as directory:
        outcome.served_digest = _write_file(os.path.join(directory, "file"), size, options.seed)
        handler = type("Handler", (_Handler,), {"outcome": outcome})
        with (
            patched(),
            _serving(functools.partial(handler, directory=directory)) as port,
            Relay(
                ("127.0.0.1", port),
                loss=options.loss / 100,
                delay_ms=options.delay,
                jitter_ms=options.jitter,
                seed=options.seed,
            ) as relay,
        ):
            before = snmp()
            _download("http://{}:{}/file".format(*relay.address), size, outcome)
            outcome.counters = {name: value - before.get(name, 0) for name, value in snmp().items()}
            outcome.relayed = relay.upstream.received + relay.downstream.received
            outcome.lost = relay.dropped
            outcome.overflowed = relay.overflowed
    return outcome


def _write_file(path: str, size: int, seed: int | None) -> str:
    """Writes `size` random bytes to `path`; returns their SHA-256."""
    digest = hashlib.sha256()
    rng = random.Random(seed)
    with open(path, "wb") as file:
        for offset in range(0, size, _CHUNK):
            block = rng.randbytes(min(_CHUNK, size - offset))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


@contextmanager
def _serving(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    """Runs an HTTP server on loopback while the block runs; gives its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="http.server")
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _download(url: str, size: int, outcome: _Outcome) -> None:
    # Without a ProxyHandler of its own, urllib would ask the environment's proxy for a page on loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    digest = hashlib.sha256()
    progress = _Progress(size, sys.stderr)
    began = time.monotonic()
    with opener.open(url, timeout=_STALL) as response:
        while block := response.read1(_CHUNK):
            digest.update(block)
            outcome.received += len(block)
            progress.show(outcome.received)
    outcome.seconds = time.monotonic() - began
    progress.done()
    outcome.received_digest = digest.hexdigest()


class _Progress:
    """A bar that is redrawn on a terminal; elsewhere a line for each quarter."""

    def __init__(self, size: int, stream: TextIO) -> None:
        self._size = size
        self._stream = stream
        self._redraws = stream.isatty()
        self._began = time.monotonic()
        self._next = 0.0  # s, monotonic; or on no terminal the fraction that is reported next

    def show(self, received: int) -> None:
        """Tells that `received` bytes are here."""
        now = time.monotonic()
        fraction = received / self._size
        if self._redraws:
            if now < self._next and received < self._size:
                return
            self._next = now + 0.1
        else:
            if fraction < self._next + 0.25:
                return
            self._next = math.floor(fraction * 4) / 4
        speed = received / MEGABYTE / max(now - self._began, 1e-3)
        text = f"{fraction:4.0%} of {self._size / MEGABYTE:g} MB, {speed:.1f} MB/s"
        if self._redraws:
            filled = int(fraction * _BAR)
            text = f"\r[{'#' * filled}{' ' * (_BAR - filled)}] {text}   "
        else:
            text += "\n"
        self._stream.write(text)
        self._stream.flush()

    def done(self) -> None:
        """Ends the bar's line."""
        if self._redraws:
            self._stream.write("\n")


def _explain(options: argparse.Namespace, outcome: _Outcome) -> None:
    """Prints what happened, each figure with a line on what it means."""
    speed = outcome.received / outcome.seconds
    counters = outcome.counters
    print(f"\n{outcome.received / MEGABYTE:g} MB arrived in {outcome.seconds:.1f} s: {speed / MEGABYTE:.2f} MB/s.")
    if outcome.intact:
        print("SHA-256 of what was served and what arrived: the same.\n")
    else:
        print(f"SHA-256 DIFFERS: served {outcome.served_digest}, arrived {outcome.received_digest}.\n")
    rows = [
        ("packets", f"{outcome.relayed:,}", "UDP packets that came to the relay, both directions"),
        ("lost", f"{outcome.lost:,}", "of these, thrown away by the relay"),
    ]
    if outcome.overflowed:
        rows.append(("overflowed", f"{outcome.overflowed:,}", "of these, lost because the relay could not keep up"))
    rows += [
        (
            "sent again",
            f"{counters.get('RetransSegs', 0):,}",
            "packets that KCP repeated, since no answer to them came",
        ),
        (
            "  quickly",
            f"{counters.get('FastRetransSegs', 0) + counters.get('EarlyRetransSegs', 0):,}",
            "of these, at once: answers to later packets gave the gap away",
        ),
        (
            "  timed out",
            f"{counters.get('LostSegs', 0):,}",
            "of these, after waiting for the retransmission time-out",
        ),
    ]
    if outcome.info is not None:
        rows += [
            ("round trip", f"{outcome.info.srtt} ms", "smoothed time from sending a packet to its acknowledgement"),
            ("time-out", f"{outcome.info.rto} ms", "how long KCP waited for an answer at the end"),
        ]
    for name, value, meaning in rows:
        print(f"  {name:<12}{value:>9}   {meaning}")
    loss = options.loss / 100
    if loss and options.delay:
        # Mathis, Semke, Mahdavi, Ott: The Macroscopic Behavior of the TCP Congestion Avoidance Algorithm (1997).
        tcp = _TCP_SEGMENT / (2 * options.delay / 1000) * math.sqrt(1.5 / loss)
        print(
            f"\nFor comparison: TCP with classic congestion control (Reno) would settle near {tcp / MEGABYTE:.2f} MB/s"
            "\non such a path, by the formula of Mathis et al. (1997). KCP takes no lost packet for a full network."
        )
