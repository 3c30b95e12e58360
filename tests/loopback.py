"""What the tests of sockets on loopback share besides the fixtures of conftest.py."""

from __future__ import annotations

from kcpsocket import KCPSocket

PATIENCE = 20.0  # s; longer than anything here takes, shorter than pytest's own limit

Pair = tuple[KCPSocket, KCPSocket]  # a client's socket and its server's
