"""A WebSocket server: tells the size of a message, then sends it back."""

from __future__ import annotations

import asyncio
import signal

from websockets.asyncio.server import ServerConnection, serve


async def echo(connection: ServerConnection) -> None:
    assert connection.remote_address[0] == "127.0.0.1"
    async for message in connection:
        await connection.send(str(len(message)))
        await connection.send(message)


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serve(echo, "127.0.0.1", 0) as server:
        print("listening on", server.sockets[0].getsockname()[1], flush=True)
        await stop.wait()


asyncio.run(main())
