"""Wildcards, both families, and which address a reply comes from."""

from __future__ import annotations

import socket

import pytest
from life import PATIENCE, settle

from kcpsocket import KCPSocket

needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 on this machine")


def exchange(listener: KCPSocket, family: socket.AddressFamily, host: str) -> tuple[str, str]:
    """Connects to the listener by `host`, moves bytes both ways; (client's, server's) host as the server sees them."""
    with KCPSocket(family) as client:
        client.settimeout(PATIENCE)
        client.connect((host, listener.getsockname()[1]))
        server, address = listener.accept()
        with server:
            client.sendall(b"there")
            assert server.recv(10) == b"there"
            server.sendall(b"and back")
            assert client.recv(10) == b"and back"
            assert server.getpeername() == address
            assert address[1] == client.getsockname()[1]
            assert client.getpeername()[0] == host
            return address[0], server.getsockname()[0]


@needs_ipv6
@pytest.mark.parametrize(
    ("family", "host", "seen"),
    [
        (socket.AF_INET, "127.0.0.1", "::ffff:127.0.0.1"),
        (socket.AF_INET, "127.0.0.2", "::ffff:127.0.0.2"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::ffff:127.0.0.3", "::ffff:127.0.0.3"),
    ],
)
def test_a_dual_stack_listener_answers_from_the_address_it_was_asked_at(
    family: socket.AddressFamily, host: str, seen: str
) -> None:
    with KCPSocket(socket.AF_INET6) as listener:
        listener.settimeout(PATIENCE)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", 0))
        listener.listen()
        assert exchange(listener, family, host)[1] == seen
    settle()


def test_a_wildcard_listener_answers_from_the_address_it_was_asked_at() -> None:
    with KCPSocket() as listener:
        listener.settimeout(PATIENCE)
        listener.bind(("", 0))
        listener.listen()
        assert listener.getsockname()[0] == "0.0.0.0"
        for host in ("127.0.0.1", "127.0.0.9", "127.1.2.3"):
            assert exchange(listener, socket.AF_INET, host)[1] == host
    settle()
