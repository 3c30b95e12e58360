"""An aiohttp server: bodies both ways, and a WebSocket."""

from __future__ import annotations

import asyncio
import hashlib
import signal

from aiohttp import WSMsgType, web


async def digest(request: web.Request) -> web.Response:
    sha256 = hashlib.sha256()
    async for block in request.content.iter_any():
        sha256.update(block)
    return web.json_response({"sha256": sha256.hexdigest(), "client": request.remote})


async def numbers(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(int(request.match_info["upto"])):
        await response.write(number.to_bytes(4, "big"))
    await response.write_eof()
    return response


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = web.Application()
    app.add_routes(
        [
            web.post("/digest", digest),
            web.get("/numbers/{upto}", numbers),
            web.get("/echo", echo),
            web.get("/self", lambda request: web.FileResponse(__file__)),  # loop.sendfile
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("listening on", runner.addresses[0][1], flush=True)
    await stop.wait()
    await runner.cleanup()


asyncio.run(main())
