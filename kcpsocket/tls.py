"""TLS over KCP: what `SSLContext.wrap_socket` makes of a KCPSocket.

OpenSSL reads and writes the socket's descriptor itself, which is a real stream, so all of TLS works as on TCP. Two things
remain: the wrapped socket must still be a KCPSocket (addresses, options, connect, accept), and when the connection
under TLS ends in an error, TLS's user gets that error, as on TCP.

Importing this module makes `KCPSSLSocket` the class that SSLContext.wrap_socket uses (`SSLContext.sslsocket_class`, the
place that the ssl module documents for it). For any other socket it makes an ordinary `ssl.SSLSocket`.
"""

from __future__ import annotations

import ssl
from typing import Any

from .engine import oserror
from .sockets import KCPSocket


class KCPSSLSocket(ssl.SSLSocket, KCPSocket):
    """An ssl.SSLSocket over KCP. Made by SSLContext.wrap_socket, of a KCPSocket in any state."""

    _suppress_ragged_eofs = True

    @classmethod
    def _create(cls, sock: Any, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        if not isinstance(sock, KCPSocket) or sock._kcp is None:
            return ssl.SSLSocket._create(sock, *args, **kwargs)  # type: ignore[attr-defined, no-any-return]
        return super()._create(sock, *args, **kwargs)  # type: ignore[misc, no-any-return]

    # An end of file without TLS's own goodbye may be forgiven, but not where the connection ended in an error: on TCP,
    # OpenSSL would have met that error instead of an end of file.

    @property
    def suppress_ragged_eofs(self) -> bool:
        """As ssl.SSLSocket's: whether an end of file without a TLS goodbye is an ordinary one."""
        return self._suppress_ragged_eofs and not (self._kcp is not None and self._kcp.has_error)

    @suppress_ragged_eofs.setter
    def suppress_ragged_eofs(self, value: bool) -> None:
        self._suppress_ragged_eofs = value

    def _tls_failed(self) -> None:
        """Raises the connection's own error if it has one; to be called when TLS met the end of the stream."""
        code = self._kcp.take_error(self) if self._kcp is not None else 0
        if code:
            raise oserror(code) from None

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """As ssl.SSLSocket.read."""
        try:
            return super().read(len, buffer)
        except (ssl.SSLEOFError, BrokenPipeError, ConnectionResetError):
            self._tls_failed()
            raise

    def write(self, data: Any) -> int:
        """As ssl.SSLSocket.write."""
        try:
            return super().write(data)
        except (ssl.SSLEOFError, BrokenPipeError, ConnectionResetError):
            self._tls_failed()
            raise

    def send(self, data: Any, flags: int = 0) -> int:
        """As ssl.SSLSocket.send."""
        try:
            return super().send(data, flags)
        except (ssl.SSLEOFError, BrokenPipeError, ConnectionResetError):
            self._tls_failed()
            raise

    def do_handshake(self, block: bool = False) -> None:
        """As ssl.SSLSocket.do_handshake."""
        try:
            super().do_handshake(block)
        except (ssl.SSLEOFError, BrokenPipeError, ConnectionResetError):
            self._tls_failed()
            raise


ssl.SSLContext.sslsocket_class = KCPSSLSocket
