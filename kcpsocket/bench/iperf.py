"""``bench server`` and ``bench client``: throughput between two machines, in the manner of iperf3.

A test has two connections. The first carries JSON objects, one a line: the client's request, the server's word that it
is ready, and at the end what the server saw. The second begins with the request's cookie; then one side sends for the
time asked for and closes its half.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import secrets
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from . import stats
from .orders import read_exactly
from .settings import add_settings, settings_from
from .transport import Transport

PORT: Final = 5201
_COOKIE: Final = 16  # bytes
_BUFFER: Final = 1 << 20  # bytes read at a time
_TALK_LIMIT: Final = 30.0  # s for connecting and for each word on the first connection
_LINE_LIMIT: Final = 64 << 10  # bytes
_STALL: Final = 60.0  # s without a byte moving after which a test fails
_LONGEST: Final = 86400.0  # s
_TCP_INFO_RTT, _TCP_INFO_RETRANS = 68, 100  # offsets in struct tcp_info: us, segments

Progress = Callable[[float, int, dict[str, Any]], None]


def tell(stream: socket.socket, value: dict[str, Any]) -> None:
    """Sends an object on the first connection."""
    stream.sendall(json.dumps(value).encode() + b"\n")


def hear(stream: socket.socket) -> dict[str, Any]:
    """The next object on the first connection. ConnectionError at its end, ValueError for anything else."""
    line = b""
    while not line.endswith(b"\n"):
        line += read_exactly(stream, 1)
        if len(line) > _LINE_LIMIT:
            raise ValueError("a line without end")
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def look(stream: socket.socket) -> dict[str, Any]:
    """What the connection says of itself: "rtt" in ms, "retransmitted" packets, and for KCP all of kcp_info."""
    info = getattr(stream, "kcp_info", None)
    if info is not None:
        seen = {name: int(value) for name, value in dataclasses.asdict(info()).items()}
        return {"rtt": float(seen["srtt"]), "retransmitted": seen["retrans_segs"], "kcp": seen}
    raw = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    (rtt,) = struct.unpack_from("=I", raw, _TCP_INFO_RTT)
    (retransmitted,) = struct.unpack_from("=I", raw, _TCP_INFO_RETRANS)
    return {"rtt": rtt / 1000, "retransmitted": retransmitted}


class _Ticker:
    """Calls `progress` once a second, between moves of bytes."""

    def __init__(self, stream: socket.socket, progress: Progress | None) -> None:
        self._stream = stream
        self._progress = progress
        self.begin = self._last = time.monotonic()
        self._bytes = 0
        self._moved = self.begin

    def wait(self, limit: float) -> None:
        """Lets the next call on the stream block until the next tick or `limit` (monotonic) at most."""
        self._stream.settimeout(max(min(limit, self._last + 1.0) - time.monotonic(), 0.001))

    def count(self, got: int) -> None:
        """So many bytes have moved; 0 when a call's time was over. TimeoutError when nothing moves any more."""
        now = time.monotonic()
        self._bytes += got
        if got:
            self._moved = now
        elif now - self._moved > _STALL:
            raise TimeoutError(f"nothing has moved for {_STALL:g} s")
        if now - self._last >= 1.0:
            if self._progress is not None:
                self._progress(now - self._last, self._bytes, look(self._stream))
            self._last, self._bytes = now, 0


def send_for(stream: socket.socket, seconds: float, size: int, progress: Progress | None) -> dict[str, Any]:
    """Sends for so long in writes of `size` bytes, then closes this half of the stream."""
    chunk = memoryview(bytes(size))
    ticker, cpu, total = _Ticker(stream, progress), stats.cpu_seconds(), 0
    end = ticker.begin + seconds
    while time.monotonic() < end:
        ticker.wait(end)
        try:
            sent = stream.send(chunk)
        except TimeoutError:
            sent = 0
        total += sent
        ticker.count(sent)
    taken = time.monotonic() - ticker.begin
    result = {"bytes": total, "seconds": taken, "cpu": (stats.cpu_seconds() - cpu) / taken, **look(stream)}
    stream.settimeout(_STALL)
    stream.shutdown(socket.SHUT_WR)
    return result


def receive_all(stream: socket.socket, progress: Progress | None) -> dict[str, Any]:
    """Reads until the peer has closed its half."""
    buffer = bytearray(_BUFFER)
    ticker, cpu, total = _Ticker(stream, progress), stats.cpu_seconds(), 0
    while True:
        ticker.wait(float("inf"))
        try:
            got = stream.recv_into(buffer)
        except TimeoutError:
            ticker.count(0)
            continue
        if not got:
            break
        total += got
        ticker.count(got)
    taken = max(time.monotonic() - ticker.begin, 1e-6)
    return {"bytes": total, "seconds": taken, "cpu": (stats.cpu_seconds() - cpu) / taken, **look(stream)}


def _request(value: dict[str, Any]) -> tuple[bytes, float, int, bool]:
    """Cookie, seconds, bytes of a write and direction of a request. ValueError when it makes no sense."""
    try:
        cookie, seconds, size, reverse = (value[name] for name in ("cookie", "seconds", "size", "reverse"))
        if 0 < seconds <= _LONGEST and 0 < size <= _BUFFER and len(cookie) == 2 * _COOKIE:
            return bytes.fromhex(cookie), float(seconds), int(size), bool(reverse)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a request: {error}") from None
    raise ValueError("a request out of range")


def serve_test(listener: socket.socket, control: socket.socket) -> dict[str, Any]:
    """Serves the test that a client asks for on its first connection; returns what it saw."""
    control.settimeout(_TALK_LIMIT)
    cookie, seconds, size, reverse = _request(hear(control))
    tell(control, {"ready": True})
    listener.settimeout(_TALK_LIMIT)
    try:
        stream, _ = listener.accept()
    finally:
        listener.settimeout(None)
    with stream:
        stream.settimeout(_TALK_LIMIT)
        if not secrets.compare_digest(read_exactly(stream, _COOKIE), cookie):
            raise ConnectionError("another client came in between")
        result = send_for(stream, seconds, size, None) if reverse else receive_all(stream, None)
        tell(control, result)
        # Who has received closes first: then nothing of ours is on the way any more.
        control.settimeout(_STALL)
        control.recv(1)
    return {**result, "reverse": reverse}


def run_test(
    transport: Transport, address: tuple[str, int], seconds: float, size: int, reverse: bool, progress: Progress | None
) -> dict[str, Any]:
    """Runs a test against a server: {"sender": ..., "receiver": ...}, each with bytes, seconds, cpu (of a core), rtt
    (ms) and retransmitted (packets)."""
    cookie = secrets.token_bytes(_COOKIE)
    with transport.connect(address, _TALK_LIMIT) as control:
        control.settimeout(_TALK_LIMIT)
        tell(control, {"cookie": cookie.hex(), "seconds": seconds, "size": size, "reverse": reverse})
        if "ready" not in hear(control):
            raise ConnectionError("the server is not ready")
        with transport.connect(address, _TALK_LIMIT) as stream:
            stream.sendall(cookie)
            own = receive_all(stream, progress) if reverse else send_for(stream, seconds, size, progress)
            control.settimeout(_STALL)  # the rest of what was sent is still under way
            other = hear(control)
    return {"sender": other, "receiver": own} if reverse else {"sender": own, "receiver": other}


def _rate(count: float, seconds: float) -> str:
    return f"{count * 8 / 1e6 / seconds:10,.1f} Mbit/s"


def _transport(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Transport:
    if options.tcp:
        return Transport("tcp", {"congestion": options.congestion} if options.congestion else {})
    try:
        return Transport("kcp", settings_from(options))
    except (ValueError, OSError) as error:
        parser.error(str(error))


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=f"default: {PORT}")
    parser.add_argument("--tcp", action="store_true", help="TCP instead of KCP, for comparison")
    parser.add_argument("--congestion", metavar="NAME", help="TCP's congestion control")
    add_settings(parser)


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `bench server` on `parser`."""
    parser.description = "Waits for `bench client`, and serves one test after another."
    parser.add_argument("--host", default="0.0.0.0", metavar="ADDRESS", help="IPv4 address to listen on; default: all")
    parser.add_argument("--once", action="store_true", help="leave after one test")
    parser.add_argument("--json", action="store_true", help="print results as JSON, one a line")
    _add_common(parser)


def server_main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Runs `bench server`; returns the exit code."""
    transport = _transport(parser, options)
    try:
        with transport.listen((options.host, options.port)) as listener:
            host, port = listener.getsockname()[:2]
            print(f"listening on {host} port {port} ({transport.kind})", file=sys.stderr, flush=True)
            while True:
                control, peer = listener.accept()
                with control:
                    failed = False
                    try:
                        result = serve_test(listener, control)
                    except (OSError, ValueError) as error:
                        failed = True
                        print(f"{peer[0]} port {peer[1]}: {error}", file=sys.stderr, flush=True)
                    else:
                        if options.json:
                            print(json.dumps({"peer": peer[:2], **result}), flush=True)
                        else:
                            verb = "sent" if result["reverse"] else "received"
                            rate = _rate(result["bytes"], result["seconds"]).strip()
                            print(f"{peer[0]} port {peer[1]}: {verb} {result['bytes']:,} bytes, {rate}", flush=True)
                if options.once:
                    return 1 if failed else 0
    except OSError as error:
        print(f"bench server: {error}", file=sys.stderr)
        return 1


def add_client_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `bench client` on `parser`."""
    parser.description = "Measures the throughput to a `bench server`, which must have the same key, crypt and shards."
    parser.add_argument("host", metavar="HOST", help="where `bench server` runs")
    parser.add_argument("--time", type=float, default=10.0, metavar="S", help="how long to send; default: 10 s")
    parser.add_argument("--size", type=int, default=64 << 10, metavar="BYTES", help="of a write; default: 64 KB")
    parser.add_argument("--reverse", action="store_true", help="the server sends")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    _add_common(parser)


def client_main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Runs `bench client`; returns the exit code."""
    transport = _transport(parser, options)
    if not 0 < options.time <= _LONGEST:
        parser.error(f"--time {options.time:g}: must be more than 0 and at most {_LONGEST:g} s")
    if not 0 < options.size <= _BUFFER:
        parser.error(f"--size {options.size}: must be 1 to {_BUFFER} bytes")
    intervals: list[dict[str, Any]] = []
    begin = time.monotonic()

    def progress(seconds: float, count: int, seen: dict[str, Any]) -> None:
        intervals.append(
            {"seconds": seconds, "bytes": count, "rtt": seen["rtt"], "retransmitted": seen["retransmitted"]}
        )
        if not options.json:
            print(
                f"{time.monotonic() - begin:7.1f} s {_rate(count, seconds)}   rtt {seen['rtt']:7.2f} ms   "
                f"retransmitted {seen['retransmitted']:,}",
                flush=True,
            )

    try:
        result = run_test(
            transport, (options.host, options.port), options.time, options.size, options.reverse, progress
        )
    except (OSError, ValueError) as error:
        print(f"bench client: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({**result, "reverse": options.reverse, "intervals": intervals, "machine": stats.machine()}))
        return 0
    for name in ("sender", "receiver"):
        end = result[name]
        print(
            f"{name:<9} {_rate(end['bytes'], end['seconds'])}   {end['bytes']:,} bytes in {end['seconds']:.2f} s   "
            f"CPU {end['cpu']:.0%} of a core   rtt {end['rtt']:.2f} ms   retransmitted {end['retransmitted']:,}"
        )
    return 0
