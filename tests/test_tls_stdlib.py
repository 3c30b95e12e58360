"""The standard library's TLS clients over KCP, unmodified, against small servers written here."""

from __future__ import annotations

import ftplib
import http.client
import http.server
import imaplib
import io
import smtplib
import socket
import socketserver
import ssl
import threading
import urllib.error
import urllib.request
import xmlrpc.client
import xmlrpc.server
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest
from life import PATIENCE, settle

import kcpsocket
from kcpsocket import KCPSSLSocket, engine

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(autouse=True)
def _over_kcp() -> Iterator[None]:
    before = engine.snmp().get("PassiveOpens", 0)
    with kcpsocket.patched():
        yield
    settle()
    assert engine.snmp()["PassiveOpens"] > before, "nothing went over KCP"


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    """`server` at work in a thread; its port."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]  # type: ignore[index, misc]
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()


class Web(http.server.BaseHTTPRequestHandler):
    """Answers GET with a large body, POST with what it was sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.connection, KCPSSLSocket)
        self.answer(b"large" * 100_000)

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Threads that end with the connection."""

    daemon_threads = False
    context: ssl.SSLContext


@contextmanager
def https(tls: Contexts) -> Iterator[int]:
    with serving(server := http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)) as port:
        server.socket = tls[0].wrap_socket(server.socket, server_side=True)
        yield port


def test_https_connection(tls: Contexts) -> None:
    with https(tls) as port:
        connection = http.client.HTTPSConnection("localhost", port, timeout=PATIENCE, context=tls[1])
        for _ in range(3):
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"large" * 100_000
        assert isinstance(connection.sock, KCPSSLSocket)
        body = bytes(range(256)) * 4000
        connection.request("POST", "/", body)
        assert connection.getresponse().read() == body
        connection.close()


def test_urllib_over_https_and_its_errors(tls: Contexts, free_port: int) -> None:
    with https(tls) as port:
        with urllib.request.urlopen(f"https://localhost:{port}/", timeout=PATIENCE, context=tls[1]) as response:
            assert response.read() == b"large" * 100_000
        with pytest.raises(urllib.error.URLError) as caught:  # this client does not know the authority
            urllib.request.urlopen(f"https://localhost:{port}/", timeout=PATIENCE).close()
        assert isinstance(caught.value.reason, ssl.SSLCertVerificationError)
    with pytest.raises(urllib.error.URLError) as caught:
        urllib.request.urlopen(f"https://localhost:{free_port}/", timeout=PATIENCE, context=tls[1]).close()
    assert isinstance(caught.value.reason, ConnectionRefusedError)


def test_xmlrpc_over_https(tls: Contexts) -> None:
    server = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
    server.socket = tls[0].wrap_socket(server.socket, server_side=True)
    server.register_function(lambda first, second: [second, first], "swap")
    with serving(server) as port, xmlrpc.client.ServerProxy(f"https://localhost:{port}", context=tls[1]) as proxy:
        assert proxy.swap("a", 5) == [5, "a"]


class Mail(socketserver.StreamRequestHandler):
    """SMTP with STARTTLS: keeps messages that come under TLS."""

    messages: ClassVar[list[bytes]] = []

    def say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self) -> None:
        assert isinstance(self.server, Server)
        self.say("220 localhost ready")
        secure = False
        while command := self.rfile.readline():
            verb = command.split()[0].upper()
            if verb == b"EHLO":
                self.say("250-localhost")
                self.say("250 8BITMIME" if secure else "250 STARTTLS")
            elif verb == b"STARTTLS":
                self.say("220 go ahead")
                self.rfile.close()
                self.request = self.server.context.wrap_socket(self.request, server_side=True)
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
                secure = True
            elif verb == b"DATA":
                self.say("354 go on")
                lines = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line)
                assert secure
                self.messages.append(b"".join(lines))
                self.say("250 kept")
            elif verb == b"QUIT":
                self.say("221 bye")
                break
            else:
                self.say("250 ok")
        self.request.close()


def test_smtplib_starttls(tls: Contexts) -> None:
    Mail.messages.clear()
    server = Server(("127.0.0.1", 0), Mail)
    server.context = tls[0]
    with serving(server) as port, smtplib.SMTP("localhost", port, timeout=PATIENCE) as client:
        client.starttls(context=tls[1])
        assert isinstance(client.sock, KCPSSLSocket)
        text = "Subject: long\r\n\r\n" + "line of the letter\r\n" * 20_000
        assert client.sendmail("a@example", ["b@example"], text) == {}
    assert Mail.messages == [text.encode()]


class Files(socketserver.StreamRequestHandler):
    """FTP with AUTH TLS and protected data connections, passive and active."""

    stored: ClassVar[dict[str, bytes]] = {}

    def say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")

    def data_connection(self) -> ssl.SSLSocket:
        assert isinstance(self.server, Server)
        if self.active is not None:
            sock = socket.create_connection(self.active, PATIENCE)
        else:
            self.passive.settimeout(PATIENCE)
            sock = self.passive.accept()[0]
            self.passive.close()
        return self.server.context.wrap_socket(sock, server_side=True)

    def handle(self) -> None:
        assert isinstance(self.server, Server)
        self.active: tuple[str, int] | None = None
        self.say("220 ready")
        while command := self.rfile.readline():
            verb, _, rest = command.decode().strip().partition(" ")
            if verb == "AUTH":
                self.say("234 go ahead")
                self.rfile.close()
                self.request = self.server.context.wrap_socket(self.request, server_side=True)
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
            elif verb in ("PASV", "EPSV"):
                self.passive = socket.create_server(("127.0.0.1", 0))
                self.active = None
                high, low = divmod(self.passive.getsockname()[1], 256)
                self.say(f"227 entering (127,0,0,1,{high},{low})")
            elif verb == "PORT":
                numbers = rest.split(",")
                self.active = ".".join(numbers[:4]), int(numbers[4]) * 256 + int(numbers[5])
                self.say("200 ok")
            elif verb in ("STOR", "RETR"):
                self.say("150 here")
                with self.data_connection() as data:
                    if verb == "RETR":
                        data.sendall(self.stored[rest])
                    else:
                        with data.makefile("rb") as file:
                            self.stored[rest] = file.read()
                    data.unwrap()
                self.say("226 done")
            elif verb == "QUIT":
                self.say("221 bye")
                break
            else:
                self.say("230 in" if verb == "PASS" else "331 and?" if verb == "USER" else "200 ok")
        self.request.close()


@pytest.mark.parametrize("passive", [True, False])
def test_ftplib_with_tls_on_both_connections(tls: Contexts, passive: bool) -> None:
    Files.stored.clear()
    server = Server(("127.0.0.1", 0), Files)
    server.context = tls[0]
    content = bytes(range(256)) * 8000
    with serving(server) as port, ftplib.FTP_TLS(context=tls[1], timeout=PATIENCE) as client:
        client.connect("localhost", port)
        client.login("anna", "secret")
        client.prot_p()
        client.set_pasv(passive)
        client.storbinary("STOR file", io.BytesIO(content))
        assert Files.stored == {"file": content}
        received = bytearray()
        client.retrbinary("RETR file", received.extend)
        assert received == content
        assert isinstance(client.sock, KCPSSLSocket)


class Mailbox(socketserver.StreamRequestHandler):
    """IMAP with STARTTLS, as much as a client needs to log in and out."""

    def handle(self) -> None:
        assert isinstance(self.server, Server)
        self.wfile.write(b"* OK IMAP4rev1 ready\r\n")
        while command := self.rfile.readline():
            tag, verb = command.split()[:2]
            if verb == b"CAPABILITY":
                self.wfile.write(b"* CAPABILITY IMAP4rev1 STARTTLS\r\n")
            elif verb == b"LOGOUT":
                self.wfile.write(b"* BYE\r\n")
            self.wfile.write(tag + b" OK done\r\n")
            if verb == b"STARTTLS":
                self.rfile.close()
                self.request = self.server.context.wrap_socket(self.request, server_side=True)
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
            elif verb == b"LOGOUT":
                break
        self.request.close()


def test_imaplib_starttls(tls: Contexts) -> None:
    server = Server(("127.0.0.1", 0), Mailbox)
    server.context = tls[0]
    with serving(server) as port:
        client = imaplib.IMAP4("localhost", port, timeout=PATIENCE)
        assert client.starttls(tls[1])[0] == "OK"
        assert client.login("anna", "secret")[0] == "OK"
        assert isinstance(client.sock, KCPSSLSocket)
        assert client.logout()[0] == "BYE"


def test_get_server_certificate(tls: Contexts) -> None:
    server = Server(("127.0.0.1", 0), Mailbox)
    server.socket = tls[0].wrap_socket(server.socket, server_side=True)
    server.context = tls[0]
    with serving(server) as port:
        pem = ssl.get_server_certificate(("localhost", port), timeout=PATIENCE)
    assert "BEGIN CERTIFICATE" in pem
