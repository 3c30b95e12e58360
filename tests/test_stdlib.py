"""The standard library's own servers and clients over KCP, unmodified."""

from __future__ import annotations

import asyncio
import functools
import http.client
import http.server
import multiprocessing.connection
import pathlib
import select
import selectors
import socket
import socketserver
import ssl
import subprocess
import threading
import urllib.request
import xmlrpc.client
import xmlrpc.server
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from life import PATIENCE, settle

import kcpsocket
from kcpsocket import KCPSocket, engine


@pytest.fixture(autouse=True)
def over_kcp() -> Iterator[None]:
    """Every test here runs under patch(), and leaves no session; what it did went over KCP."""
    before = engine.snmp().get("PassiveOpens", 0)
    with kcpsocket.patched():
        yield
    settle()
    assert engine.snmp()["PassiveOpens"] > before, "nothing went over KCP"


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[tuple[str, int]]:
    """`server` at work in a thread; its address."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address  # type: ignore[misc]
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()


class Echo(socketserver.StreamRequestHandler):
    """Sends back what it reads, line by line; speaks first."""

    def handle(self) -> None:
        assert isinstance(self.request, KCPSocket)
        self.wfile.write(b"220 ready\r\n")
        for line in self.rfile:
            self.wfile.write(line)


@pytest.mark.parametrize(
    "kind", [socketserver.ThreadingTCPServer, socketserver.ForkingTCPServer, socketserver.TCPServer]
)
def test_socketserver(kind: type[socketserver.TCPServer]) -> None:
    with serving(kind(("127.0.0.1", 0), Echo)) as address:
        for number in range(3):
            with socket.create_connection(address, timeout=PATIENCE) as client, client.makefile("rwb") as file:
                assert file.readline() == b"220 ready\r\n"
                line = b"line %d\r\n" % number
                file.write(line)
                file.flush()
                assert file.readline() == line
                client.shutdown(socket.SHUT_WR)
                assert file.read() == b""


@contextmanager
def web_server(directory: pathlib.Path) -> Iterator[tuple[http.server.ThreadingHTTPServer, tuple[str, int]]]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory)))
    with serving(server) as address:
        yield server, address


def test_http_server_with_urllib_and_a_kept_connection(tmp_path: pathlib.Path) -> None:
    body = bytes(range(256)) * 20_000
    (tmp_path / "file").write_bytes(body)
    with web_server(tmp_path) as (_, (host, port)):
        with urllib.request.urlopen(f"http://{host}:{port}/file", timeout=PATIENCE) as response:
            assert response.read() == body
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
        for _ in range(3):
            connection.request("GET", "/file")
            assert connection.getresponse().read() == body
        connection.close()


def certificate(directory: pathlib.Path) -> tuple[str, str]:
    """A self-signed certificate for localhost and its key, as files."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost"
    subprocess.run([*command.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return str(cert), str(key)


def test_https_with_a_wrapped_listening_socket(tmp_path: pathlib.Path) -> None:
    cert, key = certificate(tmp_path)
    (tmp_path / "file").write_bytes(b"secret" * 100_000)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(cert, key)
    client_context = ssl.create_default_context(cafile=cert)
    with web_server(tmp_path) as (server, (_, port)):
        server.socket = server_context.wrap_socket(server.socket, server_side=True)
        url = f"https://localhost:{port}/file"
        with urllib.request.urlopen(url, timeout=PATIENCE, context=client_context) as response:
            assert response.read() == b"secret" * 100_000


def test_xmlrpc() -> None:
    server = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
    server.register_function(lambda base, exponent: pow(base, exponent), "pow")
    with serving(server) as (host, port), xmlrpc.client.ServerProxy(f"http://{host}:{port}") as proxy:
        assert proxy.pow(2, 9) == 512
        with pytest.raises(xmlrpc.client.Fault):
            proxy.pow("a", "b")


def test_multiprocessing_connection_over_internet_sockets() -> None:
    with multiprocessing.connection.Listener(("127.0.0.1", 0), authkey=b"key") as listener:
        received: list[object] = []

        def serve() -> None:
            with listener.accept() as connection:
                received.append(connection.recv())
                connection.send({"answer": 42, "blob": b"x" * 1_000_000})

        thread = threading.Thread(target=serve)
        thread.start()
        with multiprocessing.connection.Client(listener.address, authkey=b"key") as connection:
            connection.send(["question", 6, 9])
            assert connection.poll(PATIENCE)
            assert connection.recv() == {"answer": 42, "blob": b"x" * 1_000_000}
        thread.join(PATIENCE)
        assert received == [["question", 6, 9]]


def test_asyncio_streams_many_at_once() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def client(address: tuple[str, int], number: int) -> None:
        reader, writer = await asyncio.open_connection(*address)
        message = b"%d" % number * 10_000
        writer.write(message)
        writer.write_eof()
        assert await reader.read() == message
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()
            await asyncio.gather(*(client(address, number) for number in range(200)))

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_asyncio_connect_refused_and_timed_out() -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.open_connection(*silent.getsockname()), 0.3)
            address = silent.getsockname()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


@pytest.mark.parametrize("kind", [selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector])
def test_selectors_see_what_they_would_on_tcp(kind: type[selectors.BaseSelector]) -> None:
    with kind() as selector, socket.create_server(("127.0.0.1", 0)) as listener:
        selector.register(listener, selectors.EVENT_READ)
        assert selector.select(0) == []
        with socket.create_connection(listener.getsockname(), timeout=PATIENCE) as client:
            assert [key.fileobj for key, _ in selector.select(PATIENCE)] == [listener]
            server, _ = listener.accept()
            with server:
                selector.unregister(listener)
                selector.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE)
                assert [events for _, events in selector.select(PATIENCE)] == [selectors.EVENT_WRITE]
                server.sendall(b"x")
                assert select.select([client], [], [], PATIENCE)[0] == [client]
                both = selectors.EVENT_READ | selectors.EVENT_WRITE
                assert [events for _, events in selector.select(PATIENCE)] == [both]
