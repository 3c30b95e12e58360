"""Reordering: what is late is not lost, as soon as the path has been seen to make segments late."""

from __future__ import annotations

import dataclasses
import random

import pytest
from arq_endpoint import ACK, HEADER, IN_FLUSH, WINS, Endpoint, Segment, Settings
from arq_network import Network, Path, transfer

SMALL = Settings(mtu=HEADER + 10)  # 10 bytes of payload, one segment a datagram
BULK = Settings(sndwnd=1024, rcvwnd=1024)
PACKETS = 6000
DATA = random.Random(3).randbytes(PACKETS * (BULK.mtu - HEADER))


class Sender:
    """One whose path has round trips of 80 ms, and whose time of each transmission is known."""

    def __init__(self, settings: Settings = SMALL) -> None:
        self.endpoint = Endpoint(settings, now=1000)
        self.endpoint.input(Segment(WINS, wnd=1000))
        self.sent: dict[int, int] = {}
        self.una = 0
        for _ in range(4):
            (sn,) = self.send(1)
            self.endpoint.advance(80)
            self.ack(sn, una=sn + 1)
        assert self.endpoint.state().srtt == 80

    def send(self, count: int) -> list[int]:
        self.endpoint.send(b"x" * 10 * count)
        return self.flush()

    def flush(self) -> list[int]:
        sns = self.endpoint.pushes()
        self.sent.update(dict.fromkeys(sns, self.endpoint.now))
        return sns

    def ack(self, *sns: int, una: int | None = None, ts: int | None = None) -> int:
        """ACKs in one datagram, of the last transmissions or of that at `ts`."""
        self.una = self.una if una is None else una
        return self.endpoint.input(
            *[Segment(ACK, sn=sn, una=self.una, ts=self.sent[sn] if ts is None else ts) for sn in sns]
        )

    def lose(self) -> None:
        """Shows that the path does lose: nothing is waited for from then on, until it is seen to reorder."""
        lost, *others = self.send(4)
        self.endpoint.advance(80)
        self.ack(*others)
        self.endpoint.advance(max(self.endpoint.deadline(), 0))
        assert self.flush() == [lost]
        self.endpoint.advance(80)
        self.ack(lost, una=lost + 4)

    def reorder(self, late: int) -> None:
        """The first of four comes `late` ms after the others, and is not sent again before."""
        first, *others = self.send(4)
        self.endpoint.advance(80)
        self.ack(*others)
        self.endpoint.advance(late)
        self.ack(first, una=first + 4)

    @property
    def reordering(self) -> int:
        return int(self.endpoint.state().reorder)

    @property
    def spurious(self) -> int:
        return int(self.endpoint.state().counters.spurious_segs)


# --- waiting ---


def test_an_unknown_path_is_given_an_eighth_of_the_round_trip() -> None:
    sender = Sender()
    first, *others = sender.send(4)
    sender.endpoint.advance(80)
    assert not sender.ack(*others) & IN_FLUSH
    assert sender.endpoint.deadline() == 10
    sender.endpoint.advance(9)
    assert sender.flush() == []
    sender.endpoint.advance(1)
    assert sender.endpoint.deadline() == 0
    assert sender.flush() == [first]
    assert sender.endpoint.state().counters.fast_retrans_segs == 1


def test_a_path_that_loses_and_keeps_the_order_is_not_waited_for() -> None:
    sender = Sender()
    sender.lose()
    for _ in range(3):
        first, *others = sender.send(4)
        sender.endpoint.advance(80)
        assert sender.ack(*others) & IN_FLUSH
        assert sender.flush() == [first]
        sender.endpoint.advance(80)
        sender.ack(first, una=first + 4)
    assert (sender.reordering, sender.spurious) == (0, 0)


def test_what_was_late_once_is_waited_for_that_long() -> None:
    sender = Sender()
    sender.lose()
    sender.endpoint.configure(dataclasses.replace(SMALL, resend=5))  # not overtaken often enough while it is learnt
    first, *others = sender.send(4)
    sender.endpoint.advance(80)
    sender.ack(*others)
    sender.send(1)  # nor early
    sender.endpoint.advance(15)
    sender.ack(first, una=first + 5)
    assert sender.reordering == 16
    sender.endpoint.configure(SMALL)
    first, *others = sender.send(4)
    sender.endpoint.advance(80)
    sender.ack(*others)
    assert sender.endpoint.deadline() == 16
    sender.endpoint.advance(15)
    assert sender.flush() == []
    sender.ack(first)
    assert sender.endpoint.state().counters.early_retrans_segs == 0
    assert sender.endpoint.state().counters.fast_retrans_segs == 1  # that of lose()


@pytest.mark.parametrize(("fec", "most"), [(False, 80), (True, 20)])
def test_what_error_correction_rebuilt_is_hardly_waited_for(fec: bool, most: int) -> None:
    """Its ACK is as late as the group was complete: a quarter of the round trip is tolerated, else a whole one."""
    sender = Sender()
    sender.lose()
    sender.endpoint.configure(dataclasses.replace(SMALL, resend=5, fec=fec))
    first, *others = sender.send(4)
    sender.endpoint.advance(80)
    sender.ack(*others)
    sender.send(1)
    sender.endpoint.advance(150)
    sender.ack(first)
    assert most <= sender.reordering <= most + 10  # the round trip has become longer


def test_in_the_order_of_sending_each_has_its_time() -> None:
    sender = Sender()
    sender.reorder(late=8)
    early = sender.send(2)
    sender.endpoint.advance(5)
    later = sender.send(4)
    sender.endpoint.advance(75)
    sender.ack(*later[:2])
    wait = sender.endpoint.deadline()
    assert wait > 0
    sender.endpoint.advance(wait)
    assert sender.flush() == early
    sender.ack(later[3])
    assert sender.endpoint.deadline() > 0
    sender.endpoint.advance(sender.endpoint.deadline())
    assert sender.flush() == [later[2]]


def test_little_traffic_does_not_wait_twice() -> None:
    """What overtakes comes a long time after: the round trip and the tolerance are over by then."""
    sender = Sender()
    sender.reorder(late=8)
    first = sender.send(1)
    sender.endpoint.advance(15)
    others = sender.send(2)
    sender.endpoint.advance(80)
    assert sender.ack(*others) & IN_FLUSH
    assert sender.flush() == first


def test_tolerance_is_no_more_than_a_round_trip() -> None:
    sender = Sender(dataclasses.replace(SMALL, resend=0))
    first, *others = sender.send(4)
    sender.endpoint.advance(80)
    sender.ack(*others)
    sender.send(1)
    sender.endpoint.advance(300)
    sender.ack(first, una=first + 4)
    assert 80 <= sender.reordering <= sender.endpoint.state().srtt


# --- what teaches ---


def test_needless_by_the_ts_that_an_ack_echoes() -> None:
    sender = Sender()
    sender.lose()
    first, *others = sender.send(4)
    original = sender.sent[first]
    sender.endpoint.advance(80)
    sender.ack(*others)
    assert sender.flush() == [first]
    sender.endpoint.advance(12)
    sender.ack(first, ts=original)
    assert (sender.reordering, sender.spurious) == (13, 1)
    first, *others = sender.send(4)
    sender.endpoint.advance(80)
    assert not sender.ack(*others) & IN_FLUSH
    assert sender.endpoint.deadline() == 13


def test_needless_when_una_comes_sooner_than_any_round_trip() -> None:
    sender = Sender()
    sender.lose()
    first, *others = sender.send(4)
    sender.endpoint.advance(80)
    sender.ack(*others)
    assert sender.flush() == [first]
    sender.endpoint.advance(5)
    sender.endpoint.input(Segment(WINS, una=first + 4))
    assert (sender.reordering, sender.spurious) == (11, 1)  # the first time it is an eighth of a round trip at least


def test_needed_when_una_comes_a_round_trip_later() -> None:
    sender = Sender()
    sender.lose()
    first, *others = sender.send(4)
    sender.endpoint.advance(80)
    sender.ack(*others)
    assert sender.flush() == [first]
    sender.endpoint.advance(78)
    sender.endpoint.input(Segment(WINS, una=first + 4))
    assert (sender.reordering, sender.spurious) == (0, 0)


def test_a_lost_ack_is_no_reordering() -> None:
    """The second's ACK is lost: it is sent again, and una comes before that can have arrived, but not for its sake."""
    sender = Sender()
    sender.lose()
    first, second, *others = sender.send(5)
    sender.endpoint.advance(80)
    sender.ack(*others)
    assert sender.flush() == [first, second]
    sender.endpoint.advance(80)
    sender.sent[second] = sender.endpoint.now
    sender.ack(first, una=second + 4)
    assert sender.reordering == 0


def test_a_lost_ack_found_with_a_loss_is_no_reordering() -> None:
    """The later one's ACK is lost: it is sent again, and una, which waited for the first, comes soon after that."""
    sender = Sender()
    sender.lose()
    first, *others = sender.send(3)
    sender.endpoint.advance(60)
    later, *more = sender.send(3)
    sender.endpoint.advance(20)
    sender.ack(*others)
    assert sender.flush() == [first]
    sender.endpoint.advance(60)
    sender.ack(*more)
    assert sender.flush() == [later]
    sender.endpoint.advance(20)
    sender.endpoint.input(Segment(WINS, una=later + 3))
    assert (sender.reordering, sender.spurious) == (0, 1)


def test_late_is_counted_from_the_first_that_overtook() -> None:
    sender = Sender(dataclasses.replace(SMALL, resend=5))
    first, second = sender.send(2)
    sender.endpoint.advance(10)
    (third,) = sender.send(1)
    sender.endpoint.advance(70)
    sender.ack(second)
    sender.endpoint.advance(10)
    sender.ack(third)
    sender.endpoint.advance(15)
    sender.ack(first, una=third + 1)
    assert sender.reordering == 26


def test_overtaken_shortly_after_another_was() -> None:
    sender = Sender(dataclasses.replace(SMALL, resend=5))
    first, second, third = sender.send(3)
    sender.endpoint.advance(80)
    sender.ack(first, una=second)
    sender.endpoint.advance(3)
    sender.ack(third)
    sender.endpoint.advance(20)
    sender.ack(second, una=third + 1)
    assert 20 < sender.reordering <= 24


def test_one_late_una_teaches_little() -> None:
    """It may have been told before, in an ACK that was lost."""
    sender = Sender()
    first, *others = sender.send(3)
    sender.endpoint.advance(80)
    sender.ack(others[0])  # overtaken once: not enough
    sender.send(1)
    sender.endpoint.advance(70)
    sender.endpoint.input(Segment(WINS, una=first + 3))
    assert 10 < sender.reordering < 16


def test_tolerance_wears_off() -> None:
    sender = Sender()
    sender.reorder(late=9)
    seen = [sender.reordering]
    for _ in range(200):
        (sn,) = sender.send(1)
        sender.endpoint.advance(80)
        sender.ack(sn, una=sn + 1)
        if sender.reordering != seen[-1]:
            seen.append(sender.reordering)
    assert seen == [11, 5, 2, 1, 0]


# --- time-outs ---


def test_a_timeout_of_what_others_have_overtaken_is_none() -> None:
    sender = Sender()
    first, *others = sender.send(4)
    sender.endpoint.advance(sender.endpoint.state().rto - 2)
    sender.ack(*others)
    assert sender.endpoint.deadline() == 2  # it would be given more, but for its RTO
    sender.endpoint.advance(2)
    assert sender.flush() == [first]
    counters = sender.endpoint.state().counters
    assert (counters.fast_retrans_segs, counters.lost_segs) == (1, 0)
    sender.endpoint.advance(sender.endpoint.state().rto)
    assert sender.flush() == [first]  # which has not grown


def test_the_rto_leaves_time_for_what_may_be_late() -> None:
    sender = Sender()
    for late in (10, 20, 30, 40, 40):
        sender.reorder(late)
    for _ in range(16):
        (sn,) = sender.send(1)
        sender.endpoint.advance(80)
        sender.ack(sn, una=sn + 1)
    state = sender.endpoint.state()
    assert sender.reordering > 30
    assert state.rto >= state.srtt + 35


def test_round_trips_that_become_longer_put_timeouts_off() -> None:
    """As a queue on the way fills: what an ACK says now holds for those that were sent before it came, too."""
    sender = Sender()
    for _ in range(40):
        (sn,) = sender.send(1)
        sender.endpoint.advance(80)
        sender.ack(sn, una=sn + 1)
    assert sender.endpoint.state().rto == 105
    (first,) = sender.send(1)
    sender.endpoint.advance(90)
    sender.ack(sn, ts=sender.endpoint.now - 300)
    sender.endpoint.advance(15)
    assert sender.flush() == []
    assert sender.endpoint.deadline() == sender.endpoint.state().srtt + 20 - 105
    sender.endpoint.advance(sender.endpoint.deadline())
    assert sender.flush() == [first]
    assert sender.endpoint.state().counters.lost_segs == 1


# --- over a network ---


def bulk(there: Path, back: Path, settings: Settings = BULK, seed: int = 1) -> Network:
    return transfer((settings, settings), (DATA, b""), (there, back), seed)


def found_lost(network: Network) -> int:
    """Transmissions of the first peer that it took for lost. Some of their repetitions go out twice."""
    counters = network.counters[0]
    return counters["fast_retrans_segs"] + counters["early_retrans_segs"] + counters["lost_segs"]


def doubles(network: Network) -> int:
    """Those of its repetitions that went out beside another. Of such two, one that is lost need not be found so."""
    return network.counters[0]["retrans_segs"] - found_lost(network)


@pytest.mark.parametrize("jitter", [3, 5, 9])
def test_jitter_repeats_next_to_nothing(jitter: int) -> None:
    network = bulk(Path(delay=18, jitter=jitter), Path(delay=18, jitter=jitter))
    assert network.counters[0]["retrans_segs"] < PACKETS // 50


@pytest.mark.parametrize("nc", [False, True])
def test_jitter_does_not_shut_the_congestion_window(nc: bool) -> None:
    network = bulk(Path(delay=18, jitter=5), Path(delay=18, jitter=5), dataclasses.replace(BULK, nc=nc))
    assert network.elapsed < 1500


def test_jitter_and_loss_repeat_what_was_lost() -> None:
    network = bulk(Path(delay=18, jitter=5, loss=0.05), Path(delay=18, jitter=5))
    assert network.lost[0] - doubles(network) <= found_lost(network) < 1.1 * network.lost[0]


def test_jitter_and_loss_both_ways_stay_within_the_price_of_lost_acks() -> None:
    """An ACK that is lost costs a retransmission too."""
    network = bulk(Path(delay=18, jitter=5, loss=0.05), Path(delay=18, jitter=5, loss=0.05))
    assert network.counters[0]["retrans_segs"] < network.lost[0] + 0.12 * PACKETS


def test_loss_alone_is_not_waited_for() -> None:
    network = bulk(Path(delay=20, loss=0.05), Path(delay=20))
    assert network.lost[0] - doubles(network) <= found_lost(network) <= network.lost[0]
    assert network.counters[0]["spurious_segs"] == 0
    assert network.elapsed < 1000


def test_bursts_of_reordering() -> None:
    """100 ms in each second in which packets come up to 10 ms late."""
    network = bulk(Path(delay=20, jitter=10, calm=900, rough=100), Path(delay=20))
    assert network.counters[0]["retrans_segs"] < PACKETS // 50
    lossy = bulk(Path(delay=20, jitter=10, calm=900, rough=100, loss=0.02), Path(delay=20))
    assert lossy.counters[0]["retrans_segs"] < 1.5 * lossy.lost[0]
