"""Ciphers by name: their keys, and pycryptodome's C functions handed to the engine.

The engine (``native/seal.c``) does the work. Here the names of kcptun and kcp-go become its kinds, passphrases become
keys, and :func:`prepare` finds pycryptodome's compiled modules and proves them on known answers before first use.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import threading
from typing import Any, Final

from kcpsocket._native import ffi, lib

__all__ = ["CIPHERS", "CipherError", "derive", "key_for", "key_length", "kind_of", "overhead", "prepare"]

#: Cipher names, as kcptun spells them, and the engine's number for each (``enum seal_kind``).
CIPHERS: Final[dict[str, int]] = {
    "null": lib.SEAL_NULL,
    "none": lib.SEAL_NONE,
    "aes": lib.SEAL_AES,
    "aes-128": lib.SEAL_AES_128,
    "aes-192": lib.SEAL_AES_192,
    "salsa20": lib.SEAL_SALSA20,
    "blowfish": lib.SEAL_BLOWFISH,
    "twofish": lib.SEAL_TWOFISH,
    "cast5": lib.SEAL_CAST5,
    "3des": lib.SEAL_3DES,
    "tea": lib.SEAL_TEA,
    "xtea": lib.SEAL_XTEA,
    "xor": lib.SEAL_XOR,
    "sm4": lib.SEAL_SM4,
    "aes-128-gcm": lib.SEAL_AES_128_GCM,
}

#: What the engine does without pycryptodome.
_OWN: Final = frozenset({"null", "none", "xor", "tea", "xtea", "sm4", "twofish"})

_LIBRARY: Final = "pycryptodome"
_SALT: Final = b"kcp-go"
_ROUNDS: Final = 4096


class CipherError(RuntimeError):
    """A cipher cannot be used here: pycryptodome is missing, incomplete, or not the library that we know."""


def kind_of(crypt: str) -> int:
    """The engine's number for a cipher; ``ValueError`` for a name that is none."""
    try:
        return CIPHERS[crypt]
    except KeyError:
        raise ValueError(f"crypt must be one of {', '.join(CIPHERS)}, not {crypt!r}") from None


def key_length(crypt: str) -> int:
    """Bytes of key that a cipher takes, 0 for ``null`` and ``none``."""
    return int(lib.seal_key_length(kind_of(crypt)))


def overhead(crypt: str) -> int:
    """Bytes that a cipher adds to each datagram."""
    return int(lib.seal_overhead(kind_of(crypt)))


# Some 5 ms, that each connect would take; a program has few passphrases, and its Config objects hold them anyway.
@functools.lru_cache(maxsize=32)
def derive(passphrase: str) -> bytes:
    """The 32 bytes that kcptun makes of a passphrase: PBKDF2-HMAC-SHA1, salt ``kcp-go``, 4096 rounds."""
    return hashlib.pbkdf2_hmac("sha1", passphrase.encode(), _SALT, _ROUNDS, 32)


def key_for(crypt: str, key: str | bytes | bytearray | memoryview) -> bytes:
    """The key of a cipher from what the user gave.

    A ``str`` is a passphrase: derived, and cut to the cipher's length. ``bytes`` are the key itself; ``ValueError``
    when their length is not the cipher's. ``null`` and ``none`` take no key and give ``b""``.
    """
    length = key_length(crypt)
    if length == 0:
        return b""
    if isinstance(key, str):
        return derive(key)[:length]
    if not isinstance(key, (bytes, bytearray, memoryview)):
        raise TypeError(f"key must be str or bytes, not {type(key).__name__}")
    given = bytes(key)
    if len(given) != length:
        raise ValueError(f"key for {crypt} must have {length} bytes, not {len(given)}")
    return given


# --- the library ---

_lock = threading.Lock()
_prepared: set[str] = set()
# Keeps the modules that the engine calls into mapped.
_modules: dict[str, ctypes.CDLL] = {}


def _reset_lock() -> None:
    global _lock
    _lock = threading.Lock()  # a thread that is not in this child may have held it


os.register_at_fork(after_in_child=_reset_lock)


def _version() -> str:
    try:
        return f"{_LIBRARY} {importlib.metadata.version(_LIBRARY)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{_LIBRARY} (version unknown)"


def _module(name: str) -> ctypes.CDLL | None:
    """A compiled module of pycryptodome, found where the import system would find it; None where there is none."""
    if name not in _modules:
        try:
            spec = importlib.util.find_spec(name)
        except ImportError:
            return None
        if spec is None or spec.origin is None:
            return None
        try:
            _modules[name] = ctypes.CDLL(spec.origin)
        except OSError:
            return None
    return _modules[name]


def _address(module: ctypes.CDLL | None, function: str) -> Any:
    """A function's address as a ``void *``; NULL where the module or the function is missing."""
    pointer = getattr(module, function, None)
    return ffi.cast("void *", ctypes.cast(pointer, ctypes.c_void_p).value if pointer is not None else 0)


def _pick(variants: list[tuple[str, str]]) -> tuple[ctypes.CDLL | None, str]:
    """The first of (module, name of its functions) that is installed."""
    for name, functions in variants:
        module = _module(name)
        if module is not None:
            return module, functions
    return None, ""


@functools.cache
def _find_library() -> Any:
    """``struct seal_library`` with what this machine's pycryptodome has, the variants for its processor first."""
    cpu = lib.seal_cpu()
    aes, ghash, salsa20 = [], [], []
    if cpu & lib.SEAL_CPU_AES:
        aes += [("Crypto.Cipher._raw_aesni", "AESNI"), ("Crypto.Cipher._raw_aes_armv8", "AES_ARMV8")]
    if cpu & lib.SEAL_CPU_MULTIPLY:
        ghash += [("Crypto.Hash._ghash_clmul", "clmul"), ("Crypto.Hash._ghash_pmull", "pmull")]
    if cpu & lib.SEAL_CPU_AVX2_BMI2:
        salsa20 += [("Crypto.Cipher._Salsa20_avx2_bmi2", "Salsa20_stream")]
    aes.append(("Crypto.Cipher._raw_aes", "AES"))
    ghash.append(("Crypto.Hash._ghash_portable", "portable"))
    salsa20.append(("Crypto.Cipher._Salsa20", "Salsa20_stream"))

    library = ffi.new("struct seal_library *")
    blocks = {
        "aes": aes,
        "blowfish": [("Crypto.Cipher._raw_blowfish", "Blowfish")],
        "cast5": [("Crypto.Cipher._raw_cast", "CAST")],
        "des3": [("Crypto.Cipher._raw_des3", "DES3")],
    }
    for field, variants in blocks.items():
        module, prefix = _pick(variants)
        functions = getattr(library, field)
        functions.start = _address(module, f"{prefix}_start_operation")
        functions.stop = _address(module, f"{prefix}_stop_operation")
    module, prefix = _pick(salsa20)
    library.salsa20_init = _address(module, f"{prefix}_init")
    library.salsa20_encrypt = _address(module, f"{prefix}_encrypt")
    library.salsa20_destroy = _address(module, f"{prefix}_destroy")
    module, suffix = _pick(ghash)
    library.ghash_expand = _address(module, f"ghash_expand_{suffix}")
    library.ghash = _address(module, f"ghash_{suffix}")
    library.ghash_destroy = _address(module, f"ghash_destroy_{suffix}")
    return library


# --- known answers ---

# SHA-256 of one datagram of each cipher as kcp-go seals it: nonce 0, 1, 2, ... and a payload of 1,376 bytes whose byte
# i is 7 i + 96, under the beginning of this key. Long enough to reach the implementations' every path.
_KEY: Final = bytes.fromhex("25d7d7bd51050742d8d791f2b653c6c8b2366b7e25a124cf7a2e12eaf4ffa444")
_PAYLOAD: Final = bytes((7 * i + 96) & 255 for i in range(1376))
_ANSWERS: Final[dict[str, str]] = {
    "none": "cda5f98c84cbc46b1d7977955e534f305ad6b813da57bbbbe9631257541c5dc2",
    "aes": "4fa48840d5e8819a1a1c19ea650a8a309102cd288cf673144690608b1ae0d6f1",
    "aes-128": "179c1a49ee2455abd032a4862af512eb45c0e95ea2000ae02b7c775bb118414f",
    "aes-192": "b10711dd41439ca53d2d33071edababa237baff7ba9a07ddb137f6d0cea962f7",
    "salsa20": "758bac1422ef778a79ef25328f7fabaf532d71960864dc2f755ce9204fc761b2",
    "blowfish": "03d28a1dba7a06cfa3efec3bd7c48b9bdde4400aa48458606938e381c85f3a71",
    "twofish": "8fa4465abb7e1901ebeb7c231923ef4beb79fa5e08f8ece7a2dfff8088e58083",
    "cast5": "ed49633d62e0aa0607df0bc9236e1f1d9745cbfaca42cb86325c3f69ca983a60",
    "3des": "7bef41f3cc6d364e82456c4570b709f8a632d018e9b5a7c00d45320474493216",
    "tea": "fbff9df1249bede2a542ba13c47bccd3d1fcd2cea843ae9592f9a90c04b4b3dc",
    "xtea": "5a0e76542a0c56f1a8e6d60956fc663e7675488e41a5db346aabb896615692c0",
    "xor": "6a4e50fe089433cd591643f9d4af54e96098ca1a588429def53cb020d2f46137",
    "sm4": "a02885aaab8b0c4d3e06bb26194591011edea3a2cc2bbcc1b60893e9d296b40c",
    "aes-128-gcm": "6dd8535f5ef11560f84412456eb0247481854aa6164008298c19457dce9c025f",
}


def _raise_for(error: int) -> None:
    if error:
        raise OSError(-error, os.strerror(-error))


def _seal_known(crypt: str) -> tuple[bytes, bytes]:
    """The known payload sealed by the engine, and what opening that gives; OSError as the engine reports it."""
    kind, holder = CIPHERS[crypt], ffi.new("struct seal **")
    _raise_for(lib.seal_new(holder, kind, _KEY, key_length(crypt)))
    try:
        front, total = lib.seal_front(holder[0]), len(_PAYLOAD) + lib.seal_overhead(kind)
        packet = ffi.new("uint8_t[]", bytes(range(front)) + _PAYLOAD + bytes(total - front - len(_PAYLOAD)))
        length = ffi.new("size_t *", front + len(_PAYLOAD))
        _raise_for(lib.seal_packets_as_is(holder[0], ffi.new("uint8_t *[]", [packet]), length, 1))
        sealed = bytes(ffi.buffer(packet, length[0]))
        payload = ffi.new("uint8_t **")
        _raise_for(lib.seal_open(holder[0], packet, length[0], payload, length))
        return sealed, bytes(ffi.buffer(payload[0], length[0]))
    finally:
        lib.seal_free(holder[0])


def _check(crypt: str) -> None:
    """Seals and opens a datagram with a known answer; :exc:`CipherError` when the answer is another."""
    source = "the engine" if crypt in _OWN else _version()
    try:
        sealed, opened = _seal_known(crypt)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise CipherError(f"crypt {crypt!r} needs compiled modules that {source} does not have here") from error
        if error.errno == errno.ELIBBAD:
            raise CipherError(f"crypt {crypt!r}: {source} is not laid out as expected; it is not used") from error
        if error.errno in (errno.EIO, errno.EBADMSG):
            raise CipherError(f"crypt {crypt!r}: {source} failed a known-answer check; it is not used") from error
        raise
    if hashlib.sha256(sealed).hexdigest() != _ANSWERS[crypt] or opened != _PAYLOAD:
        raise CipherError(f"crypt {crypt!r}: {source} failed a known-answer check; it is not used")


def prepare(crypt: str) -> None:
    """Makes a cipher ready for the engine: to be called before a configuration that names it is handed over.

    The first call in a process finds pycryptodome's modules, the first for each cipher runs a known-answer check (about
    a millisecond); later calls cost nothing. Raises :exc:`CipherError`, which names the library and its version, when a
    module is missing or gives wrong bytes, and ``ValueError`` for a name that is no cipher.
    """
    if crypt in _prepared:
        return
    if kind_of(crypt) != lib.SEAL_NULL:
        with _lock:
            if crypt not in _OWN:
                lib.seal_use_library(_find_library())
            _check(crypt)
    _prepared.add(crypt)
