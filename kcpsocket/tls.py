"""TLS over KCP: what `SSLContext.wrap_socket` makes of a KCPSocket.

OpenSSL reads and writes the socket's descriptor itself, which is a real stream, so all of TLS works as on TCP. Two
things remain: the wrapped socket must still be a KCPSocket (addresses, options, connect, accept), and when the
connection under TLS ends in an error, TLS's user gets that error, as on TCP with the same interpreter.

Importing this module makes `KCPSSLSocket` the class that SSLContext.wrap_socket uses (`SSLContext.sslsocket_class`, the
place that the ssl module documents for it). For any other socket it makes an ordinary `ssl.SSLSocket`. A context with a
class of its own there gets one that is derived from both.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
from typing import Any, ClassVar, cast

from .engine import oserror
from .sockets import KCPSocket

# How TLS meets the end of a stream that it did not expect.
_ENDS = (ssl.SSLEOFError, ssl.SSLSyscallError, ssl.SSLZeroReturnError, BrokenPipeError, ConnectionResetError)


@functools.cache
def _loses_errors() -> bool:
    """Whether this interpreter's ssl, reading and writing, takes every error of the connection for an end of file.

    From Python 3.10 to some 3.12.x it does (CPython issue 115627). Programs, and the interpreter's own tests, count on
    what their interpreter does; so the same is done on KCP. Found out by a stream whose peer closes with bytes unread.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    one, other = socket.socketpair()
    with other, context.wrap_socket(one, do_handshake_on_connect=False, suppress_ragged_eofs=False) as tls:
        tls.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.read(1)  # sends TLS's first message
        other.close()
        try:
            tls.read(1)
        except ssl.SSLError:
            return True
        except OSError:
            return False
    return True


class KCPSSLSocket(ssl.SSLSocket, KCPSocket):  # type: ignore[misc]  # SSLSocket forbids recvmsg and the like
    """An ssl.SSLSocket over KCP. Made by SSLContext.wrap_socket, of a KCPSocket in any state."""

    #: What a socket that is not on KCP is wrapped in.
    _otherwise: ClassVar[type[ssl.SSLSocket]] = ssl.SSLSocket
    _suppress_ragged_eofs = True

    @classmethod
    def _create(cls, sock: Any, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        if not isinstance(sock, KCPSocket) or sock._kcp is None:
            return cast(Any, cls._otherwise)._create(sock, *args, **kwargs)  # type: ignore[no-any-return]
        return super()._create(sock, *args, **kwargs)  # type: ignore[misc, no-any-return]

    # An end of file without TLS's own goodbye may be forgiven, but not where the connection ended in an error: on TCP,
    # OpenSSL would have met that error instead of an end of file.

    @property
    def suppress_ragged_eofs(self) -> bool:
        """As ssl.SSLSocket's: whether an end of file without a TLS goodbye is an ordinary one."""
        failed = self._kcp is not None and self._kcp.has_error() and not _loses_errors()
        return self._suppress_ragged_eofs and not failed

    @suppress_ragged_eofs.setter
    def suppress_ragged_eofs(self, value: bool) -> None:
        self._suppress_ragged_eofs = value

    def _cause(self, error: OSError, told: bool = True) -> OSError:
        """The connection's own error, if it has one and ssl would have `told`, in place of what TLS says of its end."""
        code = self._kcp.take_error(self) if self._kcp is not None else 0
        return oserror(code) if code and told else error

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """As ssl.SSLSocket.read."""
        try:
            return super().read(len, buffer)
        except _ENDS as error:
            raise self._cause(error, not _loses_errors()) from None

    def write(self, data: Any) -> int:
        """As ssl.SSLSocket.write."""
        try:
            return super().write(data)
        except _ENDS as error:
            raise self._cause(error, not _loses_errors()) from None

    def send(self, data: Any, flags: int = 0) -> int:
        """As ssl.SSLSocket.send."""
        try:
            return super().send(data, flags)
        except _ENDS as error:
            raise self._cause(error, not _loses_errors()) from None

    def do_handshake(self, block: bool = False) -> None:
        """As ssl.SSLSocket.do_handshake."""
        try:
            super().do_handshake(block)
        except _ENDS as error:
            raise self._cause(error) from None

    def unwrap(self) -> Any:
        """As ssl.SSLSocket.unwrap: the socket without TLS, which is this same object."""
        try:
            return super().unwrap()
        except _ENDS as error:
            raise self._cause(error) from None


@functools.cache
def _over_kcp(cls: Any) -> Any:
    """A class derived from `cls`, and of its name, that is a KCPSSLSocket, too: its super() is KCPSSLSocket's."""
    body = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__, "_otherwise": cls}
    return type(cls.__name__, (cls, KCPSSLSocket), body)


_wrap_socket = ssl.SSLContext.wrap_socket


@functools.wraps(_wrap_socket)
def _wrap(self: ssl.SSLContext, sock: Any, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
    chosen: Any = self.sslsocket_class
    if isinstance(sock, KCPSocket) and not issubclass(chosen, KCPSSLSocket):
        self.sslsocket_class = _over_kcp(chosen)
    return _wrap_socket(self, sock, *args, **kwargs)


ssl.SSLContext.sslsocket_class = KCPSSLSocket
ssl.SSLContext.wrap_socket = _wrap  # type: ignore[method-assign]
