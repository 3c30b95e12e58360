"""Two network namespaces joined by TUN devices. Root only.

Nothing here outlives the process: a namespace without a name lives as long as a descriptor of it or a process in it,
and a TUN device as long as its descriptor. So an interruption leaves nothing behind, and no other program is needed.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x0001 | 0x1000
_SIOCSIFFLAGS: Final = 0x8914
_SIOCSIFADDR: Final = 0x8916
_SIOCSIFDSTADDR: Final = 0x8918
_SIOCSIFMTU: Final = 0x8922
_SIOCSIFTXQLEN: Final = 0x8943
_IFF_UP: Final = 1
_DEVICE: Final = "wan0"
_MTU: Final = 1500  # bytes
_QUEUE: Final = 20000  # packets that wait for the forwarder to read them: it is the one to drop, not the device


def missing() -> str | None:
    """Why there can be no such network here; None when there can."""
    if os.geteuid() != 0:
        return "needs root: it makes network namespaces and TUN devices"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun, which this kernel does not have (CONFIG_TUN, or `modprobe tun`)"
    try:
        with Namespace("10.0.0.1", "10.0.0.2"):
            return None
    except OSError as error:
        return f"can't make a network namespace with a TUN device: {error}"


def _call(function: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{function}: {os.strerror(code)}")


def _in_thread(work: Callable[[], T]) -> T:
    """Runs `work` in a thread of its own, which may change its namespace: each thread has its own."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _request(control: socket.socket, code: int, device: str, value: bytes) -> None:
    fcntl.ioctl(control, code, struct.pack("16s24s", device.encode(), value))


def _address(text: str) -> bytes:
    return struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(text))


def _make(local: str, peer: str) -> tuple[int, int]:
    """In a new namespace: a TUN device with the address `local`, and `peer` behind it. (namespace, device)."""
    _call("unshare", _CLONE_NEWNET)
    namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN_NO_PI))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                _request(control, _SIOCSIFMTU, _DEVICE, struct.pack("=i", _MTU))
                _request(control, _SIOCSIFTXQLEN, _DEVICE, struct.pack("=i", _QUEUE))
                _request(control, _SIOCSIFADDR, _DEVICE, _address(local))
                _request(control, _SIOCSIFDSTADDR, _DEVICE, _address(peer))
                for name in ("lo", _DEVICE):
                    _request(control, _SIOCSIFFLAGS, name, struct.pack("=H", _IFF_UP))
            # A connection must not begin with what TCP has learnt from the one before.
            Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")
        except BaseException:
            os.close(device)
            raise
    except BaseException:
        os.close(namespace)
        raise
    return namespace, device


class Namespace:
    """A network namespace with one TUN device: `local` is its address, `peer` the one behind it. A context manager."""

    def __init__(self, local: str, peer: str) -> None:
        self.address = local
        self._namespace, self.device = _in_thread(lambda: _make(local, peer))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in the namespace while the block runs, and so are the processes it starts there."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", self._namespace, _CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", before, _CLONE_NEWNET)
        finally:
            os.close(before)

    def close(self) -> None:
        """Takes the device away, and the namespace with the last process in it."""
        os.close(self.device)
        os.close(self._namespace)

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
