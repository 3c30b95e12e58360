"""asyncio over KCP: streams, protocols, the loop's socket calls, servers, cancellation, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pathlib
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from life import ALERT, PATIENCE, settle

import kcpsocket
from kcpsocket import KCPSocket, engine


@pytest.fixture(autouse=True)
def _over_kcp() -> Iterator[None]:
    with kcpsocket.patched(ALERT):
        yield
    settle()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Runs a coroutine function to its end, bounded, then the loop until the last connection is closed: the other end
    of one that `main` has closed still has to see that."""

    async def bounded() -> None:
        await asyncio.wait_for(main(), PATIENCE)
        await asyncio.to_thread(settle)

    asyncio.run(bounded())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back what comes, then ends."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
        await writer.wait_closed()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


def address_of(server: asyncio.Server) -> tuple[str, int]:
    host, port = server.sockets[0].getsockname()[:2]
    return host, port


def test_streams_know_their_addresses_and_pass_megabytes() -> None:
    async def main() -> None:
        names: list[Any] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            names.append((writer.get_extra_info("peername"), writer.get_extra_info("sockname")))
            await echo(reader, writer)

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*address_of(server))
            data = os.urandom(1 << 22)

            async def send() -> None:
                for start in range(0, len(data), 1 << 16):
                    writer.write(data[start : start + (1 << 16)])
                    await writer.drain()
                writer.write_eof()

            sending = asyncio.create_task(send())
            assert await reader.read() == data
            await sending
            assert writer.get_extra_info("peername") == address_of(server)
            assert names == [(writer.get_extra_info("sockname"), address_of(server))]
            assert writer.get_extra_info("socket").family is socket.AF_INET
            await close(writer)

    run(main)


def test_a_protocol_is_told_in_order_what_happens() -> None:
    class Recorder(asyncio.Protocol):
        def __init__(self) -> None:
            self.events: list[Any] = []
            self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            self.events.append("made")

        def data_received(self, data: bytes) -> None:
            self.events.append(data)

        def eof_received(self) -> None:
            self.events.append("eof")

        def connection_lost(self, exc: Exception | None) -> None:
            self.events.append(("lost", exc))
            self.done.set_result(None)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servers: list[Recorder] = []

        def make() -> Recorder:
            servers.append(Recorder())
            return servers[-1]

        async with await loop.create_server(make, "127.0.0.1", 0) as server:
            transport, client = await loop.create_connection(Recorder, *address_of(server))
            transport.write(b"one")
            transport.write_eof()
            await client.done
            assert client.events == ["made", "eof", ("lost", None)]
            await servers[0].done
            assert servers[0].events == ["made", b"one", "eof", ("lost", None)]

            transport, client = await loop.create_connection(Recorder, *address_of(server))
            while len(servers) < 2:
                await asyncio.sleep(0)
            sock = servers[1].transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            servers[1].transport.abort()
            await client.done
            assert isinstance(client.events[-1][1], ConnectionResetError)

    run(main)


def test_the_loops_socket_calls() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as listener, socket.socket() as client:
            for sock in (listener, client):
                sock.setblocking(False)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            accepting = asyncio.create_task(loop.sock_accept(listener))
            await loop.sock_connect(client, listener.getsockname())
            server, address = await accepting
            with server:
                assert address == client.getsockname()
                assert server.gettimeout() == 0
                data = os.urandom(1 << 20)
                sending = asyncio.create_task(loop.sock_sendall(client, data))
                received = bytearray()
                buffer = bytearray(1 << 16)
                while len(received) < len(data):
                    if len(received) % 2:
                        received += await loop.sock_recv(server, 1 << 16)
                    else:
                        received += buffer[: await loop.sock_recv_into(server, buffer)]
                await sending
                assert received == data
                client.close()
                assert await loop.sock_recv(server, 10) == b""

    run(main)


def test_sendfile(tmp_path: pathlib.Path) -> None:
    content = os.urandom(3_000_000)
    path = tmp_path / "file"
    path.write_bytes(content)

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with path.open("rb") as file:
                await loop.sendfile(writer.transport, file, 100, 2_000_000, fallback=False)
            await close(writer)

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*address_of(server))
            assert await reader.read() == content[100:2_000_100]
            await close(writer)

        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            client.setblocking(False)
            listener.setblocking(False)
            accepting = asyncio.create_task(loop.sock_accept(listener))
            await loop.sock_connect(client, listener.getsockname())
            server_sock, _ = await accepting
            with server_sock, path.open("rb") as file:
                sending = asyncio.create_task(loop.sock_sendfile(client, file, fallback=False))
                received = bytearray()
                while len(received) < len(content):
                    received += await loop.sock_recv(server_sock, 1 << 16)
                assert await sending == len(content)
                assert received == content

    run(main)


def test_servers_that_reuse_a_port_share_it() -> None:
    async def main() -> None:
        one = await asyncio.start_server(echo, "127.0.0.1", 0, reuse_port=True)
        other = await asyncio.start_server(echo, *address_of(one), reuse_port=True)
        with pytest.raises(OSError) as caught:
            await asyncio.start_server(echo, *address_of(one))
        assert caught.value.errno == errno.EADDRINUSE
        async with one, other:
            for number in range(8):
                reader, writer = await asyncio.open_connection(*address_of(one))
                writer.write(b"%d" % number)
                writer.write_eof()
                assert await reader.read() == b"%d" % number
                await close(writer)

    run(main)


def test_cancelled_connects_reads_and_accepts_leave_nothing_behind() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            connecting = [asyncio.create_task(asyncio.open_connection(*silent.getsockname())) for _ in range(20)]
            while engine.usage()["sessions"] < 20:
                await asyncio.sleep(0)
            for task in connecting:
                task.cancel()
            results = await asyncio.gather(*connecting, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results)
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*address_of(server))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.02)
            writer.write(b"still good")
            assert await reader.readexactly(10) == b"still good"
            await close(writer)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(loop.sock_accept(listener), 0.02)
            accepting = asyncio.create_task(loop.sock_accept(listener))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            (await accepting)[0].close()
            assert await reader.read() == b""
            await close(writer)

    run(main)
    settle()
    assert engine.usage()["sessions"] == 0


COUNT = 2000


def test_two_thousand_connections_at_once() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 6 * COUNT + 200  # a stream's two ends, for both ends of a connection; a client's UDP socket
    if limit[1] != resource.RLIM_INFINITY and limit[1] < wanted:
        pytest.skip(f"needs {wanted} descriptors; the hard limit is {limit[1]}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit[0], wanted), limit[1]))
    before = engine.snmp()["PassiveOpens"]

    async def main() -> None:
        waiting = 0
        all_there = asyncio.Event()

        async def client(address: tuple[str, int], number: int) -> None:
            nonlocal waiting
            reader, writer = await asyncio.open_connection(*address)
            waiting += 1
            if waiting == COUNT:
                all_there.set()
            await all_there.wait()
            message = b"%d," % number * 200
            writer.write(message)
            writer.write_eof()
            assert await reader.read() == message
            await close(writer)

        async with await asyncio.start_server(echo, "127.0.0.1", 0, backlog=4096) as server:
            await asyncio.gather(*(client(address_of(server), number) for number in range(COUNT)))

    try:
        run(main)
        settle()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert engine.snmp()["PassiveOpens"] - before == COUNT


# --- TLS ---


def test_tls_streams(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def main() -> None:
        async with await asyncio.start_server(echo, "127.0.0.1", 0, ssl=tls[0]) as server:
            address = address_of(server)
            reader, writer = await asyncio.open_connection(*address, ssl=tls[1], server_hostname="localhost")
            assert writer.get_extra_info("peername") == address
            assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
            data = os.urandom(1 << 20)
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            await close(writer)
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection(*address, ssl=tls[1], server_hostname="other.example")

    run(main)


@pytest.mark.skipif(not hasattr(asyncio.StreamWriter, "start_tls"), reason="StreamWriter.start_tls is of Python 3.11")
def test_start_tls_on_a_stream_that_began_in_the_clear(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def main() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"go ahead\n")
            await writer.drain()
            await writer.start_tls(tls[0])  # type: ignore[attr-defined]
            writer.write(b"secret " + await reader.readline())
            await writer.drain()
            await close(writer)

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*address_of(server))
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"go ahead\n"
            await writer.start_tls(tls[1], server_hostname="localhost")  # type: ignore[attr-defined]
            writer.write(b"word\n")
            assert await reader.readline() == b"secret word\n"
            await close(writer)

    run(main)


def test_a_reset_reaches_a_tls_stream(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            gone.set()

        async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls[0]) as server:
            reader, writer = await asyncio.open_connection(
                *address_of(server), ssl=tls[1], server_hostname="localhost"
            )
            writer.write(b"x")
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            writer.close()
            with pytest.raises(ConnectionResetError):
                await writer.wait_closed()
            await gone.wait()

    run(main)


# --- uvloop ---


def test_uvloop_takes_a_kcp_descriptor_as_the_unix_stream_that_it_is() -> None:
    # Its TCP transports set TCP_NODELAY on the descriptor, which a unix stream refuses.
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

    def as_unix(sock: socket.socket) -> socket.socket:
        assert isinstance(sock, KCPSocket)
        sock.setblocking(False)
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=sock.detach())

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        served: asyncio.Queue[None] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await echo(reader, writer)
            served.put_nowait(None)

        async with await asyncio.start_unix_server(serve, sock=as_unix(listener)):
            for _ in range(3):
                client = socket.create_connection(address, timeout=PATIENCE)
                reader, writer = await asyncio.open_unix_connection(sock=as_unix(client))
                data = os.urandom(1 << 20)
                writer.write(data)
                assert await reader.readexactly(len(data)) == data
                await close(writer)
                await served.get()

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))
    finally:
        loop.close()
