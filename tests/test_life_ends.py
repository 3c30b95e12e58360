"""How connections end: by close, by half, by reset, by the death of a process, by silence."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct

import pytest
from life import ALERT, PATIENCE, connect, listen, pair, program, settle

from kcpsocket import Config

ECHO_SERVER = """
    import sys, kcpsocket
    from kcpsocket import Config, KCPSocket
    class Alert(KCPSocket):
        config = Config(keepidle=0.2, keepintvl=0.1, keepcnt=3)
    listener = Alert()
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    while True:
        conn, _ = listener.accept()
        while data := conn.recv(65536):
            conn.sendall(data)
        conn.close()
"""

CLIENT_THAT_STAYS = """
    import sys, kcpsocket
    from kcpsocket import KCPSocket
    client = KCPSocket()
    client.connect(("127.0.0.1", int(sys.argv[1])))
    client.sendall(b"here")
    sys.stdin.read()
"""


def test_close_gives_the_peer_everything_then_end_of_file() -> None:
    with pair() as (ours, theirs):
        ours.sendall(b"x" * 3_000_000)
        ours.close()
        received = bytearray()
        while data := theirs.recv(1 << 20):
            received += data
        assert bytes(received) == b"x" * 3_000_000
        assert theirs.recv(1) == b""
    settle()


@pytest.mark.parametrize("closer", ["client", "server"])
def test_a_half_closed_connection_carries_the_other_half(closer: str) -> None:
    with pair() as (client, server):
        first, second = (client, server) if closer == "client" else (server, client)
        first.sendall(b"question")
        first.shutdown(socket.SHUT_WR)
        assert second.recv(100) == b"question"
        assert second.recv(100) == b""
        second.sendall(b"a long answer" * 100_000)
        second.close()
        answer = bytearray()
        while data := first.recv(1 << 20):
            answer += data
        assert bytes(answer) == b"a long answer" * 100_000
        with pytest.raises(BrokenPipeError):
            first.sendall(b"more")
    settle()


def test_close_with_unread_bytes_resets_the_peer() -> None:
    with pair() as (ours, theirs):
        theirs.sendall(b"never read")
        assert select.select([ours], [], [], PATIENCE)[0]
        ours.close()
        with pytest.raises(ConnectionResetError):
            theirs.recv(100)
        assert theirs.recv(100) == b""
        with pytest.raises(BrokenPipeError):
            theirs.send(b"x")
    settle()


def test_linger_of_no_time_resets_the_peer_at_once() -> None:
    with pair() as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ours.close()
        with pytest.raises(ConnectionResetError):
            theirs.recv(100)
    settle()


def test_linger_waits_until_the_peer_has_everything() -> None:
    with pair() as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
        ours.sendall(b"x" * 100_000)
        ours.close()
        received = bytearray()
        while data := theirs.recv(1 << 20):
            received += data
        assert len(received) == 100_000
    settle()


def test_writing_to_a_peer_that_has_closed_ends_in_an_error() -> None:
    with pair() as (ours, theirs):
        theirs.close()
        assert ours.recv(1) == b""
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:  # the first writes may still be taken, as on TCP
                ours.sendall(b"x" * 100_000)
    settle()


def test_what_arrived_before_a_reset_is_read_before_the_error() -> None:
    with pair() as (ours, theirs):
        ours.sendall(b"last words")
        assert select.select([theirs], [], [], PATIENCE)[0]
        theirs.sendall(b"unread")
        assert select.select([ours], [], [], PATIENCE)[0]
        ours.close()
        assert theirs.recv(100) == b"last words"
        with pytest.raises(ConnectionResetError):
            theirs.recv(100)
    settle()


def test_a_killed_server_resets_its_client() -> None:
    with program(ECHO_SERVER, 0) as server:
        assert server.stdout is not None
        with connect(("127.0.0.1", int(server.stdout.readline())), ALERT) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
            server.send_signal(signal.SIGKILL)
            with pytest.raises((ConnectionResetError, TimeoutError)) as caught:
                client.recv(100)
            assert caught.value.errno in (errno.ECONNRESET, errno.ETIMEDOUT)
    settle()


def test_a_killed_client_resets_its_server() -> None:
    with listen(ALERT) as listener, program(CLIENT_THAT_STAYS, listener.getsockname()[1]) as client:
        server, _ = listener.accept()
        with server:
            server.settimeout(PATIENCE)
            assert server.recv(100) == b"here"
            client.send_signal(signal.SIGKILL)
            with pytest.raises((ConnectionResetError, TimeoutError)) as caught:
                server.recv(100)
            assert caught.value.errno in (errno.ECONNRESET, errno.ETIMEDOUT)
    settle()


def test_a_server_restarted_under_a_blocked_client_is_an_error_not_a_hang() -> None:
    with program(ECHO_SERVER, 0) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        # A restart faster than the client's probes: nothing but the new server's answers can tell.
        client = connect(("127.0.0.1", port), Config(keepidle=1.0, keepintvl=0.5, keepcnt=20))
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        os.kill(server.pid, signal.SIGKILL)
        server.wait(PATIENCE)
        with client, program(ECHO_SERVER, port) as restarted:
            assert restarted.stdout is not None
            assert int(restarted.stdout.readline()) == port
            with pytest.raises(ConnectionResetError):
                client.recv(100)
    settle()


def test_a_client_that_only_sent_learns_of_a_restart_too() -> None:
    with program(ECHO_SERVER, 0) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        client = connect(("127.0.0.1", port))
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        os.kill(server.pid, signal.SIGKILL)
        server.wait(PATIENCE)
        with client, program(ECHO_SERVER, port) as restarted:
            assert restarted.stdout is not None
            assert int(restarted.stdout.readline()) == port
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                while True:
                    client.sendall(b"x" * 1000)
                    client.recv(1000)
    settle()


def test_a_silent_peer_times_out() -> None:
    # The peer's datagrams stop: a UDP socket that takes them and says nothing, after a handshake played by hand.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(PATIENCE)
        client = ClientInProgress(peer.getsockname())
        with client.socket as ours:
            ask, address = peer.recvfrom(2000)
            conv, cmd = struct.unpack_from("<IB", ask)
            assert cmd == 83
            peer.sendto(struct.pack("<IBBHIIII", conv, 84, 0, 128, 0, 0, 0, 0), address)
            assert client.wait() == 0
            ours.settimeout(PATIENCE)
            with pytest.raises(TimeoutError) as caught:
                ours.recv(1)
            assert caught.value.errno == errno.ETIMEDOUT
    settle()


class ClientInProgress:
    """A non-blocking connect under way."""

    def __init__(self, address: tuple[object, ...], config: Config = ALERT) -> None:
        from life import configured

        self.socket = configured(config)()
        self.socket.setblocking(False)
        assert self.socket.connect_ex(address) == errno.EINPROGRESS

    def wait(self) -> int:
        """The connect's outcome, an errno."""
        assert select.select([], [self.socket], [], PATIENCE)[1]
        code: int = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return code


def test_a_connect_under_way_is_not_writable_and_then_is() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(PATIENCE)
        client = ClientInProgress(peer.getsockname())
        with client.socket as ours:
            ask, address = peer.recvfrom(2000)
            conv, cmd, _, _, ts, sn, una, length = struct.unpack("<IBBHIIII", ask)
            assert (cmd, sn, una, length) == (83, 0, 0, 0)
            assert select.select([ours], [ours], [], 0)[:2] == ([], [])
            assert ours.connect_ex(peer.getsockname()) == errno.EALREADY
            peer.sendto(struct.pack("<IBBHIIII", conv, 84, 0, 128, ts, 0, 0, 0), address)
            assert client.wait() == 0
            assert ours.connect_ex(peer.getsockname()) in (0, errno.EISCONN)
            assert ours.getpeername() == peer.getsockname()
            ours.send(b"first bytes")
            push = peer.recv(2000)
            while push[4] != 81:
                push = peer.recv(2000)
            assert push[24:] == b"first bytes"
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    settle()


def test_a_refused_connect_is_readable_and_writable_with_its_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        address = unused.getsockname()
    client = ClientInProgress(address)
    with client.socket:
        assert client.wait() == errno.ECONNREFUSED
        assert client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    settle()


def test_a_connect_nobody_answers_times_out() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        with pytest.raises(TimeoutError) as caught:
            connect(peer.getsockname(), Config(connect_timeout=0.7))
        assert caught.value.errno == errno.ETIMEDOUT
    settle()


def test_a_full_backlog_makes_clients_wait_not_fail() -> None:
    with listen(backlog=0) as listener:
        address = listener.getsockname()
        clients = [ClientInProgress(address) for _ in range(5)]
        for _ in clients:
            server, _ = listener.accept()
            server.close()
        for client in clients:
            with client.socket:
                assert client.wait() in (0, errno.ECONNRESET)
    settle()


def test_a_port_is_free_again_once_its_listener_and_connections_are_closed() -> None:
    listener = listen()
    address = listener.getsockname()
    client = connect(address)
    server, _ = listener.accept()
    listener.close()
    for one in (client, server):
        one.close()
    settle()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(address)


def test_a_listener_can_restart_on_its_port_while_old_connections_live() -> None:
    listener = listen()
    address = listener.getsockname()
    with connect(address) as client:
        server, _ = listener.accept()
        with server:
            listener.close()
            with pytest.raises(ConnectionRefusedError):
                connect(address)
            from kcpsocket import KCPSocket

            with KCPSocket() as second:
                second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                second.bind(address)
                second.listen()
                second.settimeout(PATIENCE)
                with connect(address) as newcomer:
                    other, _ = second.accept()
                    with other:
                        newcomer.sendall(b"new")
                        assert other.recv(10) == b"new"
                client.sendall(b"old")
                assert server.recv(10) == b"old"
    settle()
