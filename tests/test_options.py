"""getsockopt and setsockopt mean what they mean on TCP, and SOL_KCP what it says."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from loopback import PATIENCE, Pair

import kcpsocket
from kcpsocket import SOL_KCP, Config, KCPSocket

SOL, TCP, IP, IPV6 = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6


@pytest.fixture
def sock() -> Iterator[KCPSocket]:
    with KCPSocket() as made:
        yield made


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


def outcome(sock: socket.socket, name: str, *arguments: object) -> object:
    """What a call gives: its value, or its error as type and text."""
    try:
        return getattr(sock, name)(*arguments)
    except (OSError, TypeError, ValueError, OverflowError) as error:
        return type(error), str(error)


CALLS = [
    *(("setsockopt", TCP, option, value) for option in (1, 2, 3, 4, 5, 6, 18) for value in (-1, 0, 1, 1 << 30)),
    *(("setsockopt", TCP, option, 40000) for option in (4, 5, 6)),
    ("setsockopt", TCP, socket.TCP_NODELAY),
    ("setsockopt", TCP, socket.TCP_NODELAY, 1, 4),
    ("setsockopt", TCP, socket.TCP_NODELAY, None),
    ("setsockopt", TCP, socket.TCP_NODELAY, None, 4),
    ("setsockopt", TCP, socket.TCP_NODELAY, b"\1"),
    ("setsockopt", TCP, socket.TCP_NODELAY, b"\1\0\0\0"),
    ("setsockopt", TCP, socket.TCP_NODELAY, "1"),
    ("setsockopt", TCP, socket.TCP_NODELAY, 1.0),
    ("setsockopt", TCP, socket.TCP_NODELAY, 1 << 40),
    ("setsockopt", TCP, 200, 1),
    ("setsockopt", TCP, socket.TCP_CONGESTION, b"no such thing"),
    ("setsockopt", SOL, socket.SO_ERROR, 1),
    ("setsockopt", SOL, socket.SO_TYPE, 1),
    ("setsockopt", SOL, socket.SO_DOMAIN, 1),
    ("setsockopt", SOL, socket.SO_PROTOCOL, 1),
    ("setsockopt", SOL, socket.SO_ACCEPTCONN, 1),
    ("setsockopt", SOL, socket.SO_LINGER, 1),
    ("setsockopt", SOL, socket.SO_LINGER, struct.pack("ii", 1, 5)),
    ("setsockopt", SOL, socket.SO_KEEPALIVE, b"\1"),
    ("setsockopt", SOL, socket.SO_REUSEADDR, 1),
    ("setsockopt", SOL, socket.SO_REUSEPORT, 1),
    ("setsockopt", SOL, socket.SO_PASSCRED, 1),
    ("setsockopt", SOL, socket.SO_SNDLOWAT, 1),
    ("setsockopt", SOL, 2000, 1),
    ("setsockopt", IP, 2000, 1),
    ("setsockopt", IP, socket.IP_TTL, 300),
    ("setsockopt", IP, socket.IP_TTL, 30),
    ("setsockopt", 4321, 2, 1),
    ("setsockopt", "6", 1, 1),
    ("setsockopt", TCP, None, 1),
    *(("getsockopt", TCP, socket.TCP_NODELAY, size) for size in (-1, 0, 1, 4, 8, 1025, "4")),
    *(("getsockopt", SOL, socket.SO_ERROR, size) for size in (-1, 0, 1, 4, 8, 1025)),
    ("getsockopt", TCP),
    ("getsockopt", TCP, 1, 4, 4),
    ("getsockopt", TCP, 200),
    ("getsockopt", SOL, socket.SO_TYPE),
    ("getsockopt", SOL, socket.SO_DOMAIN),
    ("getsockopt", SOL, socket.SO_PROTOCOL),
    ("getsockopt", SOL, socket.SO_ACCEPTCONN),
    ("getsockopt", SOL, socket.SO_LINGER),
    ("getsockopt", SOL, socket.SO_LINGER, 8),
    ("getsockopt", SOL, socket.SO_REUSEADDR),
    ("getsockopt", SOL, socket.SO_REUSEPORT),
    ("getsockopt", SOL, socket.SO_PASSCRED),
    ("getsockopt", SOL, socket.SO_PEERCRED, 12),
    ("getsockopt", SOL, 2000),
    ("getsockopt", IP, socket.IP_TOS),
    ("getsockopt", IP, socket.IP_TTL),
    ("getsockopt", TCP, socket.TCP_CORK),
    ("getsockopt", TCP, socket.TCP_DEFER_ACCEPT),
    ("getsockopt", TCP, socket.TCP_LINGER2),
    ("getsockopt", TCP, socket.TCP_CONGESTION, 16),
    ("getsockopt", 4321, 2),
]


@pytest.mark.parametrize("call", CALLS, ids=repr)
def test_answers_are_tcps(sock: KCPSocket, tcp: socket.socket, call: tuple[object, ...]) -> None:
    ours, theirs = (outcome(one, *map(str, call[:1]), *call[1:]) for one in (sock, tcp))
    assert ours == theirs
    if call[0] == "setsockopt" and ours is None and call[2] != socket.TCP_MAXSEG and call[3] != 0:
        # What was set reads back as on TCP, unless it means "the default", which is another.
        ours, theirs = (outcome(one, "getsockopt", *call[1:3]) for one in (sock, tcp))
        assert ours == theirs


def test_keyword_arguments_are_refused(sock: KCPSocket) -> None:
    with pytest.raises(TypeError):
        sock.getsockopt(level=TCP, optname=1)  # type: ignore[call-arg]


def test_defaults_of_the_settings_behind_options(sock: KCPSocket) -> None:
    assert sock.getsockopt(SOL, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(TCP, socket.TCP_KEEPIDLE) == 10
    assert sock.getsockopt(TCP, socket.TCP_KEEPINTVL) == 5
    assert sock.getsockopt(TCP, socket.TCP_KEEPCNT) == 3
    assert sock.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 30_000
    assert sock.getsockopt(TCP, socket.TCP_MAXSEG) == 1400 - 24
    assert sock.getsockopt(SOL, socket.SO_KEEPALIVE, 4) == struct.pack("i", 1)


def test_buffers_are_the_kernels(sock: KCPSocket) -> None:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(SOL, option, 50_000)
        assert sock.getsockopt(SOL, option) == 100_000


def test_zero_means_the_default_again(sock: KCPSocket) -> None:
    sock.setsockopt(TCP, socket.TCP_MAXSEG, 500)
    assert sock.getsockopt(TCP, socket.TCP_MAXSEG) == 500
    sock.setsockopt(TCP, socket.TCP_MAXSEG, 9000)  # no more than the MTU has room for
    assert sock.getsockopt(TCP, socket.TCP_MAXSEG) == 1400 - 24
    sock.setsockopt(TCP, socket.TCP_MAXSEG, 500)
    sock.setsockopt(TCP, socket.TCP_MAXSEG, 0)
    assert sock.getsockopt(TCP, socket.TCP_MAXSEG) == 1400 - 24
    sock.setsockopt(TCP, socket.TCP_USER_TIMEOUT, 5)
    sock.setsockopt(TCP, socket.TCP_USER_TIMEOUT, 0)
    assert sock.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_options_set_before_connect_hold_afterwards(listener: KCPSocket) -> None:
    with KCPSocket() as client:
        client.settimeout(PATIENCE)
        client.setsockopt(SOL_KCP, kcpsocket.KCP_MTU, 700)
        client.setsockopt(SOL_KCP, kcpsocket.KCP_CONV, 4711)
        client.setsockopt(IP, socket.IP_TOS, 0x20)
        client.connect(listener.getsockname())
        info = client.kcp_info()
        assert (info.mtu, info.conv) == (700, 4711)
        assert client.getsockopt(SOL_KCP, kcpsocket.KCP_CONV) == 4711
        assert client.getsockopt(IP, socket.IP_TOS) == 0x20
        assert client.getsockopt(IP, socket.IP_TOS, 4) == struct.pack("i", 0x20)
        with pytest.raises(OSError, match="already connected"):
            client.setsockopt(SOL_KCP, kcpsocket.KCP_CONV, 1)


def test_options_reach_a_live_connection(pair: Pair) -> None:
    client, server = pair
    client.setsockopt(SOL_KCP, kcpsocket.KCP_SNDWND, 77)
    assert client.kcp_info().snd_wnd == 77
    assert client.getsockopt(SOL_KCP, kcpsocket.KCP_SNDWND) == 77
    client.setsockopt(IP, socket.IP_TOS, 0x10)
    assert client.getsockopt(IP, socket.IP_TOS) == 0x10
    client.setsockopt(IP, socket.IP_TTL, 33)
    assert client.getsockopt(IP, socket.IP_TTL) == 33
    with pytest.raises(OSError, match="Invalid argument"):
        client.setsockopt(IP, socket.IP_TTL, 1000)
    client.sendall(b"x")
    assert server.recv(1) == b"x"


def test_options_of_another_object_over_the_same_socket(pair: Pair) -> None:
    client, _ = pair
    with client.dup() as other:
        other.setsockopt(SOL_KCP, kcpsocket.KCP_RCVWND, 99)
        other.setsockopt(TCP, socket.TCP_NODELAY, 1)
    assert client.getsockopt(SOL_KCP, kcpsocket.KCP_RCVWND) == 99
    assert client.getsockopt(TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (kcpsocket.KCP_NODELAY, 0),
        (kcpsocket.KCP_INTERVAL, 33),
        (kcpsocket.KCP_RESEND, 5),
        (kcpsocket.KCP_NC, 0),
        (kcpsocket.KCP_MTU, 1000),
        (kcpsocket.KCP_SNDWND, 10),
        (kcpsocket.KCP_RCVWND, 11),
        (kcpsocket.KCP_ACKNODELAY, 1),
        (kcpsocket.KCP_DEADLINK, 12),
        (kcpsocket.KCP_CONNECT_TIMEOUT, 1234),
        (kcpsocket.KCP_CONV, -2),
    ],
)
def test_options_of_kcp(sock: KCPSocket, option: int, value: int) -> None:
    sock.setsockopt(SOL_KCP, option, value)
    assert sock.getsockopt(SOL_KCP, option) == value
    sock.setsockopt(SOL_KCP, option, struct.pack("i", value))
    assert sock.getsockopt(SOL_KCP, option, 4) == struct.pack("i", value)


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        (kcpsocket.KCP_NODELAY, 2, errno.EINVAL),
        (kcpsocket.KCP_INTERVAL, 0, errno.EINVAL),
        (kcpsocket.KCP_MTU, 127, errno.EINVAL),
        (kcpsocket.KCP_MTU, 1501, errno.EINVAL),
        (kcpsocket.KCP_SNDWND, 0, errno.EINVAL),
        (kcpsocket.KCP_RCVWND, 32769, errno.EINVAL),
        (kcpsocket.KCP_UNSENT, 1, errno.ENOPROTOOPT),
        (999, 1, errno.ENOPROTOOPT),
    ],
)
def test_bad_options_of_kcp(sock: KCPSocket, option: int, value: int, code: int) -> None:
    with pytest.raises(OSError) as caught:
        sock.setsockopt(SOL_KCP, option, value)
    assert caught.value.errno == code


def test_unsent_bytes(pair: Pair) -> None:
    client, server = pair
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    assert client.getsockopt(SOL_KCP, kcpsocket.KCP_UNSENT) >= 0


def test_accepted_sockets_inherit(sockets: Callable[..., KCPSocket], connect: Callable[..., Pair]) -> None:
    listener = sockets(config=Config(mtu=900))
    settings = [
        (SOL, socket.SO_REUSEADDR, 1),
        (SOL, socket.SO_KEEPALIVE, 0),
        (SOL, socket.SO_LINGER, struct.pack("ii", 1, 3)),
        (TCP, socket.TCP_NODELAY, 1),
        (TCP, socket.TCP_KEEPIDLE, 77),
        (SOL_KCP, kcpsocket.KCP_SNDWND, 55),
    ]
    for setting in settings:
        listener.setsockopt(*setting)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    _, server = connect(listener)
    for level, option, value in settings:
        size = (len(value),) if isinstance(value, bytes) else ()
        assert server.getsockopt(level, option, *size) == value
    assert server.kcp_info().mtu == 900
    assert server.kcp_info().snd_wnd == 55


def test_reuseport_shares_a_port(sockets: Callable[..., KCPSocket]) -> None:
    first, second = sockets(), sockets()
    for sock in (first, second):
        sock.setsockopt(SOL, socket.SO_REUSEPORT, 1)
    first.bind(("127.0.0.1", 0))
    second.bind(first.getsockname())
    first.listen()
    second.listen()
    assert first.getsockopt(SOL, socket.SO_REUSEPORT) == 1


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_v6only_leaves_the_port_to_ipv4(sockets: Callable[..., KCPSocket]) -> None:
    six, four = sockets(socket.AF_INET6), sockets()
    six.setsockopt(IPV6, socket.IPV6_V6ONLY, 1)
    six.bind(("::", 0))
    four.bind(("0.0.0.0", six.getsockname()[1]))
    six.listen()
    four.listen()
    assert six.getsockopt(IPV6, socket.IPV6_V6ONLY) == 1


def test_options_of_a_connection_that_is_over(pair: Pair) -> None:
    client, server = pair
    server.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    client.setsockopt(TCP, socket.TCP_NODELAY, 1)
    client.setsockopt(TCP, socket.TCP_KEEPIDLE, 5)
    client.setsockopt(IP, socket.IP_TOS, 8)
    assert client.getsockopt(TCP, socket.TCP_KEEPIDLE) == 5
    assert client.getsockopt(IP, socket.IP_TOS) == 8
