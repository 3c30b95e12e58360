"""Bodies both ways with httpx, asynchronous and not. Argument: the server's URL."""

from __future__ import annotations

import asyncio
import json
import random
import sys

import httpx

url = sys.argv[1]
LIMIT = 30.0  # s
pids = set()


def check(response: httpx.Response, data: bytes) -> None:
    assert response.content == data
    assert response.headers["x-client"] == "127.0.0.1"
    pids.add(int(response.headers["x-pid"]))


async def one(client: httpx.AsyncClient, number: int) -> None:
    data = random.Random(number).randbytes(100_000)
    check(await client.post(url, content=data), data)


async def many() -> None:
    async with httpx.AsyncClient(timeout=LIMIT) as client:
        await asyncio.gather(*(one(client, number) for number in range(20)))


asyncio.run(many())
with httpx.Client(timeout=LIMIT) as client:
    for size in (0, 1, 1_000_000):
        data = random.Random(size).randbytes(size)
        check(client.post(url, content=data), data)
print(json.dumps({"pids": sorted(pids)}))
