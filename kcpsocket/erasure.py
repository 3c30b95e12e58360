"""Reed-Solomon erasure coding: which code does the arithmetic, and zfec's part in it.

The engine has kernels of its own for processors with vectors. On others zfec's C functions do the work, with kcp-go's
matrix in the place of zfec's; this module finds them and hands their addresses to the engine.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata

from kcpsocket._native import ffi, lib

__all__ = ["ErasureError", "check_shards", "hand_over_zfec", "kernel", "prepare"]

SHARDS_MAX = 255
"""Most shards in a group, data and parity together."""

_FUNCTIONS = ("fec_new", "fec_free", "fec_encode", "fec_decode")


class ErasureError(RuntimeError):
    """zfec is installed, but is not the library that the engine knows."""


def check_shards(datashard: int, parityshard: int) -> None:
    """Checks the sizes of an FEC group, in packets; both 0 means no FEC.

    Raises:
        ValueError: one of them alone is 0, one is negative, or the sum exceeds 255. Names the setting.
    """
    for name, count in (("datashard", datashard), ("parityshard", parityshard)):
        if not 0 <= count < SHARDS_MAX:
            raise ValueError(f"{name}={count}: allowed are 1 to {SHARDS_MAX - 1}, or 0 in both settings for no FEC")
    if bool(datashard) != bool(parityshard):
        zero, other = ("parityshard", "datashard") if datashard else ("datashard", "parityshard")
        raise ValueError(f"{zero}=0: allowed is 0 only if {other} (now {datashard or parityshard}) is 0 too: no FEC")
    if datashard + parityshard > SHARDS_MAX:
        raise ValueError(
            f"datashard={datashard} and parityshard={parityshard}: allowed is a sum of at most {SHARDS_MAX}, "
            f"got {datashard + parityshard}"
        )


def hand_over_zfec() -> None:
    """Gives zfec's C functions to the engine, which checks them with known answers first. Does nothing the second time.

    Raises:
        ModuleNotFoundError: zfec is not installed.
        ErasureError: it lacks a function, or computes something else; says which zfec it was.
    """
    module = importlib.import_module("zfec._fec")  # importing it fills zfec's tables
    path = str(module.__file__)
    where = f"zfec {importlib.metadata.version('zfec')} ({path})"
    library = ctypes.CDLL(path)
    try:
        addresses = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in _FUNCTIONS]
    except AttributeError as error:
        raise ErasureError(f"{where} does not export a function that forward error correction needs: {error}") from None
    result = lib.rs_use_zfec(*(ffi.cast("void *", address) for address in addresses))
    if result != 0:
        reason = {
            lib.RS_ZFEC_ENCODES: "fec_encode gives wrong parity for a known group",
            lib.RS_ZFEC_DECODES: "fec_decode does not bring back a known group",
            lib.RS_ZFEC_LAYOUT: "fec_new does not give the structure fec_t that is known",
        }[result]
        raise ErasureError(f"{where} failed its known-answer check: {reason}. Install another version of zfec")


def prepare() -> str:
    """Readies erasure coding before its first use, and returns the name of the kernel that will do it.

    Raises:
        ErasureError: this processor needs zfec, and zfec failed its check.
    """
    if not lib.rs_vectorised():
        with contextlib.suppress(ModuleNotFoundError):  # then the portable kernel does it: slower, and as right
            hand_over_zfec()
    return kernel()


def kernel() -> str:
    """The name of the kernel in use: gfni512, gfni256, avx2, ssse3, neon, zfec or portable."""
    return ffi.string(lib.rs_kernel_name(lib.rs_kernel())).decode()
