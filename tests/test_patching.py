"""patch(): unmodified programs over KCP; and `import kcpsocket as socket`."""

from __future__ import annotations

import abc
import asyncio
import http.client
import http.server
import socket
import socketserver
import sys
import threading
import types
import warnings
from collections.abc import Iterator

import pytest
from loopback import PATIENCE

import kcpsocket
from kcpsocket import Config, KCPSocket, patch, patched, unpatch


def standard() -> type[socket.socket]:
    """The standard class (not a global name of this module: patch() would rebind it)."""
    return KCPSocket.__bases__[0]


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
        assert socket.socket is not standard()
        assert issubclass(socket.socket, KCPSocket)
        with socket.socket() as sock:
            assert isinstance(sock, KCPSocket)
    finally:
        unpatch()
    assert socket.socket is standard()
    unpatch()
    assert socket.socket is standard()


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
    assert socket.socket is standard()


@pytest.mark.usefixtures("under_patch")
def test_only_internet_streams_change() -> None:
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP) as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        assert isinstance(stream, KCPSocket)
        assert type(datagrams) is standard()
        assert type(unix) is standard()
        for sock in (stream, datagrams, unix):
            assert isinstance(sock, socket.socket)
            assert issubclass(type(sock), socket.socket)
    assert not isinstance(5, socket.socket)


@pytest.mark.usefixtures("under_patch")
def test_helpers_of_the_socket_module_follow() -> None:
    one, other = socket.socketpair()
    with one, other, socket.fromfd(one.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as third:
        assert type(one) is type(third) is standard()
        third.sendall(b"x")
        assert other.recv(1) == b"x"
    with socket.socket(fileno=socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()) as datagrams:
        assert type(datagrams) is standard()
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
        assert not issubclass(standard(), Mine)
        assert unix.getsockname() == ""
    with Abstract() as sock:  # type: ignore[abstract]
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


# --- modules that imported the class before ---


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An imported module that did `from socket import socket`, and the like, before any patch."""
    made = types.ModuleType("early_bird")
    exec(
        "import socket as s\n"
        "from socket import AF_UNIX, create_connection, create_server, socket\n"
        "Stream = s.socket\n"
        "kept = [socket]\n"
        "def tcp(): return socket()\n",
        made.__dict__,
    )
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def test_names_that_modules_gave_the_class_before_are_rebound_and_put_back(module: types.ModuleType) -> None:
    with patched():
        assert module.socket is module.Stream is socket.socket
        with module.tcp() as sock, module.socket(module.AF_UNIX) as unix:
            assert isinstance(sock, KCPSocket)
            assert type(unix) is standard()
        with module.create_server(("127.0.0.1", 0)) as listener:
            assert isinstance(listener, KCPSocket)
            thread = echo_once(listener)
            with module.create_connection(listener.getsockname(), PATIENCE) as client:
                assert isinstance(client, KCPSocket)
            thread.join()
        assert module.kept == [standard()]
    assert module.socket is module.Stream is socket.socket is standard()


def test_a_module_that_is_imported_under_the_patch_is_put_back_too(module: types.ModuleType) -> None:
    with patched(Config(mtu=700)):
        exec("from socket import socket as late", module.__dict__)
        with patched(Config(mtu=600)):
            assert module.late.config.mtu == 600
        assert module.late.config.mtu == 700
    assert module.late is standard()


def test_a_module_that_asked_for_kcpsocket_itself_keeps_it(module: types.ModuleType) -> None:
    exec("from kcpsocket import socket as always, KCPSocket", module.__dict__)
    with patched():
        assert module.always is kcpsocket.socket
    assert module.always is kcpsocket.socket
    assert module.KCPSocket is KCPSocket


def test_classes_that_were_derived_before_are_named_in_one_warning() -> None:
    class TooEarly(socket.socket):
        pass

    class EvenMore(TooEarly):
        pass

    with pytest.warns(RuntimeWarning, match="derived from socket.socket before") as caught, patched():
        pass
    assert len(caught) == 1
    assert caught[0].filename == __file__
    for cls in (TooEarly, EvenMore):
        assert f"{__name__}.{cls.__qualname__}" in str(caught[0].message)
    assert "KCPSocket" not in str(caught[0].message)
    assert "SSLSocket" not in str(caught[0].message)
    with warnings.catch_warnings():  # once is enough
        warnings.simplefilter("error")
        with patched(), TooEarly() as sock:
            assert not isinstance(sock, KCPSocket)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_INET


def test_patch_twice_and_unpatch_once() -> None:
    patch(Config(mtu=500))
    try:
        patch(Config(mtu=600))
        with socket.socket() as sock:
            assert sock.config.mtu == 600  # type: ignore[attr-defined]
    finally:
        unpatch()
    assert socket.socket is standard()
    with socket.socket() as sock:
        assert type(sock) is standard()


def test_threads_that_patch_and_use_sockets_leave_it_as_it_was() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                patch()
                with socket.socket() as sock:
                    assert isinstance(sock, socket.socket)
        except BaseException as error:
            failures.append(error)

    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        unpatch()
    assert failures == []
    assert socket.socket is standard()


@pytest.mark.usefixtures("under_patch")
def test_instances_both_ways() -> None:
    class Derived(socket.socket):
        pass

    with standard()() as plain, kcpsocket.socket() as other, KCPSocket() as bare, Derived() as derived:
        for sock in (plain, other, bare, derived):
            assert isinstance(sock, socket.socket)
            assert isinstance(sock, kcpsocket.socket)
            assert isinstance(sock, standard())
        assert isinstance(derived, Derived)
        assert not isinstance(bare, Derived)
        assert not isinstance(plain, KCPSocket)
    assert issubclass(standard(), socket.socket)
    assert issubclass(KCPSocket, socket.socket)
    assert not issubclass(int, socket.socket)


@pytest.mark.usefixtures("under_patch")
def test_a_dual_stack_server_takes_both_families() -> None:
    assert socket.has_dualstack_ipv6()
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        assert isinstance(listener, KCPSocket)
        assert not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        for host in ("127.0.0.1", "::1"):
            thread = echo_once(listener)
            with socket.create_connection((host, listener.getsockname()[1]), PATIENCE) as client:
                client.sendall(b"dual")
                assert client.recv(4) == b"dual"
                assert client.getpeername()[0] == host
                client.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b""
            thread.join()


@pytest.mark.usefixtures("under_patch")
def test_a_single_stack_server_does_not() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", listener.getsockname()[1]), PATIENCE)


@pytest.mark.usefixtures("under_patch")
def test_a_tcp_descriptor_gives_a_plain_socket() -> None:
    with standard()() as tcp:
        with socket.fromfd(tcp.fileno(), socket.AF_INET, socket.SOCK_STREAM) as again:
            assert type(again) is standard()
        with socket.socket(fileno=tcp.dup().detach()) as again:
            assert type(again) is standard()
            assert again.family is socket.AF_INET


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
    assert socket.socket is standard()


def test_create_connection_sees_what_others_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*args: object, **kwargs: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "replaced")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(socket.gaierror, match="replaced"):
        kcpsocket.create_connection(("127.0.0.1", 9))
