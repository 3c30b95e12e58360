"""patch(): unmodified programs over KCP; and `import kcpsocket as socket`."""

from __future__ import annotations

import abc
import asyncio
import http.client
import http.server
import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest
from loopback import PATIENCE

import kcpsocket
from kcpsocket import Config, KCPSocket, patch, patched, unpatch

STANDARD = socket.socket


@pytest.fixture
def under_patch() -> Iterator[None]:
    with patched():
        yield


def echo_once(listener: socket.socket) -> threading.Thread:
    def serve() -> None:
        with listener.accept()[0] as sock:
            while data := sock.recv(65536):
                sock.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_patch_swaps_and_unpatch_restores() -> None:
    patch()
    try:
        assert socket.socket is not STANDARD
        assert issubclass(socket.socket, KCPSocket)
        with socket.socket() as sock:
            assert isinstance(sock, KCPSocket)
    finally:
        unpatch()
    assert socket.socket is STANDARD
    unpatch()
    assert socket.socket is STANDARD


def test_patched_nests_and_restores_what_was_there() -> None:
    with patched(Config(mtu=500)):
        outer = socket.socket
        with patched(Config(mtu=600)), socket.socket() as sock:
            assert sock.config.mtu == 600  # type: ignore[attr-defined]
        assert socket.socket is outer
        with pytest.raises(ZeroDivisionError), patched():
            raise ZeroDivisionError
        assert socket.socket is outer
        assert outer.config.mtu == 500  # type: ignore[attr-defined]
    assert socket.socket is STANDARD


@pytest.mark.usefixtures("under_patch")
def test_only_internet_streams_change() -> None:
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP) as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        assert isinstance(stream, KCPSocket)
        assert type(datagrams) is STANDARD
        assert type(unix) is STANDARD
        for sock in (stream, datagrams, unix):
            assert isinstance(sock, socket.socket)
            assert issubclass(type(sock), socket.socket)
    assert not isinstance(5, socket.socket)


@pytest.mark.usefixtures("under_patch")
def test_helpers_of_the_socket_module_follow() -> None:
    one, other = socket.socketpair()
    with one, other, socket.fromfd(one.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as third:
        assert type(one) is type(third) is STANDARD
        third.sendall(b"x")
        assert other.recv(1) == b"x"
    with socket.socket(fileno=socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()) as datagrams:
        assert type(datagrams) is STANDARD
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert isinstance(listener, KCPSocket)
        thread = echo_once(listener)
        with socket.create_connection(listener.getsockname(), PATIENCE) as client:
            assert isinstance(client, KCPSocket)
            client.sendall(b"echo")
            assert client.recv(10) == b"echo"
            with socket.fromfd(client.fileno(), socket.AF_INET, socket.SOCK_STREAM) as again:
                assert isinstance(again, KCPSocket)
        thread.join()
    with socket.socket(fileno=socket.socket().detach()) as again:
        assert isinstance(again, KCPSocket)


@pytest.mark.usefixtures("under_patch")
def test_classes_can_be_derived_from_the_patched_one() -> None:
    class Mine(socket.socket):
        def hello(self) -> str:
            return "hello"

    class Abstract(socket.socket, abc.ABC):
        @abc.abstractmethod
        def work(self) -> None: ...

    with Mine(socket.AF_INET, socket.SOCK_STREAM) as mine, socket.socket() as other, Mine(socket.AF_UNIX) as unix:
        assert mine.hello() == unix.hello() == "hello"
        assert isinstance(mine, Mine)
        assert isinstance(mine, KCPSocket)
        assert isinstance(unix, Mine)
        assert not isinstance(other, Mine)
        assert not issubclass(STANDARD, Mine)
        assert unix.getsockname() == ""
    with Abstract() as sock:
        assert isinstance(sock, KCPSocket)


@pytest.mark.usefixtures("under_patch")
def test_socketserver_and_http() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            assert isinstance(self.connection, KCPSocket)
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = False

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        client = http.client.HTTPConnection(*server.server_address[:2], timeout=PATIENCE)  # type: ignore[arg-type]
        for _ in range(3):
            client.request("GET", "/")
            assert client.getresponse().read() == b"hello"
        assert isinstance(client.sock, KCPSocket)
        client.close()
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("under_patch")
def test_asyncio_streams() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*address)
            assert writer.get_extra_info("peername") == address
            data = bytes(range(256)) * 4000
            writer.write(data)
            writer.write_eof()
            assert await reader.read() == data
            writer.close()
            await writer.wait_closed()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", closed)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    asyncio.run(asyncio.wait_for(main(), PATIENCE))


# --- import kcpsocket as socket ---


def test_every_public_name_of_socket_is_there() -> None:
    for name in socket.__all__:
        assert hasattr(kcpsocket, name), name
    assert set(socket.__all__) <= set(kcpsocket.__all__)
    assert {name for name in dir(socket) if not name.startswith("_")} <= set(dir(kcpsocket))
    assert kcpsocket.AF_INET is socket.AF_INET
    assert kcpsocket.timeout is TimeoutError
    assert kcpsocket.SocketIO is socket.SocketIO
    with pytest.raises(AttributeError, match="module 'kcpsocket' has no attribute 'nonsense'"):
        kcpsocket.nonsense  # noqa: B018


def test_star_import() -> None:
    names: dict[str, object] = {}
    exec("from kcpsocket import *", names)
    assert names["socket"] is kcpsocket.socket
    assert names["AF_INET"] is socket.AF_INET
    assert names["KCPSocket"] is KCPSocket


def test_module_in_place_of_socket() -> None:
    with kcpsocket.create_server(("127.0.0.1", 0)) as listener:
        assert isinstance(listener, kcpsocket.socket)
        assert isinstance(listener, KCPSocket)
        thread = echo_once(listener)
        with kcpsocket.create_connection(listener.getsockname(), timeout=PATIENCE) as client:
            assert client.gettimeout() == PATIENCE
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        thread.join()
    with kcpsocket.socket(kcpsocket.AF_UNIX) as unix:
        assert type(unix) is socket.socket
        assert isinstance(unix, kcpsocket.socket)
    with pytest.raises(OSError, match="while attempting to bind"):
        kcpsocket.create_server(("203.0.113.1", 80))
    assert socket.socket is STANDARD


def test_create_connection_sees_what_others_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*args: object, **kwargs: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "replaced")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(socket.gaierror, match="replaced"):
        kcpsocket.create_connection(("127.0.0.1", 9))
