"""Making connections: bind, listen, connect, accept, and what each says when it can't."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable

import pytest
from loopback import PATIENCE, Pair

from kcpsocket import KCPSocket

SO_REUSEADDR = (socket.SOL_SOCKET, socket.SO_REUSEADDR)


def poll(sock: socket.socket, events: int, milliseconds: float) -> int:
    poller = select.poll()
    poller.register(sock, events)
    return next((found for _, found in poller.poll(milliseconds)), 0)


def code_of(call: Callable[..., object], *arguments: object) -> int | None:
    with pytest.raises(OSError) as caught:
        call(*arguments)
    return caught.value.errno


def test_socket_reads_as_the_internet_stream_that_was_asked_for() -> None:
    with KCPSocket() as default, KCPSocket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP) as six:
        assert (default.family, default.type, default.proto) == (socket.AF_INET, socket.SOCK_STREAM, 0)
        assert (six.family, six.type, six.proto) == (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        assert default.getsockname() == ("0.0.0.0", 0)
        assert six.getsockname() == ("::", 0, 0, 0)
        assert not default.get_inheritable()


def test_flags_in_type_are_taken_as_by_socket() -> None:
    with KCPSocket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        assert sock.type == socket.SOCK_STREAM
        assert sock.gettimeout() == 0.0
        assert not os.get_blocking(sock.fileno())


def test_default_timeout_applies() -> None:
    socket.setdefaulttimeout(7)
    try:
        with KCPSocket() as sock:
            assert sock.gettimeout() == 7
    finally:
        socket.setdefaulttimeout(None)


def test_addresses_of_both_ends_agree(pair: Pair, listener: KCPSocket) -> None:
    client, server = pair
    assert client.getpeername() == server.getsockname() == listener.getsockname()
    assert client.getsockname() == server.getpeername()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6(sockets: Callable[..., KCPSocket], connect: Callable[..., Pair]) -> None:
    listener = sockets(socket.AF_INET6)
    listener.bind(("::1", 0))
    listener.listen()
    client, server = connect(listener)
    assert client.getpeername() == listener.getsockname()
    assert client.getpeername()[0] == "::1"
    assert server.getpeername() == client.getsockname()
    client.sendall(b"six")
    assert server.recv(10) == b"six"


def test_accept_gives_what_getpeername_says(listener: KCPSocket, sockets: Callable[..., KCPSocket]) -> None:
    client = sockets()
    client.connect(listener.getsockname())
    server, address = listener.accept()
    with server:
        assert type(server) is KCPSocket
        assert address == server.getpeername() == client.getsockname()
        assert server.gettimeout() is None  # the listener's own is not inherited


def test_refused_where_nobody_listens(sockets: Callable[..., KCPSocket], free_port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        sockets().connect(("127.0.0.1", free_port))
    assert sockets().connect_ex(("127.0.0.1", free_port)) == errno.ECONNREFUSED


def test_port_0_is_refused(sockets: Callable[..., KCPSocket]) -> None:
    with pytest.raises(ConnectionRefusedError):
        sockets().connect(("127.0.0.1", 0))


def test_no_answer_ends_in_the_sockets_timeout(sockets: Callable[..., KCPSocket], silent: tuple[str, int]) -> None:
    sock = sockets()
    sock.settimeout(0.05)
    with pytest.raises(TimeoutError, match="timed out"):
        sock.connect(silent)
    assert sockets().getsockname() == ("0.0.0.0", 0)
    other = sockets()
    other.settimeout(0.05)
    assert other.connect_ex(silent) == errno.EAGAIN


def test_bad_addresses_are_told_as_by_socket(sockets: Callable[..., KCPSocket]) -> None:
    sock = sockets()
    with pytest.raises(TypeError, match="AF_INET address must be tuple"):
        sock.connect("127.0.0.1")
    with pytest.raises(TypeError, match="AF_INET address must be tuple"):
        sock.bind(b"127.0.0.1")
    with pytest.raises(OverflowError):
        sock.connect(("127.0.0.1", 65536))
    with pytest.raises(socket.gaierror):
        sock.connect_ex(("not a host", 1))


def test_nonblocking_connect_is_writable_only_once_it_stands(
    sockets: Callable[..., KCPSocket], listener: KCPSocket, silent: tuple[str, int]
) -> None:
    waiting = sockets()
    waiting.setblocking(False)
    with pytest.raises(BlockingIOError) as caught:
        waiting.connect(silent)
    assert caught.value.errno == errno.EINPROGRESS
    assert waiting.connect_ex(silent) == errno.EALREADY
    assert not poll(waiting, select.POLLOUT | select.POLLIN, 0)
    assert code_of(waiting.getpeername) == errno.ENOTCONN
    assert code_of(waiting.recv, 1) == errno.EAGAIN

    sock = sockets()
    sock.setblocking(False)
    assert sock.connect_ex(listener.getsockname()) == errno.EINPROGRESS
    assert poll(sock, select.POLLOUT, PATIENCE * 1000) == select.POLLOUT
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert sock.connect_ex(listener.getsockname()) == 0
    assert sock.connect_ex(listener.getsockname()) == errno.EISCONN


def test_nonblocking_connect_that_fails_says_so_once(sockets: Callable[..., KCPSocket], free_port: int) -> None:
    sock = sockets()
    sock.setblocking(False)
    assert sock.connect_ex(("127.0.0.1", free_port)) == errno.EINPROGRESS
    assert poll(sock, select.POLLOUT, PATIENCE * 1000)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_connect_may_be_tried_again_after_a_failure(
    sockets: Callable[..., KCPSocket], listener: KCPSocket, free_port: int
) -> None:
    sock = sockets()
    number = sock.fileno()
    sock.setsockopt(*SO_REUSEADDR, 1)
    assert sock.connect_ex(("127.0.0.1", free_port)) == errno.ECONNREFUSED
    assert code_of(sock.recv, 1) == errno.ENOTCONN
    assert code_of(sock.send, b"x") == errno.EPIPE
    sock.connect(listener.getsockname())
    assert sock.fileno() == number
    assert not sock.get_inheritable()
    assert sock.getsockopt(*SO_REUSEADDR) == 1
    server, _ = listener.accept()
    with server:
        sock.sendall(b"second try")
        server.settimeout(PATIENCE)
        assert server.recv(100) == b"second try"


def test_connect_again_goes_out_from_the_bound_address(
    sockets: Callable[..., KCPSocket], listener: KCPSocket, free_port: int
) -> None:
    sock = sockets()
    sock.bind(("127.0.0.1", 0))
    bound = sock.getsockname()
    assert sock.connect_ex(("127.0.0.1", free_port)) == errno.ECONNREFUSED
    sock.connect(listener.getsockname())
    assert sock.getsockname() == bound


def test_unconnected_socket_answers_as_tcp(sockets: Callable[..., KCPSocket]) -> None:
    sock = sockets()
    assert code_of(sock.getpeername) == errno.ENOTCONN
    assert code_of(sock.recv, 1) == errno.ENOTCONN
    assert code_of(sock.recv_into, bytearray(1)) == errno.ENOTCONN
    assert code_of(sock.recvmsg, 1) == errno.ENOTCONN
    assert code_of(sock.send, b"x") == errno.EPIPE
    assert code_of(sock.sendall, b"x") == errno.EPIPE
    assert code_of(sock.sendmsg, [b"x"]) == errno.EPIPE
    assert code_of(sock.sendto, b"x", ("127.0.0.1", 9)) == errno.EPIPE
    assert code_of(sock.shutdown, socket.SHUT_RDWR) == errno.ENOTCONN
    assert code_of(sock.accept) == errno.EINVAL
    assert code_of(sock.kcp_info) == errno.ENOTCONN


def test_listener_answers_as_tcp(listener: KCPSocket, free_port: int) -> None:
    assert code_of(listener.connect, ("127.0.0.1", free_port)) == errno.EISCONN
    assert code_of(listener.bind, ("127.0.0.1", 0)) == errno.EINVAL
    assert code_of(listener.getpeername) == errno.ENOTCONN
    listener.setblocking(False)  # blocking, it waits for what can never come, as TCP's does
    assert code_of(listener.recv, 1) == errno.ENOTCONN
    assert code_of(listener.send, b"x") == errno.EPIPE
    listener.listen(5)  # only changes the backlog


def test_connected_socket_can_neither_bind_nor_listen(pair: Pair) -> None:
    for sock in pair:
        assert code_of(sock.bind, ("127.0.0.1", 0)) == errno.EINVAL
        assert code_of(sock.listen) == errno.EINVAL


def test_listen_binds_to_a_free_port_if_need_be(sockets: Callable[..., KCPSocket]) -> None:
    sock = sockets()
    sock.listen()
    host, port = sock.getsockname()
    assert host == "0.0.0.0"
    assert port != 0
    client = sockets()
    client.connect(("127.0.0.1", port))
    assert client.getpeername() == ("127.0.0.1", port)


def test_accept_keeps_to_the_timeout(listener: KCPSocket) -> None:
    listener.settimeout(0.02)
    with pytest.raises(TimeoutError, match="timed out"):
        listener.accept()
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_listener_is_readable_when_there_is_something_to_accept(
    listener: KCPSocket, sockets: Callable[..., KCPSocket]
) -> None:
    assert not poll(listener, select.POLLIN, 0)
    sockets().connect(listener.getsockname())
    assert poll(listener, select.POLLIN, PATIENCE * 1000) == select.POLLIN
    listener.accept()[0].close()
    assert not poll(listener, select.POLLIN, 0)


def test_port_in_use_is_refused_to_a_second_socket(sockets: Callable[..., KCPSocket], listener: KCPSocket) -> None:
    for reuse in (0, 1):
        second = sockets()
        second.setsockopt(*SO_REUSEADDR, reuse)
        assert code_of(second.bind, listener.getsockname()) == errno.EADDRINUSE


def test_port_is_free_as_soon_as_its_socket_is_closed(sockets: Callable[..., KCPSocket]) -> None:
    first = sockets()
    first.bind(("127.0.0.1", 0))
    address = first.getsockname()
    first.close()
    second = sockets()
    second.bind(address)
    second.listen()
    second.close()
    third = sockets()
    third.bind(address)
    third.listen()


def test_port_is_free_in_the_handler_of_a_failed_connect(sockets: Callable[..., KCPSocket], free_port: int) -> None:
    first = sockets()
    first.bind(("127.0.0.1", 0))
    address = first.getsockname()
    try:
        first.connect(("127.0.0.1", 0))
    except ConnectionRefusedError:
        first.close()
        sockets().bind(address)
    else:
        pytest.fail("connected to port 0")


def test_listener_is_followed_while_its_connections_live_on(
    sockets: Callable[..., KCPSocket], listener: KCPSocket, connect: Callable[..., Pair]
) -> None:
    old_client, old_server = connect(listener)
    address = listener.getsockname()
    listener.close()
    assert code_of(sockets().bind, address) == errno.EADDRINUSE
    second = sockets()
    second.setsockopt(*SO_REUSEADDR, 1)
    second.bind(address)
    assert second.getsockname() == address
    second.listen()
    client, server = connect(second)
    for one, other, text in ((client, server, b"new"), (old_client, old_server, b"old")):
        one.sendall(text)
        assert other.recv(10) == text


def test_server_may_speak_first(pair: Pair) -> None:
    client, server = pair
    server.sendall(b"220 ready\r\n")
    assert client.recv(100) == b"220 ready\r\n"


def test_blocking_connect_lets_signal_handlers_run(sockets: Callable[..., KCPSocket], silent: tuple[str, int]) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    sock = sockets()
    sock.settimeout(0.3)
    began = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TimeoutError):
            sock.connect(silent)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen == [signal.SIGALRM]
    assert time.monotonic() - began >= 0.29  # the handler did not cut the wait short
