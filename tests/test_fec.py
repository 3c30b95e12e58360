"""FEC framing and the encoder: byte for byte what kcp-go sends, with its rules of when to send parity."""

from __future__ import annotations

import hashlib
import struct

import pytest
from fec_pair import Encoder, frame, header

from kcpsocket._native import ffi, lib

# SHA-256 over the datagrams that kcp-go v5 (March 2026) makes of `payloads`, from two groups before seqid wraps around.
KCP_GO = {
    (2, 1): (12, "3a58f260ae646af7be2dfda5b30b25877f0270547d021e031851249b67b4b667"),
    (5, 5): (40, "31ce1a34bac0aee341628c7f8789fd1bcd874309ff14c854c01395aa825b3afc"),
    (10, 3): (52, "69a853506204b6d05af8637dda2b639b257f4256808fcd7b9244dc5cf7e5af4d"),
    (70, 30): (400, "80037daffad3950497fcec25b6f473bed62682e228d39be28edf9d0fbb4ae65f"),
}


def payloads(count: int) -> list[bytes]:
    return [bytes((i * 31 + j * 7) & 255 for j in range(24 + i * 37 % 1300)) for i in range(count)]


def type_of(datagram: bytes) -> int:
    buffer = ffi.new("uint8_t[]", len(datagram))
    ffi.buffer(buffer)[:] = datagram
    return int(lib.fec_type_of(buffer, len(datagram)))


@pytest.mark.parametrize(("counts", "expected"), KCP_GO.items(), ids=str)
def test_datagrams_are_kcp_gos_byte_for_byte(counts: tuple[int, int], expected: tuple[int, str]) -> None:
    data, parity = counts
    size = data + parity
    with Encoder(data, parity, 0xFFFFFFFF // size * size - 2 * size) as encoder:
        sent = [datagram for payload in payloads(4 * data) for datagram in encoder.send(payload)]
    assert (len(sent), hashlib.sha256(b"".join(sent)).hexdigest()) == expected
    assert header(sent[2 * size]).seqid == 0


def test_a_group_is_data_then_parity_as_long_as_its_longest() -> None:
    with Encoder(3, 2) as encoder:
        sent = [datagram for size in (5, 100, 40) for datagram in encoder.send(b"x" * size)]
    assert [header(datagram)[:2] for datagram in sent] == [(0, 0xF1), (1, 0xF1), (2, 0xF1), (3, 0xF2), (4, 0xF2)]
    assert [header(datagram).size for datagram in sent[:3]] == [7, 102, 42]
    assert [len(datagram) for datagram in sent] == [13, 108, 48, 108, 108]


@pytest.mark.parametrize(("gap", "parity_due"), [(0, True), (499, True), (500, False), (70_000, False)])
@pytest.mark.parametrize("start", [0, 2**32 - 3], ids=["", "clock wraps"])
def test_parity_is_skipped_when_the_last_two_are_far_apart_and_seqid_steps_over_it(
    gap: int, parity_due: bool, start: int
) -> None:
    with Encoder(3, 2) as encoder:
        times = [start, start + 5000, start + 5000 + gap]  # only the last gap counts
        sent = [encoder.send(b"payload", now % 2**32) for now in times]
        assert [len(datagrams) for datagrams in sent] == [1, 1, 3 if parity_due else 1]
        assert header(encoder.send(b"next", (times[-1] + 1) % 2**32)[0]).seqid == 5


def test_groups_of_one_get_parity_from_the_first_on_except_after_a_gap() -> None:
    with Encoder(1, 1) as encoder:
        assert [len(encoder.send(b"p", now)) for now in (90_000, 90_001, 99_000, 99_001)] == [2, 2, 1, 2]


def test_seqid_wraps_around_at_a_whole_group() -> None:
    limit = 0xFFFFFFFF // 13 * 13
    with Encoder(10, 3, limit - 13) as encoder:
        sent = [header(datagram).seqid for _ in range(20) for datagram in encoder.send(b"payload")]
    assert sent == [*range(limit - 13, limit), *range(13)]


def test_seqid_wraps_around_when_the_last_parity_is_skipped() -> None:
    limit = 0xFFFFFFFF // 3 * 3
    with Encoder(2, 1, limit - 3) as encoder:
        sent = [header(encoder.send(b"payload", now)[0]).seqid for now in (0, 900, 901)]
    assert sent == [limit - 3, limit - 2, 0]


@pytest.mark.parametrize(("seqid", "first"), [(0, 0), (1, 13), (13, 13), (14, 26), (0xFFFFFFF2, 0), (0xFFFFFFFF, 0)])
def test_an_encoder_begins_at_a_whole_group(seqid: int, first: int) -> None:
    with Encoder(10, 3, seqid) as encoder:
        assert encoder.seqid() == first == header(encoder.send(b"payload")[0]).seqid


def test_an_encoder_holds_one_group_and_nothing_between_groups() -> None:
    with Encoder(10, 3) as encoder:
        assert encoder.held() == 0
        for _ in range(3):
            for count in range(1, 10):
                encoder.send(b"payload")
                assert encoder.held() == count
            encoder.send(b"payload")
            assert encoder.held() == 0


def test_parity_that_nobody_fetched_is_given_up_and_its_seqids_stay_its_own() -> None:
    with Encoder(2, 2) as encoder:
        encoder.send(b"a")
        encoder.send(b"b", fetch=False)
        assert encoder.held() == 2
        assert header(encoder.send(b"c")[0]).seqid == 4
        assert encoder.held() == 1
        assert lib.fec_parity_length(encoder.c) == 0


def test_at_rest_an_encoder_holds_nothing_and_the_group_goes_without_parity() -> None:
    with Encoder(3, 1) as encoder:
        encoder.send(b"one")
        lib.fec_encoder_rest(encoder.c)
        assert encoder.held() == 0
        assert [len(encoder.send(b"more")) for _ in range(2)] == [1, 1]
        assert [len(encoder.send(b"next group")) for _ in range(3)] == [1, 1, 2]
        lib.fec_encoder_rest(encoder.c)
        assert [len(encoder.send(b"third group")) for _ in range(3)] == [1, 1, 2]


def test_nothing_is_written_beyond_parity_of_the_largest_datagram() -> None:
    with Encoder(1, 1) as encoder:
        data, parity = encoder.send(bytes(range(256)) * 5 + b"z" * 212)
        assert len(data) == len(parity) == lib.FEC_DATAGRAM_MAX
        assert parity[6:] == data[6:]


@pytest.mark.parametrize("length", [0, 7, 1501])
def test_a_datagram_that_cannot_be_is_refused(length: int) -> None:
    with Encoder(1, 1) as encoder:
        buffer = ffi.new("uint8_t[]", 1600)
        assert lib.fec_encode(encoder.c, buffer, length, 0) == lib.FEC_EINVAL
        assert bytes(ffi.buffer(buffer)) == bytes(1600)
        assert encoder.seqid() == 0


@pytest.mark.parametrize(("data", "parity"), [(0, 0), (0, 3), (10, 0), (-1, 4), (200, 56), (256, 1)])
def test_counts_that_make_no_group_are_refused(data: int, parity: int) -> None:
    pool = ffi.gc(lib.pool_new(), lib.pool_free)
    assert lib.fec_encoder_new(pool, data, parity, 0) == ffi.NULL
    if (data, parity) != (0, 0):  # which means: not known
        assert lib.fec_decoder_new(pool, data, parity) == ffi.NULL


def test_out_of_band_is_framed_as_kcp_go_does() -> None:
    datagram = bytearray(8) + b"\x01\x02\x03\x04hello"
    lib.fec_frame_oob(ffi.from_buffer("uint8_t[]", datagram), len(datagram))
    assert datagram.hex() == "fffffffff3000b000102030468656c6c6f"
    assert type_of(bytes(datagram)) == lib.FEC_OOB


@pytest.mark.parametrize(
    ("datagram", "kind"),
    [
        (frame(0, 0xF1, b"payload"), lib.FEC_DATA),
        (frame(0, 0xF1, b""), lib.FEC_DATA),
        (frame(0xFFFFFFFE, 0xF1, b"payload"), lib.FEC_DATA),
        (frame(12, 0xF2, b"payload", size=0xABCD), lib.FEC_PARITY),
        (frame(0xFFFFFFFF, 0xF3, b"conv"), lib.FEC_OOB),
        (struct.pack("<IBBHIIII", 7, 81, 0, 32, 0, 0, 0, 0), lib.FEC_NONE),
        (struct.pack("<IBBHIIII", 7, 84, 255, 32, 0, 0, 0, 0), lib.FEC_NONE),
        (struct.pack("<IHH", 0, 0x01F1, 2), lib.FEC_NONE),
        (b"", lib.FEC_NONE),
        (frame(0, 0xF1, b"")[:5], lib.FEC_NONE),
        (frame(0, 0xF1, b"")[:7], lib.FEC_EINVAL),
        (frame(0, 0xF2, b"")[:6], lib.FEC_EINVAL),
        (frame(0, 0xF1, b"payload", size=8), lib.FEC_EINVAL),
        (frame(0, 0xF1, b"payload", size=10), lib.FEC_EINVAL),
        (frame(0xFFFFFFFF, 0xF1, b"payload"), lib.FEC_EINVAL),
        (frame(0xFFFFFFFF, 0xF2, b"payload"), lib.FEC_EINVAL),
        (frame(3, 0xF3, b"conv, bytes"), lib.FEC_EINVAL),
        (frame(0xFFFFFFFF, 0xF3, b"con"), lib.FEC_EINVAL),
        (frame(0xFFFFFFFF, 0xF3, b"conv", size=9), lib.FEC_EINVAL),
        (frame(0, 0xF1, b"x" * 1492), lib.FEC_DATA),
        (frame(0, 0xF1, b"x" * 1493), lib.FEC_EINVAL),
        (frame(0, 0xF2, b"x" * 1493), lib.FEC_EINVAL),
    ],
)
def test_a_header_says_what_a_datagram_is_or_that_it_lies(datagram: bytes, kind: int) -> None:
    assert type_of(datagram) == kind
