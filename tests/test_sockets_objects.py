"""Socket objects and descriptors: dup, detach, fork, other processes, garbage, other kinds of socket."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import select
import socket
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest
from loopback import PATIENCE, Pair

import kcpsocket
from kcpsocket import KCPSocket
from kcpsocket.patching import face


def exit_code(child: int) -> int:
    """The exit code of a forked child, which has PATIENCE to end."""
    descriptor = os.pidfd_open(child)
    try:
        assert select.select([descriptor], [], [], PATIENCE)[0], "the child hangs"
    finally:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_repr_is_as_sockets(pair: Pair) -> None:
    client, _ = pair
    text = repr(client)
    assert text.startswith(f"<kcpsocket.KCPSocket fd={client.fileno()}, family=")
    assert f"laddr={client.getsockname()}" in text
    assert f"raddr={client.getpeername()}" in text
    client.close()
    assert repr(client).startswith("<kcpsocket.KCPSocket [closed] fd=-1")


def test_sockets_cannot_be_pickled_nor_copied() -> None:
    with KCPSocket() as sock:
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(sock)
        with pytest.raises(TypeError, match="cannot pickle"):
            copy.copy(sock)


def test_closed_socket_is_a_bad_descriptor() -> None:
    sock = KCPSocket()
    sock.close()
    sock.close()
    for call in (
        lambda: sock.recv(1),
        lambda: sock.send(b"x"),
        lambda: sock.connect(("127.0.0.1", 9)),
        lambda: sock.bind(("127.0.0.1", 0)),
        sock.listen,
        sock.accept,
        sock.getsockname,
        sock.getpeername,
        sock.kcp_info,
        lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE),
        lambda: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        lambda: sock.shutdown(socket.SHUT_RDWR),
        sock.dup,
    ):
        with pytest.raises(OSError, match="Bad file descriptor"):
            call()


def test_garbage_is_closed_with_a_warning(listener: KCPSocket) -> None:
    before = kcpsocket.usage()["listeners"]
    sock = KCPSocket()
    sock.listen()
    number = sock.fileno()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del sock
        gc.collect()
    assert [str(warning.category.__name__) for warning in caught] == ["ResourceWarning"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    assert kcpsocket.usage()["listeners"] == before


def test_dup_shares_the_socket(pair: Pair, listener: KCPSocket) -> None:
    client, server = pair
    with client.dup() as other:
        assert type(other) is KCPSocket
        assert other.getpeername() == client.getpeername()
        assert other.gettimeout() == client.gettimeout()
        client.close()
        other.sendall(b"through the other")
        assert server.recv(100) == b"through the other"
    assert server.recv(1) == b""


def test_dup_of_a_bound_socket_listens() -> None:
    with KCPSocket() as sock:
        sock.bind(("127.0.0.1", 0))
        with sock.dup() as other:
            assert other.getsockname() == sock.getsockname()
            other.listen()
        with KCPSocket() as client:
            client.settimeout(PATIENCE)
            client.connect(sock.getsockname())


@pytest.mark.parametrize("state", ["new", "bound", "listening", "connected"])
def test_detached_descriptor_makes_a_socket_again(state: str, pair: Pair) -> None:
    sock, server = pair if state == "connected" else (KCPSocket(), None)
    if state in ("bound", "listening"):
        sock.bind(("127.0.0.1", 0))
    if state == "listening":
        sock.listen()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name = sock.getsockname()
    descriptor = sock.detach()
    assert sock.fileno() == -1
    for cls in (KCPSocket, face()):
        with cls(fileno=descriptor) as again:
            assert isinstance(again, KCPSocket)
            assert (again.family, again.type, again.fileno()) == (socket.AF_INET, socket.SOCK_STREAM, descriptor)
            again.settimeout(PATIENCE)
            assert again.getsockname() == name
            assert again.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            if state == "bound":
                again.listen()
            if server is not None:
                server.sendall(b"x")
                assert again.recv(1) == b"x"
            if cls is KCPSocket:
                descriptor = again.detach()


def test_detached_and_closed_descriptor_gives_its_port_back() -> None:
    with KCPSocket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
        os.close(sock.detach())
    os.close(KCPSocket().detach())  # the next one to be detached notices
    os.close(KCPSocket().detach())
    with KCPSocket() as sock:
        sock.bind(address)


def test_fromfd(pair: Pair) -> None:
    client, server = pair
    with kcpsocket.fromfd(client.fileno(), socket.AF_INET, socket.SOCK_STREAM) as other:
        assert other.getpeername() == client.getpeername()
        other.sendall(b"x")
    assert server.recv(10) == b"x"


def test_bad_fileno_is_told_as_by_socket() -> None:
    for fileno in (-1, 10**6, "3", 1.5):
        with pytest.raises((OSError, ValueError, TypeError)) as ours:
            KCPSocket(fileno=fileno)  # type: ignore[arg-type]
        with pytest.raises((OSError, ValueError, TypeError)) as theirs:
            socket.socket(fileno=fileno)  # type: ignore[arg-type]
        assert (type(ours.value), str(ours.value)) == (type(theirs.value), str(theirs.value))


def test_forked_child_goes_on_with_inherited_sockets(listener: KCPSocket, connect: Callable[..., Pair]) -> None:
    client, server = connect(listener)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            data = server.recv(100)
            server.sendall(data + b" from " + repr(server.getpeername() == client.getsockname()).encode())
            accepted, _ = listener.accept()
            accepted.sendall(b"accepted in the child")
            accepted.close()
            server.shutdown(socket.SHUT_WR)
            code = 0
        finally:
            os._exit(code)
    client.sendall(b"hello")
    assert client.recv(100) == b"hello from True"
    with KCPSocket() as second:
        second.settimeout(PATIENCE)
        second.connect(listener.getsockname())
        assert second.recv(100) == b"accepted in the child"
        assert second.recv(100) == b""
    assert exit_code(child) == 0
    server.close()
    assert client.recv(1) == b""


def test_forked_child_has_an_engine_of_its_own(listener: KCPSocket) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with KCPSocket() as sock:
                sock.settimeout(PATIENCE)
                sock.connect(listener.getsockname())
                sock.sendall(b"from the child")
                assert sock.recv(10) == b"ok"
            code = 0
        finally:
            os._exit(code)
    server, _ = listener.accept()
    with server:
        server.settimeout(PATIENCE)
        assert server.recv(100) == b"from the child"
        server.sendall(b"ok")
        assert exit_code(child) == 0


def test_another_program_uses_a_passed_descriptor(pair: Pair) -> None:
    client, server = pair
    program = (
        "import sys, kcpsocket\n"
        "sock = kcpsocket.KCPSocket(fileno=int(sys.argv[1]))\n"
        "sock.sendall(repr((sock.getsockname(), sock.getpeername(), int(sock.family))).encode())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    number = client.fileno()
    expected = repr((client.getsockname(), client.getpeername(), 2)).encode()
    subprocess.run(
        [sys.executable, "-c", program, str(number)], pass_fds=[number], check=True, timeout=60, env=environment
    )
    assert server.recv(1000) == expected


def test_linger_waits_for_delivery(pair: Pair) -> None:
    client, server = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 20))
    client.sendall(b"x" * 10_000)
    client.close()
    assert len(server.recv(10_000, socket.MSG_WAITALL)) == 10_000


def test_other_kinds_are_ordinary_sockets() -> None:
    for family, kind in ((socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)):
        plain = kcpsocket.socket(family, kind)
        with plain:
            assert type(plain) is socket.socket
        with KCPSocket(family, kind) as sock:
            assert type(sock) is KCPSocket
            assert (sock.family, sock.type) == (family, kind)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == family


def test_ordinary_kinds_in_a_subclass_behave_as_sockets() -> None:
    class Mine(KCPSocket):
        pass

    one, other = socket.socketpair()
    with Mine(fileno=one.detach()) as ours, other:
        assert ours.family == socket.AF_UNIX
        ours.sendall(b"x")
        assert other.recv(10) == b"x"
        socket.send_fds(other, [b"fd"], [other.fileno()])
        data, descriptors, _, _ = socket.recv_fds(ours, 10, 1)
        assert data == b"fd"
        os.close(descriptors[0])
        other.close()
        assert ours.recv(1) == b""
        with pytest.raises(OSError, match="not connected"):
            ours.kcp_info()
    with Mine(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        datagrams.sendto(b"self", datagrams.getsockname())
        assert datagrams.recvfrom(10) == (b"self", datagrams.getsockname())


def test_ordinary_tcp_descriptor_stays_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = face()(fileno=os.dup(server.fileno()))
        with sock:
            assert type(sock) is socket.socket
            assert sock.getsockname() == server.getsockname()


def test_subclass_carries_its_settings(listener: KCPSocket) -> None:
    class Small(KCPSocket):
        config = kcpsocket.Config(mtu=600)

    with Small() as sock:
        sock.settimeout(PATIENCE)
        sock.connect(listener.getsockname())
        assert sock.kcp_info().mtu == 600


def test_info_and_counters(pair: Pair) -> None:
    client, server = pair
    client.sendall(b"x" * 5000)
    assert server.recv(5000, socket.MSG_WAITALL) == b"x" * 5000
    ours, theirs = client.kcp_info(), server.kcp_info()
    assert ours.conv == theirs.conv
    assert ours.bytes_sent == 5000
    assert theirs.bytes_received == 5000
    assert ours.mss == 1400 - 24
    assert ours.phase is kcpsocket.Phase.ESTABLISHED
    assert kcpsocket.snmp()["BytesSent"] >= 5000
    assert kcpsocket.usage()["sessions"] >= 2
