"""A process of the benchmark: ``python -m kcpsocket.bench.worker SPECIFICATION``, a JSON object.

It prints a JSON object a line, as the Go program in compat_tests/benchpeer does: {"listening": PORT} first for a
server, then results. On a line "usage" on standard input it answers with its CPU time; it leaves when standard input
ends.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from . import many, orders, stats
from .transport import Transport

_BUFFER: Final = 1 << 20  # bytes read at a time
_CONNECT_LIMIT: Final = 30.0  # s
_say_lock = threading.Lock()


def say(value: dict[str, Any]) -> None:
    """Prints a result."""
    with _say_lock:
        print(json.dumps(value), flush=True)


# --- the server ---


def _sink(stream: socket.socket, count: int) -> None:
    buffer = memoryview(bytearray(_BUFFER))
    while count:
        got = stream.recv_into(buffer[: min(count, _BUFFER)])
        if not got:
            return
        count -= got
    stream.sendall(b".")
    stream.recv(1)  # the client closes first


def _source(stream: socket.socket, count: int) -> None:
    chunk = memoryview(os.urandom(64 << 10))
    while count:
        part = chunk[: min(count, len(chunk))]
        stream.sendall(part)
        count -= len(part)
    stream.recv(1)


def _echo(stream: socket.socket) -> None:
    buffer = memoryview(bytearray(_BUFFER))
    while got := stream.recv_into(buffer):
        stream.sendall(buffer[:got])


def _drain(stream: socket.socket, milliseconds: int, count: int) -> None:
    """Reads for a time, or `count` bytes (0: no matter how many), and says how many came in each tenth of a second."""
    buffer = bytearray(_BUFFER)
    limit = milliseconds / 1000
    tenths = [0] * (milliseconds // 100 + 1)
    error = ""
    total = 0
    begin = time.monotonic()
    while (left := begin + limit - time.monotonic()) > 0:
        stream.settimeout(left)
        try:
            got = stream.recv_into(buffer)
        except TimeoutError:
            break
        except OSError as problem:
            error = str(problem)
            break
        if not got:
            error = "the stream ended"
            break
        total += got
        tenths[min(int((time.monotonic() - begin) * 10), len(tenths) - 1)] += got
        if total == count:
            break
    seconds = time.monotonic() - begin
    say({"drained": total, "seconds": seconds, "tenths": tenths, **({"error": error} if error else {})})


def _stamps(stream: socket.socket, count: int, size: int, grace: float = 10.0) -> None:
    """Reads stamped messages; reports their latencies in ms. Gives up when nothing came for `grace` seconds."""
    latencies: list[float] = []
    stream.settimeout(grace)
    buffer = b""
    error = ""
    while len(latencies) < count:
        try:
            data = stream.recv(64 << 10)
        except OSError as problem:
            error = str(problem)
            break
        if not data:
            error = "the stream ended"
            break
        now = time.monotonic_ns()
        buffer += data
        while len(buffer) >= size:
            latencies.append((now - orders.STAMP.unpack_from(buffer)[0]) / 1e6)
            buffer = buffer[size:]
    say({"latencies": latencies, **({"error": error} if error else {})})


_SERVED: Final[dict[str, Callable[..., None]]] = {
    "sink": _sink,
    "source": _source,
    "echo": _echo,
    "drain": _drain,
    "stamps": _stamps,
}


def _serve_one(stream: socket.socket) -> None:
    with stream:
        try:
            verb, numbers = orders.parse(orders.read_exactly(stream, orders.LENGTH))
            _SERVED[verb](stream, *numbers)
        except OSError:
            return  # the client's report tells of it


def _accept(listener: socket.socket) -> None:
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=_serve_one, args=(stream,), daemon=True).start()


def _accept_serially(listener: socket.socket, size: int) -> None:
    """One connection after another: a request of `size` bytes is sent back, the client closes."""
    while True:
        stream, _ = listener.accept()
        with stream:
            try:
                stream.sendall(orders.read_exactly(stream, size))
                stream.recv(1)
            except OSError:
                continue  # the client has counted it as an error


def serve(specification: dict[str, Any]) -> None:
    """The server: `style` is "threads", "serial" or "many" (an event loop that echoes)."""
    transport = Transport.from_json(specification["transport"])
    listener = transport.listen((specification["host"], specification.get("port", 0)))
    style = specification.get("style", "threads")
    target: Callable[[], None]
    if style == "many":
        target = many.EchoServer(listener).run
    elif style == "serial":
        target = lambda: _accept_serially(listener, specification["size"])  # noqa: E731
    else:
        target = lambda: _accept(listener)  # noqa: E731
    threading.Thread(target=target, daemon=True).start()
    say({"listening": listener.getsockname()[1]})


# --- clients ---


def _details(stream: socket.socket) -> dict[str, Any]:
    info = getattr(stream, "kcp_info", None)
    if info is None:
        return {}
    return {name: value for name, value in dataclasses.asdict(info()).items() if name != "phase"}


def bulk(specification: dict[str, Any], stream: socket.socket) -> dict[str, Any]:
    """Moves `bytes` bytes in writes of `size`; with `reverse` the server sends."""
    total, reverse = specification["bytes"], specification.get("reverse", False)
    stream.sendall(orders.order("source" if reverse else "sink", total))
    begin, cpu = time.monotonic(), stats.cpu_seconds()
    if reverse:
        buffer, left = memoryview(bytearray(_BUFFER)), total
        while left:
            got = stream.recv_into(buffer)
            if not got:
                raise ConnectionError(f"the stream ended {left} bytes early")
            left -= got
    else:
        chunk = memoryview(os.urandom(specification.get("size", 64 << 10)))
        left = total
        while left:
            part = chunk[: min(left, len(chunk))]
            stream.sendall(part)
            left -= len(part)
        orders.read_exactly(stream, 1)
    return {"seconds": time.monotonic() - begin, "cpu": stats.cpu_seconds() - cpu, "info": _details(stream)}


def echo(specification: dict[str, Any], stream: socket.socket) -> dict[str, Any]:
    """`count` times `size` bytes there and back, one at a time; times in microseconds."""
    stream.sendall(orders.order("echo"))
    message = os.urandom(specification["size"])
    size = len(message)
    buffer = memoryview(bytearray(size))
    times = []
    cpu = stats.cpu_seconds()
    for _ in range(specification["count"]):
        begin = time.perf_counter_ns()
        stream.sendall(message)
        got = 0
        while got < size:
            part = stream.recv_into(buffer[got:])
            if not part:
                raise ConnectionError("the echo ended")
            got += part
        times.append((time.perf_counter_ns() - begin) / 1000)
    if bytes(buffer) != message:
        raise ValueError("the echo is not what was sent")
    return {
        "median": stats.median(times),
        "p99": stats.percentile(times, 99),
        "cpu": stats.cpu_seconds() - cpu,
        "info": _details(stream),
    }


def pour(specification: dict[str, Any], stream: socket.socket) -> dict[str, Any]:
    """Sends `bytes` bytes (0: no end), but only as much as goes in `seconds`; the server reports what came."""
    seconds, left = specification["seconds"], specification["bytes"] or 1 << 62
    stream.sendall(orders.order("drain", round(seconds * 1000), specification["bytes"]))
    chunk = memoryview(os.urandom(specification.get("size", 64 << 10)))
    end = time.monotonic() + seconds
    error = ""
    while left and (time_left := end - time.monotonic()) > 0:
        stream.settimeout(time_left)
        part = chunk[: min(left, len(chunk))]
        try:
            stream.sendall(part)
        except TimeoutError:
            break
        except OSError as problem:  # the server stops reading at about the same time, and closes
            error = str(problem)
            break
        left -= len(part)
    return {"poured": True, "info": _details(stream), **({"error": error} if error else {})}


def stamps(specification: dict[str, Any], stream: socket.socket) -> dict[str, Any]:
    """Sends `count` messages of `size` bytes, one every `every` seconds.

    A message bears the time at which it was due, so that a sender held up by a full stream does not hide that.
    """
    count, size, every = specification["count"], specification["size"], specification["every"]
    stream.sendall(orders.order("stamps", count, size))
    padding = os.urandom(size - orders.STAMP.size)
    begin = time.monotonic_ns()
    error = ""
    stream.settimeout(60)
    for index in range(count):
        due = begin + round(index * every * 1e9)
        ahead = due - time.monotonic_ns()
        if ahead > 0:
            time.sleep(ahead / 1e9)
        try:
            stream.sendall(orders.STAMP.pack(due) + padding)
        except OSError as problem:
            error = str(problem)
            break
    return {"stamped": True, "info": _details(stream), **({"error": error} if error else {})}


def _connects(specification: dict[str, Any], transport: Transport, address: tuple[str, int]) -> dict[str, Any]:
    """`count` times: connect, one request of `size` bytes and its answer, close."""
    message = os.urandom(specification["size"])
    cpu, errors = stats.cpu_seconds(), 0
    begin = time.monotonic()
    for _ in range(specification["count"]):
        try:
            with transport.connect(address, _CONNECT_LIMIT) as stream:
                stream.sendall(message)
                orders.read_exactly(stream, len(message))
        except OSError:
            errors += 1
    return {"seconds": time.monotonic() - begin, "cpu": stats.cpu_seconds() - cpu, "errors": errors}


_SINGLE: Final[dict[str, Callable[[dict[str, Any], socket.socket], dict[str, Any]]]] = {
    "bulk": bulk,
    "echo": echo,
    "pour": pour,
    "stamps": stamps,
}


def _call(specification: dict[str, Any], wait_for: Callable[[str], None]) -> None:
    transport = Transport.from_json(specification["transport"])
    address = (specification["host"], specification["port"])
    role = specification["role"]
    if role == "connects":
        say(_connects(specification, transport, address))
    elif role in ("idle", "load"):
        streams = many.connect_many(transport, address, specification["connections"])
        say({"ready": len(streams)})
        if role == "load":
            wait_for("go")
            say(many.load(streams, specification["size"], specification["rate"], specification["seconds"]))
        else:
            wait_for("stop")
        for stream in streams:
            stream.close()
    else:
        with transport.connect(address, _CONNECT_LIMIT) as stream:
            say(_SINGLE[role](specification, stream))
            wait_for("stop")


def main(arguments: list[str]) -> int:
    """Runs the process."""
    specification = json.loads(arguments[0])
    stats.raise_descriptor_limit()

    words: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            if line.strip() == "usage":
                say({"cpu": stats.cpu_seconds()})
            else:
                words.put(line.strip())
        os._exit(0)  # what is still under way is of no interest to anyone any more

    def wait_for(word: str) -> None:
        while words.get() != word:
            pass

    threading.Thread(target=listen, daemon=True).start()
    try:
        if specification["role"] == "serve":
            serve(specification)
        else:
            _call(specification, wait_for)
    except (OSError, ValueError) as error:  # ValueError: a setting that this version does not have
        say({"failed": str(error)})
    threading.Event().wait()  # until standard input ends
    return 0


if __name__ == "__main__":
    main(sys.argv[1:])
