"""An aiohttp client, many requests at once. Argument: the server's URL."""

from __future__ import annotations

import asyncio
import hashlib
import pathlib
import random
import sys
from collections.abc import AsyncIterator

import aiohttp

url = sys.argv[1]
LIMIT = 40.0  # s


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(data), 50_000):
        yield data[begin : begin + 50_000]


async def one(session: aiohttp.ClientSession, number: int) -> None:
    data = random.Random(number).randbytes(200_000)
    async with session.post(f"{url}/digest", data=chunks(data) if number % 2 else data) as response:
        assert await response.json() == {"sha256": hashlib.sha256(data).hexdigest(), "client": "127.0.0.1"}
    async with session.get(f"{url}/numbers/2000") as response:
        assert await response.read() == b"".join(number.to_bytes(4, "big") for number in range(2000))
    async with session.get(f"{url}/self") as response:
        assert await response.read() == pathlib.Path(__file__).with_name("aiohttp_server.py").read_bytes()


async def main() -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(LIMIT)) as session:
        await asyncio.gather(*(one(session, number) for number in range(12)))
        async with session.ws_connect(f"{url}/echo") as socket:
            for size in (0, 1, 100, 300_000):
                await socket.send_bytes(b"w" * size)
                assert await socket.receive_bytes(timeout=LIMIT) == b"w" * size
        try:
            async with session.get(url.rsplit(":", 1)[0] + ":1/"):
                raise AssertionError("nobody listens there")
        except aiohttp.ClientConnectorError as error:
            assert isinstance(error.os_error, ConnectionRefusedError), error
    print("done")


asyncio.run(main())
