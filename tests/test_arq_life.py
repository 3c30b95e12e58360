"""Damage, a peer that is gone, restarted, or says so; settings that make no sense."""

from __future__ import annotations

import random
import struct

import pytest
from arq_endpoint import (
    ACK,
    CONV,
    ECONV,
    EINVAL,
    HEADER,
    IN_OURS,
    IN_RESET,
    PUSH,
    RESET,
    WASK,
    WINS,
    Endpoint,
    Segment,
    Settings,
    decode,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kcpsocket._native import ffi, lib


def same(endpoint: Endpoint, before: bytes) -> bool:
    return bytes(ffi.buffer(endpoint.state())) == before


# --- damage ---


@pytest.mark.parametrize(
    ("datagram", "error"),
    [
        (b"", EINVAL),
        (b"\x00", EINVAL),
        (Segment(PUSH, data=b"abc").encode()[:-1], EINVAL),
        (Segment(PUSH, data=b"abc").encode() + b"x", EINVAL),
        (Segment(PUSH, data=b"abc").encode() + bytes(23), EINVAL),
        (Segment(PUSH, conv=CONV + 1).encode(), ECONV),
        (Segment(PUSH, data=b"abc").encode() + Segment(PUSH, conv=1).encode(), ECONV),
        (Segment(80).encode(), EINVAL),
        (Segment(86).encode(), EINVAL),
        (Segment(PUSH, data=bytes(1537)).encode(), EINVAL),
        (struct.pack("<IBBHIIII", CONV, PUSH, 0, 9, 0, 0, 0, 2**32 - 1), EINVAL),
        (struct.pack("<IBBHIIII", CONV, PUSH, 0, 9, 0, 0, 0, 2**32 - HEADER), EINVAL),
    ],
)
def test_malformed_datagrams_change_nothing(datagram: bytes, error: int) -> None:
    endpoint = Endpoint()
    before = bytes(ffi.buffer(endpoint.state()))
    assert endpoint.input_raw(datagram) == error
    assert same(endpoint, before)
    assert endpoint.deadline() == -1


def test_unknown_command_drops_the_rest_only() -> None:
    endpoint = Endpoint()
    datagram = Segment(PUSH, data=b"kept").encode() + Segment(99).encode() + Segment(PUSH, sn=1, data=b"lost").encode()
    assert endpoint.input_raw(datagram) == EINVAL
    assert endpoint.recv() == b"kept"
    assert endpoint.deadline() == 20


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_garbage_does_no_harm(data: st.DataObject) -> None:
    """Segments with any field at all: nothing crashes, nothing leaks, and the session still works."""
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    endpoint = Endpoint(Settings(rcvwnd=40, sndwnd=40, mtu=100), now=rng.getrandbits(32))
    endpoint.send(bytes(1000))
    endpoint.flush()
    near = [0, 1, 5, 20, 40, 41, 2**31, 2**32 - 1]
    for _ in range(60):
        segments = [
            Segment(
                rng.choice([80, PUSH, PUSH, ACK, ACK, WASK, WINS, RESET, 86]),
                sn=rng.choice([*near, rng.getrandbits(32), rng.randrange(40)]),
                ts=rng.choice([endpoint.now, rng.getrandbits(32)]),
                una=rng.choice([*near, rng.randrange(14)]),
                wnd=rng.choice([0, 1, 40, 65535]),
                data=rng.randbytes(rng.choice([0, 1, 76, 1536])),
                frg=rng.randrange(256),
            ).encode()
            for _ in range(rng.randrange(1, 4))
        ]
        datagram = bytearray(b"".join(segments))
        if rng.random() < 0.2:
            datagram[rng.randrange(len(datagram))] ^= 1 << rng.randrange(8)
        endpoint.lend(bytes(datagram), rng.random() < 0.2)
        endpoint.recv(rng.randrange(3000))
        assert endpoint.settle()
        if rng.random() < 0.5:
            endpoint.advance(rng.randrange(500))
            endpoint.flush()
        state = endpoint.state()
        assert state.snd_una <= state.snd_nxt <= state.snd_end
        assert state.rcv_free <= 40
        assert endpoint.deadline() >= -1
    endpoint.free()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_noise_does_no_harm(noise: bytes) -> None:
    endpoint = Endpoint()
    before = bytes(ffi.buffer(endpoint.state()))
    assert endpoint.input_raw(noise) < 0
    assert same(endpoint, before)
    assert endpoint.input_raw(struct.pack("<I", CONV) + noise) < 0
    out = ffi.new("uint8_t[]", HEADER)
    assert lib.kcp_reset_answer(noise, len(noise), out) in (0, HEADER)


# --- the peer is gone ---


def test_dead_after_dead_link_transmissions_and_user_timeout() -> None:
    endpoint = Endpoint(Settings(dead_link=4, user_timeout=5000), now=10)
    endpoint.send(b"x")
    sent = 0
    start = endpoint.now
    while endpoint.now - start < 5000:
        assert not lib.kcp_dead(endpoint.kcp, endpoint.now)
        sent += len(endpoint.flush())
        endpoint.advance(endpoint.deadline())
    assert sent > 4
    assert lib.kcp_dead(endpoint.kcp, endpoint.now)


def test_not_dead_before_dead_link_transmissions() -> None:
    endpoint = Endpoint(Settings(dead_link=4, user_timeout=100), now=10)
    endpoint.send(b"x")
    for _ in range(4):
        assert not lib.kcp_dead(endpoint.kcp, endpoint.now)
        endpoint.flush()
        endpoint.advance(endpoint.deadline())
    assert lib.kcp_dead(endpoint.kcp, endpoint.now)


def test_progress_keeps_it_alive() -> None:
    endpoint = Endpoint(Settings(dead_link=2, user_timeout=1000), now=10)
    endpoint.send(b"x" * 2000)
    endpoint.flush()
    endpoint.advance(900)
    endpoint.flush()
    endpoint.input(Segment(ACK, sn=1, ts=endpoint.now))
    endpoint.advance(900)
    assert not lib.kcp_dead(endpoint.kcp, endpoint.now)
    endpoint.flush()
    endpoint.advance(100)
    assert lib.kcp_dead(endpoint.kcp, endpoint.now)


def test_idle_time_is_no_lack_of_progress() -> None:
    endpoint = Endpoint(Settings(dead_link=1, user_timeout=1000), now=10)
    endpoint.advance(1_000_000)
    endpoint.send(b"x")
    endpoint.flush()
    endpoint.advance(999)
    assert not lib.kcp_dead(endpoint.kcp, endpoint.now)


def test_unanswered_probes_of_a_shut_window() -> None:
    endpoint = Endpoint(Settings(user_timeout=3000), now=10)
    endpoint.input(Segment(WINS, wnd=0))
    endpoint.advance(100_000)
    endpoint.send(b"x")
    probes = 0
    for _ in range(30):  # answered: shut for as long as it likes
        probes += len(endpoint.flush())
        assert not lib.kcp_dead(endpoint.kcp, endpoint.now)
        endpoint.input(Segment(WINS, wnd=0))
        endpoint.advance(min(endpoint.deadline(), 2500))
    assert probes > 5
    endpoint.advance(3000)
    assert lib.kcp_dead(endpoint.kcp, endpoint.now)


def test_last_heard() -> None:
    endpoint = Endpoint(now=10)
    assert lib.kcp_last_heard(endpoint.kcp) == 10
    endpoint.advance(50)
    endpoint.input(Segment(WINS, conv=1))
    assert lib.kcp_last_heard(endpoint.kcp) == 10
    endpoint.input(Segment(WINS))
    assert lib.kcp_last_heard(endpoint.kcp) == 60


# --- the peer was restarted ---


def acknowledged(count: int = 5) -> Endpoint:
    """An endpoint whose first `count` segments were acknowledged, on a round trip of 10 ms."""
    endpoint = Endpoint(Settings(mtu=HEADER + 1), now=1000)
    endpoint.send(bytes(count))
    endpoint.flush()
    sent = endpoint.now
    endpoint.advance(10)
    endpoint.input(Segment(ACK, sn=count - 1, una=count, ts=sent))
    return endpoint


def test_restart_shows_after_several_old_unas_past_a_round_trip() -> None:
    endpoint = acknowledged()
    for waited in (0, 100, 100, 1):
        endpoint.advance(waited)
        assert not lib.kcp_peer_restarted(endpoint.kcp, endpoint.now)
        endpoint.input(Segment(WINS, una=0))
    assert lib.kcp_peer_restarted(endpoint.kcp, endpoint.now)


def test_few_old_unas_over_a_long_time_are_no_restart() -> None:
    endpoint = acknowledged()
    endpoint.input(Segment(WINS, una=4))
    endpoint.advance(5000)
    endpoint.input(Segment(WINS, una=4))
    assert not lib.kcp_peer_restarted(endpoint.kcp, endpoint.now)


def test_a_current_una_ends_the_suspicion() -> None:
    endpoint = acknowledged()
    for _ in range(10):
        endpoint.input(Segment(ACK, sn=0, una=0, ts=1000), Segment(ACK, sn=1, una=0, ts=1000))
        endpoint.advance(100)
        endpoint.input(Segment(WINS, una=0), recovered=True)
        assert not lib.kcp_peer_restarted(endpoint.kcp, endpoint.now)
        endpoint.input(Segment(WINS, una=5))
        endpoint.advance(100)


def test_suspicion_asks_every_rto_and_gives_up() -> None:
    endpoint = acknowledged()
    endpoint.input(Segment(WINS, una=0))
    rto = endpoint.state().rto
    asked = 0
    while endpoint.deadline() >= 0:
        assert endpoint.deadline() == rto
        endpoint.advance(rto)
        asked += [segment.cmd for segment in endpoint.flush()] == [WASK]
    assert asked == 10


def test_restarted_peer_is_found_by_asking_alone() -> None:
    endpoint = acknowledged()
    fresh = Endpoint(now=7)
    endpoint.input(Segment(WINS, una=0))
    start = endpoint.now
    while not lib.kcp_peer_restarted(endpoint.kcp, endpoint.now):
        endpoint.advance(endpoint.deadline())
        for datagram in endpoint.flush_raw():
            fresh.input_raw(datagram)
        for datagram in fresh.flush_raw():
            endpoint.input_raw(datagram)
        assert endpoint.now - start < 1000


# --- the peer says that it is gone ---


@pytest.mark.parametrize(
    ("age", "credible"), [(0, True), (1, True), (120_000, True), (120_001, False), (-1, False), (2**31, False)]
)
def test_reset_may_echo_our_clock(age: int, credible: bool) -> None:
    endpoint = Endpoint(now=50)
    endpoint.send(b"x")
    assert endpoint.input(Segment(RESET, sn=9, ts=endpoint.now - age, una=1)) == (IN_RESET if credible else EINVAL)
    assert lib.kcp_unacked(endpoint.kcp) == 1


@pytest.mark.parametrize(("sn", "credible"), [(4, False), (5, True), (7, True), (8, False), (0, False)])
def test_reset_may_name_what_the_peer_expects_next(sn: int, credible: bool) -> None:
    """A peer that last heard our clock long ago."""
    endpoint = acknowledged()
    endpoint.send(b"xx")
    endpoint.flush()
    assert endpoint.input(Segment(RESET, sn=sn, ts=endpoint.now + 5)) == (IN_RESET if credible else EINVAL)


def test_reset_of_another_conversation() -> None:
    endpoint = Endpoint(now=50)
    assert endpoint.input(Segment(RESET, ts=50, conv=CONV ^ 1)) == ECONV


def test_our_reset_convinces_the_peer() -> None:
    ours, peer = Endpoint(now=5), Endpoint(now=2**32 - 3)
    peer.send(b"hello")
    (datagram,) = peer.flush_raw()
    ours.input_raw(datagram)
    out = ffi.new("uint8_t[]", HEADER)
    assert lib.kcp_reset_segment(ours.kcp, out) == HEADER
    peer.advance(40)
    assert peer.input_raw(bytes(out)) == IN_RESET
    (reset,) = decode(bytes(out))
    assert (reset.cmd, reset.sn, reset.una, reset.data) == (RESET, 1, 1, b"")


def answer(*segments: Segment) -> Segment | None:
    datagram = b"".join(segment.encode() for segment in segments)
    out = ffi.new("uint8_t[]", HEADER)
    length = lib.kcp_reset_answer(datagram, len(datagram), out)
    return decode(bytes(out))[0] if length else None


def test_answer_to_a_datagram_of_no_session() -> None:
    for cmd in (PUSH, WASK):
        reset = answer(Segment(cmd, sn=9, ts=77))
        assert reset is not None
        assert (reset.cmd, reset.conv, reset.sn, reset.ts) == (RESET, CONV, 9, 77)
    reset = answer(Segment(ACK, sn=3, ts=5), Segment(PUSH, sn=9, ts=77), Segment(PUSH, sn=10, ts=78))
    assert reset is not None
    assert (reset.sn, reset.ts) == (9, 77)  # the PUSH has the peer's clock, the ACK ours
    reset = answer(Segment(WINS, ts=5))
    assert reset is not None
    assert reset.ts == 5


def test_no_answer_to_a_reset_or_to_noise() -> None:
    assert answer() is None
    assert answer(Segment(RESET, ts=5)) is None
    assert answer(Segment(PUSH), Segment(RESET)) is None
    assert answer(Segment(79)) is None
    assert answer(Segment(PUSH), Segment(PUSH, conv=1)) is None
    out = ffi.new("uint8_t[]", HEADER)
    assert lib.kcp_reset_answer(Segment(PUSH).encode(), HEADER - 1, out) == 0
    assert lib.kcp_reset_answer(Segment(PUSH, data=b"abc").encode(), HEADER + 2, out) == 0


# --- settings ---


def test_settings_are_brought_into_range() -> None:
    endpoint = Endpoint(Settings(mtu=HEADER + 2000, sndwnd=0, rcvwnd=100_000, interval=0, dead_link=0))
    own = lib.kcp_settings_of(endpoint.kcp)
    assert (own.mtu, own.sndwnd, own.rcvwnd, own.interval, own.dead_link) == (HEADER + 1536, 1, 32768, 1, 1)
    endpoint.configure(Settings(mtu=0))
    assert lib.kcp_settings_of(endpoint.kcp).mtu == HEADER + 1


def test_settings_on_a_live_session() -> None:
    endpoint = Endpoint(Settings(nodelay=True, resend=3, sndwnd=64))
    endpoint.input(Segment(WINS, wnd=1000))
    endpoint.send(b"x" * 1376 * 64)
    endpoint.flush()
    for sn in (10, 11):
        endpoint.input(Segment(ACK, sn=sn, ts=endpoint.now))
    endpoint.configure(Settings(nodelay=False, resend=1, sndwnd=16))
    assert endpoint.state().rto >= 100
    assert lib.kcp_room(endpoint.kcp) == 0
    assert endpoint.input(Segment(ACK, sn=40, ts=endpoint.now)) & IN_OURS
    assert len([sn for sn in endpoint.pushes() if sn < 40]) == 38
    endpoint.input(Segment(ACK, sn=63, una=64, ts=endpoint.now))
    assert lib.kcp_room(endpoint.kcp) == 16 * 1376
