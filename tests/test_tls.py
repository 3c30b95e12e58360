"""TLS over KCP: SSLContext.wrap_socket on a KCPSocket in every state, and errors as on TCP."""

from __future__ import annotations

import errno
import select
import signal
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import pytest
from certificates import Certificates
from life import ALERT, PATIENCE, listen, program, settle
from life import connect as connect_to

from kcpsocket import KCPSocket, KCPSSLSocket
from kcpsocket import tls as tls_module

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
_T = TypeVar("_T")


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    settle()


def at_once(work: Callable[[], _T]) -> Future[_T]:
    """`work` in a thread of its own; result() must be asked for."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run).start()
    return future


@contextmanager
def tls_pair(
    tls: Contexts, name: str = "localhost", session: ssl.SSLSession | None = None
) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """(client, server), connected, after the handshake."""
    server_context, client_context = tls
    with ExitStack() as stack:
        listener = stack.enter_context(listen(ALERT))
        ours = stack.enter_context(connect_to(listener.getsockname(), ALERT))
        theirs = stack.enter_context(listener.accept()[0])
        theirs.settimeout(PATIENCE)
        accepted = at_once(lambda: server_context.wrap_socket(theirs, server_side=True))
        try:
            client = client_context.wrap_socket(ours, server_hostname=name, session=session)
        except BaseException:
            accepted.exception(PATIENCE)
            raise
        stack.enter_context(client)
        yield client, stack.enter_context(accepted.result(PATIENCE))


def exchange(one: socket.socket, other: socket.socket) -> None:
    for sender, receiver in ((one, other), (other, one)):
        sender.sendall(b"hello" * 100)
        received = b""
        while len(received) < 500:
            received += receiver.recv(500)
        assert received == b"hello" * 100


def test_wrapping_after_connect_and_after_accept(tls: Contexts) -> None:
    with tls_pair(tls) as (client, server):
        for sock in (client, server):
            assert isinstance(sock, KCPSSLSocket)
            assert isinstance(sock, KCPSocket)
            assert isinstance(sock, ssl.SSLSocket)
            assert sock.version() == "TLSv1.3"
            assert sock.kcp_info().conv
        assert client.getpeername() == server.getsockname()
        assert server.getpeername() == client.getsockname()
        exchange(client, server)
        data = bytes(range(256)) * 20_000
        sending = at_once(lambda: server.sendall(data))
        received = bytearray()
        while len(received) < len(data):
            received += client.recv(1 << 16)
        sending.result(PATIENCE)
        assert received == data


@pytest.mark.parametrize("blocking", [True, False])
def test_wrapping_before_connect(tls: Contexts, blocking: bool) -> None:
    server_context, client_context = tls
    with listen() as listener, client_context.wrap_socket(KCPSocket(), server_hostname="localhost") as client:
        assert isinstance(client, KCPSSLSocket)
        with pytest.raises(OSError) as caught:
            client.getpeername()
        assert caught.value.errno == errno.ENOTCONN
        accepted = at_once(lambda: server_context.wrap_socket(listener.accept()[0], server_side=True))
        client.settimeout(PATIENCE)
        if blocking:
            client.connect(listener.getsockname())
        else:
            assert client.connect_ex(listener.getsockname()) == 0
        with accepted.result(PATIENCE) as server:
            exchange(client, server)


def test_a_wrapped_listening_socket_accepts_tls(tls: Contexts) -> None:
    server_context, client_context = tls
    with server_context.wrap_socket(listen(), server_side=True) as listener:
        assert isinstance(listener, KCPSSLSocket)
        listener.settimeout(PATIENCE)
        accepted = at_once(listener.accept)
        with client_context.wrap_socket(connect_to(listener.getsockname()), server_hostname="localhost") as client:
            server, address = accepted.result(PATIENCE)
            with server:
                assert isinstance(server, KCPSSLSocket)
                assert address == client.getsockname() == server.getpeername()
                exchange(client, server)


def test_wrapping_before_bind_and_listen(tls: Contexts) -> None:
    server_context, client_context = tls
    with server_context.wrap_socket(KCPSocket(), server_side=True) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(PATIENCE)
        accepted = at_once(listener.accept)
        with client_context.wrap_socket(connect_to(listener.getsockname()), server_hostname="localhost") as client:
            server, _ = accepted.result(PATIENCE)
            with server:
                exchange(client, server)


def test_a_plain_socket_is_wrapped_as_ever(tls: Contexts) -> None:
    one, other = socket.socketpair()
    with one, other:
        accepted = at_once(lambda: tls[0].wrap_socket(other, server_side=True))
        with tls[1].wrap_socket(one, server_hostname="localhost") as client, accepted.result(PATIENCE) as server:
            assert type(client) is type(server) is ssl.SSLSocket
            exchange(client, server)


def test_a_context_with_a_socket_class_of_its_own_gives_that_class_over_kcp(tls: Contexts) -> None:
    calls: list[str] = []

    class Counting(ssl.SSLSocket):
        def read(self, len: int = 1024, buffer: Any = None) -> Any:
            calls.append("read")
            return super().read(len, buffer)

    class Context(ssl.SSLContext):
        sslsocket_class = Counting

    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=tls[1].get_ca_certs(binary_form=True)[0])
    with tls_pair((tls[0], context)) as (client, server):
        assert isinstance(client, Counting)
        assert isinstance(client, KCPSSLSocket)
        assert type(client).__name__ == "Counting"
        exchange(client, server)
        assert calls
        assert client.getpeername() == server.getsockname()
    one, other = socket.socketpair()
    with one, other, context.wrap_socket(one, server_hostname="localhost", do_handshake_on_connect=False) as plain:
        assert type(plain) is Counting


def test_unwrap_says_goodbye_and_leaves_a_plain_stream(tls: Contexts) -> None:
    with tls_pair(tls) as (client, server):
        exchange(client, server)
        done = at_once(server.unwrap)
        assert client.recv(10) == b""
        plain = client.unwrap()
        other = done.result(PATIENCE)
        assert isinstance(plain, KCPSocket)
        plain.sendall(b"in the clear")
        assert other.recv(100) == b"in the clear"
        assert plain.getpeername() == other.getsockname()


def test_an_end_without_goodbye(tls: Contexts) -> None:
    with tls_pair(tls) as (client, server):
        server.close()
        assert client.recv(10) == b""
    with tls_pair(tls) as (client, server):
        assert isinstance(client, KCPSSLSocket)
        client.suppress_ragged_eofs = False
        server.close()
        with pytest.raises(ssl.SSLEOFError):
            client.recv(10)


def subject(sock: ssl.SSLSocket) -> str:
    """The name in the peer's certificate."""
    certificate: Any = sock.getpeercert()
    names: dict[str, str] = dict(pair for pairs in certificate["subject"] for pair in pairs)
    return names["commonName"]


def test_client_certificates(certificates: Certificates) -> None:
    with tls_pair(certificates.contexts(client_certificate=True)) as (client, server):
        exchange(client, server)
        assert subject(server) == "Anna"
        assert subject(client) == "localhost"


def test_a_missing_client_certificate_is_an_error_at_both_ends(certificates: Certificates) -> None:
    server_context, _ = certificates.contexts(client_certificate=True)
    _, client_context = certificates.contexts()
    with listen() as listener, connect_to(listener.getsockname()) as ours, listener.accept()[0] as theirs:
        theirs.settimeout(PATIENCE)
        accepted = at_once(lambda: server_context.wrap_socket(theirs, server_side=True))
        with (
            client_context.wrap_socket(ours, server_hostname="localhost") as client,
            pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
        ):
            client.recv(1)
        with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN"):
            accepted.result(PATIENCE)


def test_a_name_that_is_not_the_certificates_is_refused(tls: Contexts) -> None:
    with pytest.raises(ssl.SSLCertVerificationError), tls_pair(tls, "other.example"):
        pass


def test_the_server_chooses_its_certificate_by_name(certificates: Certificates) -> None:
    server_context, client_context = certificates.contexts()
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(certificates.other)
    asked: list[str | None] = []

    def choose(sock: ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        asked.append(name)
        if name == "other.example":
            sock.context = other

    server_context.sni_callback = choose  # type: ignore[assignment]
    for name in ("other.example", "localhost"):
        with tls_pair((server_context, client_context), name) as (client, server):
            exchange(client, server)
    assert asked == ["other.example", "localhost"]


def test_alpn(tls: Contexts) -> None:
    tls[0].set_alpn_protocols(["h2", "http/1.1"])
    tls[1].set_alpn_protocols(["http/1.1"])
    with tls_pair(tls) as (client, server):
        assert client.selected_alpn_protocol() == server.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_reused(tls: Contexts, version: ssl.TLSVersion) -> None:
    tls[1].maximum_version = version
    with tls_pair(tls) as (client, server):
        exchange(client, server)
        session = client.session
        assert not client.session_reused
    with tls_pair(tls, session=session) as (client, server):
        exchange(client, server)
        assert client.session_reused


def test_non_blocking(tls: Contexts) -> None:
    server_context, client_context = tls
    with listen() as listener, connect_to(listener.getsockname()) as ours, listener.accept()[0] as theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)
        with (
            client_context.wrap_socket(ours, server_hostname="localhost", do_handshake_on_connect=False) as client,
            server_context.wrap_socket(theirs, server_side=True, do_handshake_on_connect=False) as server,
        ):
            waits = [client, server]
            ready = list(waits)
            while waits:
                for sock in ready:
                    try:
                        sock.do_handshake()
                        waits.remove(sock)
                    except ssl.SSLWantReadError:
                        continue
                ready = select.select(waits, [], [], PATIENCE)[0] if waits else []
            with pytest.raises(ssl.SSLWantReadError):
                client.recv(10)
            sent = 0
            with pytest.raises(ssl.SSLWantWriteError):
                while sent < 1 << 30:
                    sent += client.send(b"x" * 16384)
            received = 0
            while received < sent:
                try:
                    received += len(server.recv(65536))
                except ssl.SSLWantReadError:
                    assert select.select([server], [], [], PATIENCE)[0]


def test_time_outs(tls: Contexts) -> None:
    with tls_pair(tls) as (client, server):
        client.settimeout(0.05)
        with pytest.raises(TimeoutError, match="timed out"):
            client.recv(10)
        server.sendall(b"later")
        client.settimeout(PATIENCE)
        assert client.recv(10) == b"later"
    with listen() as listener, connect_to(listener.getsockname()) as ours:
        ours.settimeout(0.05)
        with pytest.raises(TimeoutError, match="handshake.* timed out"):  # nobody answers
            tls[1].wrap_socket(ours, server_hostname="localhost")


def test_flags_and_messages_are_refused_as_by_ssl(tls: Contexts) -> None:
    client: Any
    call: Callable[[], Any]
    with tls_pair(tls) as (client, _):
        for call in (
            lambda: client.recv(1, socket.MSG_PEEK),
            lambda: client.recv_into(bytearray(1), 1, socket.MSG_PEEK),
            lambda: client.send(b"x", socket.MSG_DONTWAIT),
            lambda: client.sendall(b"x", socket.MSG_DONTWAIT),
        ):
            with pytest.raises(ValueError, match="flag"):
                call()
        for call in (
            lambda: client.recvmsg(1),
            lambda: client.recvmsg_into([bytearray(1)]),
            lambda: client.sendmsg([b"x"]),
            client.dup,
        ):
            with pytest.raises(NotImplementedError):
                call()
        for call in (lambda: client.recvfrom(1), lambda: client.sendto(b"x", ("127.0.0.1", 1))):
            with pytest.raises(ValueError, match="not allowed"):
                call()


def reset(sock: socket.socket) -> None:
    """Closes with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def after_reset(tls: Contexts, cls: type[socket.socket], call: Callable[[ssl.SSLSocket], Any], ragged: bool) -> Any:
    """What `call` gives or raises on a TLS connection, over sockets of class `cls`, that its peer has reset."""
    with cls(socket.AF_INET, socket.SOCK_STREAM) as listener, cls(socket.AF_INET, socket.SOCK_STREAM) as ours:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ours.settimeout(PATIENCE)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
        accepted = at_once(lambda: tls[0].wrap_socket(theirs, server_side=True))
        with tls[1].wrap_socket(ours, server_hostname="localhost", suppress_ragged_eofs=ragged) as client:
            server = accepted.result(PATIENCE)
            exchange(server, client)
            exchange(client, server)
            reset(server)
            assert select.select([client], [], [], PATIENCE)[0]
            try:
                return call(client)
            except OSError as error:
                return type(error), error.errno if isinstance(error, ConnectionError) else None


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("name", ["recv", "recv_into", "read", "send", "sendall", "write", "makefile", "unwrap"])
def test_after_a_reset_every_call_does_what_it_does_on_tcp_with_this_interpreter(
    tls: Contexts, name: str, ragged: bool
) -> None:
    calls: dict[str, Callable[[ssl.SSLSocket], Any]] = {
        "recv": lambda sock: sock.recv(10),
        "recv_into": lambda sock: sock.recv_into(bytearray(10)),
        "read": lambda sock: sock.read(10),
        "send": lambda sock: sock.send(b"x"),
        "sendall": lambda sock: sock.sendall(b"x"),
        "write": lambda sock: sock.write(b"x"),
        "makefile": lambda sock: sock.makefile("rb").read(),
        "unwrap": lambda sock: sock.unwrap(),
    }
    on_tcp = after_reset(tls, KCPSocket.__bases__[0], calls[name], ragged)
    assert after_reset(tls, KCPSocket, calls[name], ragged) == on_tcp


def test_a_reset_reaches_the_handshake(tls: Contexts) -> None:
    with listen() as listener, connect_to(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        handshake = at_once(lambda: tls[1].wrap_socket(ours, server_hostname="localhost"))
        assert theirs.recv(1)  # the client's hello is there
        reset(theirs)
        with pytest.raises(ConnectionResetError):
            handshake.result(PATIENCE)


def test_a_killed_peer_does_not_leave_the_reader_waiting(tls: Contexts, certificates: Certificates) -> None:
    with program(
        """
        import ssl, sys, socket, kcpsocket
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1])
        with kcpsocket.create_server(("127.0.0.1", 0)) as listener:
            print(listener.getsockname()[1], flush=True)
            with context.wrap_socket(listener.accept()[0], server_side=True) as server:
                server.sendall(b"up")
                server.recv(1)
        """,
        certificates.server,
    ) as peer:
        assert peer.stdout is not None
        address = ("127.0.0.1", int(peer.stdout.readline()))
        with tls[1].wrap_socket(connect_to(address, ALERT), server_hostname="localhost") as client:
            assert client.recv(2) == b"up"
            peer.send_signal(signal.SIGKILL)
            if tls_module._loses_errors():
                assert client.recv(10) == b""
            else:
                with pytest.raises(OSError) as caught:
                    client.recv(10)
                # Keepalive finds out; or ICMP says, to what it sends, that nobody is there any more.
                assert caught.value.errno in (errno.ETIMEDOUT, errno.ECONNRESET)


def test_connection_refused_under_tls(tls: Contexts, free_port: int) -> None:
    with tls[1].wrap_socket(KCPSocket(), server_hostname="localhost") as client:
        client.settimeout(PATIENCE)
        with pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", free_port))


def test_many_at_once(tls: Contexts) -> None:
    server_context, client_context = tls
    with server_context.wrap_socket(listen(), server_side=True, do_handshake_on_connect=False) as listener:
        listener.settimeout(PATIENCE)

        def serve() -> None:
            with listener.accept()[0] as server:
                server.settimeout(PATIENCE)
                while data := server.recv(65536):
                    server.sendall(data)

        def ask(number: int) -> bool:
            with client_context.wrap_socket(connect_to(listener.getsockname()), server_hostname="localhost") as client:
                client.sendall(b"%d" % number)
                return client.recv(10) == b"%d" % number

        with ThreadPoolExecutor(32) as pool:
            served = [pool.submit(serve) for _ in range(16)]
            asked = [pool.submit(ask, number) for number in range(16)]
            assert all(future.result(PATIENCE) for future in asked)
            for future in served:
                future.result(PATIENCE)
