"""Out-of-band datagrams beside the stream."""

from __future__ import annotations

import errno
import os
import select
import socket

import pytest
from life import PATIENCE, pair, settle

from kcpsocket import Config

FEC = Config(datashard=3, parityshard=1)


def test_a_datagram_arrives_whole_beside_the_stream() -> None:
    with pair(FEC) as (ours, theirs), theirs.oob_socket() as datagrams:
        datagrams.settimeout(PATIENCE)
        largest = os.urandom(ours.oob_max_size)
        ours.sendall(b"stream")
        ours.send_oob(b"beside")
        ours.send_oob(largest)
        assert select.select([datagrams], [], [], PATIENCE)[0] == [datagrams]
        assert datagrams.recv(2000) == b"beside"
        assert datagrams.recv(2000) == largest
        assert theirs.recv(100) == b"stream"
        datagrams.send(b"and back")
        with ours.oob_socket() as answers:
            answers.settimeout(PATIENCE)
            datagrams.send(b"once more")
            assert answers.recv(2000) in (b"and back", b"once more")
    settle()


def test_the_size_is_that_of_kcp_go() -> None:
    with pair(Config(datashard=3, parityshard=1, mtu=1400, crypt="aes", key="k")) as (ours, _):
        assert ours.oob_max_size == 1400 - 20 - 8 - 4
    settle()


def test_limits_are_told() -> None:
    with pair(FEC) as (ours, _), ours.oob_socket():
        with pytest.raises(OSError) as caught:
            ours.send_oob(bytes(ours.oob_max_size + 1))
        assert caught.value.errno == errno.EMSGSIZE
        with pytest.raises(OSError) as caught:
            ours.oob_socket()
        assert caught.value.errno == errno.EBUSY
    settle()


def test_it_needs_error_correction() -> None:
    with pair() as (ours, theirs):
        assert ours.oob_max_size == 0
        for call in (lambda: ours.send_oob(b"x"), theirs.oob_socket):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.EOPNOTSUPP
    settle()


def test_the_datagram_socket_ends_with_the_connection_and_can_be_reopened() -> None:
    with pair(FEC) as (ours, theirs):
        theirs.oob_socket().close()
        with theirs.oob_socket() as datagrams:
            datagrams.settimeout(PATIENCE)
            ours.close()
            theirs.close()
            assert datagrams.recv(100) == b""
    settle()


def test_datagrams_that_nobody_reads_are_dropped_and_the_stream_goes_on() -> None:
    with pair(FEC) as (ours, theirs), theirs.oob_socket():
        for _ in range(2000):
            ours.send_oob(b"x" * 1000)
        ours.sendall(b"still here")
        assert theirs.recv(100) == b"still here"
        ours.shutdown(socket.SHUT_WR)
        assert theirs.recv(100) == b""
    settle()
