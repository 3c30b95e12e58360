"""The link of `bench wan`: what it makes of packets, without any device or clock."""

from __future__ import annotations

import itertools

import pytest

from kcpsocket.bench.link import Direction, Link

PACKET = 1250  # bytes: 10,000 bits, half a millisecond at 20 Mbit/s


def arrivals(link: Link, times: list[float], seed: object = 1) -> list[float | None]:
    direction = Direction(link, seed)
    return [direction.arrival(time, PACKET) for time in times]


def test_an_idle_link_takes_the_transmission_and_half_the_round_trip() -> None:
    assert arrivals(Link(rate=20, rtt=100), [1.0]) == [pytest.approx(1.0 + 0.0005 + 0.05)]


def test_the_rate_spaces_what_comes_at_once() -> None:
    first, *others = arrivals(Link(rate=20, rtt=100), [1.0] * 100)
    assert first is not None
    assert others == [pytest.approx(first + 0.0005 * (index + 1)) for index in range(99)]


def test_the_queue_drops_what_would_wait_longer_than_it_may() -> None:
    direction = Direction(Link(rate=20, rtt=100, queue=10), 1)
    kept = [direction.arrival(1.0, PACKET) is not None for _ in range(100)]
    assert kept == [True] * 21 + [False] * 79
    assert direction.counts() == {"packets": 100, "bytes": 100 * PACKET, "lost": 0, "overflowed": 79}


def test_the_queue_drains_at_the_rate() -> None:
    direction = Direction(Link(rate=20, rtt=100, queue=10), 1)
    for _ in range(100):
        direction.arrival(1.0, PACKET)
    assert direction.arrival(1.004, PACKET) is not None


@pytest.mark.parametrize("loss", [0.01, 0.05, 0.2])
def test_independent_losses_come_at_their_rate(loss: float) -> None:
    count = 20000
    lost = sum(due is None for due in arrivals(Link(loss=loss), [index * 0.01 for index in range(count)]))
    assert lost / count == pytest.approx(loss, rel=0.2)


def test_bursts_lose_packets_in_a_row_and_as_many_as_the_mean_says() -> None:
    link = Link(burst_begin=0.01, burst_end=0.1, burst_loss=0.9)
    count = 50000
    fates = [due is None for due in arrivals(link, [index * 0.01 for index in range(count)])]
    assert sum(fates) / count == pytest.approx(link.mean_loss(), rel=0.2)
    after_a_loss = [fates[index + 1] for index in range(count - 1) if fates[index]]
    assert sum(after_a_loss) / len(after_a_loss) > 0.7


def test_the_fate_of_a_packet_depends_on_the_seed_and_its_number_alone() -> None:
    link = Link(loss=0.3, queue=10)
    spaced = [due is None for due in arrivals(link, [index * 0.1 for index in range(500)], seed="a")]
    faster = [due is None for due in arrivals(link, [index * 0.001 for index in range(500)], seed="a")]
    assert spaced == faster
    assert spaced != [due is None for due in arrivals(link, [index * 0.1 for index in range(500)], seed="b")]


def test_jitter_keeps_the_order() -> None:
    dues = [due for due in arrivals(Link(rtt=100, jitter=30), [index * 0.002 for index in range(2000)]) if due]
    assert dues == sorted(dues)
    delays = [due - index * 0.002 for index, due in enumerate(dues)]
    assert min(delays) < 0.053 < 0.07 < max(delays) < 0.082


def test_reordered_packets_are_overtaken() -> None:
    dues = [due for due in arrivals(Link(reorder=0.1, reorder_by=10), [index * 0.002 for index in range(2000)]) if due]
    overtaken = sum(later < earlier for earlier, later in itertools.pairwise(dues))
    assert overtaken / 2000 == pytest.approx(0.1, rel=0.3)


def test_nothing_is_lost_or_changed_without_reason() -> None:
    dues = arrivals(Link(), [index * 0.01 for index in range(1000)])
    assert dues == [pytest.approx(index * 0.01 + 0.0505) for index in range(1000)]
