"""Packets in flight are kept to what the path carries, even if it loses packets behind the bottleneck."""

from __future__ import annotations

import random

import pytest
from arq_endpoint import ACK, HEADER, WINS, Endpoint, Segment, Settings
from arq_network import Network, Path, transfer

from kcpsocket._native import lib

WIDE = Settings(mtu=524, sndwnd=1024, rcvwnd=1024)
RATE = 600  # bytes/ms
DATA = random.Random(3).randbytes(1 << 21)  # 3.5 s of that


def bulk(
    rtt: int,
    loss: float = 0.0,
    settings: Settings = WIDE,
    data: bytes = DATA,
    queue: int = 100,
    rate: int = RATE,
    change: tuple[int, int] | None = None,
) -> Network:
    """A transfer through a bottleneck of `rate` bytes/ms with a queue of `queue` ms."""
    there = Path(loss=loss, delay=rtt // 2, rate=rate, queue=queue, change=change)
    back = Path(loss=loss, delay=rtt // 2)
    return transfer((settings, settings), (data, b""), (there, back), seed=rtt)


@pytest.mark.parametrize("rtt", [20, 100, 300])
@pytest.mark.parametrize("loss", [0.0, 0.05, 0.1])
def test_bottleneck_carries_little_twice(rtt: int, loss: float) -> None:
    network = bulk(rtt, loss)
    # What is lost itself, and what is sent again since its ACK was lost.
    needed = len(DATA) * 1.05 / (1 - loss) ** 2
    assert network.bytes[0] < 1.12 * needed
    unlimited = bulk(rtt, loss, Settings(mtu=524, sndwnd=1024, rcvwnd=1024, bdp_limit=False))
    assert network.bytes[0] < unlimited.bytes[0] / 1.2
    assert network.elapsed < unlimited.elapsed


def test_heavy_loss_is_made_room_for() -> None:
    """A fifth lost both ways: the bottleneck is busy nearly all the time."""
    network = bulk(100, 0.2)
    assert network.overflows[0] < 100
    assert network.bytes[0] / network.elapsed > 0.8 * RATE


def test_full_rate_on_a_clean_link() -> None:
    network = bulk(100)
    assert network.elapsed < 1.2 * len(DATA) / RATE + 500


def test_faster_link_is_found() -> None:
    network = bulk(100, data=DATA * 3, rate=100, change=(6000, RATE))
    assert network.elapsed < 6000 + 1.5 * 3 * len(DATA) / RATE


def test_slower_link_is_found() -> None:
    network = bulk(100, data=DATA, rate=RATE, change=(1500, 100))
    rest = len(DATA) - 1500 * RATE
    assert network.elapsed < 1500 + 1.4 * rest / 100
    assert network.limits[-1] < 2 * 100 * 132 / 524


def test_queue_of_its_own_is_not_taken_for_the_way() -> None:
    """A minute's transfer: the least round trip is seen again and again, so the limit does not creep up."""
    network = bulk(100, data=DATA * 3, rate=100)
    assert network.elapsed > 60_000
    assert max(network.limits[-100:]) < 1.6 * 100 * 132 / 524
    assert network.overflows[0] < 0.02 * len(network.limits)


def paced_messages(settings: Settings, loss: float) -> list[tuple[int, int]]:
    """When each PUSH leaves, and its sn: a message every 20 ms for 10 s over a path of 100 ms."""
    rng = random.Random(5)
    sender, receiver = Endpoint(settings), Endpoint(settings)
    sender.input(Segment(WINS, wnd=1000))
    way: list[tuple[int, Endpoint, bytes]] = []
    left = []
    for now in range(10_000):
        if now % 20 == 0:
            sender.send(bytes(300))
        for _, target, datagram in [each for each in way if each[0] == now]:
            target.input_raw(datagram)
        receiver.recv()
        for source, target in ((sender, receiver), (receiver, sender)):
            if source.deadline() == 0:
                before = source.state()
                for datagram in source.flush_raw():
                    if rng.random() >= loss:
                        way.append((now + 50, target, datagram))
                left.append((now, source.state().counters.out_segs - before.counters.out_segs))
        way = [each for each in way if each[0] > now]
        sender.advance(1)
        receiver.advance(1)
    return left


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3])
def test_application_that_sets_the_pace_is_never_held_back(loss: float) -> None:
    free = Settings(sndwnd=1024, rcvwnd=1024, bdp_limit=False)
    assert paced_messages(Settings(sndwnd=1024, rcvwnd=1024), loss) == paced_messages(free, loss)


def heard(settings: Settings, rtt: int) -> Endpoint:
    """An endpoint that knows its peer's window and the round trip."""
    endpoint = Endpoint(settings, 1000)
    endpoint.input(Segment(WINS, wnd=1000))
    lib.kcp_rtt_sample(endpoint.kcp, rtt)
    return endpoint


@pytest.mark.parametrize(
    ("settings", "rtt"),
    [
        (Settings(sndwnd=1000, bdp_limit=False), 100),
        (Settings(sndwnd=1000, nc=False), 100),
        (Settings(sndwnd=1000), 0),
        (Settings(sndwnd=1000), 2),
    ],
    ids=["off", "congestion window", "loopback", "2 ms"],
)
def test_no_limit(settings: Settings, rtt: int) -> None:
    endpoint = heard(settings, rtt)
    assert endpoint.state().bdp_limit == 0
    endpoint.send(bytes(1_000_000))
    if settings.nc:
        assert len(endpoint.pushes()) == 1_000_000 // (1400 - HEADER) + 1


def test_limit_of_an_unknown_path() -> None:
    endpoint = heard(Settings(sndwnd=1000), 100)
    endpoint.send(bytes(1_000_000))
    assert len(endpoint.pushes()) == endpoint.state().bdp_limit == 128


def test_lost_packets_obey_the_limit_and_go_first() -> None:
    endpoint = heard(Settings(sndwnd=1000), 100)
    endpoint.send(bytes(1_000_000))
    sent = endpoint.pushes()
    ts = endpoint.now
    endpoint.advance(100)
    endpoint.input(*(Segment(ACK, sn=sn, una=0, ts=ts, wnd=1000) for sn in sent[100:]))
    endpoint.advance(20)  # in case that the path reorders
    assert endpoint.pushes() == sent[:64]
    endpoint.advance(20)
    later = endpoint.pushes()
    assert later == sent[64 : 64 + len(later)]
    assert len(later) == 20 * endpoint.state().bdp_limit // 100


def test_time_alone_lets_paced_packets_out() -> None:
    endpoint = heard(Settings(sndwnd=1000), 100)
    endpoint.send(bytes(1_000_000))
    ts = endpoint.now
    assert len(endpoint.pushes()) == 128
    endpoint.advance(50)
    endpoint.input(Segment(ACK, sn=127, una=128, ts=ts, wnd=1000))  # the round trip has become 50 ms
    out = [len(endpoint.pushes())]
    assert out[0] == 64
    while sum(out) < 120:
        assert 1 <= endpoint.deadline() <= 2
        endpoint.advance(endpoint.deadline())
        out.append(len(endpoint.pushes()))
    assert max(out[1:]) <= 2 * 128 // 50 + 1
    assert endpoint.now - ts == pytest.approx(50 + 56 * 50 / 128, abs=3)
