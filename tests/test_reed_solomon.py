"""The Reed-Solomon code: equal to kcp-go's, to zfec's with kcp-go's matrix, and to the definition, on every kernel."""

from __future__ import annotations

import ctypes
import itertools
import json
import pathlib
import random
import subprocess
import sys
import types
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcpsocket import erasure
from kcpsocket._native import ffi, lib

VECTORS = json.loads((pathlib.Path(__file__).parent / "vectors" / "kcp_go.json").read_text())["fec"]
GUARD = 0xA5  # what stands around every shard's memory


def kernels() -> list[str]:
    erasure.hand_over_zfec()
    names = itertools.takewhile(lambda name: name != ffi.NULL, map(lib.rs_kernel_name, itertools.count()))
    return [ffi.string(name).decode() for number, name in enumerate(names) if lib.rs_kernel_usable(number)]


def choose(name: str) -> None:
    for number in itertools.count():
        if ffi.string(lib.rs_kernel_name(number)).decode() == name:
            assert lib.rs_choose_kernel(number) == 0
            return


class Code:
    """A code whose shards lie at odd addresses between guard bytes."""

    def __init__(self, data: int, parity: int) -> None:
        self.rs = ffi.gc(lib.rs_new(data, parity), lib.rs_free)
        assert self.rs != ffi.NULL
        self.data, self.parity = data, parity

    def _place(self, contents: Sequence[bytes | None], n: int, offset: int) -> list[object]:
        places = []
        for content in contents:
            place = ffi.new("uint8_t[]", n + 2 * offset)
            ffi.buffer(place)[:] = bytes([GUARD]) * len(place)
            if content is not None:
                ffi.memmove(place + offset, content, n)
            places.append(place)
        return places

    def _take(self, places: list[object], n: int, offset: int) -> list[bytes]:
        whole = [ffi.buffer(place)[:] for place in places]
        for memory in whole:
            assert memory[:offset] + memory[offset + n :] == bytes([GUARD]) * (2 * offset)
        return [memory[offset : offset + n] for memory in whole]

    def encode(self, data: Sequence[bytes], offset: int = 1) -> list[bytes]:
        n = len(data[0])
        places = self._place([*data, *[None] * self.parity], n, offset)
        pointers = ffi.new("uint8_t *[]", [place + offset for place in places])  # type: ignore[operator]
        lib.rs_encode(self.rs, ffi.cast("uint8_t **", pointers), pointers + self.data, n)
        taken = self._take(places, n, offset)
        assert taken[: self.data] == list(data)
        return taken[self.data :]

    def reconstruct(self, shards: Sequence[bytes | None], offset: int = 1) -> list[bytes]:
        """The data shards, or an empty list when too few are present."""
        n = next(len(shard) for shard in shards if shard is not None)
        places = self._place(shards, n, offset)
        pointers = ffi.new("uint8_t *[]", [place + offset for place in places])  # type: ignore[operator]
        present = ffi.new("bool[]", [shard is not None for shard in shards])
        result = lib.rs_reconstruct(self.rs, pointers, present, n)
        taken = self._take(places, n, offset)
        for shard, after in zip(shards[self.data :], taken[self.data :], strict=True):
            assert shard is None or shard == after
        return taken[: self.data] if result == 0 else []


def multiply(a: int, b: int) -> int:
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = a << 1 ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


PRODUCTS = [bytes(multiply(a, b) for b in range(256)) for a in range(256)]


def power(base: int, exponent: int) -> int:
    result = 1
    for _ in range(exponent):
        result = multiply(result, base)
    return result


def reference_rows(data: int, parity: int) -> list[list[int]]:
    """The parity rows by the book: Vandermonde, times the inverse of its top square by Gauss and Jordan."""
    top = [[power(r, c) for c in range(data)] + [int(r == c) for c in range(data)] for r in range(data)]
    for column in range(data):
        pivot = next(r for r in range(column, data) if top[r][column])
        top[column], top[pivot] = top[pivot], top[column]
        inverse = PRODUCTS[top[column][column]].index(1)
        top[column] = [multiply(inverse, value) for value in top[column]]
        for r in range(data):
            factor = top[r][column]
            if r != column and factor:
                top[r] = [a ^ multiply(factor, b) for a, b in zip(top[r], top[column], strict=True)]
    rows = []
    for r in range(data, data + parity):
        row = [0] * data
        for c in range(data):
            factor = power(r, c)
            row = [a ^ multiply(factor, b) for a, b in zip(row, top[c][data:], strict=True)]
        rows.append(row)
    return rows


def reference_parity(rows: list[list[int]], data: Sequence[bytes]) -> list[bytes]:
    parity = []
    for row in rows:
        total = 0
        for factor, shard in zip(row, data, strict=True):
            total ^= int.from_bytes(shard.translate(PRODUCTS[factor]), "big")
        parity.append(total.to_bytes(len(data[0]), "big"))
    return parity


def shards_of(seed: int, count: int, n: int) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(n) for _ in range(count)]


@pytest.fixture(params=kernels())
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    choose(request.param)
    yield request.param
    lib.rs_choose_kernel(-1)


def test_the_kernels_under_test_include_the_portable_one_and_zfec() -> None:
    assert {"portable", "zfec"} <= set(kernels())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['datashard']}-{vector['parityshard']}")
def test_parity_is_what_kcp_go_makes(kernel: str, vector: dict[str, object]) -> None:
    data, parity = vector["datashard"], vector["parityshard"]
    shards = [bytes.fromhex(shard) for shard in vector["shards"]]  # type: ignore[attr-defined]
    code = Code(data, parity)  # type: ignore[arg-type]
    assert code.encode(shards[: code.data]) == shards[code.data :]
    lost: list[bytes | None] = list(shards)
    for index in range(min(code.data, code.parity)):
        lost[index] = None
    assert code.reconstruct(lost) == shards[: code.data]


@pytest.mark.parametrize(("data", "parity"), [(1, 1), (1, 254), (3, 5), (10, 3), (17, 17), (40, 20)])
def test_the_matrix_is_the_systematic_vandermonde_matrix(data: int, parity: int) -> None:
    code = Code(data, parity)
    rows = [list(ffi.buffer(lib.rs_row(code.rs, index), data)[:]) for index in range(parity)]
    assert rows == reference_rows(data, parity)


@pytest.mark.parametrize("n", [*range(1, 70), 95, 127, 128, 129, 191, 255, 256, 257, 319, 1400, 1494])
def test_every_length_is_encoded_and_brought_back_without_touching_what_lies_beside(kernel: str, n: int) -> None:
    data, parity = 5, 7  # blocks of four and of three outputs
    code = Code(data, parity)
    shards = shards_of(n, data, n)
    made = code.encode(shards, offset=1 + n % 3)
    assert made == reference_parity(reference_rows(data, parity), shards)
    assert code.reconstruct([None, *shards[1:4], None, None, *made[1:3], *[None] * 4], offset=3) == shards


@pytest.mark.parametrize(("data", "parity"), [(1, 2), (3, 2), (4, 3)])
def test_any_loss_that_leaves_enough_is_brought_back_and_any_other_is_refused(
    kernel: str, data: int, parity: int
) -> None:
    code = Code(data, parity)
    shards = shards_of(7, data, 37)
    whole = [*shards, *code.encode(shards)]
    for kept in itertools.product([True, False], repeat=data + parity):
        if any(kept):
            some = [shard if keep else None for shard, keep in zip(whole, kept, strict=True)]
            assert code.reconstruct(some) == (shards if sum(kept) >= data else [])


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 254), st.integers(1, 200), st.integers())
def test_all_kernels_agree(choices: st.DataObject, data: int, n: int, seed: int) -> None:
    parity = choices.draw(st.integers(1, 255 - data))
    shards = shards_of(seed, data, n)
    lost = random.Random(seed).sample(range(data + parity), parity)
    results = set()
    for name in kernels():
        choose(name)
        code = Code(data, parity)
        made = code.encode(shards)
        whole = [None if index in lost else shard for index, shard in enumerate([*shards, *made])]
        assert code.reconstruct(whole) == shards
        results.add(tuple(made))
    lib.rs_choose_kernel(-1)
    assert len(results) == 1


@pytest.mark.parametrize(
    ("data", "parity"), [(0, 0), (0, 3), (10, 0), (-1, 3), (3, -1), (255, 1), (128, 128), (2**31 - 1, 2**31 - 1)]
)
def test_counts_that_make_no_code_are_refused(data: int, parity: int) -> None:
    assert not lib.rs_valid(data, parity)
    assert lib.rs_new(data, parity) == ffi.NULL
    assert lib.rs_get(data, parity) == ffi.NULL


def test_a_shared_code_lives_as_long_as_somebody_uses_it() -> None:
    first, other = lib.rs_get(10, 3), lib.rs_get(10, 4)
    assert lib.rs_get(10, 3) == first != other
    lib.rs_put(first)
    assert (lib.rs_data(first), lib.rs_parity(first)) == (10, 3)
    assert lib.rs_get(10, 3) == first
    lib.rs_put(first)
    lib.rs_put(first)
    lib.rs_put(other)
    lib.rs_put(ffi.NULL)


def test_a_kernel_that_is_not_there_cannot_be_chosen() -> None:
    assert lib.rs_choose_kernel(1000) == lib.RS_EINVAL
    assert not lib.rs_kernel_usable(-1)
    assert lib.rs_kernel_name(-1) == ffi.NULL


FOREIGN_ZFEC = """
import ctypes, sys
import zfec._fec
from kcpsocket._native import ffi, lib
library = ctypes.CDLL(zfec._fec.__file__)
nothing = ctypes.CFUNCTYPE(ctypes.c_void_p)(lambda: None)
functions = {name: getattr(library, name) for name in ("fec_new", "fec_free", "fec_encode", "fec_decode")}
functions[sys.argv[1]] = nothing
result = lib.rs_use_zfec(*(ffi.cast("void *", ctypes.cast(f, ctypes.c_void_p).value) for f in functions.values()))
usable = [ffi.string(lib.rs_kernel_name(i)) for i in range(9) if lib.rs_kernel_usable(i)]
print(result, b"zfec" in usable)
"""


@pytest.mark.parametrize(
    ("broken", "code"),
    [("fec_encode", lib.RS_ZFEC_ENCODES), ("fec_decode", lib.RS_ZFEC_DECODES), ("fec_new", lib.RS_ZFEC_LAYOUT)],
)
def test_a_zfec_that_computes_something_else_is_not_taken_over(broken: str, code: int) -> None:
    run = subprocess.run([sys.executable, "-c", FOREIGN_ZFEC, broken], capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == [str(code), "False"], run.stderr


@pytest.mark.parametrize("result", [lib.RS_ZFEC_ENCODES, lib.RS_ZFEC_DECODES, lib.RS_ZFEC_LAYOUT])
def test_the_error_names_the_library_and_its_version(monkeypatch: pytest.MonkeyPatch, result: int) -> None:
    names = ("RS_ZFEC_ENCODES", "RS_ZFEC_DECODES", "RS_ZFEC_LAYOUT")
    fake = types.SimpleNamespace(
        rs_use_zfec=lambda *_: result, rs_vectorised=lambda: False, **{name: getattr(lib, name) for name in names}
    )
    monkeypatch.setattr(erasure, "lib", fake)
    with pytest.raises(erasure.ErasureError, match=r"zfec \d.*known-answer check: fec_"):
        erasure.prepare()


def test_a_zfec_without_the_functions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _path: types.SimpleNamespace(fec_new=None))
    with pytest.raises(erasure.ErasureError, match=r"zfec \d.*does not export"):
        erasure.hand_over_zfec()


def test_prepare_names_the_kernel(kernel: str) -> None:
    assert erasure.prepare() == kernel == erasure.kernel()


@pytest.mark.parametrize(("data", "parity"), [(0, 0), (1, 1), (10, 3), (128, 127), (1, 254), (254, 1)])
def test_good_settings_pass(data: int, parity: int) -> None:
    erasure.check_shards(data, parity)


@pytest.mark.parametrize(
    ("data", "parity", "words"),
    [
        (10, 0, "parityshard=0.*datashard.*10"),
        (0, 3, "datashard=0.*parityshard.*3"),
        (200, 56, "datashard=200 and parityshard=56.*at most 255.*256"),
        (-1, 3, "datashard=-1.*1 to 254"),
        (3, 255, "parityshard=255.*1 to 254"),
    ],
)
def test_bad_settings_are_refused_by_name(data: int, parity: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        erasure.check_shards(data, parity)
