"""Cipher names and keys; a pycryptodome that is missing or changed; key material wiped."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from kcpsocket import ciphers

LENGTHS = {
    "null": 0, "none": 0, "aes": 32, "aes-128": 16, "aes-192": 24, "salsa20": 32, "blowfish": 32, "twofish": 32,
    "cast5": 16, "3des": 24, "tea": 16, "xtea": 16, "xor": 32, "sm4": 16, "aes-128-gcm": 16,
}  # fmt: skip


def test_a_passphrase_gives_kcptuns_key() -> None:
    vectors = json.loads((Path(__file__).parent / "vectors" / "kcp_go.json").read_text())
    assert ciphers.derive("it's a secrect").hex() == vectors["derived_key"]
    assert ciphers.derive("Schlüssel") == hashlib.pbkdf2_hmac("sha1", "Schlüssel".encode(), b"kcp-go", 4096, 32)


def test_every_cipher_has_its_key_length() -> None:
    assert {name: ciphers.key_length(name) for name in ciphers.CIPHERS} == LENGTHS


@pytest.mark.parametrize(("crypt", "length"), LENGTHS.items())
def test_a_passphrase_is_cut_and_bytes_are_used_as_they_are(crypt: str, length: int) -> None:
    assert ciphers.key_for(crypt, "secret") == ciphers.derive("secret")[:length]
    raw = bytes(range(length))
    assert ciphers.key_for(crypt, raw) == raw
    assert ciphers.key_for(crypt, bytearray(raw)) == raw


@pytest.mark.parametrize(("crypt", "length"), [item for item in LENGTHS.items() if item[1]])
def test_bytes_of_another_length_are_refused_with_the_right_one_named(crypt: str, length: int) -> None:
    for wrong in {0, 1, length - 1, length + 1, 64}:
        with pytest.raises(ValueError, match=rf"^key for {crypt} must have {length} bytes, not {wrong}$"):
            ciphers.key_for(crypt, bytes(wrong))


def test_null_and_none_take_whatever_key_there_is() -> None:
    for crypt in ("null", "none"):
        assert ciphers.key_for(crypt, b"anything") == ciphers.key_for(crypt, "anything") == b""


def test_what_is_no_cipher_or_no_key() -> None:
    for function in (ciphers.kind_of, ciphers.key_length, ciphers.overhead, ciphers.prepare):
        with pytest.raises(ValueError, match=r"crypt must be one of null, none, aes, .*, not 'rot13'"):
            function("rot13")
    with pytest.raises(TypeError, match="key must be str or bytes, not int"):
        ciphers.key_for("aes", 5)  # type: ignore[arg-type]


def test_prepare_is_done_once_and_again_without_harm() -> None:
    for crypt in ciphers.CIPHERS:
        ciphers.prepare(crypt)
        ciphers.prepare(crypt)


# --- a library that is not the one we know: each in a process of its own, since the engine is told once ---

CHANGED = """
import sys
from kcpsocket import ciphers
library = ciphers._find_library()
{change}
ciphers._find_library = lambda: library
crypt = sys.argv[1]
try:
    ciphers.prepare(crypt)
except ciphers.CipherError as error:
    print(error)
else:
    print("no error")
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("crypt", "change", "words"),
    [
        ("cast5", "library.cast5 = library.blowfish", "failed a known-answer check"),
        ("aes", "library.aes = library.blowfish", "is not laid out as expected"),
        ("blowfish", "library.blowfish.stop = library.aes.stop", "is not laid out as expected"),
        ("3des", "library.des3 = library.cast5", "is not laid out as expected"),
        ("aes-128-gcm", "library.aes.start = ciphers.ffi.NULL", "needs compiled modules that"),
        ("salsa20", "library.salsa20_init = ciphers.ffi.NULL", "needs compiled modules that"),
    ],
)
def test_a_changed_library_gives_an_error_that_names_it(crypt: str, change: str, words: str) -> None:
    answer = run(CHANGED.format(change=change), crypt)
    assert f"crypt {crypt!r}" in answer
    assert words in answer
    assert f"pycryptodome {version('pycryptodome')}" in answer


def test_without_pycryptodome_the_engines_own_ciphers_work() -> None:
    code = """
import sys
sys.modules["Crypto"] = None
from kcpsocket import ciphers
for crypt in ciphers.CIPHERS:
    try:
        ciphers.prepare(crypt)
        print(crypt)
    except ciphers.CipherError as error:
        assert "needs compiled modules" in str(error), error
"""
    assert set(run(code).split()) == {"null", "none", "xor", "tea", "xtea", "sm4", "twofish"}


def test_the_portable_modules_serve_where_the_processor_has_no_instructions_for_it() -> None:
    code = """
from kcpsocket import ciphers
class Plain:
    def __getattr__(self, name):
        return getattr(ciphers_lib, name)
    def seal_cpu(self):
        return 0
ciphers_lib = ciphers.lib
ciphers.lib = Plain()
for crypt in ciphers.CIPHERS:
    ciphers.prepare(crypt)
print(*sorted(name.rsplit(".", 1)[1] for name in ciphers._modules))
"""
    assert run(code).split() == [
        "_Salsa20", "_ghash_portable", "_raw_aes", "_raw_blowfish", "_raw_cast", "_raw_des3"
    ]  # fmt: skip


# --- wiping ---

# The key reaches this process masked, so that only the engine's copies of it are ever in memory in the clear.
HOLDER = """
import sys
from kcpsocket import ciphers
from kcpsocket._native import ffi, lib
crypt, masked = sys.argv[1], bytes.fromhex(sys.argv[2])
ciphers.prepare(crypt)
key = ffi.new("uint8_t[]", len(masked))
for i, byte in enumerate(masked):
    key[i] = byte ^ 0x5A
holder = ffi.new("struct seal **")
assert lib.seal_new(holder, ciphers.CIPHERS[crypt], key, len(masked)) == 0
for i in range(len(masked)):
    key[i] = 0
packet = ffi.new("uint8_t[]", 200)
lengths = ffi.new("size_t *", 150)
assert lib.seal_packets(holder[0], ffi.new("uint8_t *[]", [packet]), lengths, 1) == 0
print("held", flush=True)
sys.stdin.readline()
lib.seal_free(holder[0])
print("freed", flush=True)
sys.stdin.readline()
"""


def occurrences(pid: int, patterns: list[bytes]) -> list[int]:
    """How often each pattern stands in the writable memory of a child process."""
    counts = [0] * len(patterns)
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            bounds, permissions = line.split()[:2]
            if not permissions.startswith("rw"):
                continue
            start, end = (int(bound, 16) for bound in bounds.split("-"))
            if end - start > 1 << 30:  # a sanitizer's map of the address space: terabytes, and no data
                continue
            while start < end:
                try:
                    memory.seek(start)
                    chunk = memory.read(min(end - start, 1 << 24))
                except (OSError, OverflowError):  # a mapping that has no pages to read
                    break
                if not chunk:
                    break
                counts = [count + chunk.count(pattern) for count, pattern in zip(counts, patterns, strict=True)]
                start += len(chunk)
    return counts


def aes_128_second_round_key(key: bytes) -> bytes:
    """FIPS 197's expansion, one step: it shows that schedules are wiped, not just keys."""

    def substitute(byte: int) -> int:
        power, inverse = byte, 1
        for bit in range(8):  # byte to the 254th in GF(2^8)
            if 254 >> bit & 1:
                inverse = multiply(inverse, power)
            power = multiply(power, power)
        result = 0x63
        for turn in range(5):
            result ^= (inverse << turn | inverse >> (8 - turn)) & 0xFF
        return result

    def multiply(a: int, b: int) -> int:
        product = 0
        for bit in range(8):
            product ^= (a << bit) * (b >> bit & 1)
        for bit in range(14, 7, -1):
            product ^= (0x11B << (bit - 8)) * (product >> bit & 1)
        return product

    words = [key[at : at + 4] for at in range(0, 16, 4)]
    change = bytes(substitute(byte) for byte in words[3][1:] + words[3][:1])
    change = bytes([change[0] ^ 1]) + change[1:]
    result = b""
    for word in words:
        change = bytes(a ^ b for a, b in zip(word, change, strict=True))
        result += change
    return result


def test_the_expansion_used_here_is_fips_197s() -> None:
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    assert aes_128_second_round_key(key).hex() == "a0fafe1788542cb123a339392a6c7605"


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="reads the child's memory through Linux's /proc")
@pytest.mark.parametrize("crypt", [name for name, length in LENGTHS.items() if length])
def test_nothing_of_the_key_is_left_in_memory_when_a_seal_is_freed(crypt: str) -> None:
    key = os.urandom(LENGTHS[crypt])
    patterns = [key[at : at + 8] for at in range(0, len(key), 8)]  # TEA and others take it apart into words
    if crypt in ("aes-128", "aes-128-gcm"):
        patterns.append(aes_128_second_round_key(key))
    masked = bytes(byte ^ 0x5A for byte in key).hex()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, crypt, masked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "held\n"
            held = occurrences(child.pid, patterns)
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "freed\n"
            freed = occurrences(child.pid, patterns)
        finally:
            child.stdin.close()
    assert all(held), "the search itself finds what is there"
    assert not any(freed)
