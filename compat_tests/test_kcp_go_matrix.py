"""Every cipher of kcp-go's, with and without error correction, with either side dialling; and what a wrong key does."""

from __future__ import annotations

import collections
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gopeer import GoPeer
from test_kcp_go import WAIT, accept, connect, exchange, listening, payload, read_exactly, receive_and_tell

from kcpsocket import snmp
from kcpsocket.config import CRYPTS
from kcpsocket.relay import Relay

SIZE = 200_000  # bytes each way
ALL = sorted(set(CRYPTS) - {"null"})
SHARDS = [pytest.param({}, id="plain"), pytest.param({"datashard": 10, "parityshard": 3}, id="10/3")]


def settings(crypt: str, **more: Any) -> dict[str, Any]:
    return {"crypt": crypt, "key": "it's a secrect", **more}


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("crypt", ALL)
def test_we_dial(kcpgo: Path, crypt: str, shards: dict[str, int]) -> None:
    same = settings(crypt, **shards)
    with GoPeer(kcpgo, "echo", bytes=SIZE, **same) as peer:
        with connect(peer.address, **same) as sock:
            assert exchange(sock, payload(SIZE)) == payload(SIZE)
        peer.report()


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("crypt", ALL)
def test_we_listen(kcpgo: Path, crypt: str, shards: dict[str, int]) -> None:
    same = settings(crypt, **shards)
    with (
        listening(**same) as listener,
        GoPeer(kcpgo, "source", bytes=SIZE, dial=listener.getsockname(), **same) as peer,
        accept(listener) as sock,
    ):
        told = receive_and_tell(sock, SIZE)
        assert peer.report()["sha256"] == told


@pytest.mark.parametrize("we_dial", [True, False], ids=["we dial", "we listen"])
def test_lost_packets_are_recovered_on_both_sides(kcpgo: Path, we_dial: bool) -> None:
    same = settings("aes", datashard=10, parityshard=3)
    before = snmp()["FECRecovered"]
    size = 3_000_000
    if we_dial:
        with (
            GoPeer(kcpgo, "echo", bytes=size, **same) as peer,
            Relay(peer.address, loss=0.05, delay_ms=5, seed=5) as relay,
        ):
            with connect(relay.address, **same) as sock:
                assert exchange(sock, payload(size)) == payload(size)
            peer.report()
            theirs = peer.release()["FECRecovered"]
    else:
        with (
            listening(**same) as listener,
            Relay(listener.getsockname(), loss=0.05, delay_ms=5, seed=6) as relay,
            GoPeer(kcpgo, "echo", bytes=size + len(b"hello\n"), dial=relay.address, **same) as peer,
        ):
            with accept(listener) as sock:
                assert read_exactly(sock, 6) == b"hello\n"
                assert exchange(sock, b"hello\n" + payload(size)) == b"hello\n" + payload(size)
            peer.report()
            theirs = peer.release()["FECRecovered"]
    assert snmp()["FECRecovered"] - before > 50
    assert theirs > 50


def test_a_receiver_without_error_correction_understands_a_sender_with_it(kcpgo: Path) -> None:
    before = snmp()["FECRecovered"]
    size = 2_000_000
    with (
        GoPeer(kcpgo, "echo", bytes=size, datashard=5, parityshard=2) as peer,
        Relay(peer.address, loss=0.05, delay_ms=5, seed=7) as relay,
    ):
        with connect(relay.address) as sock:
            assert exchange(sock, payload(size)) == payload(size)
        peer.report()
    assert snmp()["FECRecovered"] - before > 20


@pytest.mark.parametrize("crypt", ["none", "aes", "aes-128-gcm"])
def test_out_of_band_datagrams_there_and_back(kcpgo: Path, crypt: str) -> None:
    same = settings(crypt, datashard=10, parityshard=3)
    with GoPeer(kcpgo, "echo", bytes=5, **same) as peer:
        with connect(peer.address, **same) as sock, sock.oob_socket() as datagrams:
            datagrams.settimeout(WAIT)
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"
            for packet in (b"x", payload(sock.oob_max_size)):
                sock.send_oob(packet)
                assert datagrams.recv(2000) == packet
        peer.report()


@pytest.mark.parametrize("crypt", ["aes", "salsa20", "aes-128-gcm", "none"])
def test_a_wrong_key_times_out_and_the_counters_say_why(kcpgo: Path, crypt: str) -> None:
    other = {"crypt": "aes-128" if crypt == "none" else crypt, "key": "another"}
    with listening(**settings(crypt)) as listener:
        before = snmp()
        with pytest.raises(TimeoutError):
            connect(listener.getsockname(), connect_timeout=1.0, **other)
        after = snmp()
        assert after["InCsumErrors"] - before["InCsumErrors"] >= 2
        assert after["PassiveOpens"] == before["PassiveOpens"]


@contextmanager
def tapped(target: tuple[str, int]) -> Iterator[tuple[tuple[str, int], list[bytes]]]:
    """A UDP hop before `target` that keeps every datagram it passes on; its address, and the datagrams."""
    packets: list[bytes] = []
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as front,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back,
    ):
        front.bind(("127.0.0.1", 0))
        back.connect(target)
        stop = threading.Event()

        def pump() -> None:
            client = None
            while not stop.is_set():
                for ready in select.select([front, back], [], [], 0.1)[0]:
                    if ready is front:
                        data, client = front.recvfrom(65536)
                        back.send(data)
                    else:
                        data = back.recv(65536)
                        if client:
                            front.sendto(data, client)
                    packets.append(data)

        thread = threading.Thread(target=pump)
        thread.start()
        try:
            yield front.getsockname(), packets
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("crypt", [name for name in ALL if name not in ("none", "xor")])
def test_sealed_packets_show_no_constant_bytes(crypt: str) -> None:
    """In every column of the first 64 bytes, headers included, no value is much more frequent than by chance."""
    same = settings(crypt, datashard=10, parityshard=3)
    with (
        listening(**same) as listener,
        tapped(listener.getsockname()) as (address, packets),
        connect(address, mtu=300, **same) as sock,
        accept(listener) as server,
    ):
        sock.sendall(bytes(300_000))  # zeros: nothing but the cipher makes them look like noise
        assert read_exactly(server, 300_000) == bytes(300_000)
    full = [packet for packet in packets if len(packet) >= 64]
    assert len(full) > 1000
    for column in range(64):
        most = collections.Counter(packet[column] for packet in full).most_common(1)[0][1]
        assert most < len(full) / 256 * 4 + 10, f"byte {column} has one value in {most} of {len(full)} packets"
