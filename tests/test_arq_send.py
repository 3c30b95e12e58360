"""The sending half: cutting, packing, windows, acknowledgements, and what is sent again when."""

from __future__ import annotations

import dataclasses

import pytest
from arq_endpoint import ACK, HEADER, IN_FLUSH, PUSH, WASK, WINS, Endpoint, Segment, Settings, decode

from kcpsocket._native import ffi, lib

SMALL = Settings(mtu=HEADER + 10)  # 10 bytes of payload, one segment a datagram


def heard(settings: Settings = SMALL, wnd: int = 1000, now: int = 1000) -> Endpoint:
    """An endpoint that knows its peer's window."""
    endpoint = Endpoint(settings, now)
    endpoint.input(Segment(WINS, wnd=wnd))
    return endpoint


def in_flight(count: int, settings: Settings = SMALL) -> Endpoint:
    """An endpoint with segments 0 .. count-1 in flight."""
    endpoint = heard(settings)
    endpoint.send(b"x" * 10 * count)
    assert endpoint.pushes() == list(range(count))
    return endpoint


def writable(endpoint: Endpoint, limit: int) -> list[tuple[int, int]]:
    """(address, length) of each place that kcp_writable gives."""
    memory = ffi.new("uintptr_t[]", 2 * max(limit, 1))
    count = lib.kcp_writable(endpoint.kcp, ffi.cast("struct iovec *", memory), limit)
    return [(memory[2 * i], memory[2 * i + 1]) for i in range(count)]


# --- cutting and packing ---


def test_bytes_fill_segments() -> None:
    endpoint = heard()
    assert endpoint.send(b"0123456789abcde") == 15
    assert endpoint.send(b"fghijk") == 6  # fills the second up, begins a third
    assert [segment.data for segment in endpoint.flush()] == [b"0123456789", b"abcdefghij", b"k"]


def test_a_segment_in_flight_is_not_filled_up() -> None:
    endpoint = heard()
    endpoint.send(b"abc")
    endpoint.flush()
    endpoint.send(b"def")
    assert [segment.data for segment in endpoint.flush()] == [b"def"]


def test_datagrams_are_packed_up_to_the_mtu() -> None:
    endpoint = heard(Settings(mtu=100))
    endpoint.send(b"a" * 10)
    endpoint.flush()
    endpoint.send(b"b" * (76 + 40))
    endpoint.input(Segment(PUSH, sn=0, data=b"!"))
    endpoint.input(Segment(WASK, sn=0))
    first, second, third = endpoint.flush_raw()
    assert [segment.cmd for segment in decode(first)] == [ACK, WINS]
    assert [len(segment.data) for segment in decode(second)] == [76]
    assert [len(segment.data) for segment in decode(third)] == [40]
    assert len(second) == 100


def test_writable_offers_the_open_tail_then_fresh_segments() -> None:
    endpoint = heard()
    endpoint.send(b"abc")
    places = writable(endpoint, 3)
    assert [length for _, length in places] == [7, 10, 10]
    for (address, length), text in zip(places, [b"DEFGHIJ", b"KLMNOPQRST", b"UVW"], strict=True):
        assert len(text) <= length
        ffi.memmove(ffi.cast("char *", address), text, len(text))
    lib.kcp_commit(endpoint.kcp, 20)
    assert [segment.data for segment in endpoint.flush()] == [b"abcDEFGHIJ", b"KLMNOPQRST", b"UVW"]


def test_what_is_not_committed_goes_back() -> None:
    endpoint = heard()
    assert len(writable(endpoint, 8)) == 8
    lib.kcp_commit(endpoint.kcp, 0)
    assert lib.pool_in_use(endpoint.pool) == 0
    assert endpoint.deadline() == -1
    assert writable(endpoint, 0) == []
    lib.kcp_commit(endpoint.kcp, 0)
    endpoint.free()


def test_room_is_the_window_in_bytes() -> None:
    endpoint = heard(dataclasses.replace(SMALL, sndwnd=3))
    assert lib.kcp_room(endpoint.kcp) == 30
    endpoint.send(b"x" * 12)
    assert lib.kcp_room(endpoint.kcp) == 18
    endpoint.flush()
    assert lib.kcp_room(endpoint.kcp) == 10  # the tail is sent
    assert endpoint.send(b"y" * 100) == 10
    assert lib.kcp_room(endpoint.kcp) == 0
    assert writable(endpoint, 4) == []
    endpoint.input(Segment(ACK, sn=1, una=2, ts=endpoint.now))
    assert lib.kcp_room(endpoint.kcp) == 20


def test_memory_running_out_takes_less() -> None:
    endpoint = heard()
    lib.pool_limit(endpoint.pool, 2)
    assert endpoint.send(b"x" * 100) == 20
    assert endpoint.send(b"x") == 0
    assert endpoint.pushes() == [0, 1]
    endpoint.input(Segment(ACK, sn=1, una=2, ts=endpoint.now))
    assert endpoint.send(b"x" * 100) == 20


def test_smaller_mtu_is_for_segments_not_yet_cut() -> None:
    endpoint = heard(Settings(mtu=HEADER + 100, sndwnd=128))
    endpoint.send(b"x" * 50)
    endpoint.configure(Settings(mtu=HEADER + 20))
    assert lib.kcp_room(endpoint.kcp) == 127 * 20
    endpoint.send(b"y" * 30)
    assert [len(segment.data) for segment in endpoint.flush()] == [50, 20, 10]


# --- the end of the stream ---


def test_finish_is_an_empty_push_behind_a_full_window() -> None:
    endpoint = heard(dataclasses.replace(SMALL, sndwnd=2))
    endpoint.send(b"x" * 20)
    assert lib.kcp_finish(endpoint.kcp)
    assert lib.kcp_finish(endpoint.kcp)
    assert lib.kcp_room(endpoint.kcp) == 0
    assert endpoint.send(b"more") == 0
    assert lib.kcp_unacked(endpoint.kcp) == 3
    assert endpoint.pushes() == [0, 1]
    endpoint.input(Segment(ACK, sn=0, una=1, ts=endpoint.now))
    (closing,) = endpoint.flush()
    assert (closing.cmd, closing.sn, closing.data) == (PUSH, 2, b"")
    assert not lib.kcp_data_acked(endpoint.kcp)
    endpoint.input(Segment(ACK, sn=1, una=2, ts=endpoint.now))
    assert lib.kcp_data_acked(endpoint.kcp)
    assert lib.kcp_unacked(endpoint.kcp) == 1
    endpoint.input(Segment(ACK, sn=2, una=3, ts=endpoint.now))
    assert lib.kcp_unacked(endpoint.kcp) == 0
    assert endpoint.deadline() == -1
    endpoint.free()


# --- windows ---


def test_before_the_peer_is_heard_32_packets_go_out() -> None:
    endpoint = Endpoint(SMALL)
    endpoint.send(b"x" * 1000)
    assert len(endpoint.pushes()) == 32
    assert endpoint.state().rmt_wnd == 32


def test_no_more_than_the_peer_has_room_for() -> None:
    endpoint = heard(wnd=5)
    endpoint.send(b"x" * 100)
    assert endpoint.pushes() == [0, 1, 2, 3, 4]
    endpoint.input(Segment(ACK, sn=1, una=2, wnd=5, ts=endpoint.now))
    assert endpoint.pushes() == [5, 6]


def test_an_old_segment_does_not_shut_the_window() -> None:
    endpoint = heard(wnd=5)
    endpoint.send(b"x" * 100)
    endpoint.flush()
    endpoint.input(Segment(ACK, sn=4, una=5, wnd=9, ts=endpoint.now))
    endpoint.input(Segment(ACK, sn=2, una=3, wnd=0, ts=endpoint.now))  # overtaken on the way
    assert endpoint.state().rmt_wnd == 9


def test_recovered_segments_tell_una_and_no_window() -> None:
    endpoint = in_flight(4)
    endpoint.input(Segment(ACK, sn=1, una=2, wnd=1, ts=endpoint.now), recovered=True)
    state = endpoint.state()
    assert state.snd_una == 2
    assert state.rmt_wnd > 900
    assert state.srtt == 0


def test_recovered_una_beyond_the_known_window() -> None:
    endpoint = Endpoint(SMALL)
    endpoint.send(b"x" * 50)
    assert len(endpoint.pushes()) == 5
    endpoint.input(Segment(WINS, una=0, wnd=2))
    endpoint.input(Segment(ACK, sn=3, una=4, wnd=9, ts=endpoint.now), recovered=True)
    assert endpoint.state().rmt_wnd == 0


def acknowledge_round(endpoint: Endpoint) -> int:
    """Flushes, acknowledges each segment in a datagram of its own, and returns how many there were."""
    sns = endpoint.pushes()
    sent = endpoint.now
    endpoint.advance(1)
    for sn in sns:
        endpoint.input(Segment(ACK, sn=sn, una=sn + 1, wnd=1000, ts=sent))
    return len(sns)


def test_congestion_window() -> None:
    endpoint = heard(dataclasses.replace(SMALL, nc=False, sndwnd=1000))
    endpoint.send(b"x" * 10 * 1000)
    assert [acknowledge_round(endpoint) for _ in range(6)] == [1, 2, 4, 8, 16, 32]  # slow start
    flying = endpoint.pushes()
    assert len(flying) == 64
    una = flying[0]
    for sn in flying[1:4]:
        endpoint.input(Segment(ACK, sn=sn, una=una, wnd=1000, ts=endpoint.now))
    assert endpoint.pushes() == [una]
    assert (endpoint.state().cwnd, endpoint.state().ssthresh) == (32, 32)  # half
    for sn in flying[5:8]:
        endpoint.input(Segment(ACK, sn=sn, una=una, wnd=1000, ts=endpoint.now))
    assert endpoint.pushes() == [una + 4]
    assert endpoint.state().cwnd == 32  # lost in the same round trip: no less
    endpoint.input(Segment(ACK, sn=una + 4, una=flying[-1] + 1, wnd=1000, ts=endpoint.now))
    rounds = [acknowledge_round(endpoint) for _ in range(4)]
    assert rounds == list(range(rounds[0], rounds[0] + 4))  # one more a round trip
    endpoint.pushes()
    endpoint.advance(endpoint.deadline())
    endpoint.flush()
    state = endpoint.state()
    assert (state.cwnd, state.ssthresh) == (1, (rounds[-1] + 1) // 2)


def test_no_congestion_window_with_nc() -> None:
    endpoint = in_flight(100)
    endpoint.advance(200)
    assert len(endpoint.pushes()) == 100
    endpoint.send(b"x" * 280)
    assert len(endpoint.pushes()) == 28


# --- acknowledgements ---


@pytest.mark.parametrize("una", [5, 2**31 - 1, 100])
def test_an_impossible_una_is_ignored(una: int) -> None:
    endpoint = in_flight(4)
    assert endpoint.input(Segment(ACK, sn=0, una=una, ts=endpoint.now)) < 0
    assert endpoint.input(Segment(ACK, sn=4, una=4, ts=endpoint.now)) < 0
    assert endpoint.state().snd_una == 0
    assert lib.kcp_unacked(endpoint.kcp) == 4


def test_acknowledged_segments_free_their_memory_at_once() -> None:
    endpoint = in_flight(4)
    endpoint.input(Segment(ACK, sn=2, ts=endpoint.now))
    assert lib.pool_in_use(endpoint.pool) == 3
    endpoint.input(Segment(ACK, sn=2, ts=endpoint.now))
    assert lib.pool_in_use(endpoint.pool) == 3
    endpoint.input(Segment(ACK, sn=3, una=4, ts=endpoint.now))
    assert lib.pool_in_use(endpoint.pool) == 0


def test_ring_grows_with_what_is_in_flight_and_shrinks_when_drained() -> None:
    endpoint = heard(dataclasses.replace(SMALL, sndwnd=1000, bdp_limit=False))
    endpoint.send(b"x" * 10)
    assert endpoint.state().snd_ring == 16
    endpoint.send(b"x" * 10_000)
    assert endpoint.state().snd_ring == 1024
    assert len(endpoint.pushes()) == 1000
    endpoint.input(Segment(ACK, sn=999, una=1000, ts=endpoint.now))
    assert endpoint.state().snd_ring <= 16


# --- round-trip time: RFC 6298 ---


def rtt_sample(endpoint: Endpoint, rtt: int) -> None:
    endpoint.send(b"x")
    (sn,) = endpoint.pushes()
    sent = endpoint.now
    endpoint.advance(rtt)
    endpoint.input(Segment(ACK, sn=sn, una=sn + 1, ts=sent))


def test_rto_from_samples() -> None:
    endpoint = heard(dataclasses.replace(SMALL, interval=20))
    assert endpoint.state().rto == 200
    rtt_sample(endpoint, 100)
    state = endpoint.state()
    assert (state.srtt, state.rttvar, state.rto) == (100, 50, 300)
    for _ in range(100):
        rtt_sample(endpoint, 100)
    assert endpoint.state().rto == 125  # the floor of the variance's part: the interval, and 5 ms for a late timer
    rtt_sample(endpoint, 180)
    state = endpoint.state()
    assert state.srtt == 110
    assert 188 <= state.rto <= 192  # 110 + 4 * (80 / 4)


def test_quicker_samples_hardly_raise_the_rto() -> None:
    endpoint = heard()
    for _ in range(100):
        rtt_sample(endpoint, 400)
    rtt_sample(endpoint, 20)
    state = endpoint.state()
    assert state.rttvar < 15
    assert state.rto < 420


@pytest.mark.parametrize(("nodelay", "floor"), [(True, 30), (False, 100)])
def test_rto_has_a_floor_and_a_ceiling(nodelay: bool, floor: int) -> None:
    endpoint = heard(dataclasses.replace(SMALL, nodelay=nodelay, interval=5))
    for _ in range(30):
        rtt_sample(endpoint, 0)
    assert endpoint.state().rto == floor
    assert endpoint.state().srtt == 1  # measured, and less than a millisecond
    rtt_sample(endpoint, 59_999)
    for _ in range(10):
        rtt_sample(endpoint, 59_000)
    assert endpoint.state().rto == 60_000


def test_absurd_samples_are_ignored() -> None:
    endpoint = in_flight(2)
    endpoint.input(Segment(ACK, sn=0, una=1, ts=endpoint.now + 50))  # from the future
    endpoint.input(Segment(ACK, sn=1, una=2, ts=endpoint.now - 60_000))
    assert endpoint.state().srtt == 0


def test_handshake_sample_is_only_the_first() -> None:
    endpoint = heard()
    lib.kcp_rtt_sample(endpoint.kcp, 80)
    assert endpoint.state().srtt == 80
    lib.kcp_rtt_sample(endpoint.kcp, 10)
    assert endpoint.state().srtt == 80


# --- time-outs ---


@pytest.mark.parametrize(("nodelay", "waits"), [(True, [200, 300, 400, 500]), (False, [200, 400, 600, 800])])
def test_rto_grows_with_each_timeout(nodelay: bool, waits: list[int]) -> None:
    endpoint = in_flight(1, dataclasses.replace(SMALL, nodelay=nodelay))
    for wait in waits:
        assert endpoint.deadline() == wait
        endpoint.advance(wait - 1)
        assert endpoint.pushes() == []
        endpoint.advance(1)
        assert endpoint.deadline() == 0
        assert endpoint.pushes() == [0]
    counters = endpoint.state().counters
    assert counters.lost_segs == len(waits)
    assert counters.retrans_segs == 2 * len(waits) - 1  # all but the first go out twice
    assert counters.fast_retrans_segs == counters.early_retrans_segs == 0


@pytest.mark.parametrize("start", [1000, 2**32 - 300, 2**32 - 220])
def test_only_what_is_due_is_sent_again(start: int) -> None:
    endpoint = heard(now=start)
    for _ in range(4):
        endpoint.send(b"x" * 10)
        endpoint.flush()
        assert endpoint.deadline() + (endpoint.now - start) % 2**32 == 200
        endpoint.advance(50)
    assert endpoint.pushes() == [0]
    endpoint.input(Segment(ACK, sn=1, ts=start + 50))
    endpoint.advance(99)
    assert endpoint.pushes() == []
    endpoint.advance(1)
    assert endpoint.pushes() == [2]
    endpoint.advance(50)
    assert endpoint.pushes() == [3]


def test_idle_session_is_at_rest() -> None:
    endpoint = in_flight(3)
    assert endpoint.deadline() == 200
    endpoint.input(Segment(ACK, sn=2, una=3, ts=endpoint.now))
    assert endpoint.deadline() == -1
    assert endpoint.flush() == []


# --- loss detection ---


@pytest.mark.parametrize("resend", [1, 2, 3, 5, 16, 200])
def test_lost_once_overtaken_by_resend_others(resend: int) -> None:
    count = min(resend, 16)
    endpoint = in_flight(30, dataclasses.replace(SMALL, resend=resend))
    for n in range(1, count + 1):
        bits = endpoint.input(Segment(ACK, sn=n + 3, ts=endpoint.now))
        assert bool(bits & IN_FLUSH) == (n == count), n
    endpoint.send(b"x" * 10)
    assert endpoint.pushes() == [0, 1, 2, 3, 30]
    assert endpoint.state().counters.fast_retrans_segs == 4


def test_overtaken_counts_in_order_of_sending_not_of_sn() -> None:
    """The retransmission of 0 is later than 1 .. 9: their ACKs say nothing of it, those of 10 and 11 do."""
    endpoint = in_flight(10)
    endpoint.input(Segment(ACK, sn=1, ts=endpoint.now))
    endpoint.input(Segment(ACK, sn=2, ts=endpoint.now))
    first = endpoint.now
    endpoint.advance(10)
    endpoint.send(b"x" * 20)
    assert endpoint.pushes() == [0, 10, 11]
    second = endpoint.now
    for sn in range(3, 10):
        assert not endpoint.input(Segment(ACK, sn=sn, ts=first)) & IN_FLUSH
    assert endpoint.deadline() > 0
    endpoint.advance(10)
    endpoint.input(Segment(ACK, sn=10, ts=second))
    assert endpoint.input(Segment(ACK, sn=11, ts=second)) & IN_FLUSH
    assert endpoint.pushes() == [0]
    assert endpoint.state().counters.fast_retrans_segs == 2


def test_ack_of_an_earlier_transmission_is_no_evidence_of_a_later_one() -> None:
    endpoint = in_flight(3, dataclasses.replace(SMALL, resend=1))
    first = endpoint.now
    endpoint.advance(200)
    assert endpoint.pushes() == [0, 1, 2]
    endpoint.input(Segment(ACK, sn=2, ts=first))
    assert endpoint.pushes() == []
    endpoint.input(Segment(ACK, sn=1, ts=endpoint.now))  # of the second round: 0 went out before it
    assert endpoint.pushes() == [0]


def test_an_ack_that_una_covers_is_evidence_too() -> None:
    """0 times out and is sent again, after 1: when that arrives, 1 has been overtaken."""
    endpoint = heard(dataclasses.replace(SMALL, resend=1))
    endpoint.send(b"x" * 10)
    endpoint.flush()
    endpoint.advance(50)
    endpoint.send(b"x" * 10)
    assert endpoint.pushes() == [1]
    endpoint.advance(150)
    assert endpoint.pushes() == [0]
    endpoint.input(Segment(ACK, sn=0, una=1, ts=endpoint.now))
    assert endpoint.pushes() == [1]


def test_transmissions_that_were_repeated_do_not_count() -> None:
    """All time out: an ACK of the first one's repetition says nothing of those after it."""
    endpoint = in_flight(3, dataclasses.replace(SMALL, resend=1))
    endpoint.advance(200)
    assert endpoint.pushes() == [0, 1, 2]
    endpoint.input(Segment(ACK, sn=0, una=1, ts=endpoint.now))
    assert endpoint.pushes() == []


def test_found_lost_and_then_acknowledged() -> None:
    endpoint = in_flight(4)
    endpoint.input(Segment(ACK, sn=2, ts=endpoint.now), Segment(ACK, sn=3, ts=endpoint.now))
    endpoint.input(Segment(ACK, sn=1, ts=endpoint.now))
    assert endpoint.pushes() == [0]
    assert endpoint.state().counters.fast_retrans_segs == 1


def test_early_retransmit_when_nothing_new_is_to_be_sent() -> None:
    endpoint = in_flight(3, dataclasses.replace(SMALL, resend=3))
    assert not endpoint.input(Segment(ACK, sn=2, ts=endpoint.now)) & IN_FLUSH
    assert endpoint.deadline() == 1  # two that changed places
    endpoint.advance(1)
    assert endpoint.pushes() == [0, 1]
    assert endpoint.state().counters.early_retrans_segs == 2


def test_no_early_retransmit_beside_new_data() -> None:
    endpoint = in_flight(3, dataclasses.replace(SMALL, resend=3))
    endpoint.input(Segment(ACK, sn=2, ts=endpoint.now))
    endpoint.send(b"new")
    assert endpoint.pushes() == [3]
    assert endpoint.deadline() == 20
    endpoint.advance(20)
    assert endpoint.pushes() == [0, 1]


def test_resend_0_is_early_only() -> None:
    endpoint = in_flight(30, dataclasses.replace(SMALL, resend=0))
    endpoint.send(b"x" * 100)
    for sn in range(1, 30):
        endpoint.input(Segment(ACK, sn=sn, ts=endpoint.now))
    assert endpoint.pushes() == list(range(30, 40))
    endpoint.advance(1)
    assert endpoint.pushes() == [0]
    assert endpoint.state().counters.early_retrans_segs == 1


def test_reordering_that_resolves_itself_repeats_nothing() -> None:
    endpoint = in_flight(3)
    endpoint.input(Segment(ACK, sn=1, ts=endpoint.now))
    endpoint.input(Segment(ACK, sn=2, una=3, ts=endpoint.now))
    assert endpoint.deadline() == -1
    assert endpoint.state().counters.retrans_segs == 0


def test_fast_retransmits_of_one_segment_are_limited() -> None:
    endpoint = in_flight(2, dataclasses.replace(SMALL, resend=1))
    endpoint.input(Segment(ACK, sn=1, ts=endpoint.now))
    fast = 0
    while endpoint.deadline() == 0:
        endpoint.send(b"x" * 10)
        sns = endpoint.pushes()
        fast += 0 in sns
        endpoint.input(Segment(ACK, sn=max(sns), ts=endpoint.now))
    assert fast == endpoint.state().counters.fast_retrans_segs == 5
    assert 0 < endpoint.deadline() <= 200
    endpoint.advance(endpoint.deadline())
    assert endpoint.pushes() == [0]
    assert endpoint.state().counters.lost_segs == 1


def test_order_numbers_survive_many_transmissions_without_an_answer() -> None:
    """The log is bounded; what falls out of it is left to the RTO."""
    endpoint = in_flight(16)
    for _ in range(40):
        endpoint.advance(endpoint.deadline())
        endpoint.flush()
    now = endpoint.now
    endpoint.send(b"x" * 30)
    assert endpoint.pushes() == [16, 17, 18]
    endpoint.input(Segment(ACK, sn=17, ts=now))
    endpoint.input(Segment(ACK, sn=18, ts=now))
    assert 16 in endpoint.pushes()


# --- a window that is shut ---


def test_shut_window_is_probed_at_growing_distances() -> None:
    endpoint = heard(wnd=0)
    assert endpoint.deadline() == -1  # nothing to send: nothing to ask
    endpoint.send(b"x" * 10)
    waits = []
    for _ in range(4):
        assert [segment for segment in endpoint.flush() if segment.cmd != WASK] == []
        waits.append(endpoint.deadline())
        endpoint.advance(waits[-1])
    assert waits == [500, 750, 1125, 1687]
    (probe,) = endpoint.flush()
    assert (probe.cmd, probe.ts, probe.sn, probe.una) == (WASK, endpoint.now, 0, 0)
    for _ in range(20):
        endpoint.advance(endpoint.deadline())
        endpoint.flush()
    assert endpoint.deadline() == 120_000
    assert endpoint.input(Segment(WINS, wnd=4)) & IN_FLUSH
    assert endpoint.pushes() == [0]


def test_probe_when_all_is_acknowledged_but_not_by_una() -> None:
    """What a C KCP receiver with a full queue does: it holds segments that una does not cover yet."""
    endpoint = in_flight(2)
    endpoint.input(Segment(ACK, sn=0, wnd=0, ts=endpoint.now), Segment(ACK, sn=1, wnd=0, ts=endpoint.now))
    assert endpoint.flush() == []
    endpoint.advance(endpoint.deadline())
    assert [segment.cmd for segment in endpoint.flush()] == [WASK]
    endpoint.input(Segment(WINS, una=2, wnd=2))
    assert endpoint.deadline() == -1
    assert lib.kcp_unacked(endpoint.kcp) == 0
