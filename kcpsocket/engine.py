"""The native engine (native/api.h) as Python calls it: errno into OSError, structs into plain values, exit."""

from __future__ import annotations

import atexit
import enum
import errno
import os
import socket
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from . import ciphers, erasure
from ._native import ffi, lib
from .config import Config

if TYPE_CHECKING:
    from ._native import CData

_EXIT_LIMIT: Final = 300.0  # s; sessions without progress give up long before, after their user_timeout
_SLICE: Final = 100  # ms that the engine may block before signal handlers get their turn


class Phase(enum.IntEnum):
    """Where a session is in its life."""

    NONE = lib.KCPS_PHASE_NONE
    CONNECTING = lib.KCPS_PHASE_CONNECTING
    ESTABLISHED = lib.KCPS_PHASE_ESTABLISHED
    CLOSED = lib.KCPS_PHASE_CLOSED
    LISTENING = lib.KCPS_PHASE_LISTENING


class Name(NamedTuple):
    """Who a descriptor is: a session or a listener and its addresses."""

    id: int
    family: int
    listening: bool
    local: tuple[object, ...]
    peer: tuple[object, ...]


@dataclass(frozen=True)
class KCPInfo:
    """The state and the counters of one connection."""

    #: Conversation id.
    conv: int
    #: Bytes of a datagram's UDP payload.
    mtu: int
    #: Payload bytes of a full segment.
    mss: int
    #: Smoothed round-trip time, its variation and the retransmission time-out (RFC 6298), ms.
    srtt: int
    rttvar: int
    rto: int
    #: Send window, receive window, the peer's free window, congestion window and its threshold, packets.
    snd_wnd: int
    rcv_wnd: int
    rmt_wnd: int
    cwnd: int
    ssthresh: int
    #: Packets that the path takes in flight, as `Config.bdp_limit` has found; 0: no limit.
    bdp_limit: int
    #: Packets sent and not acknowledged.
    in_flight: int
    #: Packets not sent yet.
    queued: int
    #: Packets in order that the application's descriptor has no room for yet.
    recv_queued: int
    #: Payload bytes taken from and given to the application.
    bytes_sent: int
    bytes_received: int
    #: Datagrams, and bytes of their UDP payload.
    in_pkts: int
    out_pkts: int
    in_bytes: int
    out_bytes: int
    #: KCP segments of every command.
    in_segs: int
    out_segs: int
    #: Segments sent again; because others overtook them; early; because the time-out passed.
    retrans_segs: int
    fast_retrans_segs: int
    early_retrans_segs: int
    lost_segs: int
    #: Of the segments sent again: those known by now to have been needless.
    spurious_segs: int
    #: Segments received that had been received before.
    repeat_segs: int
    #: Datagrams dropped as malformed.
    in_errs: int
    #: Packets rebuilt by forward error correction; groups it failed on; parity packets received.
    fec_recovered: int
    fec_errs: int
    fec_parity_shards: int
    #: Out-of-band packets received.
    oob_packets: int
    #: Where the session is in its life.
    phase: Phase


def oserror(code: int) -> OSError:
    """The exception for a positive errno, of the subclass that belongs to it."""
    return OSError(code, os.strerror(code))


def check(result: int) -> int:
    """Raises for a negative errno of the engine's; returns anything else."""
    if result < 0:
        raise oserror(-result)
    return result


# Settings that the engine has under the same name and in the same unit; and those that it has in ms, not s.
_SAME: Final = (
    *("mtu", "sndwnd", "rcvwnd", "interval", "resend", "dead_link", "keepcnt", "conv", "sockbuf", "dscp"),
    *("nodelay", "nc", "acknodelay", "keepalive", "bdp_limit", "datashard", "parityshard"),
)
_TIMES: Final = ("user_timeout", "connect_timeout", "keepidle", "keepintvl")


def session_check(result: int) -> int:
    """As check, for calls about a session: OSError(ENOTCONN) when it is gone, or another process's."""
    return check(-errno.ENOTCONN if result == -errno.ESRCH else result)


def native_config(config: Config, linger: int = -1) -> CData:
    """`config` as the engine takes it. ValueError: a cipher or FEC that this version does not have."""
    native = ffi.new("struct kcps_config *")
    for setting in _SAME:
        setattr(native, setting, getattr(config, setting))
    for setting in _TIMES:
        setattr(native, setting, max(1, round(getattr(config, setting) * 1000)))
    if config.datashard:
        erasure.prepare()
    crypt = config.crypt or "null"
    ciphers.prepare(crypt)
    key = ciphers.key_for(crypt, config.key or "")
    native.crypt = ciphers.kind_of(crypt)
    native.key_length = len(key)
    ffi.memmove(native.key, key, len(key))
    native.linger = linger
    return native


def config_from(native: CData, config: Config) -> Config:
    """`config` with what the engine has for a live session instead; cipher and key stay as they are."""
    settings = {name: getattr(native, name) for name in _SAME}
    settings.update({name: getattr(native, name) / 1000 for name in _TIMES})
    return replace(config, **settings)


def native_address(family: int, host: str, port: int, scope_id: int = 0) -> CData:
    """A numeric address as the engine takes it."""
    address = ffi.new("struct kcps_address *")
    packed = socket.inet_pton(family, host)
    ffi.memmove(address.ip, packed, len(packed))
    address.port = port
    address.scope_id = scope_id
    return address


def _address(family: int, native: CData) -> tuple[object, ...]:
    """The address as CPython's socket module gives it."""
    packed = bytes(ffi.buffer(native.ip))
    if family == socket.AF_INET:
        return socket.inet_ntop(family, packed[:4]), native.port
    return socket.inet_ntop(family, packed), native.port, 0, native.scope_id


def name(fd: int) -> Name | None:
    """Who descriptor `fd` is; None for one that is no session's and no listener's (a closed one included)."""
    native = ffi.new("struct kcps_name *")
    if lib.kcps_name(fd, native) < 0:
        return None
    family = native.family
    return Name(native.id, family, native.listening, _address(family, native.local), _address(family, native.peer))


def info(id: int) -> KCPInfo:
    """The state and counters of session `id`. OSError(ENOTCONN): it is gone, or another process's."""
    native = ffi.new("struct kcps_info *")
    if lib.kcps_info(id, native) < 0:
        raise oserror(errno.ENOTCONN)
    values = {field: getattr(native, field) for field in KCPInfo.__dataclass_fields__}
    values["phase"] = Phase(native.phase)
    return KCPInfo(**values)


def snmp() -> dict[str, int]:
    """Process-wide counters since the start, under kcp-go's names (BytesSent, RetransSegs, ...)."""
    names: list[str] = []
    while (text := lib.kcps_snmp_name(len(names))) != ffi.NULL:
        names.append(ffi.string(text).decode())
    values = ffi.new("uint64_t[]", len(names))
    lib.kcps_snmp(values, len(names))
    return dict(zip(names, values, strict=True))


def usage() -> dict[str, int]:
    """What the process holds for KCP: sessions, listeners, endpoints, time_waits, pool_bytes, pool_in_use."""
    native = ffi.new("struct kcps_usage *")
    check(lib.kcps_usage(native))
    names = ("sessions", "listeners", "endpoints", "time_waits", "pool_bytes", "pool_in_use")
    return {field: getattr(native, field) for field in names}


def wait_closed(id: int, seconds: float) -> bool:
    """Blocks until session `id` is over and everything delivered, at most `seconds`; signals are handled meanwhile."""
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        if lib.kcps_wait_closed(id, max(0, min(_SLICE, round(left * 1000)))) != -errno.EAGAIN:
            return True
        if left <= 0:
            return False


_user: int | None = None  # the process that has used the engine


def used() -> None:
    """To be called when a session or listener was made: from then on, exit waits for what was sent and closed."""
    global _user
    if _user == os.getpid():
        return
    _user = os.getpid()
    # A child of multiprocessing leaves by os._exit, after its own finalizers but without atexit.
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, finish, exitpriority=-100)


def finish(limit: float = _EXIT_LIMIT) -> None:
    """Delivers what was sent, as the kernel does for TCP when a process ends; takes at most `limit` s.

    The process cannot use its connections any more afterwards.
    """
    global _user
    if _user != os.getpid():
        return
    _user = None
    lib.kcps_finish_all()
    deadline = time.monotonic() + limit
    while lib.kcps_drain(_SLICE) == -errno.EAGAIN and time.monotonic() < deadline:
        pass


atexit.register(finish)


def can_relisten(family: int, address: CData) -> bool:
    """Whether kcps_relisten would find a port to take over at `address`."""
    return lib.kcps_can_relisten(family, address)
