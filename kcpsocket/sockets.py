"""`KCPSocket`: a socket.socket whose bytes travel over KCP.

Its descriptor is one end of an AF_UNIX stream, and the native engine moves the bytes between the other end and KCP. So
reading, writing, readiness, time-outs and blocking are inherited from socket.socket and done by the kernel. Written
here is what differs: making and naming the connection, options, and the errors that a TCP socket would give where a
unix stream gives others.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import operator
import socket
import time
from typing import Any, ClassVar, Final

from . import association, engine, options
from ._native import ffi, lib
from .association import TIMED_OUT, Association, Role
from .config import Config
from .descriptors import wait_readable
from .engine import KCPInfo, oserror
from .rules import Rules

_Base = _socket.socket
_Socket = socket.socket

_FLAGS: Final = int(_socket.SOCK_NONBLOCK) | int(_socket.SOCK_CLOEXEC)
_STREAM: Final = int(_socket.SOCK_STREAM)
_OOB: Final = int(_socket.MSG_OOB)
_TCP_CLOSE: Final = 7  # tcpi_state of a socket that does nothing (linux/tcp.h)
_INTERNET: Final = frozenset({int(_socket.AF_INET), int(_socket.AF_INET6)})
_PROTOCOLS: Final = frozenset({0, int(_socket.IPPROTO_TCP)})

#: Bytes that are sent past the descriptor where that is possible: one thread hop less, a fifth less time for an echo of
#: 64 bytes. More than this is better cut into packets by the engine's thread beside the caller's.
_FEW: Final = lib.KCPS_SEND_MAX
_DIRECT: Final = frozenset({bytes, bytearray, memoryview})

# What a unix stream says where a TCP socket says something else, or says why.
_READ_ERRORS: Final = frozenset({errno.ECONNRESET, errno.EINVAL, errno.ENOTCONN})
_WRITE_ERRORS: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN})

_recv = _Base.recv
_recv_into = _Base.recv_into
_recvfrom = _Base.recvfrom
_recvfrom_into = _Base.recvfrom_into
_recvmsg = _Base.recvmsg
_recvmsg_into = _Base.recvmsg_into
_send = _Base.send
_sendall = _Base.sendall
_sendmsg = _Base.sendmsg


def is_internet_stream(family: int, type: int, proto: int) -> bool:
    """Whether socket(family, type, proto), -1 being the defaults, asks for what is TCP ordinarily."""
    return (
        family in (-1, *_INTERNET)
        and (type == -1 or type & ~_FLAGS == _STREAM)
        and (proto == -1 or proto in _PROTOCOLS)
    )


class KCPSocket(socket.socket):
    """A socket.socket over KCP, for AF_INET and AF_INET6 streams. Any other kind is an ordinary socket.

    Settings come from the class attribute `config`, so that a subclass can carry its own; options change them for one
    socket. Sockets that a listener accepts have the listener's. Errors are those of TCP sockets.
    """

    __slots__ = ("_kcp", "_was")
    __module__ = "kcpsocket"

    config: ClassVar[Config] = Config()
    #: Which addresses go over KCP: for the others, connect and bind make this a TCP socket. None: all.
    rules: ClassVar[Rules | None] = None

    _kcp: Association | None  # None: an ordinary socket, or a closed one
    _was: Association | None  # what it was until `rules` made it a TCP socket

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        self._kcp = None
        self._was = None
        kcp: Association | None = None
        if is_internet_stream(family, type, proto):
            if fileno is None:
                self._open(family, type, proto)
                return
            kcp = association.find(fileno, self.config)
            if kcp is not None:
                family, type, proto = kcp.family, _STREAM if type == -1 else type, max(proto, 0)
        super().__init__(family, type, proto, fileno)
        if kcp is not None:
            kcp.attach(self)
            self._kcp = kcp

    def _adopt(self, kcp: Association, type: int, proto: int, descriptor: int) -> None:
        """Makes this new object the owner of `descriptor`, which is one of `kcp`."""
        self._kcp = self._was = None
        _Socket.__init__(self, kcp.family, type, proto, descriptor)
        kcp.attach(self)
        self._kcp = kcp

    def _open(self, family: int, type: int, proto: int) -> None:
        """A new KCP socket."""
        family = int(_socket.AF_INET) if family == -1 else family
        type = _STREAM if type == -1 else type
        with _Socket(_socket.AF_UNIX, _STREAM | type & _FLAGS) as stream:
            super().__init__(family, type, max(proto, 0), stream.fileno())
            stream.detach()
        kcp = Association(family, self.config)
        kcp.rules = self.rules
        kcp.attach(self)
        self._kcp = kcp

    # --- connections ---

    def _chosen(self, address: Any) -> Association | None:
        """What this socket is once `address` is its own or its peer's, by its rules: None for a TCP socket."""
        kcp = self._kcp or self._was
        if kcp is None or kcp.rules is None:
            return self._kcp
        over_kcp = kcp.rules.over_kcp(kcp.family, address)
        if self._kcp is None:
            if over_kcp and _Base.getsockopt(self, _socket.IPPROTO_TCP, _socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
                self._kcp, self._was = kcp.from_tcp(self), None
                self._kcp.bind_as_tcp(self)
        elif not over_kcp and kcp.undecided and self.fileno() >= 0:
            kcp.to_tcp(self)
            self._kcp, self._was = None, kcp
        return self._kcp

    def bind(self, address: Any, /) -> None:
        """As socket.bind, to a UDP port. SO_REUSEADDR is for following a listener whose connections live on."""
        kcp = self._chosen(address)
        if kcp is None:
            super().bind(address)
            if self._was is not None:
                self._was.any_port = address[1] == 0
            return None
        return kcp.bind(self, address)

    def listen(self, backlog: int = min(_socket.SOMAXCONN, 128), /) -> None:
        """As socket.listen: from now on clients are answered, and wait to be accepted."""
        kcp = self._kcp
        if kcp is not None and kcp.role is Role.IDLE:
            kcp = self._chosen(("", 0))
        if kcp is None or kcp.role is Role.LISTENING or self.fileno() < 0:
            return super().listen(backlog)
        return kcp.listen(self, max(0, operator.index(backlog)))

    def accept(self) -> tuple[socket.socket, Any]:
        """As socket.accept; the new socket is a KCPSocket, with the listener's settings and options."""
        kcp = self._kcp
        if kcp is None:
            return super().accept()
        timeout = self.gettimeout()
        deadline = time.monotonic() + timeout if timeout else None
        while True:
            descriptor, _ = self._accept()  # type: ignore[attr-defined]
            name = engine.name(descriptor)
            if name is not None:
                break
            # Not a session's: a stranger who reached the listening stream, or nobody any more.
            socket.close(descriptor)
            if timeout != 0:
                wait_readable(self, deadline)
        # As socket.accept has it: what a derived class accepts is a socket.socket. Under patch() that name is a face's.
        cls = next((cls for cls in type(self).__mro__ if "_is_face" in cls.__dict__), KCPSocket)
        sock: KCPSocket = KCPSocket.__new__(cls)
        sock._kcp = sock._was = None
        _Socket.__init__(sock, self.family, self.type, self.proto, descriptor)
        child = kcp.accepted(sock, name.id)
        child.attach(sock)
        sock._kcp = child
        # As socket.accept has it: a listener's time-out is not inherited.
        if _socket.getdefaulttimeout() is None and timeout:
            sock.setblocking(True)
        return sock, name.peer

    def connect(self, address: Any, /) -> None:
        """As socket.connect: returns when the peer has answered. Raises ConnectionRefusedError, TimeoutError, ..."""
        kcp = self._chosen(address)
        if kcp is None:
            return super().connect(address)
        code = kcp.connect(self, address)
        if code == TIMED_OUT:
            raise TimeoutError("timed out")
        if code:
            raise oserror(code)
        return None

    def connect_ex(self, address: Any, /) -> int:
        """As socket.connect_ex: connect, but the errno is returned."""
        kcp = self._chosen(address)
        if kcp is None:
            return super().connect_ex(address)
        code = kcp.connect(self, address)
        return errno.EAGAIN if code == TIMED_OUT else code

    def getsockname(self) -> Any:
        """The local address."""
        if self._kcp is None:
            return super().getsockname()
        return self._kcp.getsockname(self)

    def getpeername(self) -> Any:
        """The peer's address."""
        if self._kcp is None:
            return super().getpeername()
        return self._kcp.getpeername(self)

    def shutdown(self, how: int, /) -> None:
        """As socket.shutdown: SHUT_WR ends the outgoing stream, and the peer reads an end of file."""
        if self._kcp is not None:
            self._kcp.shutdown(how)
        super().shutdown(how)

    def kcp_info(self) -> KCPInfo:
        """The connection's state and counters. OSError(ENOTCONN): there is none, or it is over."""
        if self._kcp is None or not self._kcp.streaming:
            raise oserror(errno.ENOTCONN if self.fileno() >= 0 else errno.EBADF)
        return engine.info(self._kcp.id)

    # --- out-of-band datagrams ---

    def _session(self) -> int:
        """The id of the connection's session. OSError(ENOTCONN): there is none."""
        if self._kcp is None or not self._kcp.streaming:
            raise oserror(errno.ENOTCONN if self.fileno() >= 0 else errno.EBADF)
        return self._kcp.id

    @property
    def oob_max_size(self) -> int:
        """Bytes that an out-of-band datagram can carry; 0 without forward error correction, whose framing it needs."""
        return engine.session_check(lib.kcps_oob_limit(self._session()))

    def send_oob(self, data: Any) -> None:
        """Sends `data` as one datagram beside the stream: unreliable, unordered, never repeated (kcp-go's SendOOB).

        Needs `datashard` and `parityshard` (OSError EOPNOTSUPP without); at most `oob_max_size` bytes (EMSGSIZE).
        """
        view = ffi.from_buffer(data)
        engine.session_check(lib.kcps_oob_send(self._session(), view, len(view)))

    def oob_socket(self) -> socket.socket:
        """A socket by which out-of-band datagrams are received, and can be sent: one recv() or send() a datagram.

        It is an ordinary AF_UNIX SOCK_SEQPACKET socket of its own, to be selected on and closed like any other; recv()
        gives b"" when the connection has ended. One at a time (OSError EBUSY). Datagrams are dropped while there is
        none, and when it is not read in time; empty ones, and ones over `oob_max_size`, always.
        """
        descriptor = engine.session_check(lib.kcps_oob_open(self._session()))
        return _Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, descriptor)

    # --- options ---

    def setsockopt(self, *arguments: Any) -> None:
        """As socket.setsockopt; level SOL_KCP has KCP's own options."""
        if self._kcp is None:
            super().setsockopt(*arguments)
            if self._was is not None:
                options.remember(self._was, *arguments)
            return None
        return options.setsockopt(self, self._kcp, *arguments)

    def getsockopt(self, *arguments: Any) -> Any:
        """As socket.getsockopt; level SOL_KCP has KCP's own options."""
        if self._kcp is None:
            return super().getsockopt(*arguments)
        return options.getsockopt(self, self._kcp, *arguments)

    # --- reading ---

    def _end(self) -> None:
        """The stream has ended: raises what a TCP socket would instead, if anything."""
        kcp = self._kcp
        if kcp is None:
            return
        code = kcp.take_error(self)
        if code:
            raise oserror(code)
        if not kcp.streaming:
            raise oserror(errno.ENOTCONN)

    def _read_failed(self, error: OSError) -> None:
        """Raises what a TCP socket would have instead of `error`."""
        if self._kcp is not None and error.errno in _READ_ERRORS:
            code = self._kcp.take_error(self)
            if not code and not self._kcp.streaming:
                code = errno.ENOTCONN
            if code:
                raise oserror(code) from None
        raise error

    def _check_flags(self, flags: int) -> None:
        # A stream in KCP has no urgent data; the kernel's unix streams have some of their own.
        if flags & _OOB and self._kcp is not None:
            raise oserror(errno.EOPNOTSUPP)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As socket.recv."""
        if flags:
            self._check_flags(flags)
        try:
            data = _recv(self, bufsize, flags)
        except OSError as error:
            self._read_failed(error)
            raise
        if not data and bufsize:
            self._end()
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As socket.recv_into."""
        if flags:
            self._check_flags(flags)
        try:
            count = _recv_into(self, buffer, nbytes, flags)
        except OSError as error:
            self._read_failed(error)
            raise
        if not count and memoryview(buffer).nbytes:
            self._end()
        return count

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As socket.recvfrom: as with TCP, the address is None."""
        if flags:
            self._check_flags(flags)
        try:
            data, address = _recvfrom(self, bufsize, flags)
        except OSError as error:
            self._read_failed(error)
            raise
        if not data and bufsize:
            self._end()
        return data, address if self._kcp is None else None

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As socket.recvfrom_into: as with TCP, the address is None."""
        if flags:
            self._check_flags(flags)
        try:
            count, address = _recvfrom_into(self, buffer, nbytes, flags)
        except OSError as error:
            self._read_failed(error)
            raise
        if not count and memoryview(buffer).nbytes:
            self._end()
        return count, address if self._kcp is None else None

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> tuple[bytes, list[Any], int, Any]:
        """As socket.recvmsg: as with TCP, the address is None."""
        if flags:
            self._check_flags(flags)
        try:
            data, ancillary, state, address = _recvmsg(self, bufsize, ancbufsize, flags)
        except OSError as error:
            self._read_failed(error)
            raise
        if not data and bufsize:
            self._end()
        return data, ancillary, state, address if self._kcp is None else None

    def recvmsg_into(
        self, buffers: Any, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[Any], int, Any]:
        """As socket.recvmsg_into: as with TCP, the address is None."""
        if flags:
            self._check_flags(flags)
        buffers = list(buffers)
        try:
            count, ancillary, state, address = _recvmsg_into(self, buffers, ancbufsize, flags)
        except OSError as error:
            self._read_failed(error)
            raise
        if not count and any(memoryview(buffer).nbytes for buffer in buffers):
            self._end()
        return count, ancillary, state, address if self._kcp is None else None

    # --- writing ---

    def _write_failed(self, error: OSError) -> None:
        """Raises what a TCP socket would have instead of `error`."""
        if self._kcp is not None and error.errno in _WRITE_ERRORS:
            code = self._kcp.take_error(self)
            if code or error.errno == errno.ENOTCONN:
                raise oserror(code or errno.EPIPE) from None
        raise error

    def _direct(self, data: Any) -> int:
        """Sends a few bytes past the descriptor, if nothing waits in it. Returns how many the engine took."""
        kcp = self._kcp
        if kcp is None or not (kcp.carries or kcp.may_carry(self)):
            return 0
        if type(data) is bytes:
            return lib.kcps_send(kcp.id, self.fileno(), data, len(data))
        if type(data) is memoryview and (data.itemsize != 1 or data.ndim != 1 or not data.c_contiguous):
            return 0
        return lib.kcps_send(kcp.id, self.fileno(), ffi.from_buffer(data), len(data))

    def send(self, data: Any, flags: int = 0, /) -> int:
        """As socket.send."""
        if flags:
            self._check_flags(flags)
        elif type(data) in _DIRECT and 0 < len(data) <= _FEW:
            taken = self._direct(data)
            if taken:
                return taken
        try:
            return _send(self, data, flags)
        except OSError as error:
            self._write_failed(error)
            raise

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """As socket.sendall."""
        if flags:
            self._check_flags(flags)
        elif type(data) in _DIRECT and 0 < len(data) <= _FEW:
            taken = self._direct(data)
            if taken == len(data):
                return None
            data = data[taken:]
        try:
            return _sendall(self, data, flags)
        except OSError as error:
            self._write_failed(error)
            raise

    def sendto(self, data: Any, *arguments: Any) -> int:
        """As socket.sendto on a TCP socket: the address must be a good one, and is not used."""
        if self._kcp is None or len(arguments) not in (1, 2):
            return super().sendto(data, *arguments)
        with _Socket(self._kcp.family, _socket.SOCK_DGRAM) as udp:
            udp.connect_ex(arguments[-1])  # raises for what is no address; sends nothing
        return self.send(data, *arguments[:-1])

    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
        """As socket.sendmsg on a TCP socket: ancillary data and the address are not used."""
        if self._kcp is None:
            return super().sendmsg(buffers, ancdata, flags, address)
        if flags:
            self._check_flags(flags)
        if ancdata or address is not None:
            # Not used, but refused where CPython would: put to a socket that can't send.
            with _Socket(self._kcp.family, _STREAM) as tcp, contextlib.suppress(OSError):
                tcp.sendmsg((), ancdata, _socket.MSG_NOSIGNAL, address)
        try:
            return _sendmsg(self, buffers, (), flags)
        except OSError as error:
            self._write_failed(error)
            raise

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """As socket.sendfile."""
        try:
            return super().sendfile(file, offset, count)
        except OSError as error:
            self._write_failed(error)
            raise

    # --- the end ---

    def _real_close(self, _ss: type[_Base] = _Base) -> None:
        kcp = self._kcp
        self._kcp = None
        wait = kcp is not None and kcp.linger > 0 and kcp.streaming and not kcp.shared and self.fileno() >= 0
        _ss.close(self)
        if kcp is None:
            return
        if wait:
            engine.wait_closed(kcp.id, kcp.linger)
        kcp.release()

    def detach(self) -> int:
        """As socket.detach: the descriptor stays open, and socket(fileno=...) makes a KCP socket of it again."""
        kcp = self._kcp
        self._kcp = None
        descriptor = super().detach()
        if kcp is not None:
            kcp.detach(descriptor)
        return descriptor

    def __del__(self) -> None:
        _Base.__del__(self)  # type: ignore[attr-defined]
        kcp = getattr(self, "_kcp", None)
        if kcp is not None:
            self._kcp = None
            kcp.release()
