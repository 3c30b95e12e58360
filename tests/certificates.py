"""Certificates for tests of TLS, made by the openssl program, and contexts that use them."""

from __future__ import annotations

import pathlib
import ssl
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Certificates:
    """An authority, and what it has signed for a server and a client: paths of files, certificate and key in one."""

    authority: str
    server: str  # localhost, 127.0.0.1
    other: str  # other.example
    client: str  # Anna

    def contexts(self, client_certificate: bool = False) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """(the server's, the client's); with `client_certificate`, the server asks for one and the client has it."""
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=self.authority)
        server.load_cert_chain(self.server)
        if client_certificate:
            server.load_verify_locations(self.authority)
            server.verify_mode = ssl.CERT_REQUIRED
            client.load_cert_chain(self.client)
        return server, client


def make(directory: pathlib.Path) -> Certificates:
    """Certificates in files in `directory`, valid for two days."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    authority = ("-x509", "-days", "2", "-subj", "/CN=Test authority")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")  # or Python 3.13 trusts no certificate of it
    openssl("req", *authority, *usage, *new_key, "-keyout", "ca.key", "-out", "ca.pem")
    for name, subject, alternative in (
        ("server", "localhost", "DNS:localhost,IP:127.0.0.1"),
        ("other", "other.example", "DNS:other.example"),
        ("client", "Anna", "DNS:anna.example"),
    ):
        (directory / "extensions").write_text(f"subjectAltName={alternative}\nauthorityKeyIdentifier=keyid\n")
        openssl("req", *new_key, "-subj", f"/CN={subject}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", "extensions", "-out", f"{name}.pem"),
        )
        with (directory / f"{name}.pem").open("ab") as file:
            file.write((directory / f"{name}.key").read_bytes())
    return Certificates(*(str(directory / name) for name in ("ca.pem", "server.pem", "other.pem", "client.pem")))
