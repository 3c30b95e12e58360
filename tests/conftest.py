"""Fixtures for sockets end to end on loopback. Every wait is bounded by PATIENCE."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator

import certificates as certificate_maker
import pytest
from certificates import Certificates
from loopback import PATIENCE, Pair

from kcpsocket import Config, KCPSocket


@pytest.fixture(autouse=True)
def _standard_socket_module() -> Iterator[None]:
    """Fails a test that leaves the socket module patched."""
    before = socket.socket
    yield
    after, socket.socket = socket.socket, before  # type: ignore[misc]
    assert after is before


@pytest.fixture
def sockets() -> Iterator[Callable[..., KCPSocket]]:
    """Makes KCPSockets with a bounded patience, which are closed after the test."""
    made: list[KCPSocket] = []

    def make(family: int = socket.AF_INET, config: Config | None = None) -> KCPSocket:
        cls = KCPSocket if config is None else type("Configured", (KCPSocket,), {"config": config})
        made.append(cls(family, socket.SOCK_STREAM))
        made[-1].settimeout(PATIENCE)
        return made[-1]

    yield make
    for sock in made:
        sock.close()


@pytest.fixture
def listener(sockets: Callable[..., KCPSocket]) -> KCPSocket:
    """A listening socket on a free port of 127.0.0.1."""
    sock = sockets()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


@pytest.fixture
def connect(sockets: Callable[..., KCPSocket]) -> Iterator[Callable[..., Pair]]:
    """Connects a new client to a listener: (client, what the listener accepted)."""
    accepted: list[KCPSocket] = []

    def make(listener: KCPSocket, config: Config | None = None) -> Pair:
        client = sockets(listener.family, config)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        assert isinstance(server, KCPSocket)
        server.settimeout(PATIENCE)
        accepted.append(server)
        return client, server

    yield make
    for sock in accepted:
        sock.close()


@pytest.fixture
def pair(listener: KCPSocket, connect: Callable[..., Pair]) -> Pair:
    """(client, server), connected."""
    return connect(listener)


@pytest.fixture
def free_port() -> int:
    """A UDP port of 127.0.0.1 that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """The address of a UDP socket that answers nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        yield mute.getsockname()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority and what it has signed."""
    return certificate_maker.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls(certificates: Certificates) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(a server's context, a client's that trusts it)."""
    return certificates.contexts()
