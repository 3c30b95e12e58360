"""Trio's server and clients, in one process: streams both ways at once, half-closed; and one that is refused."""

from __future__ import annotations

import random

import trio

LIMIT = 30.0  # s
SIZE = 1_000_000
data = random.Random(5).randbytes(SIZE)


async def echo(stream: trio.SocketStream) -> None:
    assert stream.socket.getpeername()[0] == "127.0.0.1"
    async for block in stream:
        await stream.send_all(block)
    await stream.send_eof()


async def talk(port: int) -> None:
    received = bytearray()

    async def send() -> None:
        await stream.send_all(data)
        await stream.send_eof()

    async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        async for block in stream:
            received += block
    assert received == data


async def main() -> None:
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as servers:
            (listener,) = await servers.start(serve)
            port = listener.socket.getsockname()[1]
            async with trio.open_nursery() as clients:
                for _ in range(4):
                    clients.start_soon(talk, port)
            servers.cancel_scope.cancel()
        sock = trio.socket.socket()
        with sock:
            try:
                await sock.connect(("127.0.0.1", port))
            except ConnectionRefusedError:
                print("done")


async def serve(*, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
    await trio.serve_tcp(echo, 0, host="127.0.0.1", task_status=task_status)


trio.run(main)
