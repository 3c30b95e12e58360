"""Connections and processes: forked servers, sockets passed from process to process, leaving by os._exit."""

from __future__ import annotations

import array
import multiprocessing
import os
import pickle
import signal
import socket
import socketserver
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from typing import Any

import pytest
from life import PATIENCE, connect, listen, pair, program, settle

import kcpsocket
from kcpsocket import Config, KCPSocket

METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    for child in multiprocessing.active_children():
        child.join(PATIENCE)
    settle()


@contextmanager
def forked(work: Callable[[], None]) -> Iterator[int]:
    """`work` in a forked child, whose pid is given; it must end well by the end of the block."""
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
    yield pid
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# --- servers that fork ---


def test_workers_forked_after_listen_share_the_accepting() -> None:
    with listen() as listener:

        def work() -> None:
            for _ in range(5):
                sock, address = listener.accept()
                with sock:
                    sock.settimeout(PATIENCE)
                    assert sock.getpeername() == address
                    assert sock.getsockname() == listener.getsockname()
                    sock.sendall(b"%d " % os.getpid() + sock.recv(100))

        with forked(work) as one, forked(work) as other:
            answers = []
            for number in range(10):
                with connect(listener.getsockname()) as client:
                    client.sendall(b"%d" % number)
                    answer = b""
                    while data := client.recv(100):
                        answer += data
                    answers.append(answer.split())
            assert [int(number) for _, number in answers] == list(range(10))
            assert {int(pid) for pid, _ in answers} <= {one, other}


def test_workers_that_listen_each_for_themselves_share_the_bound_socket() -> None:
    with KCPSocket() as listener:
        listener.settimeout(PATIENCE)
        listener.bind(("127.0.0.1", 0))
        ready, say_ready = os.pipe()
        go, say_go = os.pipe()

        def work() -> None:
            os.close(say_go)
            listener.listen()
            os.write(say_ready, b"x")
            sock, _ = listener.accept()
            with sock:
                sock.sendall(b"%d" % os.getpid())
            os.read(go, 1)  # until all is done: the first one's engine serves both

        with forked(work) as one, forked(work) as other:
            for descriptor in (say_ready, go):
                os.close(descriptor)
            assert sorted(os.read(ready, 1) + os.read(ready, 1)) == sorted(b"xx")
            seen = set()
            for _ in range(2):
                with connect(listener.getsockname()) as client:
                    seen.add(int(client.recv(100)))
                    assert client.recv(1) == b""
            os.close(say_go)
            os.close(ready)
            assert seen <= {one, other}


def test_a_worker_that_listens_follows_one_that_has_died_on_the_same_bound_socket() -> None:
    # So do the reloaders of web servers: bind once, and pass the socket to one worker after the other.
    with KCPSocket() as listener:
        listener.settimeout(PATIENCE)
        listener.bind(("127.0.0.1", 0))

        def work() -> None:
            listener.listen()
            with listener.accept()[0] as sock:
                sock.sendall(b"%d" % os.getpid())
                assert sock.recv(1) == b""

        for _ in range(3):
            with forked(work) as pid, connect(listener.getsockname()) as client:
                assert client.recv(100) == b"%d" % pid
        listener.listen()
        with connect(listener.getsockname()) as client, listener.accept()[0] as server:
            server.sendall(b"at last")
            assert client.recv(100) == b"at last"


def test_a_forking_server_whose_handlers_connect_elsewhere_loses_nothing() -> None:
    # The handler's own connection is its child process's, which leaves by os._exit with everything still to be sent.
    received: list[bytes] = []
    size = 3_000_000

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            elsewhere = socket.create_connection(self.server.elsewhere, timeout=PATIENCE)  # type: ignore[attr-defined]
            elsewhere.sendall(self.request.recv(1) * size)
            self.request.sendall(b"done")

    class Server(socketserver.ForkingTCPServer):
        elsewhere: tuple[str, int]

    with kcpsocket.patched(), listen() as sink, Server(("127.0.0.1", 0), Handler) as server:
        server.elsewhere = sink.getsockname()

        def collect() -> None:
            with sink.accept()[0] as sock:
                sock.settimeout(PATIENCE)
                data = bytearray()
                while part := sock.recv(1 << 16):
                    data += part
                received.append(bytes(data))

        collector = threading.Thread(target=collect)
        collector.start()
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        with socket.create_connection(server.server_address[:2], timeout=PATIENCE) as client:  # type: ignore[arg-type]
            client.sendall(b"z")
            assert client.recv(10) == b"done"
            assert client.recv(10) == b""
        serving.join(PATIENCE)
        collector.join(PATIENCE)
    assert received == [b"z" * size]


# --- os._exit ---

LEAVES = """
    import os, sys, socket, kcpsocket
    kcpsocket.patch()
    client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    client.sendall(b"x" * 2_000_000)
    os._exit(7)
"""


def test_under_patch_os_exit_delivers_what_was_sent() -> None:
    with listen() as listener, program(LEAVES, listener.getsockname()[1]) as sender:
        with listener.accept()[0] as server:
            server.settimeout(PATIENCE)
            count = 0
            while data := server.recv(1 << 16):
                count += len(data)
        assert count == 2_000_000
        assert sender.wait(PATIENCE) == 7


def test_os_exit_waits_for_nothing_when_there_is_nothing_to_send() -> None:
    with program("import os, kcpsocket; kcpsocket.patch(); os._exit(3)") as process:
        assert process.wait(PATIENCE) == 3


def test_os_exit_in_a_child_leaves_the_parents_connections_alone() -> None:
    with kcpsocket.patched(), pair() as (ours, theirs):
        ours.sendall(b"before")
        with forked(lambda: None):
            pass
        ours.sendall(b"after")
        received = b""
        while len(received) < 11:
            received += theirs.recv(100)
        assert received == b"beforeafter"


def test_os_exit_is_itself_again_after_unpatch() -> None:
    before = os._exit
    with kcpsocket.patched():
        inner = os._exit
        assert inner is not before
        with kcpsocket.patched():
            assert os._exit is inner
        assert os._exit is inner
        with pytest.raises(TypeError):
            os._exit("x")  # type: ignore[arg-type]
    assert os._exit is before


# --- multiprocessing ---


def upper_echo(sock: socket.socket, pipe: Connection) -> None:
    """In another process: tells what it sees, then echoes."""
    sock.settimeout(PATIENCE)
    pipe.send((type(sock).__name__, isinstance(sock, KCPSocket), sock.getsockname(), sock.getpeername()))
    while data := sock.recv(1000):
        sock.sendall(data.upper())
    sock.close()


def accept_one(listener: socket.socket, pipe: Connection) -> None:
    """In another process: accepts and greets."""
    pipe.send(listener.getsockname())
    sock, address = listener.accept()
    with sock:
        pipe.send((type(sock).__name__, address))
        sock.sendall(b"welcome")


def connect_it(sock: socket.socket, pipe: Connection, address: tuple[str, int]) -> None:
    """In another process: connects a socket that was made, and bound, elsewhere."""
    assert isinstance(sock, KCPSocket)
    pipe.send((sock.getsockname(), sock.gettimeout(), sock.config.mtu))
    assert sock.getsockopt(kcpsocket.SOL_KCP, kcpsocket.KCP_MTU) == 700
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    sock.settimeout(PATIENCE)
    sock.connect(address)
    sock.sendall(b"from afar")
    assert sock.recv(10) == b""
    sock.close()


def echo_of_queue(connection: Connection) -> None:
    """In another process: takes a socket that comes as a message."""
    with connection.recv() as sock:
        sock.settimeout(PATIENCE)
        sock.sendall(sock.recv(100) + b" %d" % os.getpid())


@contextmanager
def child(method: str, target: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """`target` in a process of its own; its pipe."""
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(arguments[0], theirs, *arguments[1:]))  # type: ignore[attr-defined]
    process.start()
    theirs.close()
    try:
        yield ours
        process.join(PATIENCE)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join(PATIENCE)
        process.close()
        ours.close()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("patched", [True, False])
def test_a_connected_socket_as_an_argument_of_a_process(method: str, patched: bool) -> None:
    with kcpsocket.patched() if patched else nullcontext(), pair() as (client, server):
        local, peer = server.getsockname(), server.getpeername()
        with child(method, upper_echo, server) as pipe:
            assert pipe.poll(PATIENCE)
            assert pipe.recv() == (type(server).__name__ if method == "fork" else "KCPSocket", True, local, peer)
            server.close()
            client.sendall(b"over there")
            assert client.recv(100) == b"OVER THERE"
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""


@pytest.mark.parametrize("method", METHODS)
def test_a_listening_socket_as_an_argument_of_a_process(method: str) -> None:
    with (
        kcpsocket.patched(),
        socket.create_server(("127.0.0.1", 0)) as listener,
        child(method, accept_one, listener) as pipe,
    ):
        assert pipe.poll(PATIENCE)
        assert pipe.recv() == listener.getsockname()
        with connect(listener.getsockname()) as client:
            assert client.recv(100) == b"welcome"
            assert pipe.poll(PATIENCE)
            assert pipe.recv() == ("KCPSocket", client.getsockname())


@pytest.mark.parametrize("method", METHODS)
def test_a_bound_socket_takes_its_address_and_settings_along(method: str) -> None:
    with kcpsocket.patched(Config(mtu=800)), listen() as listener, socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
        sock.setsockopt(kcpsocket.SOL_KCP, kcpsocket.KCP_MTU, 700)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        with child(method, connect_it, sock, listener.getsockname()) as pipe:
            assert pipe.poll(PATIENCE)
            assert pipe.recv() == (address, None, 800)
            sock.close()
            server, peer = listener.accept()
            with server:
                server.settimeout(PATIENCE)
                assert peer == address
                assert server.recv(100) == b"from afar"


@pytest.mark.parametrize("method", METHODS)
def test_a_socket_as_a_message_to_a_running_process(method: str) -> None:
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=echo_of_queue, args=(theirs,))  # type: ignore[attr-defined]
    with kcpsocket.patched(), socket.create_server(("127.0.0.1", 0)) as listener:
        process.start()
        theirs.close()
        with connect(listener.getsockname()) as client:
            server, _ = listener.accept()
            ours.send(server)
            client.sendall(b"to")
            assert client.recv(100) == b"to %d" % process.pid
            server.close()
            assert client.recv(1) == b""
    process.join(PATIENCE)
    assert process.exitcode == 0
    process.close()
    ours.close()


def which_class(connection: Connection) -> None:
    """In another process: what the socket module makes there."""
    with socket.socket() as sock:
        config = sock.config.mtu if isinstance(sock, KCPSocket) else None
    connection.send((isinstance(sock, KCPSocket), config, os._exit.__module__))


@pytest.mark.parametrize("method", METHODS)
def test_a_process_that_a_patched_one_starts_is_patched(method: str) -> None:
    context = multiprocessing.get_context(method)

    def ask() -> tuple[bool, int | None, str]:
        ours, theirs = context.Pipe()
        process = context.Process(target=which_class, args=(theirs,))  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        assert ours.poll(PATIENCE)
        answer: tuple[bool, int | None, str] = ours.recv()
        process.join(PATIENCE)
        process.close()
        ours.close()
        return answer

    with kcpsocket.patched(Config(mtu=777), exclude=["10.0.0.0/8"]):
        assert ask()[:2] == (True, 777)
    assert ask()[:2] == (False, None)


def test_rules_that_cannot_be_passed_on_are_told() -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=which_class, args=(theirs,))
    with kcpsocket.patched(exclude=lambda address: False), pytest.warns(RuntimeWarning, match="will not be patched"):
        process.start()
    assert ours.poll(PATIENCE)
    assert ours.recv()[0] is False
    process.join(PATIENCE)
    for end in (ours, theirs, process):
        end.close()


def test_pickle_itself_refuses_a_socket_as_ever() -> None:
    with KCPSocket() as sock, pytest.raises(TypeError, match="pickle"):
        pickle.dumps(sock)


# --- descriptors passed on ---


def test_a_subprocess_has_the_connection_as_its_standard_streams() -> None:
    source = "import sys; sys.stdout.write(sys.stdin.readline().upper()); sys.stdout.flush(); sys.stdin.read()"
    with pair() as (client, server):
        server.setblocking(True)  # which the processes share
        streams: dict[str, Any] = {"stdin": server, "stdout": server}
        with subprocess.Popen([sys.executable, "-c", source], **streams) as process:
            server.close()
            client.sendall(b"shout\n")
            assert client.recv(100) == b"SHOUT\n"
            client.shutdown(socket.SHUT_WR)
            assert process.wait(PATIENCE) == 0
            assert client.recv(100) == b""


def test_a_subprocess_makes_a_socket_of_the_descriptor_it_inherits() -> None:
    source = """
        import sys, socket, kcpsocket
        kcpsocket.patch()
        with socket.socket(fileno=int(sys.argv[1])) as sock:
            print(type(sock).__name__, sock.getsockname()[1], sock.getpeername()[1], flush=True)
            sock.sendall(sock.recv(100).upper())
    """
    with pair() as (client, server):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        arguments = [sys.executable, "-c", textwrap.dedent(source), str(server.fileno())]
        with subprocess.Popen(
            arguments, pass_fds=[server.fileno()], stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            expected = f"KCPSocket {server.getsockname()[1]} {server.getpeername()[1]}\n"
            server.setblocking(True)  # which the processes share
            server.close()
            assert process.stdout is not None
            assert process.stdout.readline() == expected
            client.sendall(b"passed")
            assert client.recv(100) == b"PASSED"
            assert client.recv(100) == b""


@pytest.mark.parametrize("with_helper", [True, False])
def test_send_fds_passes_a_connection_to_another_process(with_helper: bool) -> None:
    mine, childs = socket.socketpair()
    with pair() as (client, server), mine, childs:
        address, peer = server.getsockname(), server.getpeername()

        def work() -> None:
            server.close()
            client.close()
            _, descriptors, _, _ = socket.recv_fds(childs, 10, 1)
            with KCPSocket(fileno=descriptors[0]) as sock:
                sock.settimeout(PATIENCE)
                assert (sock.getsockname(), sock.getpeername()) == (address, peer)
                assert sock.family is socket.AF_INET
                sock.sendall(sock.recv(100).upper())

        with forked(work):
            if with_helper:
                socket.send_fds(mine, [b"x"], [server.fileno()])
            else:
                mine.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [server.fileno()]))])
            server.close()
            client.sendall(b"by message")
            assert client.recv(100) == b"BY MESSAGE"
            assert client.recv(1) == b""


def test_a_worker_that_is_killed_takes_only_its_own_connections_along() -> None:
    with listen() as listener:

        def work() -> None:
            sock, _ = listener.accept()
            sock.sendall(b"mine")
            signal.pause()  # until it is killed

        pid = os.fork()
        if pid == 0:
            try:
                work()
            finally:
                os._exit(1)
        with connect(listener.getsockname()) as first:
            assert first.recv(10) == b"mine"
            with connect(listener.getsockname()) as second, listener.accept()[0] as server:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                assert first.recv(10) == b""
                server.sendall(b"still served")
                assert second.recv(100) == b"still served"
