"""What a descriptor is to KCP: the state that all socket objects over one open description share.

dup(), fromfd(), detach() with socket(fileno=) and ssl's wrapping all make several objects (in turn or at once) over one
socket. The kernel gives every socket a cookie that is never used again; by it they find the same `Association`.
"""

from __future__ import annotations

import _socket
import enum
import errno
import os
import socket
import stat
import struct
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from . import engine
from ._native import ffi, lib
from .config import Config
from .datagrams import is_datagram_option
from .descriptors import DIRECTORY_ERRORS, borrowed, cookie_of, directories, is_alive, put_under, wait_writable
from .engine import Phase, oserror

if TYPE_CHECKING:
    from ._native import CData
    from .rules import Rules

_Base = _socket.socket
_Socket = socket.socket  # the standard class, whatever patch() puts in its place later
_AF_UNIX: Final = int(_socket.AF_UNIX)
_INTERNET: Final = frozenset({int(_socket.AF_INET), int(_socket.AF_INET6)})

TIMED_OUT: Final = -1  # Association.connect's answer where the socket's own time-out ran out


class Role(enum.Enum):
    """What the application has done with the socket."""

    IDLE = enum.auto()
    BOUND = enum.auto()
    CONNECTING = enum.auto()  # until a connect() has told the application how it ended, as in Linux
    CONNECTED = enum.auto()  # and whatever came later
    FAILED = enum.auto()  # a connect failed: another may follow
    LISTENING = enum.auto()


_STREAMING: Final = frozenset({Role.CONNECTING, Role.CONNECTED})

_registry: dict[bytes, Association] = {}
_detached: dict[int, Association] = {}  # by descriptor; no object holds these
_registry_lock = threading.RLock()


def _fresh_lock() -> None:
    global _registry_lock
    _registry_lock = threading.RLock()


os.register_at_fork(after_in_child=_fresh_lock)


class Association:
    """One KCP socket, whatever objects and descriptors it has in this process."""

    __slots__ = (
        "_cookie",
        "_lock",
        "_objects",
        "_takeover",
        "_udp",
        "any_port",
        "bound",
        "carries",
        "config",
        "default_config",
        "family",
        "id",
        "linger",
        "options",
        "role",
        "rules",
    )

    def __init__(self, family: int, config: Config) -> None:
        self.family = family
        self.role = Role.IDLE
        #: The engine's name for the session or listener; 0: none yet.
        self.id = 0
        self.config = config
        #: What setting an option "back to the default" returns to.
        self.default_config = config
        #: As struct kcps_config has it: -1, or seconds.
        self.linger = -1
        #: What the application set, as bytes: for answers, for accepted sockets and for a second try to connect.
        self.options: dict[tuple[int, int], bytes] = {}
        #: Which addresses go over KCP, where patch() was told; None: all.
        self.rules: Rules | None = None
        #: Whether the connection is known to stand, or to have stood.
        self.carries = False
        #: The address bound to by name, to bind to again.
        self.bound: Any = None
        #: Whether the application left it to the system which port that is.
        self.any_port = False
        self._takeover: tuple[Any, CData] | None = None  # a bound address whose port the engine still has
        self._udp: _Base | None = None  # until the engine takes it
        self._objects = 0
        self._cookie = b""
        self._lock = threading.Lock()

    # --- objects ---

    def attach(self, sock: _Base) -> None:
        """`sock` is one more object over this socket."""
        with _registry_lock:
            if self._objects == 0:
                self._cookie = cookie_of(sock)
                _registry[self._cookie] = self
                _forget_detached(sock.fileno(), but=self)
            self._objects += 1

    def release(self) -> None:
        """An object is gone, and its descriptor closed."""
        with _registry_lock:
            self._objects -= 1
            last = self._objects == 0
            if last:
                _registry.pop(self._cookie, None)
        if self.role is Role.LISTENING:
            lib.kcps_listener_check(self.id)
        if last:
            self._discard()

    def detach(self, descriptor: int) -> None:
        """An object is gone, but left `descriptor` open for somebody to make an object of again."""
        with _registry_lock:
            for other in [fd for fd, association in _detached.items() if not association._is_behind(fd)]:
                _forget_detached(other)
            self._objects -= 1
            if self._objects == 0:
                _detached[descriptor] = self

    def _is_behind(self, descriptor: int) -> bool:
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                return False
        except OSError:
            return False
        with borrowed(descriptor) as probe:
            return cookie_of(probe) == self._cookie

    def _discard(self) -> None:
        if self._udp is not None:
            self._udp.close()
            self._udp = None
        if self.id:
            lib.kcps_forget(self.id)

    @property
    def shared(self) -> bool:
        """Whether other objects than the one asking are over the same socket."""
        return self._objects > 1

    # --- the UDP socket ---

    def udp(self) -> _Base:
        """The UDP socket that the engine will take, made now if need be."""
        if self._udp is None:
            udp = _Base(self.family, _socket.SOCK_DGRAM)
            for (level, option), value in self.options.items():
                if is_datagram_option(level, option):
                    udp.setsockopt(level, option, value)
            self._udp = udp
        return self._udp

    @property
    def has_udp(self) -> bool:
        """Whether the UDP socket is still (or could be) this object's, not the engine's."""
        return self.id == 0 or self.role is Role.FAILED

    # --- bind, listen, connect ---

    def bind(self, sock: _Base, address: Any) -> None:
        """bind(), parsed, audited and done by CPython on the UDP socket."""
        if self.role not in (Role.IDLE, Role.BOUND, Role.FAILED) or self._takeover is not None:
            raise oserror(errno.EINVAL)
        try:
            self.udp().bind(address)
        except OSError as error:
            # On UDP, SO_REUSEADDR would let two servers share the port: it is never passed on. What it means on TCP,
            # to follow a listener whose connections live on, the engine does.
            if error.errno != errno.EADDRINUSE or not sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR):
                raise
            with _Socket(self.family, _socket.SOCK_DGRAM) as probe:
                probe.bind((address[0], 0, *address[2:]))
                name = probe.getsockname()
            native = engine.native_address(self.family, name[0].partition("%")[0], address[1], *name[3:])
            if not engine.can_relisten(self.family, native):
                raise
            self._takeover = ((name[0], address[1], *name[2:]), native)
        self.bound = self.getsockname(sock)
        self.any_port = address[1] == 0
        self.role = Role.BOUND

    def listen(self, sock: _Base, backlog: int) -> None:
        """The first listen(): the engine makes the descriptor a listening one."""
        if self.role not in (Role.IDLE, Role.BOUND):
            raise oserror(errno.EINVAL)
        if self._listens_elsewhere(sock):
            return None
        native = engine.native_config(self.config, self.linger)
        id = ffi.new("kcps_id *")
        if self._takeover is None and self.role is Role.IDLE:
            self.udp().bind(("", 0))
        result = 0
        for directory in directories():
            if self._takeover is not None:
                place = self._takeover[1]
                result = lib.kcps_relisten(sock.fileno(), backlog, directory, native, self.family, place, id)
                if result == -errno.ESRCH:  # somebody else took it over, or the last session ended: it may be free
                    self.udp().bind(self._takeover[0])
                    self._takeover = None
            if self._takeover is None:
                result = lib.kcps_listen(sock.fileno(), self.udp().fileno(), backlog, directory, native, id)
            if -result not in DIRECTORY_ERRORS:
                break
        if result == -errno.EINVAL and self._listens_elsewhere(sock):
            return None
        engine.check(result)
        return self._begun(id[0], Role.LISTENING)

    def _listens_elsewhere(self, sock: _Base) -> bool:
        """Whether another process, which shares this bound socket, listens on it already: what that one's engine brings
        is accepted here, too, then, for as long as it lives."""
        name = engine.name(sock.fileno())
        if name is None or not name.listening:
            return False
        pid, _, _ = struct.unpack("3i", _Base.getsockopt(sock, _socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))
        if pid > 0 and not is_alive(pid):
            self._freshen(sock)
            return False
        self._discard()
        self._takeover = None
        self.id = name.id
        self.role = Role.LISTENING
        return True

    def connect(self, sock: _Base, address: Any) -> int:
        """connect(): 0, an errno, or TIMED_OUT. What CPython says about the address itself is raised."""
        with self._lock:
            if self.role in (Role.CONNECTED, Role.LISTENING):
                return errno.EISCONN
            timeout = sock.gettimeout()
            if self.role is Role.CONNECTING:
                if timeout == 0 and lib.kcps_phase(self.id) == Phase.CONNECTING:
                    return errno.EALREADY
            else:
                code = self._start(sock, address)
                if code:
                    return code
                if timeout == 0:
                    return errno.EINPROGRESS
        if not wait_writable(sock, timeout):
            return TIMED_OUT
        with self._lock:
            return self._outcome()

    def _start(self, sock: _Base, address: Any) -> int:
        if self._takeover is not None:
            return errno.EADDRINUSE
        native = engine.native_config(self.config, self.linger)
        if self.role is Role.FAILED:
            self._renew(sock)
        udp = self.udp()
        code = udp.connect_ex(address)
        if code:
            return code
        try:
            udp.getpeername()
        except OSError:  # port 0, which UDP lets pass and TCP refuses
            self._udp = None
            udp.close()
            self.role = Role.FAILED
            return errno.ECONNREFUSED
        id = ffi.new("kcps_id *")
        result = lib.kcps_connect(sock.fileno(), udp.fileno(), native, id)
        if result < 0:
            return -result
        self._begun(id[0], Role.CONNECTING)
        return 0

    def _begun(self, id: int, role: Role) -> None:
        if self._udp is not None:
            self._udp.detach()  # the engine's now
            self._udp = None
        self._takeover = None
        self.id = id
        self.role = role
        engine.used()

    def _outcome(self) -> int:
        """How the connect that is over (its descriptor writable) ended."""
        if self.role is not Role.CONNECTING:
            return errno.EISCONN  # another thread was told
        if lib.kcps_phase(self.id) == Phase.ESTABLISHED:
            self.role = Role.CONNECTED
            self.carries = True
            return 0
        self.role = Role.FAILED
        return lib.kcps_error(self.id, True) or errno.ECONNABORTED

    def _freshen(self, sock: _Base) -> None:
        """Puts a fresh stream under the descriptor's number."""
        with _Socket(_socket.AF_UNIX, _socket.SOCK_STREAM) as fresh, _registry_lock:
            put_under(fresh, sock.fileno())
            _registry.pop(self._cookie, None)
            self._cookie = cookie_of(sock)
            _registry[self._cookie] = self
        self._set_stream_options(sock)

    def _renew(self, sock: _Base) -> None:
        """Makes a socket whose connect has failed one that can be connected again, as with TCP."""
        self._freshen(sock)
        if self.id:
            lib.kcps_forget(self.id)
            self.id = 0
        self.role = Role.IDLE
        self.carries = False
        if self.bound is not None:
            self.udp().bind(self.bound)
            self.role = Role.BOUND

    # --- a connection's state ---

    @property
    def streaming(self) -> bool:
        """Whether there is, or was, a connection to read from and write to."""
        return self.role in _STREAMING

    def take_error(self, sock: _Base) -> int:
        """The pending error, which is reported once, as a positive errno; 0: none."""
        if not self.id:
            return 0
        code = lib.kcps_error(self.id, True)
        if code:
            # The stream may have an error of its own of the same cause, that nobody is to see a second time.
            _Base.getsockopt(sock, _socket.SOL_SOCKET, _socket.SO_ERROR)
        return code

    def has_error(self) -> bool:
        """Whether an error is pending; it stays so."""
        return self.id != 0 and lib.kcps_error(self.id, False) != 0

    def may_carry(self, sock: _Base) -> bool:
        """Whether the connection stands, or stood. As TCP, a non-blocking send fails while the connect is under way:
        BlockingIOError."""
        if not self.carries and self.role is Role.CONNECTING:
            phase = lib.kcps_phase(self.id)
            self.carries = phase == Phase.ESTABLISHED
            if phase == Phase.CONNECTING and sock.gettimeout() == 0:
                raise oserror(errno.EAGAIN)
        return self.carries

    def getsockname(self, sock: _Base) -> Any:
        """The local address."""
        if self._takeover is not None:
            return self._takeover[0]
        if self.role in (Role.CONNECTING, Role.CONNECTED, Role.LISTENING):
            name = engine.name(sock.fileno())
            if name is not None:
                return name.local
        if self._udp is not None:
            return self._udp.getsockname()
        if self.bound is not None:
            return self.bound
        return ("0.0.0.0", 0) if self.family == _socket.AF_INET else ("::", 0, 0, 0)

    def getpeername(self, sock: _Base) -> Any:
        """The peer's address; ENOTCONN as with TCP: also while connecting, and when all is over."""
        if self.streaming and lib.kcps_phase(self.id) not in (Phase.CONNECTING, Phase.CLOSED):
            name = engine.name(sock.fileno())
            if name is not None:
                return name.peer
        raise oserror(errno.ENOTCONN)

    def shutdown(self, how: int) -> None:
        """To be called before the descriptor's own shutdown. OSError(ENOTCONN) where TCP has it."""
        if self.role is not Role.LISTENING and (not self.streaming or lib.kcps_phase(self.id) == Phase.CLOSED):
            raise oserror(errno.ENOTCONN)
        lib.kcps_shutdown(self.id, {_socket.SHUT_RD: 1, _socket.SHUT_WR: 2, _socket.SHUT_RDWR: 3}.get(how, 0))

    # --- from process to process ---

    def carried(self) -> dict[str, Any]:
        """What another process that gets the descriptor has to know besides, as plain values."""
        names = ("family", "config", "default_config", "linger", "options", "rules", "bound")
        return {name: getattr(self, name) for name in names}

    @property
    def udp_descriptor(self) -> int | None:
        """The descriptor of the UDP socket while it is not the engine's; None: there is none."""
        return None if self._udp is None else self._udp.fileno()

    @classmethod
    def brought(cls, descriptor: int, udp_descriptor: int | None, carried: dict[str, Any]) -> Association:
        """The association of a `descriptor` that has come from another process with what `carried` said there."""
        known = find(descriptor, carried["config"])
        association = known or cls(carried["family"], carried["config"])
        for name, value in carried.items():
            setattr(association, name, value)
        if known is None and udp_descriptor is not None:
            association._udp = _Base(fileno=udp_descriptor)
            association.role = Role.IDLE if association.bound is None else Role.BOUND
        elif udp_descriptor is not None:
            os.close(udp_descriptor)
        return association

    # --- settings ---

    def change(self, **settings: Any) -> None:
        """Changes settings of Config's, of a live session too. OSError(EINVAL) for a value that is not allowed."""
        try:
            self.config = replace(self.config, **settings)
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error)) from None
        self.push()

    def push(self) -> None:
        """Tells the engine the settings of a live session or listener. Another process's engine cannot be told."""
        if not self.id:
            return
        native = engine.native_config(self.config, self.linger)
        result = lib.kcps_set_config(self.id, native)
        if result != -errno.ESRCH:
            engine.check(result)

    def accepted(self, sock: _Base, id: int) -> Association:
        """The association of a connection that this listener's accept() made: options are inherited as in Linux."""
        child = Association(self.family, self.config)
        child.default_config = self.default_config
        child.role = Role.CONNECTED
        child.carries = True
        child.id = id
        child.linger = self.linger
        child.options = dict(self.options)
        child._set_stream_options(sock)
        lib.kcps_claim(id)
        return child

    def _set_stream_options(self, sock: _Base) -> None:
        for (level, option), value in self.options.items():
            if level == _socket.SOL_SOCKET and not is_datagram_option(level, option):
                _Base.setsockopt(sock, level, option, value)

    # --- TCP and back, as rules have it ---

    @property
    def undecided(self) -> bool:
        """Whether there is neither a connection (or one under way) nor a listener yet."""
        return self.role in (Role.IDLE, Role.BOUND, Role.FAILED)

    def to_tcp(self, sock: _Base) -> None:
        """Puts a TCP socket with the same options and local address under the number of `sock`, and gives `sock` up."""
        with _Socket(self.family, _socket.SOCK_STREAM) as tcp:
            for (level, option), value in self.options.items():
                tcp.setsockopt(level, option, value)
            if self.bound is not None:
                self._bind_again(tcp, self.bound)
            put_under(tcp, sock.fileno())
        self.release()

    def from_tcp(self, sock: _Base) -> Association:
        """Puts a KCP socket back under the number of `sock`, which to_tcp has made a TCP socket. Its association, to
        which bind_as_tcp is to be applied yet."""
        again = Association(self.family, self.config)
        again.default_config, again.linger, again.rules = self.default_config, self.linger, self.rules
        again.options, again.any_port = dict(self.options), self.any_port
        again.bound = _Base.getsockname(sock)
        with _Socket(_socket.AF_UNIX, _socket.SOCK_STREAM) as stream:
            again._set_stream_options(stream)
            put_under(stream, sock.fileno())
        again.attach(sock)
        return again

    def bind_as_tcp(self, sock: _Base) -> None:
        """Binds to the local address that `sock` had as a TCP socket, if it had one."""
        local, self.bound = self.bound, None
        if local[1]:
            self._bind_again(self.udp(), local)
            self.bound = self.getsockname(sock)
            self.role = Role.BOUND

    def _bind_again(self, sock: _Base, address: Any) -> None:
        """Binds another kind of socket to an address: to the same port, unless that is taken and was not asked for."""
        try:
            sock.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not self.any_port:
                raise
            sock.bind((address[0], 0, *address[2:]))


def _forget_detached(descriptor: int, but: Association | None = None) -> None:
    """`descriptor` is closed, or an object's again (that of `but`); what had been detached there is over."""
    lost = _detached.pop(descriptor, None)
    if lost is not None and lost is not but:
        _registry.pop(lost._cookie, None)
        lost._discard()


def find(descriptor: Any, config: Config) -> Association | None:
    """The association that `descriptor` belongs to; None for a descriptor that is not a KCP socket's.

    A connected or listening one is known by its name, whatever process made it; an earlier one only in this process.
    """
    if not isinstance(descriptor, int) or descriptor < 0:
        return None
    try:
        with borrowed(descriptor) as probe:
            if probe.family != _AF_UNIX or probe.type != _socket.SOCK_STREAM:
                return None
            known = _registry.get(cookie_of(probe))
    except OSError:
        return None
    if known is not None:
        return known
    name = engine.name(descriptor)
    if name is None or name.family not in _INTERNET:
        return None
    association = Association(name.family, config)
    association.id = name.id
    association.role = Role.LISTENING if name.listening else Role.CONNECTED
    association.carries = not name.listening
    native = ffi.new("struct kcps_config *")
    if lib.kcps_get_config(name.id, native) == 0:
        association.config = engine.config_from(native, config)
        association.linger = native.linger
    lib.kcps_claim(name.id)
    return association
