"""What fork and the end of a process do to connections."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Callable

import pytest
from life import PATIENCE, connect, listen, pair, program, settle

from kcpsocket import KCPSocket, engine
from kcpsocket.relay import Relay

SENDER = """
    import sys, kcpsocket
    from kcpsocket import KCPSocket
    client = KCPSocket()
    client.connect(("127.0.0.1", int(sys.argv[1])))
    client.sendall(bytes(range(256)) * (int(sys.argv[2]) // 256))
    {end}
"""


@pytest.mark.parametrize(
    ("end", "loss"),
    [("client.close(); sys.exit()", 0.2), ("client.shutdown(2); sys.exit()", 0.05), ("pass", 0.05)],
    ids=["close, exit", "shutdown, exit", "just the end"],
)
def test_what_was_sent_before_exit_arrives_whatever_the_loss(end: str, loss: float) -> None:
    size = 10_000_128 // 256 * 256
    with (
        listen() as listener,
        Relay(listener.getsockname(), loss=loss, delay_ms=5, jitter_ms=1, seed=3) as relay,
        program(SENDER.format(end=end), relay.address[1], size) as sender,
    ):
        server, _ = listener.accept()
        with server:
            server.settimeout(PATIENCE)
            digest = hashlib.sha256()
            while data := server.recv(1 << 20):
                digest.update(data)
        assert digest.digest() == hashlib.sha256(bytes(range(256)) * (size // 256)).digest()
        assert sender.wait(PATIENCE) == 0
    settle()


def start_child(work: Callable[[], None]) -> int:
    """Runs `work` in a forked child, which exits with 0 if it returns without an exception; the child's process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            sys.stderr.write(f"in the child: {error!r}\n")
        finally:
            os._exit(code)
    return pid


def ended_well(pid: int) -> bool:
    """Waits for the child: whether its work was done without an exception."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_child_goes_on_with_its_parents_connection() -> None:
    with pair() as (ours, theirs):

        def work() -> None:
            assert theirs.recv(100) == b"to the child"
            theirs.sendall(b"from the child")
            assert theirs.getpeername() == ours.getsockname()
            assert theirs.getsockname() == ours.getpeername()

        ours.sendall(b"to the child")
        assert ended_well(start_child(work))
        assert ours.recv(100) == b"from the child"
    settle()


def test_the_connection_lasts_until_the_last_process_has_closed_it() -> None:
    with pair() as (ours, theirs):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)  # until the parent has closed its own
            theirs.sendall(b"still here")
            os._exit(0)
        os.close(reading)
        theirs.close()
        os.close(writing)
        assert ours.recv(100) == b"still here"
        assert ours.recv(100) == b""
        assert ended_well(pid)
    settle()


def test_children_accept_from_their_parents_listener() -> None:
    with listen() as listener:

        def work() -> None:
            server, address = listener.accept()
            assert isinstance(server, KCPSocket)
            with server:
                assert server.getpeername() == address
                server.sendall(server.recv(100).upper())

        for _ in range(2):
            pid = start_child(work)
            with connect(listener.getsockname()) as client:
                client.sendall(b"pre-fork")
                assert client.recv(100) == b"PRE-FORK"
                assert client.recv(100) == b""
            assert ended_well(pid)
    settle()


def test_a_child_makes_connections_of_its_own() -> None:
    with listen() as listener:
        address = listener.getsockname()
        with connect(address) as first:  # the parent's engine runs
            server, _ = listener.accept()

            def work() -> None:
                assert engine.usage()["sessions"] == 0
                with connect(address) as client:
                    client.sendall(b"child")
                    assert client.recv(100) == b"parent"
                settle()  # os._exit, below, waits for nothing

            pid = start_child(work)
            other, _ = listener.accept()
            with other:
                assert other.recv(100) == b"child"
                other.sendall(b"parent")
                assert other.recv(100) == b""
            assert ended_well(pid)
            first.sendall(b"unharmed")
            assert server.recv(100) == b"unharmed"
            server.close()
    settle()


def test_a_child_process_started_in_between_holds_no_connection_open() -> None:
    with pair() as (ours, theirs), program("import sys; print('up', flush=True); sys.stdin.read()") as bystander:
        assert bystander.stdout is not None
        assert bystander.stdout.readline() == "up\n"
        theirs.close()
        assert ours.recv(1) == b""
    settle()


def test_a_child_learns_why_an_inherited_connection_ended() -> None:
    with pair() as (ours, theirs):

        def work() -> None:
            ours.close()  # or the parent's close would not be the last
            theirs.sendall(b"ready")
            with pytest.raises(ConnectionResetError):
                theirs.recv(100)

        pid = start_child(work)
        theirs.close()
        assert ours.recv(100) == b"ready"
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        ours.close()
        assert ended_well(pid)
    settle()
