"""Classes derived from KCPSocket behave as those derived from socket.socket do; and their types, for a type checker."""

from __future__ import annotations

import pathlib
import shutil
import socket
import socketserver
import subprocess
import sys
import textwrap
import threading
from typing import Any, ClassVar

import pytest
from life import PATIENCE, connect, listen, settle

import kcpsocket
from kcpsocket import Config, KCPSocket

# One class here is derived from the standard class on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:sockets of classes that were derived:RuntimeWarning")


class Shouting(KCPSocket):
    """Overrides what a program would."""

    config: ClassVar[Config] = Config(mtu=900)

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.log: list[str] = []

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        self.log.append("recv")
        return super().recv(bufsize, flags).upper()

    def send(self, data: Any, flags: int = 0, /) -> int:
        self.log.append("send")
        return super().send(data, flags)

    def accept(self) -> tuple[socket.socket, Any]:
        self.log.append("accept")
        return super().accept()


def test_overridden_methods_are_called_and_reach_the_connection_by_super() -> None:
    with Shouting() as listener, Shouting() as client:
        for sock in (listener, client):
            sock.settimeout(PATIENCE)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        server, address = listener.accept()
        with server:
            assert address == client.getsockname()
            assert listener.log == ["accept"]
            assert client.send(b"abc") == 3
            assert server.recv(3) == b"abc"
            server.sendall(b"abc")
            assert client.recv(3) == b"ABC"
            assert client.log == ["send", "recv"]
            assert client.kcp_info().mtu == 900
    settle()


def test_accept_of_a_subclass_gives_what_the_standard_one_would() -> None:
    class Mine(socket.socket):
        pass

    with Mine() as plain_listener, socket.socket() as plain_client:
        plain_listener.bind(("127.0.0.1", 0))
        plain_listener.listen()
        plain_client.connect(plain_listener.getsockname())
        plain, _ = plain_listener.accept()
        plain.close()
        assert type(plain) is socket.socket  # not of the derived class
    with Shouting() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with connect(listener.getsockname()):
            server, _ = listener.accept()
            server.close()
            assert type(server) is KCPSocket
    settle()


def test_dup_of_a_subclass_is_of_the_subclass() -> None:
    with Shouting() as sock, sock.dup() as other:
        assert type(other) is Shouting
        assert other.log == []


def test_an_override_of_the_private_accept_and_of_close_is_used() -> None:
    closed: list[int] = []

    class Closing(KCPSocket):
        def close(self) -> None:
            closed.append(self.fileno())
            super().close()

    with Closing() as sock:
        number = sock.fileno()
    assert closed == [number]


def test_a_subclass_of_another_kind_of_socket_is_ordinary() -> None:
    with Shouting(socket.AF_INET, socket.SOCK_DGRAM) as one, Shouting(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(PATIENCE)
        one.sendto(b"datagram", other.getsockname())
        assert other.recv(100) == b"DATAGRAM"


def test_multiple_inheritance_and_slots() -> None:
    class Named:
        __slots__ = ()
        label = "mixed in"

    class Slotted(Named, KCPSocket):
        __slots__ = ("extra",)
        extra: int

    with Slotted() as sock:
        sock.extra = 5
        assert (sock.label, sock.extra) == ("mixed in", 5)
        with pytest.raises(AttributeError):
            sock.other = 1  # type: ignore[attr-defined]


class EchoHandler(socketserver.StreamRequestHandler):
    """Sends lines back."""

    def handle(self) -> None:
        assert isinstance(self.request, KCPSocket)
        for line in self.rfile:
            self.wfile.write(line)


class KCPServer(socketserver.ThreadingTCPServer):
    """A server class of a program's own, that asks for KCP itself."""

    daemon_threads = False

    def __init__(self, address: tuple[str, int], handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__(address, handler, bind_and_activate=False)
        self.socket.close()
        self.socket = Shouting(self.address_family, self.socket_type)
        self.server_bind()
        self.server_activate()


def test_a_server_class_that_makes_its_own_listening_socket() -> None:
    with KCPServer(("127.0.0.1", 0), EchoHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        with connect(server.server_address) as client, client.makefile("rwb") as file:
            file.write(b"line\n")
            file.flush()
            assert file.readline() == b"line\n"
        server.shutdown()
        thread.join(PATIENCE)
        assert isinstance(server.socket, Shouting)
        assert "accept" in server.socket.log
    settle()


def test_socketserver_with_a_socket_type() -> None:
    class Server(socketserver.TCPServer):
        socket_type = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
        request_queue_size = 3
        allow_reuse_address = True

    with kcpsocket.patched(), Server(("127.0.0.1", 0), EchoHandler) as server:
        assert isinstance(server.socket, KCPSocket)
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with connect(server.server_address) as client:
            client.sendall(b"hello\n")
            assert client.recv(100) == b"hello\n"
        thread.join(PATIENCE)
    settle()


def test_a_class_attribute_carries_settings_to_what_is_accepted() -> None:
    with listen(Config(mtu=600, sndwnd=77)) as listener, connect(listener.getsockname()):
        server, _ = listener.accept()
        with server:
            assert isinstance(server, KCPSocket)
            assert server.kcp_info().mtu == 600
            assert server.kcp_info().snd_wnd == 77
    settle()


USERS_PROGRAM = """
    import socket
    import ssl
    from typing import ClassVar

    import kcpsocket
    from kcpsocket import Config, KCPInfo, KCPSocket, KCPSSLSocket, patch, patched, unpatch


    class Logged(KCPSocket):
        config: ClassVar[Config] = Config(mode="fast3", sndwnd=512)

        def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
            super().__init__(family, type, proto, fileno)
            self.count = 0

        def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
            self.count += 1
            return super().recv(bufsize, flags)


    def only_private(address: tuple[object, ...]) -> bool:
        return str(address[0]).startswith("10.")


    def fetch(host: str, port: int) -> bytes:
        with Logged(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(3.5)
            sock.connect((host, port))
            sock.setsockopt(kcpsocket.SOL_KCP, kcpsocket.KCP_INTERVAL, 10)
            interval: int = sock.getsockopt(kcpsocket.SOL_KCP, kcpsocket.KCP_INTERVAL)
            sock.sendall(b"GET %d" % interval)
            info: KCPInfo = sock.kcp_info()
            print(info.srtt, info.phase.name, sock.count)
            view = memoryview(bytearray(10))
            read: int = sock.recv_into(view)
            return bytes(view[:read]) + sock.recv(100)


    def serve(listener: KCPSocket) -> None:
        sock, address = listener.accept()
        plain: socket.socket = sock
        with plain, plain.makefile("rb") as file:
            print(address, file.readline())


    def everything_else() -> None:
        patch(Config(key="secret", crypt="aes"), exclude=["10.0.0.0/8:5432", only_private])
        with patched(only=only_private):
            made: socket.socket = kcpsocket.create_connection(("127.0.0.1", 1), timeout=2)
            made.close()
        unpatch()
        context = ssl.create_default_context()
        wrapped = context.wrap_socket(KCPSocket(), server_hostname="x")
        if isinstance(wrapped, KCPSSLSocket):
            print(wrapped.kcp_info().conv)
        counters: dict[str, int] = kcpsocket.snmp()
        print(counters, kcpsocket.AF_INET, kcpsocket.usage())
"""

MISTAKE = """
    from kcpsocket import Config, KCPSocket

    sock = KCPSocket()
    value: str = sock.recv(5)
    Config(mtu="big")
"""


def mypy(path: pathlib.Path) -> subprocess.CompletedProcess[str]:
    options = ("--strict", "--follow-imports=silent", "--no-incremental", "--no-site-packages")
    command = [sys.executable, "-m", "mypy", *options]
    source = pathlib.Path(__file__).parents[1]
    return subprocess.run(
        [*command, str(path)],
        cwd=path.parent,
        env={"MYPYPATH": str(source), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_a_users_program_passes_mypy_strict_and_mistakes_do_not(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    program = tmp_path / "users_program.py"
    program.write_text(textwrap.dedent(USERS_PROGRAM))
    result = mypy(program)
    assert "Success" in result.stdout, result.stdout + result.stderr
    program.write_text(textwrap.dedent(MISTAKE))
    result = mypy(program)
    assert result.stdout.count("users_program.py:") == 2, result.stdout
    shutil.rmtree(tmp_path / ".mypy_cache", ignore_errors=True)
