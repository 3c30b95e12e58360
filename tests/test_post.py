"""What callers leave for the engine while it is busy: all of it, in order, and never ahead of the stream."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from loopback import PATIENCE

from kcpsocket._native import ffi, lib

ROOM = 256 * 1024  # bytes, with what is noted beside each piece


class Post:
    """A post and a stream's two ends: the application's and the engine's."""

    def __init__(self) -> None:
        self.post = lib.post_new()
        self.application, self.engine = socket.socketpair()
        self.taken: list[tuple[int, bytes]] = []
        self._deliver = ffi.callback("void(void *, kcps_id, const void *, size_t)", self._take)

    def _take(self, context: Any, id: int, data: Any, length: int) -> None:
        self.taken.append((id, bytes(ffi.buffer(data, length))))

    def leave(self, id: int, data: bytes) -> bool:
        return bool(lib.post_leave(self.post, id, self.application.fileno(), data, len(data)))

    def take(self) -> list[tuple[int, bytes]]:
        lib.post_take(self.post, self._deliver, ffi.NULL)
        taken, self.taken = self.taken, []
        return taken

    def hold(self) -> list[tuple[int, bytes]]:
        lib.post_hold(self.post, self._deliver, ffi.NULL)
        taken, self.taken = self.taken, []
        return taken

    def close(self) -> None:
        self.application.close()
        self.engine.close()
        lib.post_free(self.post)


@pytest.fixture
def post() -> Iterator[Post]:
    made = Post()
    yield made
    made.close()


def test_pieces_come_out_as_they_went_in(post: Post) -> None:
    chance = random.Random(1)
    for _ in range(100):
        lengths = [chance.choice([0, 1, 7, 8, 9, 1000, 5000]) for _ in range(40)]
        left = [(chance.getrandbits(64), chance.randbytes(length)) for length in lengths]
        assert all(post.leave(id, data) for id, data in left)
        assert lib.post_waits(post.post)
        assert post.take() == left
        assert not lib.post_waits(post.post)
        assert post.take() == []


def test_what_does_not_fit_is_refused_whole_and_the_rest_kept(post: Post) -> None:
    piece = bytes(10_000)
    count = 0
    while post.leave(count, piece):
        count += 1
    assert 20 < count < ROOM / len(piece)
    assert post.leave(99, b"small enough")
    assert post.take() == [*((id, piece) for id in range(count)), (99, b"small enough")]
    assert post.leave(0, piece)


def test_nothing_overtakes_what_the_stream_holds(post: Post) -> None:
    post.application.sendall(b"first")
    assert not post.leave(1, b"second")
    post.engine.recv(3)
    assert not post.leave(1, b"second")
    post.engine.recv(3)
    assert post.leave(1, b"second")


def test_a_closed_descriptor_takes_nothing(post: Post) -> None:
    post.application.close()
    assert not post.leave(1, b"too late")
    assert post.take() == []


def test_while_it_is_held_nothing_is_left(post: Post) -> None:
    post.leave(1, b"before")
    assert post.hold() == [(1, b"before")]
    begun = threading.Event()

    def leave() -> None:
        begun.set()
        post.leave(2, b"after")

    thread = threading.Thread(target=leave)
    thread.start()
    begun.wait(PATIENCE)
    assert not lib.post_waits(post.post)
    lib.post_release(post.post)
    thread.join(PATIENCE)
    assert post.take() == [(2, b"after")]


def test_many_threads_leave_and_one_takes(post: Post) -> None:
    threads = [
        threading.Thread(target=lambda id=id: [post.leave(id, i.to_bytes(4, "big")) for i in range(2000)])
        for id in range(4)
    ]
    for thread in threads:
        thread.start()
    taken = []
    while any(thread.is_alive() for thread in threads) or lib.post_waits(post.post):
        taken += post.take()
    for id in range(4):
        assert [data for other, data in taken if other == id] == [i.to_bytes(4, "big") for i in range(2000)]
