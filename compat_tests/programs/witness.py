"""Loaded by the interpreter at start-up in the environment of the compat tests, before the program: notes, for the
test, what the program's sockets were.

At exit, a file in the directory that KCPSOCKET_WITNESS names gets a line of JSON: the process, its KCP counters, and
every address that was bound or connected by a TCP socket, of which there must be none.
"""

from __future__ import annotations

import _socket
import atexit
import json
import os
import sys

_INTERNET = (_socket.AF_INET, _socket.AF_INET6)
_tcp: list[str] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event not in ("socket.bind", "socket.connect"):
        return
    sock, address = arguments
    assert isinstance(sock, _socket.socket)
    # The kernel's word, not the object's: a KCP socket calls itself an AF_INET stream, as it should.
    domain = _socket.socket.getsockopt(sock, _socket.SOL_SOCKET, _socket.SO_DOMAIN)
    kind = _socket.socket.getsockopt(sock, _socket.SOL_SOCKET, _socket.SO_TYPE)
    if domain in _INTERNET and kind == _socket.SOCK_STREAM:
        _tcp.append(f"{event} {address}")


def _report(directory: str) -> None:
    kcpsocket = sys.modules.get("kcpsocket")
    line = {
        "pid": os.getpid(),
        "counters": kcpsocket.snmp() if kcpsocket is not None else {},
        "tcp": _tcp,
    }
    with open(os.path.join(directory, f"{os.getpid()}.json"), "w") as file:
        json.dump(line, file)


if "KCPSOCKET_WITNESS" in os.environ:
    sys.addaudithook(_watch)
    atexit.register(_report, os.environ["KCPSOCKET_WITNESS"])
