"""Thousands of connections in one process: an echoing event loop, and the load that is put on it."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import time
from typing import Any, Final

from . import orders, stats
from .transport import Transport

_CHUNK: Final = 64 << 10  # bytes read at a time
_AT_ONCE: Final = 256  # connections that are being made at the same time
_LIMIT: Final = 60.0  # s in which all connections must stand
_GRACE: Final = 5.0  # s for the last answers


class EchoServer:
    """Accepts connections and sends back what each sends behind its order (see orders.py), in one thread."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(listener.fileno(), select.EPOLLIN)
        self._streams: dict[int, socket.socket] = {}
        self._ordering: dict[int, int] = {}  # bytes of the order still to come
        self._unsent: dict[int, bytes] = {}

    def run(self) -> None:
        """Serves for ever."""
        listening = self._listener.fileno()
        while True:
            for fd, events in self._epoll.poll():
                if fd == listening:
                    self._accept()
                elif events & select.EPOLLOUT:
                    self._send(fd, b"")
                else:
                    self._read(fd)

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except BlockingIOError:
                return
            stream.setblocking(False)
            fd = stream.fileno()
            self._streams[fd] = stream
            self._ordering[fd] = orders.LENGTH
            self._epoll.register(fd, select.EPOLLIN)

    def _read(self, fd: int) -> None:
        try:
            data = self._streams[fd].recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(fd)
            return
        if fd in self._ordering:
            data = self._skip_order(fd, data)
        if data:
            self._send(fd, data)

    def _skip_order(self, fd: int, data: bytes) -> bytes:
        left = self._ordering[fd] - len(data)
        if left >= 0:
            self._ordering[fd] = left
            return b""
        del self._ordering[fd]
        return data[left:]

    def _send(self, fd: int, data: bytes) -> None:
        held = self._unsent.pop(fd, b"") if self._unsent else b""
        if held:
            data = held + data
        try:
            sent = self._streams[fd].send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(fd)
            return
        if sent < len(data):
            # No more is read until this is gone: the peer must not be able to fill our memory.
            self._unsent[fd] = data[sent:]
            self._epoll.modify(fd, select.EPOLLOUT)
        elif held:
            self._epoll.modify(fd, select.EPOLLIN)

    def _close(self, fd: int) -> None:
        self._epoll.unregister(fd)
        self._unsent.pop(fd, None)
        self._ordering.pop(fd, None)
        self._streams.pop(fd).close()


def connect_many(transport: Transport, address: tuple[str, int], count: int) -> list[socket.socket]:
    """`count` connections to `address`, non-blocking, each proved by an echo of one byte. OSError when one fails."""
    done: list[socket.socket] = []
    pending: dict[int, tuple[socket.socket, bool]] = {}  # fd: stream, whether the byte is under way
    deadline = time.monotonic() + _LIMIT
    greeting = orders.order("echo") + b"?"
    poller = select.epoll()
    started = 0
    try:
        while len(done) < count:
            while started < count and len(pending) < _AT_ONCE:
                stream = transport.stream()
                stream.setblocking(False)
                error = stream.connect_ex(address)
                if error not in (0, errno.EINPROGRESS):
                    stream.close()
                    raise OSError(error, os.strerror(error))
                pending[stream.fileno()] = stream, False
                poller.register(stream.fileno(), select.EPOLLOUT)
                started += 1
            ready = poller.poll(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"{len(done)} of {count} connections stood after {_LIMIT:g} s")
            for fd, _ in ready:
                stream, greeted = pending[fd]
                if not greeted:
                    error = stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if error:
                        raise OSError(error, os.strerror(error))
                    stream.sendall(greeting)
                    pending[fd] = stream, True
                    poller.modify(fd, select.EPOLLIN)
                else:
                    orders.read_exactly(stream, 1)
                    poller.unregister(fd)
                    del pending[fd]
                    done.append(stream)
    except BaseException:
        for stream in (*done, *(stream for stream, _ in pending.values())):
            stream.close()
        raise
    finally:
        poller.close()
    return done


def load(streams: list[socket.socket], size: int, rate: float, seconds: float) -> dict[str, Any]:
    """Every stream sends a message of `size` bytes `rate` times a second, spread evenly, and reads its echo.

    Returns the latencies' p50, p99 and worst in ms, from the time at which a message was due; the numbers of messages,
    errors and messages that the streams had no room for or that got no answer; CPU seconds.
    """
    message = os.urandom(size)
    poller = select.epoll()
    by_fd = {stream.fileno(): index for index, stream in enumerate(streams)}
    for stream in streams:
        poller.register(stream.fileno(), select.EPOLLIN)
    waiting: list[list[float]] = [[] for _ in streams]  # due times of the messages whose echo has not begun
    partial = [0] * len(streams)
    latencies: list[float] = []
    errors = refused = 0
    total = round(len(streams) * rate * seconds)
    gap = 1 / (len(streams) * rate)
    cpu, begin = stats.cpu_seconds(), time.monotonic()
    sent = 0
    clock = time.monotonic
    gc.freeze()  # a collection that looks at thousands of sockets takes as long as many messages
    while True:
        now = clock()
        while sent < total and begin + sent * gap <= now:
            index = sent % len(streams)
            try:
                # A message is far smaller than a stream's buffer: all of it or nothing goes in.
                if streams[index].send(message) == size:
                    waiting[index].append(begin + sent * gap)
                else:
                    errors += 1
            except BlockingIOError:
                refused += 1
            except OSError:
                errors += 1
            sent += 1
        end = begin + sent * gap if sent < total else begin + seconds + _GRACE
        if sent == total and (now >= end or len(latencies) + refused + errors >= total):
            break
        for fd, _ in poller.poll(max(0.0, end - now)):
            index = by_fd[fd]
            try:
                data = streams[index].recv(_CHUNK)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                errors += 1
                poller.unregister(fd)
                continue
            partial[index] += len(data)
            now = clock()
            while partial[index] >= size:
                partial[index] -= size
                latencies.append((now - waiting[index].pop(0)) * 1000)
    poller.close()
    return {
        "messages": total,
        "errors": errors,
        "refused": refused,
        "missing": total - errors - refused - len(latencies),
        "p50": stats.percentile(latencies, 50) if latencies else None,
        "p99": stats.percentile(latencies, 99) if latencies else None,
        "max": max(latencies, default=None),
        "seconds": clock() - begin,
        "cpu": stats.cpu_seconds() - cpu,
    }
