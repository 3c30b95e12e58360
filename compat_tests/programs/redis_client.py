"""Uses the Redis server with redis-py: values, pipelines, a pool shared by threads, publish/subscribe, asyncio.

Arguments: host, port.
"""

from __future__ import annotations

import asyncio
import random
import sys
from concurrent.futures import ThreadPoolExecutor

import redis
import redis.asyncio

LIMIT = 30.0  # s
settings = {
    "host": sys.argv[1],
    "port": int(sys.argv[2]),
    "protocol": 2,
    "socket_timeout": LIMIT,
    "socket_connect_timeout": LIMIT,
    "socket_keepalive": True,
}
data = random.Random(4).randbytes(1_000_000)


def count(client: redis.Redis) -> None:
    for _ in range(50):
        client.incr("counter")


async def asynchronously() -> None:
    async with redis.asyncio.Redis(**settings) as client:
        values = [b"%d" % number * 1000 for number in range(20)]
        await asyncio.gather(*(client.set(f"a{number}", value) for number, value in enumerate(values)))
        assert await client.mget([f"a{number}" for number in range(20)]) == values


with redis.Redis(**settings) as client:
    assert client.ping()
    client.set("blob", data)
    assert client.get("blob") == data
    assert client.get("nothing") is None
    with client.pipeline(transaction=False) as pipeline:
        for number in range(500):
            pipeline.set(f"k{number}", number * 11)
            pipeline.get(f"k{number}")
        assert pipeline.execute()[1::2] == [b"%d" % (number * 11) for number in range(500)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, [client] * 8))
    assert client.get("counter") == b"400"
    with client.pubsub(ignore_subscribe_messages=True) as subscription:
        subscription.subscribe("news")
        subscription.get_message(timeout=LIMIT)  # the confirmation, which reads as None
        assert client.publish("news", data[:100_000]) == 1
        message = subscription.get_message(timeout=LIMIT)
        assert message is not None
        assert message["data"] == data[:100_000]
    try:
        client.execute_command("NONSENSE")
    except redis.ResponseError:
        asyncio.run(asynchronously())
        print("done")
