"""What is sent twice, or waited for, so that one more loss costs no round trip: repeated ACKs, doubled repeats."""

from __future__ import annotations

import dataclasses

import pytest
from arq_endpoint import ACK, HEADER, PUSH, WINS, Endpoint, Segment, Settings, decode
from arq_network import Network, Path, transfer

from kcpsocket._native import lib

SMALL = Settings(mtu=HEADER + 10)  # 10 bytes of payload, one segment a datagram


# --- ACKs ---


def receiver(*sns: int, settings: Settings | None = None) -> Endpoint:
    """One that has acknowledged 0 and these, and learnt that the ACK of the last was lost."""
    endpoint = Endpoint(settings)
    for sn in (0, *sns, sns[-1]):
        endpoint.input(Segment(PUSH, sn=sn, ts=100 + sn, data=b"x"))
        endpoint.flush()
    return endpoint


def acks(endpoint: Endpoint, *sns: int) -> list[int]:
    """The ACKs of the flush after PUSHes of these have come in one datagram."""
    endpoint.input(*[Segment(PUSH, sn=sn, ts=100 + sn, data=b"x") for sn in sns])
    datagrams = endpoint.flush_raw()
    assert len(datagrams) == 1
    segments = decode(datagrams[0])
    assert all(segment.ts == 100 + segment.sn for segment in segments)
    return [segment.sn for segment in segments if segment.cmd == ACK]


def test_nothing_is_repeated_while_no_ack_was_lost() -> None:
    endpoint = Endpoint()
    assert [acks(endpoint, sn) for sn in (0, 2, 3, 4, 6)] == [[0], [2], [3], [4], [6]]


def test_an_ack_ahead_of_una_is_repeated_in_the_next_two_datagrams() -> None:
    endpoint = receiver(2)
    # That of 2 is there, since it was repeated itself.
    assert [acks(endpoint, sn) for sn in (4, 5, 6, 8)] == [[2, 4], [2, 4, 5], [4, 5, 6], [5, 6, 8]]


def test_what_una_says_is_not_repeated() -> None:
    endpoint = receiver(2)
    assert acks(endpoint, 5) == [2, 5]
    assert acks(endpoint, 1) == [5, 1]  # una is 3 now; the last gives an RTT sample
    assert acks(endpoint, 3, 4) == [4]
    assert acks(endpoint, 6) == [6]


def test_told_acks_never_go_alone() -> None:
    endpoint = receiver(2)
    assert endpoint.flush() == []
    assert endpoint.deadline() == -1
    endpoint.send(b"data")
    assert [segment.cmd for segment in endpoint.flush()] == [PUSH]


def test_repeated_acks_stay_within_the_datagram() -> None:
    endpoint = receiver(2, settings=Settings(mtu=4 * HEADER))
    assert acks(endpoint, 4, 5) == [2, 4, 5]
    assert acks(endpoint, 7, 8, 9) == [5, 7, 8, 9]
    assert acks(endpoint, 11) == [7, 8, 9, 11]  # 4 and 5 did not fit before: too late now


def test_each_lost_ack_lets_so_many_be_repeated() -> None:
    endpoint = receiver(2, settings=Settings(rcvwnd=300))
    repeated = sum(len(acks(endpoint, sn)) - 1 for sn in range(4, 200))
    assert repeated == 128
    assert acks(endpoint, 201) == [201]
    acks(endpoint, 201)
    assert acks(endpoint, 203) == [201, 203]


def test_a_copy_that_the_network_made_is_no_lost_ack() -> None:
    endpoint = Endpoint()
    assert acks(endpoint, 2, 2) == [2, 2]
    assert acks(endpoint, 3) == [3]


def test_acks_that_have_been_told_take_no_memory_in_the_end() -> None:
    endpoint = receiver(2)
    for sn in range(4, 40):
        acks(endpoint, sn)
    endpoint.input(Segment(PUSH, sn=1, ts=101, data=b"x"), Segment(PUSH, sn=3, ts=103, data=b"x"))
    (ack,) = endpoint.flush()
    assert (ack.sn, ack.una) == (3, 40)
    endpoint.recv()
    assert lib.pool_in_use(endpoint.pool) == 0


def bulk(loss: float, rtt: int) -> Network:
    wide = Settings(mtu=524, sndwnd=1024, rcvwnd=1024)
    path = Path(loss=loss, delay=rtt // 2, rate=600)
    return transfer((wide, wide), (bytes(1 << 21), b""), (path, path), seed=rtt)


@pytest.mark.parametrize("loss", [0.05, 0.1, 0.2])
def test_lost_acks_cost_little(loss: float) -> None:
    """Next to nothing is sent again for want of an ACK, though each is lost as often as a PUSH."""
    network = bulk(loss, 100)
    needed = (1 << 21) * 524 / 500 / (1 - loss)
    assert network.bytes[0] < 1.05 * needed
    assert network.bytes[1] < 0.3 * network.bytes[0]


# --- retransmissions ---


def sender(settings: Settings = SMALL, rtt: int = 80) -> Endpoint:
    """One that knows its peer's window, and the round trip."""
    endpoint = Endpoint(settings, now=1000)
    endpoint.input(Segment(WINS, wnd=1000))
    for _ in range(30):  # the RTO is near the round trip
        endpoint.send(b"x")
        (push,) = endpoint.flush()
        endpoint.advance(rtt)
        endpoint.input(Segment(ACK, sn=push.sn, ts=push.ts, una=push.sn + 1, wnd=1000))
    assert endpoint.state().rto == rtt + 25
    return endpoint


def sent(endpoint: Endpoint) -> list[int]:
    """The sn of each datagram of a flush."""
    datagrams = [decode(datagram) for datagram in endpoint.flush_raw()]
    assert all(len(segments) == 1 and segments[0].cmd == PUSH for segments in datagrams)
    return [segments[0].sn for segments in datagrams]


def lose_first(endpoint: Endpoint, count: int, wnd: int = 1000) -> int:
    """Sends `count` packets, of which all but the first arrive; the sn of that."""
    endpoint.send(b"x" * 10 * count)
    ts, (first, *others) = endpoint.now, sent(endpoint)
    endpoint.advance(80)
    endpoint.input(*[Segment(ACK, sn=sn, ts=ts, una=first, wnd=wnd) for sn in others])
    endpoint.advance(max(endpoint.deadline(), 0))
    return first


def test_a_loss_in_a_thin_stream_is_repaired_twice_at_once() -> None:
    endpoint = sender()
    first = lose_first(endpoint, 4)
    assert sent(endpoint) == [first, first]
    assert endpoint.state().counters.retrans_segs == 2
    assert endpoint.state().counters.fast_retrans_segs == 1


def test_the_double_is_in_another_datagram() -> None:
    endpoint = sender(Settings())
    endpoint.send(b"x" * 10)
    (first,) = endpoint.pushes()
    endpoint.advance(10)
    endpoint.send(b"y" * 10)
    assert len(endpoint.pushes()) == 1
    endpoint.advance(130)
    datagrams = [[segment.sn for segment in decode(datagram)] for datagram in endpoint.flush_raw()]
    assert datagrams == [[first], [first, first + 1]]


def test_not_with_a_congestion_window() -> None:
    endpoint = sender(dataclasses.replace(SMALL, nc=False))
    assert sent(endpoint) == []
    first = lose_first(endpoint, 4)
    assert sent(endpoint) == [first]


def test_a_lone_timeout_is_repaired_once_and_the_next_twice() -> None:
    """Perhaps it was the ACK that was lost."""
    endpoint = sender()
    endpoint.send(b"x")
    (sn,) = sent(endpoint)
    endpoint.advance(endpoint.deadline())
    assert sent(endpoint) == [sn]
    endpoint.advance(endpoint.deadline())
    assert sent(endpoint) == [sn, sn]


def test_where_much_is_sent_a_loss_is_repaired_once() -> None:
    endpoint = sender()
    first = lose_first(endpoint, 4)
    endpoint.send(b"x" * 10_000)
    again = sent(endpoint)
    assert again.count(first) == 1


def test_what_shuts_the_window_is_repaired_twice_when_lost_again() -> None:
    endpoint = sender(dataclasses.replace(SMALL, sndwnd=200))
    endpoint.send(b"x" * 2000)
    times: dict[int, int] = {}
    repairs: list[int] = []
    first = endpoint.state().snd_una
    for _ in range(400):  # everything but `first` arrives after 80 ms
        endpoint.send(b"x" * 2000)
        flushed = sent(endpoint)
        times.update({sn: endpoint.now for sn in flushed if sn not in times and sn != first})
        if flushed.count(first) and first in times:
            repairs.append(flushed.count(first))
        times.setdefault(first, endpoint.now)
        endpoint.advance(1)
        arrived = [sn for sn, ts in times.items() if sn != first and ts + 80 == endpoint.now]
        for sn in arrived:
            endpoint.input(Segment(ACK, sn=sn, ts=times[sn], una=first, wnd=1000))
    assert endpoint.state().snd_nxt - first == 200
    assert repairs[0] == 1
    assert set(repairs[1:]) == {2}


def test_one_of_two_arrived() -> None:
    """Whichever of them: what was sent behind is not overtaken by it, nor is it by that."""
    endpoint = sender(dataclasses.replace(SMALL, resend=1))
    endpoint.send(b"x" * 10 * 5)
    ts, (a, b, *others) = endpoint.now, sent(endpoint)
    endpoint.advance(80)
    endpoint.input(*[Segment(ACK, sn=sn, ts=ts, una=a) for sn in others])
    endpoint.advance(max(endpoint.deadline(), 0))
    assert sent(endpoint) == [a, a, b, b]
    endpoint.advance(80)
    endpoint.input(Segment(ACK, sn=a, ts=endpoint.now - 80, una=a + 1))
    assert sent(endpoint) == []
    endpoint.input(Segment(ACK, sn=b, ts=endpoint.now - 80, una=b + 4))
    assert endpoint.state().counters.spurious_segs == 0
    assert endpoint.deadline() == -1


# --- time-outs ---


def send_two(endpoint: Endpoint, gap: int) -> tuple[int, int]:
    endpoint.send(b"x")
    (first,) = sent(endpoint)
    endpoint.advance(gap)
    endpoint.send(b"x")
    (second,) = sent(endpoint)
    return first, second


def test_a_timeout_waits_for_the_ack_of_what_was_sent_next() -> None:
    endpoint = sender()
    first, _ = send_two(endpoint, 15)
    endpoint.advance(105 - 15)
    assert sent(endpoint) == []  # its RTO has passed
    assert endpoint.deadline() == 10
    endpoint.advance(9)
    assert sent(endpoint) == []
    endpoint.advance(1)
    assert sent(endpoint)[:2] == [first, first]


def test_a_lost_ack_is_healed_by_the_next_una() -> None:
    endpoint = sender()
    _, second = send_two(endpoint, 15)
    endpoint.advance(100)
    endpoint.input(Segment(ACK, sn=second, ts=endpoint.now - 100, una=second + 1))
    assert sent(endpoint) == []
    assert endpoint.state().counters.retrans_segs == 0
    assert endpoint.deadline() == -1


def test_no_timeout_waits_for_what_was_sent_much_later() -> None:
    endpoint = sender()
    first, _ = send_two(endpoint, 25)
    endpoint.advance(105 - 25)
    assert sent(endpoint) == [first]
