"""The FEC framing's two ends for tests: plain bytes in, plain bytes out."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from kcpsocket._native import ffi, lib

LIMIT = 0xFFFFFFFF


class Header(NamedTuple):
    seqid: int
    type: int
    size: int


def header(datagram: bytes) -> Header:
    return Header(*struct.unpack_from("<IHH", datagram))


def frame(seqid: int, type_: int, payload: bytes, size: int | None = None) -> bytes:
    """A datagram as any peer may make it; `size` may lie."""
    return struct.pack("<IHH", seqid, type_, len(payload) + 2 if size is None else size) + payload


class Encoder:
    def __init__(self, data: int, parity: int, seqid: int = 0) -> None:
        self.pool = ffi.gc(lib.pool_new(), lib.pool_free)
        self.c = lib.fec_encoder_new(self.pool, data, parity, seqid)
        assert self.c != ffi.NULL
        self.data, self.parity = data, parity
        self.limit = LIMIT // (data + parity) * (data + parity)

    def send(self, payload: bytes, now: int = 0, fetch: bool = True) -> list[bytes]:
        """The datagram for `payload`, and whatever parity follows it."""
        length = lib.FEC_HEADER + len(payload)
        datagram = bytearray(length)
        datagram[lib.FEC_HEADER :] = payload
        due = lib.fec_encode(self.c, ffi.from_buffer("uint8_t[]", datagram), length, now)
        assert due >= 0
        parity_length = lib.fec_parity_length(self.c)
        assert (parity_length != 0) == (due != 0)
        places = [bytearray(parity_length) for _ in range(due if fetch else 0)]
        if places:
            buffers = [ffi.from_buffer("uint8_t[]", place) for place in places]
            lib.fec_parity(self.c, ffi.new("uint8_t *[]", buffers))
            assert self.held() == 0
        return [bytes(datagram), *map(bytes, places)]

    def seqid(self) -> int:
        return int(lib.fec_encoder_seqid(self.c))

    def held(self) -> int:
        """Packet buffers in use."""
        return int(lib.pool_in_use(self.pool))

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, *_: object) -> None:
        lib.fec_encoder_free(self.c)
        assert self.held() == 0


class Decoder:
    def __init__(self, data: int = 0, parity: int = 0) -> None:
        self.pool = ffi.gc(lib.pool_new(), lib.pool_free)
        self.c = lib.fec_decoder_new(self.pool, data, parity)
        assert self.c != ffi.NULL

    def receive(self, datagram: bytes, settle: bool = True) -> list[bytes] | None:
        """The payloads that this datagram brought back; None when it was refused."""
        buffer = ffi.new("uint8_t[]", len(datagram))  # exactly as long, so that a sanitizer sees any read beyond
        ffi.buffer(buffer)[:] = datagram
        count = lib.fec_decode(self.c, buffer, len(datagram))
        if count < 0:
            return None
        length = ffi.new("size_t *")
        recovered = []
        for index in range(count):
            payload = lib.fec_recovered(self.c, index, length)
            recovered.append(ffi.buffer(payload, length[0])[:])
        if settle:
            lib.fec_decoder_settle(self.c)
        return recovered

    def counters(self) -> Any:
        counters = ffi.new("struct fec_counters *")
        lib.fec_decoder_counters(self.c, counters)
        return counters

    def counts(self) -> tuple[int, int]:
        """What it takes for the peer's data and parity counts."""
        counters = self.counters()
        return counters.data, counters.parity

    def held(self) -> int:
        """Packet buffers in use."""
        return int(lib.pool_in_use(self.pool))

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        lib.fec_decoder_free(self.c)
        assert self.held() == 0
