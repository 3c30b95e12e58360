"""A session of the ARQ with its pool, sink and memory, driven by hand: what the ARQ's tests hold in their hands."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any, NamedTuple

from kcpsocket._native import ffi, lib

HEADER = 24
PUSH, ACK, WASK, WINS, RESET = 81, 82, 83, 84, 85
IN_FLUSH, IN_RESET, IN_OURS = 1, 2, 4
EINVAL, ECONV = -1, -2
CONV = 0x1234ABCD

_LAYOUT = struct.Struct("<IBBHIIII")


class Segment(NamedTuple):
    """A KCP segment; `ts` in ms, `wnd` in packets."""

    cmd: int
    sn: int = 0
    ts: int = 0
    una: int = 0
    wnd: int = 128
    data: bytes = b""
    frg: int = 0
    conv: int = CONV

    def encode(self) -> bytes:
        head = _LAYOUT.pack(
            self.conv,
            self.cmd,
            self.frg,
            self.wnd,
            self.ts % 2**32,
            self.sn % 2**32,
            self.una % 2**32,
            len(self.data),
        )
        return head + self.data


def decode(datagram: bytes) -> list[Segment]:
    """The segments of a well-formed datagram."""
    segments = []
    at = 0
    while at < len(datagram):
        conv, cmd, frg, wnd, ts, sn, una, length = _LAYOUT.unpack_from(datagram, at)
        at += HEADER
        segments.append(Segment(cmd, sn, ts, una, wnd, datagram[at : at + length], frg, conv))
        at += length
    assert at == len(datagram)
    return segments


@dataclasses.dataclass(frozen=True)
class Settings:
    """As struct kcp_settings."""

    mtu: int = 1400
    sndwnd: int = 128
    rcvwnd: int = 128
    interval: int = 20
    resend: int = 2
    dead_link: int = 20
    user_timeout: int = 30_000
    nodelay: bool = True
    nc: bool = True
    acknodelay: bool = False
    bdp_limit: bool = True
    fec: bool = False


class Endpoint:
    """One session. `now` is its clock, ms, and moves only when a test moves it."""

    def __init__(self, settings: Settings | None = None, now: int = 0, snd_sn: int = 0, rcv_sn: int = 0) -> None:
        settings = settings or Settings()
        self.now = now % 2**32
        self.pool = ffi.gc(lib.pool_new(), lib.pool_free)
        self._settings = ffi.new("struct kcp_settings *", dataclasses.asdict(settings))
        self.kcp = lib.kcp_new(CONV, self._settings, self.pool, self.now)
        assert self.kcp
        if snd_sn or rcv_sn:
            lib.kcp_start_at(self.kcp, snd_sn % 2**32, rcv_sn % 2**32)
        self.collect = ffi.gc(lib.kcp_collect_new(settings.mtu), lib.kcp_collect_free)
        self.sink = lib.kcp_collect_sink(self.collect)
        self._lent: list[tuple[Any, int]] = []

    def free(self) -> None:
        """Ends the session; every buffer must be back in the pool."""
        lib.kcp_free(self.kcp)
        self.kcp = ffi.NULL
        assert lib.pool_in_use(self.pool) == 0

    def configure(self, settings: Settings) -> None:
        self._settings = ffi.new("struct kcp_settings *", dataclasses.asdict(settings))
        lib.kcp_configure(self.kcp, self._settings)

    def state(self) -> Any:
        state = ffi.new("struct kcp_state *")
        lib.kcp_snapshot(self.kcp, state)
        return state

    def send(self, data: bytes) -> int:
        return int(lib.kcp_send(self.kcp, data, len(data)))

    def recv(self, limit: int = 1 << 20) -> bytes:
        out = ffi.new("uint8_t[]", max(limit, 1))
        return bytes(ffi.buffer(out, lib.kcp_recv(self.kcp, out, limit)))

    def lend(self, datagram: bytes, recovered: bool = False) -> int:
        """kcp_input with memory that is the datagram's own, and taken away by `settle`."""
        memory = ffi.new("uint8_t[]", max(len(datagram), 1))
        ffi.memmove(memory, datagram, len(datagram))
        self._lent.append((memory, len(datagram)))
        return int(lib.kcp_input(self.kcp, memory, len(datagram), recovered, self.now))

    def settle(self) -> bool:
        kept = bool(lib.kcp_settle(self.kcp))
        for memory, length in self._lent:
            ffi.buffer(memory)[0:length] = b"\xdd" * length
        self._lent.clear()
        return kept

    def input(self, *segments: Segment, recovered: bool = False) -> int:
        """One datagram in, settled: bits or a negative error."""
        return self.input_raw(b"".join(segment.encode() for segment in segments), recovered)

    def input_raw(self, datagram: bytes, recovered: bool = False) -> int:
        result = self.lend(datagram, recovered)
        assert self.settle()
        return result

    def _take(self) -> list[bytes]:
        length = ffi.new("size_t *")
        datagrams = []
        for i in range(lib.kcp_collect_count(self.collect)):
            data = lib.kcp_collect_get(self.collect, i, length)
            datagrams.append(bytes(ffi.buffer(data, length[0])))
        lib.kcp_collect_clear(self.collect)
        return datagrams

    def flush_raw(self) -> list[bytes]:
        """The datagrams of a flush."""
        lib.kcp_flush(self.kcp, self.now, self.sink)
        return self._take()

    def flush(self) -> list[Segment]:
        """The segments of a flush, whatever datagrams they are in."""
        return [segment for datagram in self.flush_raw() for segment in decode(datagram)]

    def flush_acks(self) -> list[Segment]:
        lib.kcp_flush_acks(self.kcp, self.now, self.sink)
        return [segment for datagram in self._take() for segment in decode(datagram)]

    def deadline(self) -> int:
        return int(lib.kcp_deadline(self.kcp, self.now))

    def advance(self, ms: int) -> None:
        self.now = (self.now + ms) % 2**32

    def pushes(self) -> list[int]:
        """Flushes, and returns the sn of each PUSH; once, if it goes out twice."""
        return list(dict.fromkeys(segment.sn for segment in self.flush() if segment.cmd == PUSH))
