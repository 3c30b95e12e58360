"""A Twisted server on epoll: sends back what comes until the client has no more to say, then the count."""

from __future__ import annotations

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import interfaces, protocol, reactor  # noqa: E402  (the reactor is chosen first)
from zope.interface import implementer  # noqa: E402


@implementer(interfaces.IHalfCloseableProtocol)
class Echo(protocol.Protocol):
    """One connection."""

    def connectionMade(self) -> None:
        self.count = 0
        assert self.transport.getPeer().host == "127.0.0.1"
        self.transport.write(b"hello\n")

    def dataReceived(self, data: bytes) -> None:
        self.count += len(data)
        self.transport.write(data)

    def readConnectionLost(self) -> None:
        self.transport.write(b"%10d" % self.count)
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass


port = reactor.listenTCP(0, protocol.Factory.forProtocol(Echo), interface="127.0.0.1")
print("listening on", port.getHost().port, flush=True)
reactor.run()
