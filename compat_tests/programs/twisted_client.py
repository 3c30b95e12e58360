"""Twisted clients on epoll, several at once; also one that is refused. Arguments: host, port."""

from __future__ import annotations

import random
import sys

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import defer, endpoints, error, protocol, reactor, task  # noqa: E402  (chosen first)

LIMIT = 30.0  # s
host, port = sys.argv[1], int(sys.argv[2])


class Client(protocol.Protocol):
    """Sends its data, half-closes, and collects all that comes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.received = bytearray()
        self.done: defer.Deferred[bytes] = defer.Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.data)
        self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: object) -> None:
        self.done.callback(bytes(self.received))


async def talk(number: int) -> None:
    data = random.Random(number).randbytes(300_000)
    endpoint = endpoints.TCP4ClientEndpoint(reactor, host, port)
    client = await endpoints.connectProtocol(endpoint, Client(data))
    assert await client.done == b"hello\n" + data + b"%10d" % len(data)


async def main(reactor: object) -> None:
    await defer.gatherResults([defer.ensureDeferred(talk(number)) for number in range(5)])
    try:
        await endpoints.connectProtocol(endpoints.TCP4ClientEndpoint(reactor, host, 1), Client(b""))
    except error.ConnectionRefusedError:
        print("done")


task.react(lambda reactor: defer.ensureDeferred(main(reactor)).addTimeout(LIMIT, reactor))
