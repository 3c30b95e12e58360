"""Every datagram stays within the MTU, whatever stands around its payload, and the MTU can change on a live socket."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from life import PATIENCE, connect, listen, settle

import kcpsocket
from kcpsocket import Config


class Tap:
    """A UDP hop to `target` that notes the size of every datagram from the client."""

    def __init__(self, target: tuple[object, ...]) -> None:
        self.front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.front.bind(("127.0.0.1", 0))
        self.back.connect(target)
        self.stop, self.stopper = socket.socketpair()
        self.sizes: list[int] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        client = None
        while True:
            ready = select.select([self.front, self.back, self.stop], [], [], PATIENCE)[0]
            if self.stop in ready or not ready:
                return
            if self.front in ready:
                data, client = self.front.recvfrom(65536)
                self.sizes.append(len(data))
                self.back.send(data)
            if self.back in ready:
                self.front.sendto(self.back.recv(65536), client)

    def close(self) -> None:
        self.stopper.close()
        self.thread.join(PATIENCE)
        for sock in (self.front, self.back, self.stop):
            sock.close()


@contextmanager
def tapped(config: Config) -> Iterator[tuple[kcpsocket.KCPSocket, socket.socket, Tap]]:
    """A client and its server with a tap between them."""
    with listen(config) as listener:
        tap = Tap(listener.getsockname())
        try:
            with connect(tap.front.getsockname(), config) as client:
                server, _ = listener.accept()
                with server:
                    server.settimeout(PATIENCE)
                    yield client, server, tap
            settle()
        finally:
            tap.close()


def move(client: socket.socket, server: socket.socket, size: int = 100_000) -> None:
    data = os.urandom(size)
    client.sendall(data)
    received = bytearray()
    while len(received) < size:
        received += server.recv(size)
    assert bytes(received) == data


@pytest.mark.parametrize("shards", [(0, 0), (3, 2)], ids=["plain", "3/2"])
@pytest.mark.parametrize("crypt", ["null", "none", "aes", "salsa20", "aes-128-gcm"])
def test_full_datagrams_are_as_long_as_the_mtu_and_no_longer(crypt: str, shards: tuple[int, int]) -> None:
    key = None if crypt == "null" else "key"
    config = Config(crypt=crypt, key=key, mtu=700, datashard=shards[0], parityshard=shards[1])
    with tapped(config) as (client, server, tap):
        move(client, server)
        assert max(tap.sizes) == 700
        assert client.kcp_info().mss == config.mss == client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)


@pytest.mark.parametrize("option", ["KCP_MTU", "TCP_MAXSEG"])
def test_the_mtu_changes_on_a_live_connection(option: str) -> None:
    with tapped(Config(crypt="aes", key="key", datashard=3, parityshard=2)) as (client, server, tap):
        move(client, server)
        assert max(tap.sizes) == 1400
        for mtu in (500, 1300):
            if option == "KCP_MTU":
                client.setsockopt(kcpsocket.SOL_KCP, kcpsocket.KCP_MTU, mtu)
            else:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mtu - 20 - 8 - 24)
            move(client, server, 20_000)  # what was cut before goes out as it is
            tap.sizes.clear()
            move(client, server)
            assert max(tap.sizes) == mtu
            assert client.kcp_info().mtu == mtu
