"""``bench cipher`` and ``bench fec``: the engine's ciphers and erasure code alone, with kcp-go's beside them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .. import ciphers, erasure
from .._native import ffi, lib
from . import stats
from .process import BenchError, KcpGo, build_peer
from .table import table

if TYPE_CHECKING:
    from .._native import CData

_PACKET: Final = 1400  # bytes of a datagram, all headers included
_BATCH: Final = 32  # datagrams sealed in one call, as the engine does
_TRIALS: Final = 3
_TRIAL: Final = 0.15  # s
_GO_LIMIT: Final = 120.0  # s
_KEY: Final = "kcpsocket bench"


def speed(count: int, work: Callable[[], None], prepare: Callable[[], None] | None = None) -> float:
    """MB/s of `work`, which handles `count` bytes in a call: the median of a few trials. `prepare` is not timed."""
    results = []
    for _ in range(_TRIALS):
        done = spent = 0.0
        while spent < _TRIAL:
            if prepare is not None:
                prepare()
            begin = time.perf_counter()
            work()
            spent += time.perf_counter() - begin
            done += count
        results.append(done / 1e6 / spent)
    return stats.median(results)


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise RuntimeError(f"{what}: {os.strerror(-result)}")


def cipher_speed(crypt: str) -> dict[str, float]:
    """MB/s of sealing and of opening whole datagrams, nonce and checksum or tag included."""
    ciphers.prepare(crypt)
    key = ciphers.key_for(crypt, _KEY)
    holder = ffi.new("struct seal **")
    _checked(lib.seal_new(holder, ciphers.kind_of(crypt), key, len(key)), crypt)
    seal = holder[0]
    try:
        back = lib.seal_back(seal)
        memory = ffi.new("uint8_t[]", _BATCH * _PACKET)
        packets = ffi.new("uint8_t *[]", [ffi.addressof(memory, index * _PACKET) for index in range(_BATCH)])
        lengths = ffi.new("size_t[]", _BATCH)
        begin = bytes(ffi.buffer(ffi.new("size_t[]", [_PACKET - back] * _BATCH)))
        payload, payload_length = ffi.new("uint8_t **"), ffi.new("size_t *")

        def reset() -> None:
            ffi.memmove(lengths, begin, len(begin))

        def seal_batch() -> None:
            _checked(lib.seal_packets(seal, packets, lengths, _BATCH), crypt)

        def reseal() -> None:
            reset()
            seal_batch()

        def open_batch() -> None:
            for packet in packets:
                _checked(lib.seal_open(seal, packet, _PACKET, payload, payload_length), crypt)

        return {
            "seal": speed(_BATCH * _PACKET, seal_batch, reset),
            "open": speed(_BATCH * _PACKET, open_batch, reseal),
        }
    finally:
        lib.seal_free(seal)


def erasure_speed(data: int, parity: int) -> dict[str, float]:
    """MB/s of payload, of computing parity and of rebuilding as many shards as can be lost."""
    code = lib.rs_new(data, parity)
    if code == ffi.NULL:
        raise RuntimeError("rs_new: out of memory, or counts that are not allowed")
    try:
        shards: list[CData] = [ffi.new("uint8_t[]", os.urandom(_PACKET)) for _ in range(data + parity)]
        places = ffi.new("uint8_t *[]", shards)
        sources, targets = ffi.new("const uint8_t *[]", shards[:data]), ffi.new("uint8_t *[]", shards[data:])
        lost = min(data, parity)
        present = ffi.new("bool[]", [index >= lost for index in range(data + parity)])
        # Many groups in a timed stretch: one alone takes about as long as reading the clock.
        rounds = range(64)

        def encode() -> None:
            for _ in rounds:
                lib.rs_encode(code, sources, targets, _PACKET)

        def rebuild() -> None:
            for _ in rounds:
                if lib.rs_reconstruct(code, places, present, _PACKET) != 0:
                    raise RuntimeError("rs_reconstruct failed")

        count = len(rounds) * data * _PACKET
        return {"encode": speed(count, encode), "rebuild": speed(count, rebuild)}
    finally:
        lib.rs_free(code)


def _go(role: str, settings: dict[str, Any], key: str) -> tuple[dict[str, Any] | None, str]:
    """kcp-go's figures, or None and the reason why there are none."""
    with tempfile.TemporaryDirectory(prefix="kcpsocket-bench-") as directory:
        program, why = build_peer(Path(directory))
        if program is None:
            return None, why
        try:
            with KcpGo("kcp-go", program, settings).worker({"role": role}) as process:
                found: dict[str, Any] = process.result(key, _GO_LIMIT)[key]
                return found, ""
        except BenchError as error:
            return None, str(error)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _print(
    options: argparse.Namespace,
    names: tuple[str, str],
    ours: dict[str, dict[str, float]],
    theirs: dict[str, Any] | None,
) -> None:
    """The figures, ours and kcp-go's by name, as a table or as JSON."""
    machine = stats.machine()
    if options.json:
        print(json.dumps({"machine": machine, "kcpsocket": ours, "kcp-go": theirs}, indent=1))
        return
    head = ["MB/s", *(f"kcpsocket {name}" for name in names)]
    rows = []
    for what, figures in ours.items():
        row = [what, *(_figure(figures[name]) for name in names)]
        if theirs is not None:
            beside = theirs.get(what, {})
            row += [_figure(beside.get(name)) for name in names]
        rows.append(row)
    if theirs is not None:
        head += [f"kcp-go {name}" for name in names]
    print(f"{stats.describe(machine)}\n")
    print("\n".join(table(head, rows)))


def add_cipher_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `bench cipher` on `parser`."""
    parser.description = (
        f"Seals and opens datagrams of {_PACKET} bytes, as the engine does: nonce, checksum and calls from Python "
        "included. kcp-go's figures beside them are of its ciphers alone."
    )
    parser.add_argument("cipher", nargs="*", metavar="NAME", help="by kcptun's name; default: all")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def cipher_main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Runs `bench cipher`; returns the exit code."""
    known = [name for name in ciphers.CIPHERS if name != "null"]
    for name in options.cipher:
        if name not in known:
            parser.error(f"{name!r}: must be one of {', '.join(known)}")
    ours = {}
    for name in options.cipher or known:
        try:
            ours[name] = cipher_speed(name)
        except ciphers.CipherError as error:
            print(error, file=sys.stderr)
    theirs, why = _go("cipher", {"key": _KEY}, "ciphers")
    if theirs is None:
        print(f"without kcp-go: {why}", file=sys.stderr)
    _print(options, ("seal", "open"), ours, theirs)
    return 0 if ours else 1


def add_fec_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `bench fec` on `parser`."""
    parser.description = (
        f"Computes parity of groups of {_PACKET}-byte packets, and rebuilds as many as can be lost, with every kernel "
        "that this processor can use. MB/s of payload."
    )
    parser.add_argument("--datashard", type=int, default=10, metavar="N", help="data packets in a group; default: 10")
    parser.add_argument("--parityshard", type=int, default=3, metavar="N", help="parity packets; default: 3")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def fec_main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Runs `bench fec`; returns the exit code."""
    data, parity = options.datashard, options.parityshard
    if not lib.rs_valid(data, parity):
        parser.error(f"--datashard {data} --parityshard {parity}: each at least 1, together at most 255")
    try:
        erasure.hand_over_zfec()
    except (ModuleNotFoundError, erasure.ErasureError) as error:
        print(f"without zfec: {error}", file=sys.stderr)
    theirs, why = _go("fec", {"datashard": data, "parityshard": parity}, "erasure")
    if theirs is None:
        print(f"without kcp-go: {why}", file=sys.stderr)
    ours = {}
    try:
        number = 0
        while (name := lib.rs_kernel_name(number)) != ffi.NULL:
            if lib.rs_kernel_usable(number):
                lib.rs_choose_kernel(number)
                ours[ffi.string(name).decode()] = erasure_speed(data, parity)
            number += 1
    finally:
        lib.rs_choose_kernel(-1)
    _print(options, ("encode", "rebuild"), ours, None if theirs is None else dict.fromkeys(ours, theirs))
    return 0
