"""What carries the bytes: KCP with some settings, or TCP with some congestion control, behind one kind of socket."""

from __future__ import annotations

import functools
import socket
from dataclasses import dataclass, field
from typing import Any

from .. import Config, KCPSocket


@dataclass(frozen=True)
class Transport:
    """A way to carry a stream. Travels between processes as JSON: `to_json`, `from_json`."""

    #: "kcp" or "tcp".
    kind: str
    #: kcp: fields of Config. tcp: "congestion", the name of the congestion control.
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"kind": self.kind, "settings": self.settings}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Transport:
        """From `to_json`'s object."""
        return cls(value["kind"], value["settings"])

    def stream(self) -> socket.socket:
        """A new, unconnected IPv4 stream socket."""
        if self.kind == "kcp":
            return self._stream_class(socket.AF_INET, socket.SOCK_STREAM)
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if "congestion" in self.settings:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, self.settings["congestion"].encode())
        return stream

    @functools.cached_property
    def _stream_class(self) -> type[KCPSocket]:
        return type("BenchSocket", (KCPSocket,), {"config": Config(**self.settings)})

    def connect(self, address: tuple[str, int], timeout: float) -> socket.socket:
        """A blocking stream connected to `address`; OSError when that fails or takes over `timeout` seconds."""
        stream = self.stream()
        try:
            stream.settimeout(timeout)
            stream.connect(address)
            stream.settimeout(None)
        except BaseException:
            stream.close()
            raise
        return stream

    def listen(self, address: tuple[str, int], backlog: int = 4096) -> socket.socket:
        """A listening socket at `address`."""
        listener = self.stream()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(backlog)
        except BaseException:
            listener.close()
            raise
        return listener
