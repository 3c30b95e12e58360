"""WebSocket clients, asynchronous (many at once) and with threads. Argument: the server's URL."""

from __future__ import annotations

import asyncio
import random
import sys

from websockets.asyncio.client import connect
from websockets.sync.client import connect as connect_blocking

url = sys.argv[1]
LIMIT = 30.0  # s


def messages(number: int) -> list[str | bytes]:
    return ["short", random.Random(number).randbytes(500_000), "ü" * 100_000, b""]


async def talk(number: int) -> None:
    async with connect(url, open_timeout=LIMIT) as connection:
        for message in messages(number):
            await connection.send(message)
            assert await connection.recv() == str(len(message))
            assert await connection.recv() == message
        await (await connection.ping())
    assert connection.close_code == 1000


async def many() -> None:
    await asyncio.wait_for(asyncio.gather(*(talk(number) for number in range(10))), LIMIT)


asyncio.run(many())
with connect_blocking(url, open_timeout=LIMIT) as connection:
    for message in messages(11):
        connection.send(message)
        assert connection.recv(LIMIT) == str(len(message))
        assert connection.recv(LIMIT) == message
assert connection.close_code == 1000
print("done")
