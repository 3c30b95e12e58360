"""Finding the peer's data and parity counts from the order of types, cold and after a change."""

from __future__ import annotations

import random

import pytest
from fec_pair import Decoder, Encoder, frame, header
from hypothesis import given, settings
from hypothesis import strategies as st

from kcpsocket._native import lib

SMALL = st.tuples(st.integers(1, 30), st.integers(1, 30))
ANY = st.integers(1, 254).flatmap(lambda data: st.tuples(st.just(data), st.integers(1, 255 - data)))


def stream(data: int, parity: int, first: int, count: int) -> list[bytes]:
    """`count` datagrams from seqid `first` on, with their types alone right."""
    size = data + parity
    limit = 0xFFFFFFFF // size * size
    seqids = [(first + i) % limit for i in range(count)]
    return [frame(seqid, 0xF1 if seqid % size < data else 0xF2, b"payload") for seqid in seqids]


def feed(decoder: Decoder, datagrams: list[bytes], counts: tuple[int, int]) -> int:
    """How many datagrams it took until `counts` were found."""
    for taken, datagram in enumerate(datagrams, 1):
        decoder.receive(datagram)
        if decoder.counts() == counts:
            return taken
    raise AssertionError(f"not found in {len(datagrams)} datagrams: {decoder.counts()} instead of {counts}")


@settings(deadline=None, max_examples=200)
@given(ANY, st.one_of(st.just(0), st.integers(0, 0xFFFFFFFE)))
def test_counts_are_found_from_cold_in_a_few_groups(counts: tuple[int, int], first: int) -> None:
    size = sum(counts)
    first %= 0xFFFFFFFF // size * size
    with Decoder() as decoder:
        feed(decoder, stream(*counts, first, 512 + 2 * size), counts)
        assert decoder.counters().tunings == 1


@pytest.mark.parametrize(
    ("counts", "most"), [((10, 3), 14), ((1, 1), 3), ((5, 5), 11), ((70, 30), 101), ((128, 127), 256)]
)
def test_from_the_start_of_a_session_one_group_is_enough(counts: tuple[int, int], most: int) -> None:
    with Decoder() as decoder:
        assert feed(decoder, stream(*counts, 0, 3000), counts) <= most


@settings(deadline=None, max_examples=100)
@given(SMALL, st.integers(0, 2**32), st.sampled_from([0.1, 0.3, 0.5]))
def test_loss_and_reordering_only_delay_it(counts: tuple[int, int], seed: int, loss: float) -> None:
    source = random.Random(seed)
    first = source.randrange(2**31)
    datagrams = [datagram for datagram in stream(*counts, first, 6000) if source.random() >= loss]
    for at in range(0, len(datagrams), 9):
        datagrams[at : at + 9] = source.sample(datagrams[at : at + 9], len(datagrams[at : at + 9]))
    with Decoder() as decoder:
        feed(decoder, datagrams, counts)


@settings(deadline=None, max_examples=100)
@given(SMALL, SMALL, st.booleans(), st.integers(0, 2**20))
def test_a_change_of_counts_is_followed(
    before: tuple[int, int], after: tuple[int, int], restart: bool, first: int
) -> None:
    with Decoder() as decoder:
        feed(decoder, stream(*before, first, 1000), before)
        for datagram in stream(*before, first + 1000, 100):
            decoder.receive(datagram)
        feed(decoder, stream(*after, 0 if restart else first + 1100, 2000), after)


def test_recovery_goes_on_after_a_change_of_an_encoders_counts() -> None:
    source = random.Random(5)
    seqid, lost, back = 0, set(), set()
    with Decoder(10, 3) as decoder:
        for data, parity in ((10, 3), (5, 5), (5, 1), (1, 1), (30, 20), (10, 3)):
            with Encoder(data, parity, seqid) as encoder:
                for number in range(600):  # whole groups, whatever the counts
                    payload = source.randbytes(source.randrange(24, 1400))
                    for datagram in encoder.send(payload):
                        if header(datagram).seqid % (2 * (data + parity)) == 0:
                            lost.add((number >= 300, payload))
                        else:
                            back.update(decoder.receive(datagram) or ())
                seqid = encoder.seqid()
            assert decoder.counts() == (data, parity)
    assert back <= {payload for _, payload in lost}
    long_after_a_change = {payload for late, payload in lost if late}
    assert len(long_after_a_change) > 200
    assert long_after_a_change <= back


def test_wrongly_configured_counts_are_put_right() -> None:
    with Decoder(10, 3) as decoder:
        feed(decoder, stream(20, 5, 0, 200), (20, 5))


@pytest.mark.parametrize(
    "forged", [frame(3, 0xF2, b"parity?"), frame(12, 0xF1, b"data?"), frame(0xFFFFFFFE, 0xF1, b"x")]
)
def test_one_datagram_that_lies_does_not_lead_astray_for_long(forged: bytes) -> None:
    datagrams = stream(10, 3, 26, 2000)
    with Decoder(10, 3) as decoder:
        decoder.receive(forged)
        for datagram in datagrams[:300]:
            decoder.receive(datagram)
        assert decoder.counts() == (10, 3)
        before = decoder.counters().full_sets
        for datagram in datagrams[300:]:
            decoder.receive(datagram)
        assert decoder.counters().full_sets - before >= 1700 // 13 - 1


def test_counts_that_go_on_being_right_are_kept_even_when_nothing_proves_them() -> None:
    parity_alone = [datagram for datagram in stream(3, 2, 0, 200) if header(datagram).type == lib.FEC_PARITY]
    with Decoder(3, 2) as decoder:
        decoder.receive(frame(3, 0xF1, b"a lie"))
        for datagram in parity_alone[:26]:
            decoder.receive(datagram)
        before = decoder.counters().parity_shards
        for datagram in parity_alone[26:]:
            decoder.receive(datagram)
        assert decoder.counters().parity_shards - before == len(parity_alone) - 26


def test_data_alone_says_nothing() -> None:
    with Decoder() as decoder:
        for datagram in stream(10, 3, 0, 2000):
            if header(datagram).type == lib.FEC_DATA:
                decoder.receive(datagram)
        assert decoder.counts() == (0, 0)
        assert decoder.held() == 0


def test_the_tuner_bears_a_session_whose_types_mean_nothing() -> None:
    source = random.Random(1)
    with Decoder() as decoder:
        for _ in range(20_000):
            decoder.receive(frame(source.randrange(2**32 - 1), source.choice((0xF1, 0xF2)), b"noise"))
        assert decoder.held() <= lib.FEC_GROUPS * 254
