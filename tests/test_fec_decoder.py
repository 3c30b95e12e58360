"""The FEC decoder: whatever a group lost, up to its parity, comes back; nothing that arrives can harm it."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from fec_pair import Decoder, Encoder, frame, header
from hypothesis import given, settings
from hypothesis import strategies as st

from kcpsocket._native import lib

COUNTS = st.tuples(st.integers(1, 40), st.integers(1, 40))


def groups_of(
    data: int, parity: int, count: int, seed: int = 0, seqid: int = 0
) -> tuple[list[bytes], list[list[bytes]]]:
    """Payloads, and the datagrams of each group that carries them."""
    source = random.Random(seed)
    payloads = [source.randbytes(source.choice((1, 24, 25, 300, 1400, 1492))) for _ in range(data * count)]
    with Encoder(data, parity, seqid) as encoder:
        sent = [datagram for payload in payloads for datagram in encoder.send(payload)]
    size = data + parity
    return payloads, [sent[at : at + size] for at in range(0, len(sent), size)]


def delivered(decoder: Decoder, datagrams: list[bytes]) -> Counter[bytes]:
    """What reaches KCP: data datagrams' own payloads and those brought back."""
    got: Counter[bytes] = Counter()
    for datagram in datagrams:
        recovered = decoder.receive(datagram)
        assert recovered is not None
        got.update(recovered)
        if header(datagram).type == lib.FEC_DATA:
            got[datagram[lib.FEC_HEADER :]] += 1
    return got


@settings(deadline=None, max_examples=150)
@given(COUNTS, st.integers(1, 5), st.integers(0, 2**32), st.data())
def test_any_loss_up_to_parity_is_brought_back_once(
    counts: tuple[int, int], count: int, seed: int, choices: st.DataObject
) -> None:
    data, parity = counts
    payloads, groups = groups_of(data, parity, count, seed)
    arrived = []
    for group in groups:
        lost = choices.draw(st.sets(st.integers(0, data + parity - 1), max_size=parity))
        arrived += [datagram for place, datagram in enumerate(group) if place not in lost]
    with Decoder(data, parity) as decoder:
        assert delivered(decoder, arrived) == Counter(payloads)
        assert decoder.counters().errs == 0
        assert decoder.counters().tunings == 0


@settings(deadline=None, max_examples=100)
@given(COUNTS, st.integers(0, 2**32))
def test_order_and_repetition_within_the_last_groups_do_not_matter(counts: tuple[int, int], seed: int) -> None:
    data, parity = counts
    source = random.Random(seed)
    payloads, groups = groups_of(data, parity, lib.FEC_GROUPS, seed)
    arrived = [datagram for group in groups for datagram in source.sample(group, data)]
    arrived += source.choices(arrived, k=len(arrived) // 2)
    source.shuffle(arrived)
    with Decoder(data, parity) as decoder:
        assert set(delivered(decoder, arrived)) == set(payloads)
        assert decoder.held() == 0


@pytest.mark.parametrize(("data", "parity"), [(10, 3), (1, 1), (2, 1), (128, 127)])
def test_groups_go_on_across_the_wrap_around_of_seqid(data: int, parity: int) -> None:
    size = data + parity
    limit = 0xFFFFFFFF // size * size
    payloads, groups = groups_of(data, parity, 6, seqid=limit - 3 * size)
    assert header(groups[3][0]).seqid == 0
    arrived = [datagram for group in groups for datagram in group[1:]]
    late = groups[2][1:]  # the last one before the wrap comes after the first two behind it
    arrived = [datagram for datagram in arrived if datagram not in late]
    arrived[4 * (size - 1) : 4 * (size - 1)] = late
    with Decoder(data, parity) as decoder:
        assert set(delivered(decoder, arrived)) == set(payloads)


def test_more_loss_than_parity_brings_nothing_back_and_harms_no_other_group() -> None:
    payloads, groups = groups_of(4, 2, 3)
    with Decoder(4, 2) as decoder:
        assert delivered(decoder, groups[0][3:]) == Counter(payloads[3:4])
        assert delivered(decoder, groups[1][2:]) == Counter(payloads[4:8])
        assert delivered(decoder, groups[2][:4]) == Counter(payloads[8:])
        counters = decoder.counters()
        assert (counters.recovered, counters.parity_shards, counters.full_sets, counters.open_sets) == (2, 4, 1, 1)


def test_a_complete_group_ignores_what_comes_late() -> None:
    _, groups = groups_of(2, 3, 1)
    with Decoder(2, 3) as decoder:
        brought = [decoder.receive(datagram) for datagram in (groups[0][3], groups[0][1], *groups[0])]
        assert [len(some or ()) for some in brought] == [0, 1, 0, 0, 0, 0, 0]
        assert decoder.held() == 0
        assert decoder.counters().parity_shards == 1


def test_shards_of_groups_long_past_are_not_collected() -> None:
    _, groups = groups_of(3, 1, 6)
    with Decoder(3, 1) as decoder:
        delivered(decoder, groups[1][:1] + groups[5][:1])
        assert decoder.held() == 1  # group 1 was given up
        delivered(decoder, groups[1][1:])
        assert decoder.held() == 1
        delivered(decoder, groups[2][1:2])
        assert decoder.held() == 2


def test_memory_is_bounded_by_the_groups_that_are_collected() -> None:
    data, parity, most = 10, 3, 0
    _, groups = groups_of(data, parity, 40)
    with Decoder(data, parity) as decoder:
        for group in groups:
            for datagram in group[: data - 1]:
                decoder.receive(datagram)
                most = max(most, decoder.held())
        assert most == lib.FEC_GROUPS * (data - 1)


def test_what_was_brought_back_stays_valid_until_settled() -> None:
    payloads, groups = groups_of(2, 2, 2)
    with Decoder(2, 2) as decoder:
        brought = [decoder.receive(datagram, settle=False) for group in groups for datagram in group[2:]]
        assert [payload for some in brought for payload in some or ()] == payloads
        assert decoder.held() == 4
        lib.fec_decoder_settle(decoder.c)
        assert decoder.held() == 0


def test_at_rest_a_decoder_holds_nothing_and_goes_on_with_the_next_group() -> None:
    payloads, groups = groups_of(3, 1, 2)
    with Decoder(3, 1) as decoder:
        delivered(decoder, groups[0][:2])
        lib.fec_decoder_rest(decoder.c)
        assert decoder.held() == 0
        assert delivered(decoder, groups[0][3:]) == Counter()
        assert decoder.held() == 0
        assert delivered(decoder, groups[1][1:]) == Counter(payloads[3:])


def test_a_peer_that_goes_back_to_the_start_is_followed() -> None:
    data, parity = 4, 2
    _, before = groups_of(data, parity, 1, seqid=6 * 1000)
    payloads, after = groups_of(data, parity, 10)
    with Decoder(data, parity) as decoder:
        delivered(decoder, before[0])
        got = delivered(decoder, [datagram for group in after for datagram in group[1:]])
        assert set(payloads[4 * data :]) <= set(got)


def test_a_forged_seqid_far_ahead_stops_recovery_only_for_a_while() -> None:
    data, parity = 4, 2
    payloads, groups = groups_of(data, parity, 10)
    with Decoder(data, parity) as decoder:
        delivered(decoder, groups[0])
        decoder.receive(frame(6 * 1_000_000, 0xF1, b"forged"))
        got = delivered(decoder, [datagram for group in groups[1:] for datagram in group[1:]])
        assert set(payloads[5 * data :]) <= set(got)


@pytest.mark.parametrize(
    "datagram", [b"", b"\0" * 7, frame(0, 0xF1, b"x", 9), frame(0xFFFFFFFF, 0xF3, b"conv"), frame(0, 0xF2, b"")[:7]]
)
def test_malformed_datagrams_are_refused_and_counted(datagram: bytes) -> None:
    with Decoder(2, 1) as decoder:
        assert decoder.receive(datagram) is None
        assert decoder.counters().errs == 1


def test_parity_of_different_lengths_in_a_group_is_refused() -> None:
    with Decoder(3, 2) as decoder:
        assert decoder.receive(frame(3, 0xF2, b"x" * 50)) == []
        assert decoder.receive(frame(4, 0xF2, b"x" * 51)) == []
        assert decoder.receive(frame(0, 0xF1, b"x" * 20)) == []
        counters = decoder.counters()
        assert (counters.errs, counters.parity_shards, counters.open_sets) == (1, 1, 1)


def test_data_longer_than_parity_makes_no_recovery() -> None:
    with Decoder(2, 1) as decoder:
        assert decoder.receive(frame(0, 0xF1, b"x" * 100)) == []
        assert decoder.receive(frame(2, 0xF2, b"x" * 50)) == []
        counters = decoder.counters()
        assert (counters.errs, counters.recovered, counters.open_sets) == (1, 0, 0)


@pytest.mark.parametrize("size", [0, 1, 13, 0xFFFF])
def test_a_recovered_size_that_does_not_fit_is_not_delivered(size: int) -> None:
    with Decoder(1, 1) as decoder:  # where parity is a copy of the data shard
        assert decoder.receive(frame(1, 0xF2, b"ten bytes!", size)) == []
        assert decoder.counters().errs == 1
        assert decoder.receive(frame(3, 0xF2, b"ten bytes!", 12)) == [b"ten bytes!"]
        assert decoder.receive(frame(5, 0xF2, b"ten bytes!", 5)) == [b"ten"]
        assert decoder.receive(frame(7, 0xF2, b"ten bytes!", 2)) == [b""]


HOSTILE = st.builds(
    frame,
    st.one_of(st.integers(0, 60), st.integers(0xFFFFFFFF - 60, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF)),
    st.sampled_from([0xF1, 0xF1, 0xF2, 0xF2, 0xF3, 0x51]),
    st.binary(max_size=60),
    st.one_of(st.none(), st.integers(0, 0xFFFF)),
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([(0, 0), (1, 1), (3, 2), (10, 3), (1, 254)]), st.lists(st.one_of(HOSTILE, st.binary())))
def test_nothing_that_arrives_breaks_it(counts: tuple[int, int], datagrams: list[bytes]) -> None:
    with Decoder(*counts) as decoder:
        for datagram in datagrams:
            for payload in decoder.receive(datagram) or ():
                assert len(payload) <= lib.FEC_DATAGRAM_MAX - lib.FEC_HEADER
        assert decoder.held() <= lib.FEC_GROUPS * 254


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_damage_to_datagrams_never_breaks_it_and_it_recovers_afterwards(seed: int) -> None:
    source = random.Random(seed)
    data, parity = source.choice([(1, 1), (3, 2), (10, 3)])
    payloads, groups = groups_of(data, parity, 3 + 30 * 13 // (data + parity), seed)
    harmed = [datagram for group in groups[:3] for datagram in group]
    with Decoder(data, parity) as decoder:
        for datagram in harmed:
            broken = bytearray(datagram[: source.randrange(len(datagram) + 1)] if source.random() < 0.3 else datagram)
            for _ in range(source.randrange(3) if broken else 0):
                broken[source.randrange(min(len(broken), 40))] = source.randrange(256)
            decoder.receive(bytes(broken))
        got = delivered(decoder, [datagram for group in groups[3:] for datagram in group[1:]])
        assert set(payloads[-data:]) <= set(got)
        assert decoder.counts() == (data, parity)
