"""patch(only=..., exclude=...): which addresses go over KCP and which stay on TCP."""

from __future__ import annotations

import asyncio
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from loopback import PATIENCE

from kcpsocket import KCPSocket, patched
from kcpsocket.rules import Rules

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.mark.parametrize(
    ("rule", "matching", "others"),
    [
        ("10.0.0.5", [("10.0.0.5", 1), ("10.0.0.5", 65535), ("::ffff:10.0.0.5", 9)], [("10.0.0.6", 1), ("::1", 1)]),
        ("10.0.0.5:5432", [("10.0.0.5", 5432)], [("10.0.0.5", 5433), ("10.0.0.6", 5432)]),
        ("10.0.0.0/8", [("10.9.8.7", 1)], [("11.0.0.0", 1), ("fe80::1", 1)]),
        ("10.1.2.3/8:80", [("10.9.8.7", 80)], [("10.9.8.7", 81)]),
        (":80", [("10.9.8.7", 80), ("::1", 80), ("", 80)], [("::1", 81)]),
        ("*:8000-8099", [("1.2.3.4", 8000), ("1.2.3.4", 8099)], [("1.2.3.4", 7999), ("1.2.3.4", 8100)]),
        ("*", [("1.2.3.4", 0), ("::", 1, 0, 0)], []),
        ("10.0.0.5:*", [("10.0.0.5", 7)], [("10.0.0.6", 7)]),
        ("::1", [("::1", 5, 0, 0)], [("::2", 5, 0, 0)]),
        ("[::1]", [("::1", 5)], [("::2", 5)]),
        ("[::1]:80", [("::1", 80)], [("::1", 81)]),
        ("2001:db8::/32", [("2001:db8:1::9", 80)], [("2001:db9::", 80)]),
        ("[2001:db8::]/32", [], []),
        ("2001:db8::/32:80", [("2001:db8:1::9", 80)], [("2001:db8:1::9", 81)]),
        ("fe80::/10", [("fe80::1%lo", 80)], [("::1", 80)]),
        ("localhost:80", [("localhost", 80), ("LOCALHOST", 80), ("127.0.0.1", 80)], [("localhost", 81)]),
        ("0.0.0.0", [("", 80), ("0.0.0.0", 80)], [("127.0.0.1", 80)]),
        ("127.0.0.1", [("localhost", 80)], []),
    ],
)
def test_a_rule_matches(rule: str, matching: list[tuple[Any, ...]], others: list[tuple[Any, ...]]) -> None:
    if rule == "[2001:db8::]/32":  # brackets are for one address
        with pytest.raises(ValueError):
            Rules(only=rule)
        return
    only, exclude = Rules(only=rule), Rules(exclude=[rule])
    for address in matching:
        assert only.over_kcp(V4, address), address
        assert not exclude.over_kcp(V4, address), address
    for address in others:
        assert not only.over_kcp(V4, address), address
        assert exclude.over_kcp(V4, address), address


@pytest.mark.parametrize(
    "rule", ["", ":", "[::1", "10.0.0.0/33", "1.2.3.4:http", "1.2.3.4:70000", ":9-8", ":1-", "[::1]80", "1.2.3.4:-1"]
)
def test_a_rule_that_makes_no_sense_is_refused_with_what_is_allowed(rule: str) -> None:
    with pytest.raises(ValueError, match="allowed") as caught:
        Rules(exclude=[rule])
    assert repr(rule) in str(caught.value)


def test_a_rule_with_a_name_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="not known"):
        Rules(only="nothing.invalid:80")
    with pytest.raises(TypeError, match="5"):
        Rules(only=[5])  # type: ignore[list-item]


def test_functions_are_rules_and_exclude_goes_before_only() -> None:
    rules = Rules(only=["127.0.0.0/8"], exclude=lambda address: address[1] % 2 == 0)
    assert rules.over_kcp(V4, ("127.0.0.1", 1))
    assert not rules.over_kcp(V4, ("127.0.0.1", 2))
    assert not rules.over_kcp(V4, ("10.0.0.1", 1))


def is_tcp(sock: socket.socket) -> bool:
    """Whether the kernel has a TCP socket behind the descriptor."""
    copy = os.dup(sock.fileno())
    with socket.socket(fileno=copy) as plain:
        return plain.family in (V4, V6) and not isinstance(plain, KCPSocket)


@contextmanager
def server(wrap: Callable[[socket.socket], socket.socket] = lambda sock: sock) -> Iterator[socket.socket]:
    """An echo server of one connection, of whatever kind the patch makes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)

        def serve() -> None:
            with wrap(listener.accept()[0]) as sock:
                sock.settimeout(PATIENCE)
                while data := sock.recv(65536):
                    sock.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener
        finally:
            thread.join()


def echo(client: socket.socket) -> None:
    client.sendall(b"there and back")
    assert client.recv(100) == b"there and back"


def test_an_excluded_peer_is_reached_over_tcp_and_the_others_over_kcp() -> None:
    with patched(), server() as kcp:
        port = kcp.getsockname()[1]
        with patched(exclude="*"), server() as tcp:
            assert is_tcp(tcp)
            with patched(exclude=f"127.0.0.1:{tcp.getsockname()[1]}"):
                with socket.create_connection(tcp.getsockname(), PATIENCE) as client:
                    echo(client)
                    assert is_tcp(client)
                    assert client.gettimeout() == PATIENCE
                with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                    echo(client)
                    assert isinstance(client, KCPSocket)
                    assert not is_tcp(client)


def test_only_some_listeners_are_kcp() -> None:
    with patched(only=lambda address: address[0] == "127.0.0.1"):
        with socket.create_server(("127.0.0.1", 0)) as kcp:
            assert not is_tcp(kcp)
        with socket.create_server(("127.0.0.2", 0)) as tcp:
            assert is_tcp(tcp)
            assert tcp.getsockname()[0] == "127.0.0.2"
            with socket.create_connection(tcp.getsockname(), PATIENCE) as client:
                assert is_tcp(client)
                sock, address = tcp.accept()
                with sock:
                    assert address == client.getsockname() == sock.getpeername()
                    assert is_tcp(sock)
        with socket.socket() as unbound:
            unbound.listen()
            assert is_tcp(unbound)


def test_the_descriptor_its_options_and_its_modes_stay_when_it_becomes_tcp() -> None:
    with patched(exclude="*"), server() as listener, socket.socket() as client:
        number = client.fileno()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\5\0\0\0")
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 7000)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
        client.set_inheritable(True)
        client.settimeout(PATIENCE)
        blocking = os.get_blocking(number)
        client.connect(listener.getsockname())
        assert is_tcp(client)
        assert client.fileno() == number
        assert client.get_inheritable()
        assert os.get_blocking(number) is blocking
        assert client.gettimeout() == PATIENCE
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == b"\1\0\0\0\5\0\0\0"
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
        assert client.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0x10
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 200_000
        echo(client)
        assert client.getpeername() == listener.getsockname()


def test_the_peer_has_the_last_word_over_the_address_bound_to() -> None:
    with (
        patched(),
        server() as kcp,
        patched(only=lambda address: address[1] == kcp.getsockname()[1]),
        socket.socket() as sock,
    ):
        sock.settimeout(PATIENCE)
        sock.bind(("127.0.0.1", 0))
        assert is_tcp(sock)
        local = sock.getsockname()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.connect(kcp.getsockname())
        assert not is_tcp(sock)
        assert isinstance(sock, KCPSocket)
        assert sock.getsockname()[0] == local[0]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        echo(sock)
    with (
        patched(exclude="127.0.0.1"),
        server() as tcp,
        patched(exclude=lambda address: address[1] == tcp.getsockname()[1]),
        socket.create_connection(tcp.getsockname(), PATIENCE, source_address=("127.0.0.1", 0)) as sock,
    ):
        assert is_tcp(sock)
        echo(sock)


def test_a_change_of_kind_keeps_the_port_that_was_asked_for_and_only_that(free_port: int) -> None:
    def rule(address: tuple[Any, ...]) -> bool:
        return bool(address[1] == kcp.getsockname()[1])

    with patched(), server() as kcp, patched(only=rule), socket.socket() as sock:
        sock.settimeout(PATIENCE)
        sock.bind(("127.0.0.1", free_port))
        sock.connect(kcp.getsockname())
        assert sock.getsockname() == ("127.0.0.1", free_port)
        echo(sock)
    with patched(), server() as kcp, patched(only=rule), socket.socket() as sock:
        sock.settimeout(PATIENCE)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            with suppress(OSError):
                taken.bind(("127.0.0.1", port))  # whoever has the port on UDP now
            sock.connect(kcp.getsockname())
        assert sock.getsockname() not in (("127.0.0.1", port), ("127.0.0.1", 0))
        echo(sock)


def test_a_refused_tcp_connect_can_be_followed_by_one_over_kcp() -> None:
    with patched(), server() as kcp, standard_listener() as closed:
        refused = closed.getsockname()
        closed.close()
        with patched(exclude=f"127.0.0.1:{refused[1]}"), socket.socket() as sock:
            sock.settimeout(PATIENCE)
            with pytest.raises(ConnectionRefusedError):
                sock.connect(refused)
            assert is_tcp(sock)
            assert sock.connect_ex(kcp.getsockname()) == 0
            assert not is_tcp(sock)
            echo(sock)


@contextmanager
def standard_listener() -> Iterator[socket.socket]:
    with patched(exclude="*"), socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_asyncio_and_tls_reach_an_excluded_peer(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server_context, client_context = tls
    with patched(exclude="*"):
        with (
            server(lambda sock: server_context.wrap_socket(sock, server_side=True)) as listener,
            client_context.wrap_socket(socket.socket(), server_hostname="localhost") as client,
        ):
            client.settimeout(PATIENCE)
            client.connect(listener.getsockname())
            assert is_tcp(client)
            assert client.getpeername() == listener.getsockname()
            echo(client)

        async def main(address: tuple[str, int]) -> None:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            assert is_tcp_transport(writer)
            writer.close()
            await writer.wait_closed()

        with server() as listener:
            asyncio.run(asyncio.wait_for(main(listener.getsockname()), PATIENCE))


def is_tcp_transport(writer: asyncio.StreamWriter) -> bool:
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
        return sock.family is socket.AF_INET and not isinstance(sock, KCPSocket)


PROGRAM = """
import socket, sys
for port in sys.argv[1:]:
    with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as client:
        client.sendall(b"hello")
        with socket.socket(fileno=client.dup().detach()) as copy:
            print(type(copy).__name__, client.recv(5))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m kcpsocket run` with these arguments."""
    command = [sys.executable, "-m", "kcpsocket", "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)


@pytest.mark.parametrize("option", ["--only", "--exclude"])
def test_run_takes_rules(tmp_path: pathlib.Path, option: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with patched(), server() as kcp, patched(exclude="*"), server() as tcp:
        ports = [str(sock.getsockname()[1]) for sock in (kcp, tcp)]
        rule = f"127.0.0.1:{ports[0]}" if option == "--only" else f":{ports[1]}"
        result = run(option, "10.0.0.0/8", option, rule, str(tmp_path / "program.py"), *ports)
    assert (result.stdout, result.stderr) == ("KCPSocket b'hello'\nsocket b'hello'\n", "")


def test_run_refuses_a_rule_that_makes_no_sense(tmp_path: pathlib.Path) -> None:
    (tmp_path / "program.py").write_text("print('ran')")
    result = run("--exclude", "10.0.0.0/99", str(tmp_path / "program.py"))
    assert (result.returncode, result.stdout) == (2, "")
    assert "10.0.0.0/99" in result.stderr
