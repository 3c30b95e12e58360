"""Every byte arrives once and in order, over any network; then nothing is left and nothing moves."""

from __future__ import annotations

import random

import pytest
from arq_endpoint import HEADER, Settings
from arq_network import Path, transfer
from hypothesis import given, settings
from hypothesis import strategies as st

PAYLOAD = random.Random(1).randbytes(1 << 16)

all_settings = st.builds(
    Settings,
    mtu=st.sampled_from([HEADER + 1, 60, 128, 576, 1400, 1500]),
    sndwnd=st.sampled_from([1, 2, 7, 32, 100]),
    rcvwnd=st.sampled_from([1, 2, 7, 32, 100]),
    interval=st.integers(1, 60),
    resend=st.integers(0, 4),
    dead_link=st.just(60_000),
    nodelay=st.booleans(),
    nc=st.booleans(),
    acknodelay=st.booleans(),
)
paths = st.builds(
    Path,
    loss=st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5]),
    duplicate=st.sampled_from([0.0, 0.2]),
    damage=st.sampled_from([0.0, 0.1]),
    delay=st.integers(0, 120),
    jitter=st.sampled_from([0, 5, 100]),
)
clocks = st.sampled_from([0, 12345, 2**31 - 200, 2**32 - 1000])
sns = st.sampled_from([0, 2**31 - 5, 2**32 - 1, 2**32 - 30])


@settings(max_examples=150, deadline=None)
@given(
    settings=st.tuples(all_settings, all_settings),
    paths=st.tuples(paths, paths),
    packets=st.tuples(st.integers(0, 120), st.integers(0, 40)),
    odd=st.integers(0, 20),
    clocks=st.tuples(clocks, clocks),
    sns=st.tuples(sns, sns),
    reader=st.sampled_from([(None, 0), (None, 0), (500, 3), (3000, 700)]),
    seed=st.integers(0, 2**32),
)
def test_any_network(settings, paths, packets, odd, clocks, sns, reader, seed):  # type: ignore[no-untyped-def]
    mss = [each.mtu - HEADER for each in settings]
    data = tuple(PAYLOAD[: max(n * size - odd, 0)] for n, size in zip(packets, mss, strict=True))
    appetite, pause = reader
    if appetite is not None:
        appetite = max(appetite, len(data[0]) // 40)
    transfer(settings, data, paths, seed, clocks, sns, appetite, pause)


@pytest.mark.parametrize("window", [1, 32, 1024, 32768])
def test_windows_of_every_size(window: int) -> None:
    data = random.Random(2).randbytes(60 * min(window, 8000))
    both = Settings(mtu=HEADER + 40, sndwnd=window, rcvwnd=window)
    transfer((both, both), (data, b""), (Path(loss=0.02), Path(loss=0.02)))


def test_small_send_window_against_large_receive_window_and_back() -> None:
    small, large = Settings(sndwnd=2, rcvwnd=512), Settings(sndwnd=512, rcvwnd=2)
    lossy = Path(loss=0.1, jitter=30)
    transfer((small, large), (PAYLOAD, PAYLOAD), (lossy, lossy))
    transfer((large, small), (PAYLOAD, PAYLOAD), (lossy, lossy))


def test_slow_reader_shuts_the_window() -> None:
    both = Settings(rcvwnd=4, mtu=576)
    lossy = Path(loss=0.3)
    network = transfer((both, both), (PAYLOAD[:20_000], b""), (lossy, lossy), appetite=400, pause=900)
    assert network.elapsed >= 50 * 900


def test_clean_path_repeats_nothing() -> None:
    both = Settings(sndwnd=256, rcvwnd=256)
    network = transfer((both, both), (PAYLOAD * 10, b""), (Path(delay=50), Path(delay=50)))
    packets = -(-len(PAYLOAD) * 10 // (1400 - HEADER))
    assert network.datagrams < 2.1 * packets


def test_loss_costs_round_trips_not_timeouts() -> None:
    """A tenth lost, 256 in flight: the time is near what the window alone takes."""
    both = Settings(sndwnd=256, rcvwnd=256)
    data = PAYLOAD * 40
    clean = transfer((both, both), (data, b""), (Path(delay=50), Path(delay=50)))
    lossy = transfer((both, both), (data, b""), (Path(delay=50, loss=0.1), Path(delay=50)))
    assert lossy.elapsed < 4 * clean.elapsed


def test_same_seed_same_run() -> None:
    both = Settings()
    lossy = Path(loss=0.3, duplicate=0.1, damage=0.1, jitter=40)
    runs = [transfer((both, both), (PAYLOAD, PAYLOAD), (lossy, lossy), seed=7) for _ in range(2)]
    assert (runs[0].elapsed, runs[0].datagrams) == (runs[1].elapsed, runs[1].datagrams)
