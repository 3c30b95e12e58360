"""Goes around what `kcpsocket run` replaces: a TCP connection to itself, for the test of the tests."""

from __future__ import annotations

import _socket

listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
listener.bind(("127.0.0.1", 0))
listener.listen()
client = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
client.connect(listener.getsockname())
print("listening on", listener.getsockname()[1], flush=True)
input()
