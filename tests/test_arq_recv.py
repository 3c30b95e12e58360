"""The receiving half: order, borrowing, acknowledgements, the window, the end of the stream."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
from arq_endpoint import ACK, HEADER, IN_FLUSH, PUSH, WASK, WINS, Endpoint, Segment, Settings

from kcpsocket._native import ffi, lib

SMALL = Settings(mtu=HEADER + 100)


def push(sn: int, data: bytes | None = None, ts: int = 0) -> Segment:
    return Segment(PUSH, sn=sn, ts=ts, data=b"%03d " % sn if data is None else data)


def acks(segments: list[Segment]) -> list[int]:
    return [segment.sn for segment in segments if segment.cmd == ACK]


# --- order ---


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order_comes_out_in_order(order: tuple[int, ...]) -> None:
    endpoint = Endpoint()
    for sn in order:
        endpoint.input(push(sn))
    assert endpoint.recv() == b"000 001 002 003 "
    endpoint.settle()
    endpoint.free()


def test_sn_wraps_around() -> None:
    endpoint = Endpoint(rcv_sn=2**32 - 2)
    for sn in (1, 2**32 - 1, 0, 2**32 - 2):
        endpoint.input(Segment(PUSH, sn=sn, data=b"%d," % sn))
    assert endpoint.recv() == b"4294967294,4294967295,0,1,"


def test_repeats_are_counted_and_taken_once() -> None:
    endpoint = Endpoint()
    endpoint.input(push(0))
    endpoint.input(push(2))
    assert endpoint.input(push(0), push(2)) & IN_FLUSH
    assert endpoint.state().counters.repeat_segs == 2
    assert endpoint.recv() == b"000 "
    assert endpoint.input(push(0), recovered=True) > 0
    assert endpoint.state().counters.repeat_segs == 2  # FEC's own, not the network's
    endpoint.input(push(1))
    assert endpoint.recv() == b"001 002 "


def test_messages_of_other_implementations_are_stream_bytes() -> None:
    endpoint = Endpoint()
    endpoint.input(push(0, b"one ")._replace(frg=2), push(1, b"two ")._replace(frg=1), push(2, b"three"))
    assert endpoint.recv() == b"one two three"


def test_reads_of_any_size() -> None:
    rng = random.Random(5)
    data = rng.randbytes(5000)
    endpoint = Endpoint(SMALL)
    for sn in range(50):
        endpoint.lend(push(sn, data[sn * 100 : sn * 100 + 100]).encode())
    out = b""
    while len(out) < 5000:
        out += endpoint.recv(rng.randrange(1, 250))
        if rng.random() < 0.3:
            assert endpoint.settle()
    assert out == data
    assert endpoint.state().counters.bytes_received == 5000


def test_readable_shows_each_segment_in_place() -> None:
    endpoint = Endpoint()
    for sn in range(3):
        endpoint.lend(push(sn).encode())
    lib.kcp_consume(endpoint.kcp, 1)
    memory = ffi.new("uintptr_t[]", 4)
    assert lib.kcp_readable(endpoint.kcp, ffi.cast("struct iovec *", memory), 2) == 2
    texts = [bytes(ffi.buffer(ffi.cast("char *", memory[i]), memory[i + 1])) for i in (0, 2)]
    assert texts == [b"00 ", b"001 "]
    assert endpoint.settle()


# --- borrowing ---


def test_in_order_payload_that_is_consumed_takes_no_memory() -> None:
    endpoint = Endpoint()
    for sn in range(10):
        endpoint.lend(push(sn).encode())
    assert len(endpoint.recv()) == 40
    lib.pool_limit(endpoint.pool, 0)
    assert endpoint.settle()
    assert lib.pool_in_use(endpoint.pool) == 0


def test_settled_payload_outlives_its_datagram() -> None:
    endpoint = Endpoint()
    endpoint.lend(push(0).encode())
    endpoint.lend(push(2).encode())
    assert endpoint.recv(1) == b"0"
    assert endpoint.settle()
    assert lib.pool_in_use(endpoint.pool) == 2
    endpoint.input(push(1))
    assert endpoint.recv() == b"00 001 002 "


def test_a_slot_reused_before_settling() -> None:
    """Rings are small: sn 0's slot is sn 16's as well."""
    endpoint = Endpoint()
    for sn in range(40):
        endpoint.lend(push(sn).encode())
        if sn < 30:
            assert endpoint.recv() == b"%03d " % sn
    assert endpoint.settle()
    assert endpoint.recv() == b"".join(b"%03d " % sn for sn in range(30, 40))


def test_out_of_memory_drops_what_was_not_acknowledged() -> None:
    endpoint = Endpoint()
    for sn in (0, 1, 2, 4):
        endpoint.lend(push(sn).encode())
    lib.pool_limit(endpoint.pool, 1)
    assert endpoint.settle()
    state = endpoint.state()
    assert (state.rcv_nxt, state.rcv_free) == (1, 127)
    sent = endpoint.flush()
    assert {segment.una for segment in sent} <= {1}
    assert acks(sent) == []  # none for what was dropped
    lib.pool_limit(endpoint.pool, 100)
    for sn in (4, 2, 1, 3):
        endpoint.input(push(sn))
    assert endpoint.recv() == b"000 001 002 003 004 "


def test_out_of_memory_in_a_slot_reused_before_settling() -> None:
    endpoint = Endpoint()
    endpoint.lend(push(0).encode())
    assert endpoint.recv() == b"000 "
    for sn in range(1, 17):
        endpoint.lend(push(sn).encode())
    lib.pool_limit(endpoint.pool, 0)
    assert endpoint.settle()
    assert (endpoint.state().rcv_head, endpoint.state().rcv_nxt) == (1, 1)


def test_out_of_memory_before_the_end_of_the_stream() -> None:
    endpoint = Endpoint()
    endpoint.lend(push(0).encode())
    endpoint.lend(push(1, b"").encode())
    assert lib.kcp_peer_finished(endpoint.kcp)
    lib.pool_limit(endpoint.pool, 0)
    assert endpoint.settle()
    assert not lib.kcp_peer_finished(endpoint.kcp)
    lib.pool_limit(endpoint.pool, 9)
    endpoint.input(push(0))
    assert endpoint.recv() == b"000 "
    assert lib.kcp_at_end(endpoint.kcp)


@pytest.mark.parametrize("sns", [(0,), (1,)])
def test_out_of_memory_after_acknowledging_ends_the_session(sns: tuple[int, ...]) -> None:
    endpoint = Endpoint()
    for sn in sns:
        endpoint.lend(push(sn).encode())
    assert acks(endpoint.flush()) == list(sns)
    lib.pool_limit(endpoint.pool, 0)
    assert not endpoint.settle()
    assert endpoint.recv() == b""
    endpoint.free()


def test_out_of_memory_with_part_consumed_ends_the_session() -> None:
    endpoint = Endpoint()
    endpoint.lend(push(0).encode())
    endpoint.recv(1)
    lib.pool_limit(endpoint.pool, 0)
    assert not endpoint.settle()
    assert endpoint.recv() == b""


def test_session_freed_while_it_borrows() -> None:
    endpoint = Endpoint()
    endpoint.input(push(1))
    endpoint.lend(push(0).encode())
    endpoint.free()


# --- acknowledgements ---


def test_a_lone_ack_waits_an_interval_for_company() -> None:
    endpoint = Endpoint(SMALL, now=500)
    assert not endpoint.input(push(0, ts=77)) & IN_FLUSH
    assert endpoint.deadline() == 20
    endpoint.advance(15)
    endpoint.input(Segment(WINS))
    assert endpoint.deadline() == 5
    (ack,) = endpoint.flush()
    assert (ack.cmd, ack.sn, ack.ts, ack.una, ack.wnd) == (ACK, 0, 77, 1, 127)
    assert endpoint.deadline() == -1


def test_acknodelay_waits_for_nothing() -> None:
    endpoint = Endpoint(dataclasses.replace(SMALL, acknodelay=True))
    assert endpoint.input(push(0)) & IN_FLUSH
    assert endpoint.deadline() == 0


def test_every_second_full_segment_is_acknowledged_at_once() -> None:
    endpoint = Endpoint(SMALL)
    assert not endpoint.input(push(0, b"x" * 100)) & IN_FLUSH
    assert endpoint.input(push(1, b"x" * 100)) & IN_FLUSH


def test_a_datagram_full_of_small_acks_goes_at_once() -> None:
    endpoint = Endpoint(Settings(mtu=240))
    for sn in range(9):
        assert not endpoint.input(push(sn, b"x")) & IN_FLUSH
    assert endpoint.input(push(9, b"x")) & IN_FLUSH


@pytest.mark.parametrize("before", [[1], [0, 0], [1, 0]])
def test_holes_and_repeats_are_acknowledged_at_once(before: list[int]) -> None:
    endpoint = Endpoint()
    for sn in before[:-1]:
        endpoint.input(push(sn))
        endpoint.flush()
    assert endpoint.input(push(before[-1])) & IN_FLUSH


def test_acks_that_una_covers_are_left_out_save_the_last() -> None:
    endpoint = Endpoint()
    for sn in (0, 1, 5, 3, 2, 7):
        endpoint.input(push(sn))
    assert acks(endpoint.flush()) == [5, 7]
    endpoint.input(push(4))
    assert acks(endpoint.flush()) == [4]
    assert endpoint.flush() == []


def test_flush_acks_sends_no_data() -> None:
    endpoint = Endpoint()
    endpoint.send(b"data")
    endpoint.input(push(0), Segment(WASK))
    assert [segment.cmd for segment in endpoint.flush_acks()] == [ACK, WINS]
    assert [segment.cmd for segment in endpoint.flush()] == [PUSH]


def test_waiting_acks_are_bounded() -> None:
    endpoint = Endpoint(Settings(rcvwnd=32768))
    for sn in range(1, 10_000):
        endpoint.input(push(sn, b"x"))
    assert len(acks(endpoint.flush())) == 4096
    assert endpoint.deadline() == -1


def test_old_packets_are_acknowledged_again() -> None:
    endpoint = Endpoint()
    endpoint.input(push(0))
    endpoint.recv()
    endpoint.flush()
    assert endpoint.input(push(0, ts=9)) & IN_FLUSH
    (ack,) = endpoint.flush()
    assert (ack.sn, ack.ts, ack.una) == (0, 9, 1)


# --- the window ---


def test_beyond_the_window_is_neither_kept_nor_acknowledged() -> None:
    endpoint = Endpoint(Settings(rcvwnd=4))
    endpoint.input(push(4))
    endpoint.input(push(3))
    assert acks(endpoint.flush()) == [3]
    assert lib.pool_in_use(endpoint.pool) == 1


def test_advertised_edge_never_moves_back() -> None:
    endpoint = Endpoint(Settings(rcvwnd=8))
    for sn in range(4):
        endpoint.input(push(sn))
    (ack,) = endpoint.flush()
    assert (ack.una, ack.wnd) == (4, 4)
    endpoint.configure(Settings(rcvwnd=2))
    endpoint.input(push(7))
    assert all(segment.una + segment.wnd == 8 for segment in endpoint.flush())
    for sn in (4, 5, 6):
        endpoint.input(push(sn))
    assert endpoint.state().rcv_free == 0
    assert endpoint.recv() == b"".join(b"%03d " % sn for sn in range(8))
    assert endpoint.state().rcv_free == 2


def test_opening_a_shut_window_is_told() -> None:
    endpoint = Endpoint(Settings(rcvwnd=4))
    for sn in range(4):
        endpoint.input(push(sn))
    assert endpoint.flush()[-1].wnd == 0
    assert not lib.kcp_consume(endpoint.kcp, 3)
    assert lib.kcp_consume(endpoint.kcp, 1)
    assert endpoint.deadline() == 0
    (wins,) = endpoint.flush()
    assert (wins.cmd, wins.wnd, wins.una) == (WINS, 1, 4)
    assert not lib.kcp_consume(endpoint.kcp, 4)


def test_a_narrow_window_that_opens_wide_is_told() -> None:
    endpoint = Endpoint(Settings(rcvwnd=16))
    for sn in range(14):
        endpoint.input(push(sn))
    assert endpoint.flush()[-1].wnd == 2
    assert not lib.kcp_consume(endpoint.kcp, 4 * 5)
    assert lib.kcp_consume(endpoint.kcp, 4)
    (wins,) = endpoint.flush()
    assert (wins.cmd, wins.wnd) == (WINS, 8)


def test_larger_window_opens_by_setting() -> None:
    endpoint = Endpoint(Settings(rcvwnd=1))
    endpoint.input(push(0))
    endpoint.flush()
    endpoint.configure(Settings(rcvwnd=10))
    assert [(segment.cmd, segment.wnd) for segment in endpoint.flush()] == [(WINS, 9)]


def test_ring_grows_with_the_span_and_shrinks_when_drained() -> None:
    endpoint = Endpoint(Settings(rcvwnd=1000))
    endpoint.input(push(999))
    assert endpoint.state().rcv_ring == 1024
    for sn in range(999):
        endpoint.input(push(sn, b"x"))
    assert endpoint.recv() == b"x" * 999 + b"999 "
    endpoint.settle()
    assert endpoint.state().rcv_ring <= 16


# --- probes ---


def test_a_question_is_answered_with_its_own_ts() -> None:
    endpoint = Endpoint(now=100)
    endpoint.input(Segment(WASK, ts=4711))
    assert endpoint.deadline() == 0
    (wins,) = endpoint.flush()
    assert (wins.cmd, wins.ts, wins.wnd, wins.una) == (WINS, 4711, 128, 0)


def test_ask_and_tell() -> None:
    endpoint = Endpoint(now=100)
    lib.kcp_ask(endpoint.kcp)
    lib.kcp_tell(endpoint.kcp)
    assert [segment.cmd for segment in endpoint.flush()] == [WASK, WINS]
    assert endpoint.flush() == []


# --- the end of the stream ---


def test_end_of_stream_comes_in_order() -> None:
    endpoint = Endpoint()
    endpoint.input(push(1, b""))
    assert not lib.kcp_peer_finished(endpoint.kcp)
    endpoint.input(push(0))
    assert lib.kcp_peer_finished(endpoint.kcp)
    assert not lib.kcp_at_end(endpoint.kcp)
    assert endpoint.recv() == b"000 "
    assert lib.kcp_at_end(endpoint.kcp)


def test_nothing_comes_behind_the_end() -> None:
    endpoint = Endpoint(Settings(rcvwnd=4))
    endpoint.input(push(2), push(0), push(1, b""))
    assert endpoint.recv() == b"000 "
    for sn in range(3, 50):  # acknowledged and dropped, and the window stays open
        endpoint.input(push(sn))
        ack = endpoint.flush()[-1]
        assert (ack.una, ack.wnd) == (sn + 1, 4)
    assert endpoint.recv() == b""
    assert lib.kcp_at_end(endpoint.kcp)
    assert endpoint.settle()
    assert lib.pool_in_use(endpoint.pool) == 0


def test_end_with_unread_data_keeps_the_data() -> None:
    endpoint = Endpoint()
    endpoint.input(push(0), push(1, b""), push(2), push(3, b""))
    assert lib.kcp_peer_finished(endpoint.kcp)
    assert endpoint.recv(2) == b"00"
    assert not lib.kcp_at_end(endpoint.kcp)
    assert endpoint.recv() == b"0 "
    assert lib.kcp_at_end(endpoint.kcp)
    endpoint.free()
