"""Keeps a process's sockets on this machine: whatever would go beyond it fails as on a machine without a network."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from functools import lru_cache
from typing import Any

_LOCAL_NAMES = frozenset({"", "localhost", "localhost.localdomain", "ip6-localhost", socket.gethostname()})


def confine() -> None:
    """From now on this process and what it forks reach nobody but this machine: OSError (ENETUNREACH) for addresses,
    socket.gaierror for names. Works on whatever calls into the socket module, patched or not; programs that the process
    starts are not held."""
    sys.addaudithook(_hook)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not event.startswith("socket."):
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        if isinstance(address, tuple) and address and not _local(address[0]):
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        if not _resolvable(args[0], reverse=event == "socket.gethostbyaddr"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    elif event == "socket.getnameinfo":
        address = args[0]
        if isinstance(address, tuple) and address and not _local(address[0]):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def _text(host: Any) -> str | None:
    if isinstance(host, (bytes, bytearray)):
        return bytes(host).decode("latin-1")
    return host if isinstance(host, str) else None


def _local(host: Any) -> bool:
    """True for an address of this machine, a name that means it, and what is no host at all (the call itself refuses
    that)."""
    text = _text(host)
    if text is None or text.lower() in _LOCAL_NAMES:
        return True
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified or _own(str(address))


def _resolvable(host: Any, reverse: bool) -> bool:
    text = _text(host)
    if text is None or _local(text):
        return True
    if reverse:
        return False
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True  # numbers are read, not asked for


@lru_cache(maxsize=256)
def _own(address: str) -> bool:
    """Whether an interface of this machine has `address`: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
