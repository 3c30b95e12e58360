"""Reading and writing, and the ends of streams."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import select
import socket
import struct
import tempfile
import threading
from array import array
from collections.abc import Callable

import pytest
from loopback import Pair

from kcpsocket import KCPSocket

RESET_ON_CLOSE = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_every_way_to_write_and_read(pair: Pair) -> None:
    client, server = pair
    client.send(b"a")
    client.sendall(b"b")
    client.sendmsg([b"c", b"d"])
    client.sendto(b"e", client.getpeername())
    client.sendto(b"f", 0, ("127.0.0.1", 9))  # as on TCP, the address is not used
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1, socket.MSG_WAITALL) == b"a"
    assert server.recv(1, socket.MSG_PEEK) == b"b"
    buffer = bytearray(2)
    assert server.recv_into(buffer, 1) == 1
    assert buffer == b"b\0"
    assert server.recvfrom(1) == (b"c", None)
    assert server.recvfrom_into(buffer, 1) == (1, None)
    assert server.recvmsg(1, 100) == (b"e", [], 0, None)
    first, second = bytearray(1), bytearray(1)
    assert server.recvmsg_into([first, second])[0] == 1
    assert (buffer[:1], first, second) == (b"d", b"f", b"\0")
    assert server.recv(1) == b""
    assert server.recv_into(buffer) == 0
    assert server.recvfrom(1) == (b"", None)
    assert server.recvmsg(1)[0] == b""


def test_reads_of_nothing_are_not_ends(pair: Pair) -> None:
    client, server = pair
    assert client.recv(0) == b""
    assert client.recv_into(bytearray()) == 0
    server.sendall(b"still there")
    assert client.recv(100) == b"still there"


def test_writes_of_nothing_send_nothing(pair: Pair) -> None:
    client, server = pair
    assert client.send(b"") == 0
    client.sendall(b"")
    client.sendall(b"x")
    assert server.recv(10) == b"x"


@pytest.mark.parametrize("size", [1, 1375, 1376, 1377, 100_000, 8_000_000])
def test_bytes_arrive_as_they_were_sent(pair: Pair, size: int) -> None:
    client, server = pair
    data = random.Random(size).randbytes(size)

    def write() -> None:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=write)
    writer.start()
    received = read_all(server)
    writer.join()
    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()


def test_half_close_leaves_the_other_half(pair: Pair) -> None:
    client, server = pair
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert read_all(server) == b"question"
    server.sendall(b"answer")
    server.close()
    assert read_all(client) == b"answer"
    with pytest.raises(BrokenPipeError):
        client.send(b"x")


def test_shutdown_of_reading_gives_an_end_of_file(pair: Pair) -> None:
    client, _ = pair
    client.shutdown(socket.SHUT_RD)
    assert client.recv(10) == b""


def test_bad_shutdown(pair: Pair) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        pair[0].shutdown(9)
    with pytest.raises(TypeError):
        pair[0].shutdown("both")  # type: ignore[arg-type]


def test_close_delivers_what_was_sent(pair: Pair) -> None:
    client, server = pair
    data = os.urandom(500_000)

    def write() -> None:
        client.sendall(data)
        client.close()

    writer = threading.Thread(target=write)
    writer.start()
    assert read_all(server) == data
    writer.join()


def test_reset_is_told_once_then_the_stream_is_over(pair: Pair) -> None:
    client, server = pair
    server.setsockopt(*RESET_ON_CLOSE)
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert client.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        client.send(b"x")
    for call in (client.getpeername, lambda: client.shutdown(socket.SHUT_RDWR)):
        with pytest.raises(OSError, match="not connected") as caught:
            call()
        assert caught.value.errno == errno.ENOTCONN
    assert client.connect_ex(("127.0.0.1", 9)) == errno.EISCONN


def test_reset_is_told_to_recv_into_a_buffer(pair: Pair) -> None:
    client, server = pair
    server.setsockopt(*RESET_ON_CLOSE)
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv_into(bytearray(10))


def test_reset_is_told_to_a_file_of_the_socket(pair: Pair) -> None:
    client, server = pair
    with client.makefile("rb") as file:
        server.setsockopt(*RESET_ON_CLOSE)
        server.close()
        with pytest.raises(ConnectionResetError):
            file.read(1)


def test_so_error_takes_the_reset(pair: Pair) -> None:
    client, server = pair
    server.setsockopt(*RESET_ON_CLOSE)
    server.close()
    poller = select.poll()
    poller.register(client, select.POLLIN)
    assert poller.poll(20_000)
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert client.recv(1) == b""


def test_timeouts_of_reading_and_writing(pair: Pair) -> None:
    client, _ = pair
    client.settimeout(0.02)
    with pytest.raises(TimeoutError, match="timed out"):
        client.recv(1)
    with pytest.raises(TimeoutError, match="timed out"):  # nobody reads: windows and buffers fill
        client.sendall(bytes(64 << 20))
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)


def test_out_of_band_data_is_not_supported(pair: Pair) -> None:
    client, _ = pair
    for call in (lambda: client.send(b"!", socket.MSG_OOB), lambda: client.recv(1, socket.MSG_OOB)):
        with pytest.raises(OSError, match="not supported") as caught:
            call()
        assert caught.value.errno == errno.EOPNOTSUPP


def test_descriptors_do_not_travel(pair: Pair) -> None:
    client, server = pair
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [client.fileno()]))]
    assert client.sendmsg([b"x"], rights) == 1
    assert server.recvmsg(10, 1000) == (b"x", [], 0, None)


def test_bad_arguments(pair: Pair) -> None:
    client, _ = pair
    with pytest.raises(ValueError, match="negative buffersize"):
        client.recv(-1)
    with pytest.raises(TypeError):
        client.send("text")
    with pytest.raises(TypeError):
        client.sendto(b"x")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        client.sendto(b"x", "127.0.0.1")


def test_sendfile(pair: Pair) -> None:
    client, server = pair
    data = os.urandom(300_000)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        writer = threading.Thread(target=lambda: (client.sendfile(file, 1000), client.shutdown(socket.SHUT_WR)))
        writer.start()
        assert read_all(server) == data[1000:]
        writer.join()
    server.sendfile(io.BytesIO(b"no real file"))
    assert client.recv(100) == b"no real file"


def test_makefile_reads_lines(pair: Pair) -> None:
    client, server = pair
    with client.makefile("rw", encoding="utf-8", newline="\n") as ours, server.makefile("rwb") as theirs:
        ours.write("héllo\nworld\n")
        ours.flush()
        assert theirs.readline() == "héllo\n".encode()
        assert theirs.readline() == b"world\n"
        theirs.write(b"bye\n")
        theirs.flush()
        assert ours.readline() == "bye\n"


def test_server_with_many_clients(listener: KCPSocket, sockets: Callable[..., KCPSocket]) -> None:
    def serve(sock: socket.socket) -> None:
        with sock:
            sock.sendall(read_all(sock)[::-1])

    def accept() -> None:
        for _ in range(20):
            threading.Thread(target=serve, args=(listener.accept()[0],)).start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    clients = [sockets() for _ in range(20)]
    for number, client in enumerate(clients):
        client.connect(listener.getsockname())
        client.sendall(b"client %d" % number)
        client.shutdown(socket.SHUT_WR)
    for number, client in enumerate(clients):
        assert read_all(client) == (b"client %d" % number)[::-1]
    acceptor.join()
