"""Bare descriptors: borrowing one, telling it from others, putting another under its number, waiting for it."""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import select
import struct
import tempfile
import time
from collections.abc import Iterator
from typing import Final

_Base = _socket.socket
_SO_COOKIE: Final = 57  # asm-generic/socket.h; the socket module does not name it


def cookie_of(sock: _Base) -> bytes:
    """The kernel's name for the socket behind `sock`."""
    return _Base.getsockopt(sock, _socket.SOL_SOCKET, _SO_COOKIE, 8)


@contextlib.contextmanager
def borrowed(descriptor: int) -> Iterator[_Base]:
    """A socket object over `descriptor` that does not close it (nor changes its blocking mode)."""
    blocking = os.get_blocking(descriptor)
    probe = _Base(fileno=descriptor)
    try:
        if probe.gettimeout() is not None:
            os.set_blocking(descriptor, blocking)
        yield probe
    finally:
        probe.detach()


def put_under(fresh: _Base, descriptor: int) -> None:
    """Makes the number `descriptor` stand for `fresh`; inheritable and blocking or not, as it was."""
    inheritable, blocking = os.get_inheritable(descriptor), os.get_blocking(descriptor)
    os.dup2(fresh.fileno(), descriptor, inheritable)
    os.set_blocking(descriptor, blocking)


def wait_writable(sock: _Base, timeout: float | None) -> bool:
    """Blocks until a connect is over, at most `timeout` s; signal handlers run meanwhile (PEP 475)."""
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLOUT)
    if timeout is None:
        return bool(poller.poll())
    return bool(poller.poll(max(0.0, timeout) * 1000))


def wait_readable(sock: _Base, deadline: float | None) -> None:
    """Blocks until there is something to accept. TimeoutError at `deadline` (time.monotonic())."""
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN)
    left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
    if not poller.poll(left):
        raise TimeoutError("timed out")


#: What a directory that can't be used for a moment says.
DIRECTORY_ERRORS: Final = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG}
)


def directories() -> Iterator[bytes]:
    """Where a private directory may be made for a moment, best first."""
    with contextlib.suppress(FileNotFoundError):
        yield os.fsencode(tempfile.gettempdir())
    for directory in ("/dev/shm", os.environ.get("XDG_RUNTIME_DIR"), "/var/tmp"):
        if directory:
            yield os.fsencode(directory)


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def pack_int(value: int) -> bytes:
    """An int option as setsockopt has it in memory."""
    return struct.pack("i", value)
