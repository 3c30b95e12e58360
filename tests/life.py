"""What the tests of a connection's life share: pairs of connected sockets, peers in processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from kcpsocket import Config, KCPSocket
from kcpsocket._native import lib

#: Generous: a test that waits this long (s) hangs.
PATIENCE = 30.0

#: Notices a dead peer within a second.
ALERT = Config(keepidle=0.2, keepintvl=0.1, keepcnt=3)


def configured(config: Config) -> type[KCPSocket]:
    """A class of sockets with this configuration."""
    return type("ConfiguredSocket", (KCPSocket,), {"config": config})


def listen(config: Config | None = None, host: str = "127.0.0.1", backlog: int = 128) -> KCPSocket:
    """A listening socket on a free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = configured(config or Config())(family, socket.SOCK_STREAM)
    listener.settimeout(PATIENCE)
    listener.bind((host, 0))
    listener.listen(backlog)
    return listener


def connect(address: tuple[object, ...], config: Config | None = None) -> KCPSocket:
    """A socket connected to `address`."""
    client = configured(config or Config())(socket.AF_INET6 if len(address) == 4 else socket.AF_INET)
    client.settimeout(PATIENCE)
    try:
        client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


@contextmanager
def pair(client: Config | None = None, server: Config | None = None) -> Iterator[tuple[KCPSocket, KCPSocket]]:
    """A client's socket and its server's."""
    with listen(server or client) as listener, connect(listener.getsockname(), client) as ours:
        theirs, _ = listener.accept()
        assert isinstance(theirs, KCPSocket)
        with theirs:
            theirs.settimeout(PATIENCE)
            yield ours, theirs


def settle() -> None:
    """Waits until no session of this process is left."""
    assert lib.kcps_drain(round(PATIENCE * 1000)) == 0, "sessions are left"


@contextmanager
def program(source: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`source` as a Python process of its own, its standard streams pipes; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)
