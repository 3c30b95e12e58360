"""getsockopt and setsockopt: what each option of a TCP socket means on a KCP socket, and SOL_KCP's own.

CPython and the kernel check the arguments, word the errors and format the answers: every option is first put to a real
socket (the stream itself, a TCP or a UDP socket made for the purpose), and only then acted upon.
"""

from __future__ import annotations

import _socket
import errno
import math
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ._native import ffi, lib
from .association import Association
from .datagrams import is_datagram_option
from .descriptors import pack_int
from .engine import check, info, oserror

_Base = _socket.socket
_Socket = socket.socket
_get = _Base.getsockopt
_set = _Base.setsockopt

#: The level of KCP's own options: "KC", which no protocol of the kernel's has.
SOL_KCP: Final = 0x4B43
KCP_NODELAY: Final = 1  # 0 or 1
KCP_INTERVAL: Final = 2  # ms
KCP_RESEND: Final = 3  # packets
KCP_NC: Final = 4  # 0 or 1
KCP_MTU: Final = 5  # bytes
KCP_SNDWND: Final = 6  # packets
KCP_RCVWND: Final = 7  # packets
KCP_ACKNODELAY: Final = 8  # 0 or 1
KCP_DEADLINK: Final = 9  # transmissions
KCP_CONNECT_TIMEOUT: Final = 10  # ms
KCP_CONV: Final = 11  # the conversation id (as an int option: the same 32 bits); set before connect only
KCP_UNSENT: Final = 12  # bytes that wait in the engine, unsent or unacknowledged; get only


class Option:
    """An option that the stream's own socket has: SO_SNDBUF, SO_REUSEADDR and most of SOL_SOCKET."""

    def set(self, sock: _Base, kcp: Association, level: int, option: int, *value: Any) -> None:
        _set(sock, level, option, *value)
        kcp.options[level, option] = _bytes(value)

    def get(self, sock: _Base, kcp: Association, level: int, option: int, *size: Any) -> int | bytes:
        return _get(sock, level, option, *size)


class Remembered(Option):
    """An option that is stored and given back, as a TCP socket of this kernel would."""

    def set(self, sock: _Base, kcp: Association, level: int, option: int, *value: Any) -> None:
        with _Socket(kcp.family, _socket.SOCK_STREAM) as tcp:
            tcp.setsockopt(level, option, *value)
        kcp.options[level, option] = _bytes(value)

    def get(self, sock: _Base, kcp: Association, level: int, option: int, *size: Any) -> int | bytes:
        with _Socket(kcp.family, _socket.SOCK_STREAM) as tcp:
            if (level, option) in kcp.options:
                tcp.setsockopt(level, option, kcp.options[level, option])
            return _get(tcp, level, option, *size)


class NoDelay(Remembered):
    """TCP_NODELAY. Nothing in KCP waits for more to send, so it is only stored; without a system call, as every
    asyncio and HTTP connection sets it."""

    def set(self, sock: _Base, kcp: Association, level: int, option: int, *value: Any) -> None:
        if len(value) == 1 and type(value[0]) is int and -(2**31) <= value[0] < 2**31:
            kcp.options[level, option] = pack_int(value[0])
        else:
            super().set(sock, kcp, level, option, *value)


class Datagram(Option):
    """An option of the UDP socket: IP_TOS, SO_REUSEPORT, ..."""

    def set(self, sock: _Base, kcp: Association, level: int, option: int, *value: Any) -> None:
        if kcp.has_udp:
            kcp.udp().setsockopt(level, option, *value)
        else:
            with _Socket(kcp.family, _socket.SOCK_DGRAM) as udp:
                udp.setsockopt(level, option, *value)
            data = _bytes(value)
            # Another process's engine cannot be told, nor that of a session that is over.
            if (result := lib.kcps_udp_setsockopt(kcp.id, level, option, data, len(data))) != -errno.ESRCH:
                check(result)
        kcp.options[level, option] = _bytes(value)

    def get(self, sock: _Base, kcp: Association, level: int, option: int, *size: Any) -> int | bytes:
        if kcp.has_udp:
            return kcp.udp().getsockopt(level, option, *size)
        with _Socket(kcp.family, _socket.SOCK_DGRAM) as udp:
            if (level, option) in kcp.options:
                udp.setsockopt(level, option, kcp.options[level, option])
            pattern = udp.getsockopt(level, option, *size)
        room = size[0] if isinstance(pattern, bytes) else struct.calcsize("i")
        value = ffi.new("char[]", room)
        length = ffi.new("uint32_t *", room)
        if (result := lib.kcps_udp_getsockopt(kcp.id, level, option, value, length)) == -errno.ESRCH:
            return pattern
        check(result)
        data = bytes(ffi.buffer(value))[: length[0]]
        return data if isinstance(pattern, bytes) else int.from_bytes(data, "little", signed=True)


class Answer(Option):
    """An option that can only be asked for."""

    def __init__(self, answer: Callable[[_Base, Association], int]) -> None:
        self._answer = answer

    def set(self, sock: _Base, kcp: Association, level: int, option: int, *value: Any) -> None:
        raise oserror(errno.ENOPROTOOPT)

    def get(self, sock: _Base, kcp: Association, level: int, option: int, *size: Any) -> int | bytes:
        form = _get(sock, _socket.SOL_SOCKET, _socket.SO_TYPE, *size)  # raises for a bad size
        answer = self._answer(sock, kcp)
        return answer if isinstance(form, int) else struct.pack("I", answer & 0xFFFFFFFF)[: len(form)]


@dataclass(frozen=True)
class Setting(Option):
    """An int option that is a setting of Config's, `scale` units of the option to one of the setting's."""

    name: str
    scale: int = 1
    #: Whether 0 means "the default again", as it does for some of TCP's.
    reset: bool = False

    def set(self, sock: _Base, kcp: Association, level: int, option: int, *value: Any) -> None:
        if level == _socket.IPPROTO_TCP:
            with _Socket(kcp.family, _socket.SOCK_STREAM) as tcp:
                tcp.setsockopt(level, option, *value)
            remember(kcp, level, option, *value)
        number = _int(sock, value)
        if number == 0 and self.reset:
            kcp.change(**{self.name: getattr(kcp.default_config, self.name)})
        else:
            self.apply(sock, kcp, number)

    def apply(self, sock: _Base, kcp: Association, number: int) -> None:
        """Takes the option's new value."""
        kcp.change(**{self.name: number / self.scale if self.scale != 1 else number})

    def get(self, sock: _Base, kcp: Association, level: int, option: int, *size: Any) -> int | bytes:
        return Answer(lambda sock, kcp: self.value(kcp)).get(sock, kcp, level, option, *size)

    def value(self, kcp: Association) -> int:
        """The option's value now."""
        number: float = getattr(kcp.config, self.name)
        return math.ceil(number * self.scale)


@dataclass(frozen=True)
class Conv(Setting):
    """KCP_CONV: a wish before connect, the fact afterwards."""

    def apply(self, sock: _Base, kcp: Association, number: int) -> None:
        if not kcp.has_udp:
            raise oserror(errno.EISCONN)
        kcp.change(conv=number & 0xFFFFFFFF)

    def value(self, kcp: Association) -> int:
        number = info(kcp.id).conv if kcp.streaming else kcp.config.conv
        return number - (1 << 32) if number >> 31 else number


@dataclass(frozen=True)
class MaxSegment(Setting):
    """TCP_MAXSEG: payload bytes of a segment; setting it can only make it smaller, as with TCP."""

    def apply(self, sock: _Base, kcp: Association, number: int) -> None:
        kcp.change(mtu=max(128, min(kcp.default_config.mtu, number + kcp.config.overhead)))

    def value(self, kcp: Association) -> int:
        return kcp.config.mss


class KeepAlive(Option):
    """SO_KEEPALIVE, which is on unless switched off."""

    def set(self, sock: _Base, kcp: Association, level: int, option: int, *value: Any) -> None:
        super().set(sock, kcp, level, option, *value)
        kcp.change(keepalive=bool(_get(sock, level, option)))

    def get(self, sock: _Base, kcp: Association, level: int, option: int, *size: Any) -> int | bytes:
        return Answer(lambda sock, kcp: bool(kcp.config.keepalive)).get(sock, kcp, level, option, *size)


@dataclass(frozen=True)
class Buffer(Option):
    """SO_SNDBUF, SO_RCVBUF: bytes that may wait on the way. The stream has its share, and the window is made no larger
    than that; a buffer larger than the window leaves the window as configured."""

    window: str

    def set(self, sock: _Base, kcp: Association, level: int, option: int, *value: Any) -> None:
        super().set(sock, kcp, level, option, *value)
        wanted = _get(sock, level, option) // 2  # the kernel doubles
        packets = max(2, wanted // kcp.config.mss)
        kcp.change(**{self.window: min(getattr(kcp.default_config, self.window), packets)})


class Linger(Option):
    """SO_LINGER: the stream's socket has it for answers, the engine acts upon it."""

    def set(self, sock: _Base, kcp: Association, level: int, option: int, *value: Any) -> None:
        super().set(sock, kcp, level, option, *value)
        on, seconds = struct.unpack("ii", _get(sock, level, option, 8))
        kcp.linger = max(0, seconds) if on else -1
        kcp.push()


def remember(kcp: Association, level: int, option: int, *value: Any) -> None:
    """Notes an option that was set, for a socket that is to take this one's place."""
    kcp.options[level, option] = _bytes(value)


def _bytes(value: tuple[Any, ...]) -> bytes:
    """The option's bytes, of arguments that CPython has accepted."""
    if value[0] is None:
        return bytes(value[1])
    return pack_int(value[0]) if isinstance(value[0], int) else bytes(value[0])


def _int(sock: _Base, value: tuple[Any, ...]) -> int:
    """The int that setsockopt's arguments give; CPython's and the kernel's errors otherwise."""
    # Stored by every socket and harmless on a stream of the engine's: a place to have the arguments checked.
    before = _get(sock, _socket.SOL_SOCKET, _socket.SO_OOBINLINE)
    _set(sock, _socket.SOL_SOCKET, _socket.SO_OOBINLINE, *value)
    _set(sock, _socket.SOL_SOCKET, _socket.SO_OOBINLINE, before)
    number: int = struct.unpack_from("i", _bytes(value))[0]
    return number


def _error(sock: _Base, kcp: Association) -> int:
    return kcp.take_error(sock) or _get(sock, _socket.SOL_SOCKET, _socket.SO_ERROR)


def _unsent(sock: _Base, kcp: Association) -> int:
    return max(0, min(2**31 - 1, int(lib.kcps_unsent(kcp.id)))) if kcp.id else 0


_NATIVE: Final = Option()
_REMEMBERED: Final = Remembered()
_DATAGRAM: Final = Datagram()

_TABLE: Final[dict[tuple[int, int], Option]] = {
    (_socket.SOL_SOCKET, _socket.SO_ERROR): Answer(_error),
    (_socket.SOL_SOCKET, _socket.SO_DOMAIN): Answer(lambda sock, kcp: kcp.family),
    (_socket.SOL_SOCKET, _socket.SO_PROTOCOL): Answer(lambda sock, kcp: _socket.IPPROTO_TCP),
    (_socket.SOL_SOCKET, _socket.SO_KEEPALIVE): KeepAlive(),
    (_socket.SOL_SOCKET, _socket.SO_LINGER): Linger(),
    (_socket.SOL_SOCKET, _socket.SO_SNDBUF): Buffer("sndwnd"),
    (_socket.SOL_SOCKET, _socket.SO_RCVBUF): Buffer("rcvwnd"),
    # What a unix stream has and TCP has not: a TCP socket is asked.
    (_socket.SOL_SOCKET, _socket.SO_PASSCRED): _REMEMBERED,
    (_socket.SOL_SOCKET, _socket.SO_PEERCRED): _REMEMBERED,
    (_socket.SOL_SOCKET, _socket.SO_PASSSEC): _REMEMBERED,
    (_socket.SOL_SOCKET, _socket.SO_PEERSEC): _REMEMBERED,
    (_socket.SOL_SOCKET, 76): _REMEMBERED,  # SO_PASSPIDFD
    (_socket.SOL_SOCKET, 77): _REMEMBERED,  # SO_PEERPIDFD
    (_socket.SOL_SOCKET, 83): _REMEMBERED,  # SO_PASSRIGHTS
    (_socket.IPPROTO_TCP, _socket.TCP_NODELAY): NoDelay(),
    (_socket.IPPROTO_TCP, _socket.TCP_CORK): _REMEMBERED,
    (_socket.IPPROTO_TCP, _socket.TCP_QUICKACK): _REMEMBERED,
    (_socket.IPPROTO_TCP, _socket.TCP_DEFER_ACCEPT): _REMEMBERED,
    (_socket.IPPROTO_TCP, _socket.TCP_SYNCNT): _REMEMBERED,
    (_socket.IPPROTO_TCP, _socket.TCP_LINGER2): _REMEMBERED,
    (_socket.IPPROTO_TCP, _socket.TCP_WINDOW_CLAMP): _REMEMBERED,
    (_socket.IPPROTO_TCP, _socket.TCP_FASTOPEN): _REMEMBERED,
    (_socket.IPPROTO_TCP, _socket.TCP_CONGESTION): _REMEMBERED,
    (_socket.IPPROTO_TCP, 25): _REMEMBERED,  # TCP_NOTSENT_LOWAT
    (_socket.IPPROTO_TCP, _socket.TCP_MAXSEG): MaxSegment("mtu", reset=True),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPIDLE): Setting("keepidle"),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL): Setting("keepintvl"),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT): Setting("keepcnt"),
    (_socket.IPPROTO_TCP, _socket.TCP_USER_TIMEOUT): Setting("user_timeout", 1000, reset=True),
    (SOL_KCP, KCP_NODELAY): Setting("nodelay"),
    (SOL_KCP, KCP_INTERVAL): Setting("interval"),
    (SOL_KCP, KCP_RESEND): Setting("resend"),
    (SOL_KCP, KCP_NC): Setting("nc"),
    (SOL_KCP, KCP_MTU): Setting("mtu"),
    (SOL_KCP, KCP_SNDWND): Setting("sndwnd"),
    (SOL_KCP, KCP_RCVWND): Setting("rcvwnd"),
    (SOL_KCP, KCP_ACKNODELAY): Setting("acknodelay"),
    (SOL_KCP, KCP_DEADLINK): Setting("dead_link"),
    (SOL_KCP, KCP_CONNECT_TIMEOUT): Setting("connect_timeout", 1000),
    (SOL_KCP, KCP_CONV): Conv("conv"),
    (SOL_KCP, KCP_UNSENT): Answer(_unsent),
}


def _option(level: Any, option: Any) -> Option | None:
    """What to do with an option; None: not known here."""
    if not isinstance(level, int) or not isinstance(option, int):
        return _REMEMBERED  # CPython knows how to refuse it
    known = _TABLE.get((level, option))
    if known is not None:
        return known
    if level in (SOL_KCP, _socket.IPPROTO_TCP):
        return None
    if level not in (_socket.SOL_SOCKET, _socket.IPPROTO_IP, _socket.IPPROTO_IPV6):
        return _REMEMBERED  # the kernel knows how to refuse it
    if is_datagram_option(level, option):
        return _DATAGRAM
    return _NATIVE if level == _socket.SOL_SOCKET else _REMEMBERED


def setsockopt(sock: _Base, kcp: Association, *arguments: Any) -> None:
    """socket.setsockopt(level, option, value) and (level, option, None, size) on a KCP socket."""
    if len(arguments) not in (3, 4) or sock.fileno() < 0:
        return _set(sock, *arguments)  # raises
    option = _option(*arguments[:2])
    if option is None:
        _int(sock, arguments[2:])
        raise oserror(errno.ENOPROTOOPT)
    return option.set(sock, kcp, *arguments)


def getsockopt(sock: _Base, kcp: Association, *arguments: Any) -> int | bytes:
    """socket.getsockopt(level, option) and (level, option, size) on a KCP socket."""
    if len(arguments) not in (2, 3) or sock.fileno() < 0:
        return _get(sock, *arguments)  # raises
    option = _option(*arguments[:2])
    if option is None:
        _get(sock, _socket.SOL_SOCKET, _socket.SO_TYPE, *arguments[2:])
        raise oserror(errno.ENOPROTOOPT)
    return option.get(sock, kcp, *arguments)
