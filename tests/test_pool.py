"""The packet buffers: distinct while handed out, and given back to the system when free."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from kcpsocket._native import ffi, lib

BUFFER = 1536


@pytest.fixture
def pool() -> Iterator[Any]:
    pool = lib.pool_new()
    yield pool
    lib.pool_free(pool)


def test_a_new_pool_holds_nothing(pool: Any) -> None:
    assert lib.pool_in_use(pool) == 0
    assert lib.pool_bytes(pool) == 0


def test_buffers_do_not_overlap(pool: Any) -> None:
    buffers = [lib.pool_get(pool) for _ in range(1000)]
    assert lib.pool_in_use(pool) == 1000
    assert lib.pool_bytes(pool) >= 1000 * BUFFER
    for i, buffer in enumerate(buffers):
        ffi.memmove(buffer, i.to_bytes(2, "little") * (BUFFER // 2), BUFFER)
    for i, buffer in enumerate(buffers):
        assert bytes(ffi.buffer(buffer, BUFFER)) == i.to_bytes(2, "little") * (BUFFER // 2)


def test_a_buffer_put_back_is_used_again(pool: Any) -> None:
    held = lib.pool_bytes(pool)
    for _ in range(10_000):
        lib.pool_put(pool, lib.pool_get(pool))
        held = max(held, lib.pool_bytes(pool))
    assert held <= 256 * 1024


def test_random_use_keeps_contents_and_count(pool: Any) -> None:
    rng = random.Random(3)
    held: dict[Any, bytes] = {}
    for step in range(20_000):
        if held and rng.random() < (0.3 if step % 4000 < 2000 else 0.7):
            buffer, mark = held.popitem() if rng.random() < 0.5 else (next(iter(held)), b"")
            mark = mark or held.pop(buffer)
            assert bytes(ffi.buffer(buffer, 8)) == mark
            assert bytes(ffi.buffer(buffer + BUFFER - 8, 8)) == mark
            lib.pool_put(pool, buffer)
        else:
            buffer = lib.pool_get(pool)
            mark = step.to_bytes(8, "little")
            ffi.memmove(buffer, mark, 8)
            ffi.memmove(buffer + BUFFER - 8, mark, 8)
            assert buffer not in held
            held[buffer] = mark
        assert lib.pool_in_use(pool) == len(held)


def test_trim_gives_back_all_free_slabs_but_one(pool: Any) -> None:
    buffers = [lib.pool_get(pool) for _ in range(1000)]
    kept, rest = buffers[0], buffers[1:]
    peak = lib.pool_bytes(pool)
    random.Random(4).shuffle(rest)
    for buffer in rest:
        lib.pool_put(pool, buffer)
    assert lib.pool_bytes(pool) == peak
    ffi.memmove(kept, b"kept", 4)
    lib.pool_trim(pool)
    assert lib.pool_bytes(pool) == 2 * 128 * 1024  # the one in use and the one kept
    assert bytes(ffi.buffer(kept, 4)) == b"kept"
    lib.pool_put(pool, kept)
    lib.pool_trim(pool)
    assert lib.pool_bytes(pool) == 128 * 1024
    assert lib.pool_in_use(pool) == 0


def test_trim_spares_slabs_in_use(pool: Any) -> None:
    buffers = [lib.pool_get(pool) for _ in range(1000)]
    held = lib.pool_bytes(pool)
    for buffer in buffers[::2]:
        lib.pool_put(pool, buffer)
    lib.pool_trim(pool)
    assert lib.pool_bytes(pool) == held
    for buffer in buffers[1::2]:
        lib.pool_put(pool, buffer)


def test_limit_makes_it_run_out(pool: Any) -> None:
    lib.pool_limit(pool, 2)
    first, second = lib.pool_get(pool), lib.pool_get(pool)
    assert first
    assert second
    assert lib.pool_get(pool) == ffi.NULL
    lib.pool_put(pool, first)
    assert lib.pool_get(pool) != ffi.NULL
