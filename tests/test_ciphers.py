"""Ciphers against kcp-go's own packets, published vectors and slow references; what is refused; nonces."""

from __future__ import annotations

import errno
import json
import os
import random
import zlib
from collections.abc import Callable, Iterator
from hashlib import pbkdf2_hmac
from pathlib import Path
from typing import Any

import pytest
from Crypto.Cipher import AES, CAST, DES3, Blowfish, ChaCha20, Salsa20

from kcpsocket import ciphers
from kcpsocket._native import ffi, lib

VECTORS: list[dict[str, str]] = json.loads((Path(__file__).parent / "vectors" / "kcp_go.json").read_text())["crypt"]
IV = bytes([167, 115, 79, 156, 18, 172, 27, 1, 164, 21, 242, 193, 252, 120, 230, 107])
SEALED = [name for name in ciphers.CIPHERS if name != "null"]
ALL = 0xFFFFFFFF
# What the processor may be used for: everything, as seal_new does; what older ones have; nothing in particular.
CPUS = pytest.mark.parametrize("cpu", [ALL, ALL & ~lib.SEAL_CPU_MULTIPLY_WIDE, 0], ids=["all", "older", "portable"])
EIGHT_BYTE_BLOCKS = {"blowfish", "cast5", "3des", "tea", "xtea"}


def a_key(crypt: str) -> bytes:
    return random.Random(f"key of {crypt}").randbytes(ciphers.key_length(crypt))


class Seal:
    """A ``struct seal`` that takes and gives bytes."""

    def __init__(self, crypt: str, key: bytes | None = None, cpu: int = ALL) -> None:
        ciphers.prepare(crypt)
        self.crypt = crypt
        key = a_key(crypt) if key is None else key
        holder = ffi.new("struct seal **")
        assert lib.seal_new_on(holder, ciphers.CIPHERS[crypt], key, len(key), lib.seal_cpu() & cpu) == 0
        self.state = ffi.gc(holder[0], lib.seal_free)
        self.front, self.back = lib.seal_front(self.state), lib.seal_back(self.state)

    def seal(self, payloads: list[bytes], nonces: list[bytes] | None = None) -> list[bytes]:
        headers = [bytes(self.front)] * len(payloads)
        if nonces is not None:
            headers = [nonce.ljust(self.front, b"\0") for nonce in nonces]
        packets = [
            ffi.new("uint8_t[]", header + payload + bytes(self.back))
            for header, payload in zip(headers, payloads, strict=True)
        ]
        lengths = ffi.new("size_t[]", [self.front + len(payload) for payload in payloads])
        function = lib.seal_packets if nonces is None else lib.seal_packets_as_is
        assert function(self.state, ffi.new("uint8_t *[]", packets), lengths, len(packets)) == 0
        return [bytes(ffi.buffer(packet, length)) for packet, length in zip(packets, lengths, strict=True)]

    def open(self, packet: bytes) -> bytes | int:
        """The payload, or the error."""
        data, payload, length = ffi.new("uint8_t[]", packet or b"\0"), ffi.new("uint8_t **"), ffi.new("size_t *")
        error: int = lib.seal_open(self.state, data, len(packet), payload, length)
        return error or bytes(ffi.buffer(payload[0], length[0]))


@CPUS
@pytest.mark.parametrize("crypt", SEALED)
def test_packets_of_kcp_go_are_sealed_and_opened_byte_for_byte(crypt: str, cpu: int) -> None:
    vectors = [vector for vector in VECTORS if vector["crypt"] == crypt]
    assert vectors
    for vector in vectors:
        seal = Seal(crypt, bytes.fromhex(vector["key"]), cpu)
        plain, sealed = bytes.fromhex(vector["plain"]), bytes.fromhex(vector["sealed"])
        nonce, payload = plain[: 12 if crypt == "aes-128-gcm" else 16], plain[seal.front :]
        assert seal.seal([payload], [nonce]) == [sealed]
        assert seal.open(sealed) == payload


def test_null_adds_nothing() -> None:
    seal = Seal("null")
    assert seal.seal([b"", b"abc"]) == [b"", b"abc"]
    assert seal.open(b"abc") == b"abc"
    assert seal.open(b"") == b""
    assert ciphers.overhead("null") == 0


@pytest.mark.parametrize("crypt", SEALED)
def test_overhead_is_what_a_datagram_grows_by(crypt: str) -> None:
    assert [len(packet) for packet in Seal(crypt).seal([b"", bytes(100)])] == [
        ciphers.overhead(crypt),
        100 + ciphers.overhead(crypt),
    ]


# --- published vectors of the ciphers written here ---


def encrypt_blocks(crypt: str, key: bytes, blocks: bytes, cycles: int = 8) -> bytes:
    out = ffi.new("uint8_t[]", len(blocks))
    assert lib.seal_test_ecb(ciphers.CIPHERS[crypt], cycles, key, len(key), blocks, out, len(blocks)) == 0
    return bytes(ffi.buffer(out))


@pytest.mark.parametrize(
    ("crypt", "cycles", "key", "plain", "sealed"),
    [
        ("tea", 32, "00" * 16, "00" * 8, "41ea3a0a94baa940"),
        ("xtea", 0, "000102030405060708090a0b0c0d0e0f", "4142434445464748", "497df3d072612cb5"),
        ("xtea", 0, "000102030405060708090a0b0c0d0e0f", "4141414141414141", "e78f2d13744341d8"),
        ("xtea", 0, "00" * 16, "4142434445464748", "a0390589f8b8efa5"),
        ("xtea", 0, "00" * 16, "4141414141414141", "ed23375a821a8c2d"),
        # GB/T 32907-2016, appendix A.1
        ("sm4", 0, "0123456789abcdeffedcba9876543210", "0123456789abcdeffedcba9876543210",
         "681edf34d206965e86b3e94f536e4246"),
        # the Twofish paper, appendix B.2
        ("twofish", 0, "00" * 16, "00" * 16, "9f589f5cf6122c32b6bfec2f2ae8c35a"),
        ("twofish", 0, "0123456789abcdeffedcba98765432100011223344556677", "00" * 16,
         "cfd1d2e5a9be9cdf501f13b892bd2248"),
        ("twofish", 0, "0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff", "00" * 16,
         "37527be0052334b89f0cfccae87cfa20"),
    ],
)  # fmt: skip
def test_published_block_vectors(crypt: str, cycles: int, key: str, plain: str, sealed: str) -> None:
    for count in range(1, 20):  # blocks alone and side by side
        result = encrypt_blocks(crypt, bytes.fromhex(key), bytes.fromhex(plain) * count, cycles)
        assert result == bytes.fromhex(sealed) * count


def test_twofish_table_of_chained_keys() -> None:
    """The ECB tables of the Twofish submission: key and text made of earlier results, 49 times."""
    for size, last in (
        (16, "5d9d4eeffa9151575524f115815a12e0"),
        (24, "e75449212beef9f4a390bd860a640941"),
        (32, "37fe26ff1cf66175f5ddf4c33b97a205"),
    ):
        results = [bytes(16), bytes(16), bytes(16)]
        for _ in range(49):
            key = (results[-2] + results[-3])[:size]
            results.append(encrypt_blocks("twofish", key, results[-1]))
        assert results[-1].hex() == last


def test_sm4_chained_over_a_thousand_blocks() -> None:
    """A loop like the standard's own (A.2), where any wrong table entry shows; the same blocks side by side."""
    key = bytes.fromhex("0123456789abcdeffedcba9876543210")
    texts = [key]
    for _ in range(1000):
        texts.append(encrypt_blocks("sm4", key, texts[-1]))
    assert encrypt_blocks("sm4", key, b"".join(texts[:-1])) == b"".join(texts[1:])


def test_crc32_is_zlibs_on_both_paths() -> None:
    data = random.Random(1).randbytes(1600)
    for length in range(len(data)):
        expected = zlib.crc32(data[:length])
        assert lib.seal_test_crc32(data, length, 0) == expected
        assert lib.seal_test_crc32(data, length, 1) == expected


def test_chacha20_of_the_nonce_generator() -> None:
    out = ffi.new("uint8_t[256]")
    lib.seal_test_chacha20(bytes(32), 0, out)  # RFC 8439, A.1, vectors 1 and 2
    assert bytes(ffi.buffer(out))[:16].hex() == "76b8e0ada0f13d90405d6ae55386bd28"
    assert bytes(ffi.buffer(out))[64:80].hex() == "9f07e7be5551387a98ba977c732d080d"
    key = random.Random(2).randbytes(32)
    stream = ChaCha20.new(key=key, nonce=bytes(12)).encrypt(bytes(1024))
    for counter in range(0, 16, 4):
        lib.seal_test_chacha20(key, counter, out)
        assert bytes(ffi.buffer(out)) == stream[64 * counter : 64 * counter + 256]


# --- slow references ---


def block_function(crypt: str, key: bytes) -> Callable[[bytes], bytes]:
    """Encryption of one block by pycryptodome's Python API, where it has the cipher."""
    library: dict[str, Any] = {"blowfish": Blowfish, "cast5": CAST, "3des": DES3}
    if crypt.startswith("aes"):
        return AES.new(key, AES.MODE_ECB).encrypt
    if crypt in library:
        result: Callable[[bytes], bytes] = library[crypt].new(key, library[crypt].MODE_ECB).encrypt
        return result
    return lambda block: encrypt_blocks(crypt, key, block)


def reference(crypt: str, key: bytes, nonce: bytes, payload: bytes) -> bytes:
    """A datagram sealed as WIRE says, block by block."""
    if crypt == "aes-128-gcm":
        text, tag = AES.new(key, AES.MODE_GCM, nonce=nonce).encrypt_and_digest(payload)
        return nonce + text + tag
    clear = nonce + zlib.crc32(payload).to_bytes(4, "little") + payload
    if crypt == "none":
        return clear
    if crypt == "salsa20":
        return clear[:8] + Salsa20.new(key=key, nonce=clear[:8]).encrypt(clear[8:])
    if crypt == "xor":
        table = pbkdf2_hmac("sha1", key, b"sH3CIVoF#rWLtJo6", 32, 1500)
        return bytes(a ^ b for a, b in zip(clear, table, strict=False)) + clear[1500:]
    size, encrypt = 8 if crypt in EIGHT_BYTE_BLOCKS else 16, block_function(crypt, key)
    feedback, sealed = IV[:size], b""
    for at in range(0, len(clear), size):
        feedback = bytes(a ^ b for a, b in zip(clear[at : at + size], encrypt(feedback), strict=False))
        sealed += feedback
    return sealed


@CPUS
@pytest.mark.parametrize("crypt", SEALED)
def test_batches_of_any_lengths_equal_the_reference(crypt: str, cpu: int) -> None:
    rng = random.Random(f"batches of {crypt}")
    seal = Seal(crypt, cpu=cpu)
    lengths = [*range(40), 1355, 1356, 1480, 1500, *(rng.randrange(1501) for _ in range(30))]
    rng.shuffle(lengths)
    payloads = [rng.randbytes(length) for length in lengths]
    nonces = [rng.randbytes(12 if crypt == "aes-128-gcm" else 16) for _ in lengths]
    expected = [reference(crypt, a_key(crypt), nonce, text) for nonce, text in zip(nonces, payloads, strict=True)]
    for count in (1, 2, 3, 5, 9, 31, 32, 33, len(lengths)):
        assert seal.seal(payloads[:count], nonces[:count]) == expected[:count]
    assert [seal.open(packet) for packet in expected] == payloads


@pytest.mark.parametrize("crypt", SEALED)
def test_lengths_beyond_one_chunk_work_too(crypt: str) -> None:
    """Nothing of ours is longer than 1,500 bytes; a jumbo datagram must still be handled, not overrun a buffer."""
    seal, nonce = Seal(crypt), bytes(range(12 if crypt == "aes-128-gcm" else 16))
    for length in (1503, 1504, 1505, 1516, 1520, 1521, 1536, 1537, 3056, 3072, 3073, 9000):
        payload = random.Random(length).randbytes(length)
        packet = reference(crypt, a_key(crypt), nonce, payload)
        assert seal.seal([payload], [nonce]) == [packet]
        assert seal.open(packet) == payload


# --- what is refused ---


def unchecked(crypt: str) -> set[int]:
    """The bytes of a nonce that nothing on kcp-go's wire checks: changed, they change nothing else."""
    if crypt in ("none", "xor"):
        return set(range(16))
    if crypt == "salsa20":
        return set(range(8, 16))
    return set(range(8)) if crypt in EIGHT_BYTE_BLOCKS else set()


@CPUS
@pytest.mark.parametrize("crypt", SEALED)
def test_a_packet_with_any_byte_changed_is_refused(crypt: str, cpu: int) -> None:
    seal, payload = Seal(crypt, cpu=cpu), bytes(range(101))
    packet = reference(crypt, a_key(crypt), bytes(range(50, 62 if crypt == "aes-128-gcm" else 66)), payload)
    for at in range(len(packet)):
        for bit in range(8):
            tampered = bytearray(packet)
            tampered[at] ^= 1 << bit
            expected = payload if at in unchecked(crypt) else -errno.EBADMSG
            assert seal.open(bytes(tampered)) == expected, (at, bit)


@pytest.mark.parametrize("crypt", SEALED)
def test_a_packet_cut_short_or_grown_is_refused(crypt: str) -> None:
    seal = Seal(crypt)
    [packet] = seal.seal([bytes(range(1, 61))])
    for length in range(len(packet)):
        expected = -errno.EMSGSIZE if length < ciphers.overhead(crypt) else -errno.EBADMSG
        assert seal.open(packet[:length]) == expected
    assert seal.open(packet + b"\x01") == -errno.EBADMSG


@pytest.mark.parametrize("crypt", [name for name in SEALED if name != "none"])
def test_another_key_opens_nothing(crypt: str) -> None:
    # DES ignores the lowest bit of each byte.
    other = Seal(crypt, bytes([a_key(crypt)[0] ^ 0x10]) + a_key(crypt)[1:])
    assert [other.open(packet) for packet in Seal(crypt).seal([b"", b"x", bytes(1000)])][1:] == [-errno.EBADMSG] * 2


def test_foreign_bytes_open_nothing() -> None:
    rng = random.Random(3)
    for crypt in SEALED:
        seal = Seal(crypt)
        for length in (20, 28, 44, 300, 1400):
            assert isinstance(seal.open(rng.randbytes(length)), int)


def test_lengths_that_leave_no_room_for_the_header_are_refused_before_anything_is_written() -> None:
    seal = Seal("aes")
    packets = [ffi.new("uint8_t[]", bytes(64)) for _ in range(2)]
    lengths = ffi.new("size_t[]", [64, 19])
    assert lib.seal_packets(seal.state, ffi.new("uint8_t *[]", packets), lengths, 2) == -errno.EINVAL
    assert [bytes(ffi.buffer(packet, 64)) for packet in packets] == [bytes(64)] * 2


@pytest.mark.parametrize("crypt", list(ciphers.CIPHERS))
def test_the_engine_takes_no_other_key_length(crypt: str) -> None:
    ciphers.prepare(crypt)
    holder, kind, right = ffi.new("struct seal **"), ciphers.CIPHERS[crypt], ciphers.key_length(crypt)
    for length in {0, 8, 15, 16, 17, 24, 32, 33, 56} - {right}:
        assert lib.seal_new(holder, kind, bytes(length), length) == -errno.EINVAL
        assert holder[0] == ffi.NULL


def test_kinds_that_do_not_exist() -> None:
    holder = ffi.new("struct seal **")
    for kind in (-1, lib.SEAL_KINDS, 255):
        assert lib.seal_new(holder, kind, b"", 0) == -errno.EINVAL
        assert lib.seal_overhead(kind) == -errno.EINVAL
        assert lib.seal_key_length(kind) == -errno.EINVAL
    assert lib.seal_test_ecb(lib.SEAL_XOR, 0, bytes(32), 32, bytes(16), ffi.new("uint8_t[16]"), 16) == -errno.EINVAL
    lib.seal_free(ffi.NULL)


# --- nonces ---


def nonces_of(packets: list[bytes], crypt: str) -> Iterator[bytes]:
    """The nonces that the packets were sealed with, read with the key."""
    seal = Seal(crypt)
    for packet in packets:
        if crypt == "aes-128-gcm":
            yield packet[:12]
        else:
            data, payload, length = ffi.new("uint8_t[]", packet), ffi.new("uint8_t **"), ffi.new("size_t *")
            assert lib.seal_open(seal.state, data, len(packet), payload, length) == 0
            yield bytes(ffi.buffer(data, 16))


@pytest.mark.parametrize("crypt", ["none", "aes", "3des", "salsa20", "xor", "aes-128-gcm"])
def test_nonces_never_repeat(crypt: str) -> None:
    first, second = Seal(crypt), Seal(crypt)
    packets = [packet for _ in range(200) for seal in (first, second) for packet in seal.seal([b""] * 50)]
    nonces = list(nonces_of(packets, crypt))
    assert len(set(nonces)) == len(nonces) == 20_000
    for at in range(len(nonces[0])):  # every value, about equally often (78 times; 7 deviations and more allowed)
        counts = [0] * 256
        for nonce in nonces:
            counts[nonce[at]] += 1
        assert min(counts) > 15
        assert max(counts) < 155


@pytest.mark.parametrize("crypt", ["aes-128", "aes-128-gcm"])
def test_nonces_differ_between_parent_and_child_after_fork(crypt: str) -> None:
    seal = Seal(crypt)
    seal.seal([b""] * 5)  # the pool is part used when the process forks
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writable, b"".join(seal.seal([b""] * 100)))
            status = 0
        finally:
            os._exit(status)
    os.close(writable)
    with open(readable, "rb") as pipe:
        data = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    size = ciphers.overhead(crypt)
    theirs = [data[at : at + size] for at in range(0, len(data), size)]
    ours = seal.seal([b""] * 100)
    assert len(theirs) == 100
    assert len(set(nonces_of(ours + theirs, crypt))) == 200


def test_sealed_packets_have_no_constant_bytes() -> None:
    for crypt in SEALED:
        if crypt in ("none", "xor"):  # what they don't hide, kcp-go does not either
            continue
        packets = Seal(crypt).seal([bytes(64)] * 600)
        for at in range(len(packets[0])):
            assert len({packet[at] for packet in packets}) > 200, (crypt, at)


def test_the_engine_hook_for_forks_changes_the_stream() -> None:
    seal = Seal("none")
    before = seal.seal([b""] * 10)
    lib.seal_after_fork()
    assert len({*before, *seal.seal([b""] * 10)}) == 20
