"""Settings of a connection or a listener: the `Config` dataclass, and kcptun's JSON read into it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

#: (nodelay, interval in ms, resend in packets, nc) of each mode, as kcptun has them.
MODES: Final[dict[str, tuple[bool, int, int, bool]]] = {
    "normal": (False, 40, 2, True),
    "fast": (False, 30, 2, True),
    "fast2": (True, 20, 2, True),
    "fast3": (True, 10, 2, True),
}

#: Every cipher of kcptun's by name, and the bytes that it adds to a datagram.
CRYPTS: Final[dict[str, int]] = {
    "null": 0,
    "none": 20,
    "aes-128-gcm": 28,
    **dict.fromkeys(
        ("aes", "aes-128", "aes-192", "salsa20", "blowfish", "twofish", "cast5", "3des", "tea", "xtea", "xor", "sm4"),
        20,
    ),
}

KCP_HEADER: Final = 24  # bytes before a segment's payload
FEC_HEADER: Final = 8  # bytes before a shard's payload

_MTU = (128, 1500)
_WINDOW = (1, 32768)
_MS = 2**31 - 1  # the longest time the engine can count, in ms


@dataclass(frozen=True)
class Config:
    """How a KCP connection behaves. Names and units are kcptun's where kcptun has the setting.

    A bad setting raises ValueError, which names the setting, what was given and what is allowed. Settings left at None
    read back as what they came to; so dataclasses.replace(config, mode=...) changes nothing unless nodelay, interval,
    resend and nc are set to None with it.
    """

    #: The cipher; None: "null" without a key, "aes-128-gcm" with one.
    crypt: str | None = None
    #: A passphrase (str), from which the cipher's key is derived as kcptun does, or the key itself (bytes).
    key: str | bytes | None = None
    #: Names values for the four settings below: "normal", "fast", "fast2", "fast3".
    mode: str = "fast2"
    #: Retransmission times from 30 ms growing by half, instead of from 100 ms and doubling. None: as `mode` says.
    nodelay: bool | None = None
    #: Milliseconds that an acknowledgement may wait for company, 1 to 5000. None: as `mode` says.
    interval: int | None = None
    #: Packets overtaking one before it is sent again at once; 0: never. None: as `mode` says.
    resend: int | None = None
    #: No congestion window. None: as `mode` says.
    nc: bool | None = None
    #: With nc: no more packets in flight than the path carries (its delivery rate times its least round trip, and a
    #: small queue, as BBR has it), so that the bottleneck's queue does not overflow. Loss does not lower it.
    bdp_limit: bool = True
    #: Bytes of a datagram's UDP payload, all headers included, 128 to 1500.
    mtu: int = 1400
    #: Send window, packets, 1 to 32768.
    sndwnd: int = 1024
    #: Receive window, packets, 1 to 32768.
    rcvwnd: int = 1024
    #: Data packets in a group of forward error correction; 0 in both: none.
    datashard: int = 0
    #: Parity packets in such a group; at most 255 with the data packets.
    parityshard: int = 0
    #: Acknowledge every batch of input at once.
    acknodelay: bool = False
    #: Differentiated services code point of the datagrams, 0 to 63.
    dscp: int = 0
    #: Bytes of the UDP socket's kernel buffers; 0: the system's default.
    sockbuf: int = 4 * 1024 * 1024
    #: Probe a silent peer (SO_KEEPALIVE). A number, as in kcptun: the seconds of silence (`keepidle`); 0: off.
    keepalive: bool | float = True
    #: Seconds of silence before the first probe (TCP_KEEPIDLE).
    keepidle: float = 10.0
    #: Seconds between probes (TCP_KEEPINTVL).
    keepintvl: float = 5.0
    #: Unanswered probes after which the connection is dead (TCP_KEEPCNT), 1 to 127.
    keepcnt: int = 3
    #: Seconds until a connect without an answer fails with ETIMEDOUT.
    connect_timeout: float = 127.0
    #: Seconds without progress after which a connection may be given up (TCP_USER_TIMEOUT).
    user_timeout: float = 30.0
    #: Transmissions of one packet after which, with `user_timeout` passed too, the connection is given up.
    dead_link: int = 20
    #: Conversation id of a connection that is made, 1 to 2^32-1; 0: random.
    conv: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.keepalive, bool):
            _number("keepalive", self.keepalive, 0, _MS // 1000, "seconds")
            if self.keepalive:
                object.__setattr__(self, "keepidle", self.keepalive)
            object.__setattr__(self, "keepalive", bool(self.keepalive))
        _choice("mode", self.mode, MODES)
        if self.key is not None and not isinstance(self.key, (str, bytes)):
            raise ValueError(f"key: {type(self.key).__name__} given, allowed: str (a passphrase) or bytes (the key)")
        if self.crypt is None:
            object.__setattr__(self, "crypt", "null" if self.key is None else "aes-128-gcm")
        _choice("crypt", self.crypt, CRYPTS)
        if self.crypt == "null" and self.key is not None:
            # Also what replace(config, key=...) would make of a Config without a key: never let that go out in clear.
            raise ValueError(f"key: given with crypt 'null', which uses none; allowed: {', '.join(list(CRYPTS)[1:])}")
        nodelay, interval, resend, nc = MODES[self.mode]
        for name, default in (("nodelay", nodelay), ("interval", interval), ("resend", resend), ("nc", nc)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        for name in ("nodelay", "nc", "bdp_limit", "acknodelay"):
            object.__setattr__(self, name, _flag(name, getattr(self, name)))
        for name, (low, high, unit) in _RANGES.items():
            _number(name, getattr(self, name), low, high, unit)
        if (self.datashard == 0) != (self.parityshard == 0) or self.datashard + self.parityshard > 255:
            raise ValueError(
                f"datashard, parityshard: {self.datashard}, {self.parityshard} given, "
                "allowed: 0 in both, or 1 or more in both and 255 at most together"
            )

    @property
    def overhead(self) -> int:
        """Bytes of a full datagram that are not payload: the cipher's, FEC's and KCP's headers."""
        return CRYPTS[self.crypt or "null"] + (FEC_HEADER if self.datashard else 0) + KCP_HEADER

    @property
    def mss(self) -> int:
        """Payload bytes of a full segment."""
        return self.mtu - self.overhead

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Config:
        """Reads the JSON file that kcptun's `-c` takes.

        What concerns the connection means here what it means there; what only kcptun's own client or server does
        (addresses, conn, autoexpire, logging, ...) is passed over. So are `nocomp` and the smux settings: snappy and
        smux lie above KCP in kcptun, and are no part of a socket. Raises OSError, and ValueError for a file that is
        not such JSON or a setting that is not allowed.
        """
        with open(path, encoding="utf-8") as file:
            try:
                content = json.load(file)
            except ValueError as error:
                raise ValueError(f"{os.fspath(path)}: not JSON: {error}") from None
        if not isinstance(content, dict):
            raise ValueError(f"{os.fspath(path)}: {type(content).__name__} given, allowed: a JSON object")
        settings: dict[str, Any] = {}
        manual: dict[str, Any] = {}
        for name, value in content.items():
            if name in _MANUAL:
                manual[name] = value
            elif name in _KCPTUN:
                settings[name] = _KCPTUN[name](name, value)
            elif name not in _KCPTUN_ONLY:
                raise ValueError(
                    f"{name}: not a setting; allowed: {', '.join(sorted({*_KCPTUN, *_MANUAL, *_KCPTUN_ONLY}))}"
                )
        if settings.get("mode") == "manual":
            # kcptun's name for "as nodelay, interval, resend and nc say", whose defaults are these.
            del settings["mode"]
            manual = {"nodelay": 0, "interval": 50, "resend": 0, "nc": 0, **manual}
            settings.update((name, _MANUAL[name](name, value)) for name, value in manual.items())
        elif "mode" not in settings:
            settings["mode"] = "fast"  # kcptun's default; a named mode overrules the four
        if settings.get("crypt") == "null":
            settings.pop("key", None)  # kcptun lets it stand there unused
        return cls(**settings)


_RANGES: Final[dict[str, tuple[int, int, str]]] = {
    "interval": (1, 5000, "ms"),
    "resend": (0, 32768, "packets"),
    "mtu": (*_MTU, "bytes"),
    "sndwnd": (*_WINDOW, "packets"),
    "rcvwnd": (*_WINDOW, "packets"),
    "datashard": (0, 254, "packets"),
    "parityshard": (0, 254, "packets"),
    "dscp": (0, 63, ""),
    "sockbuf": (0, 2**31 - 1, "bytes"),
    "keepidle": (0, _MS // 1000, "seconds"),
    "keepintvl": (0, _MS // 1000, "seconds"),
    "keepcnt": (1, 127, "probes"),
    "connect_timeout": (0, _MS // 1000, "seconds"),
    "user_timeout": (0, _MS // 1000, "seconds"),
    "dead_link": (1, 2**31 - 1, "transmissions"),
    "conv": (0, 2**32 - 1, ""),
}
_SECONDS: Final = frozenset({"keepalive", "keepidle", "keepintvl", "connect_timeout", "user_timeout"})
_NOT_ZERO: Final = _SECONDS - {"keepalive"}  # a time of nothing is no time-out


def _number(name: str, value: object, low: int, high: int, unit: str) -> None:
    kinds = (int, float) if name in _SECONDS else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise ValueError(f"{name}: {value!r} given, allowed: {low} to {high} {unit}".rstrip())
    if name in _NOT_ZERO and value < 0.001:
        raise ValueError(f"{name}: {value!r} given, allowed: 0.001 to {high} {unit}")


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, int) or value not in (0, 1):
        raise ValueError(f"{name}: {value!r} given, allowed: True or False")
    return bool(value)


def _choice(name: str, value: object, allowed: dict[str, Any]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: {value!r} given, allowed: {', '.join(allowed)}")


def _as_is(name: str, value: Any) -> Any:
    return value


_KCPTUN: Final[dict[str, Callable[[str, Any], Any]]] = {
    "key": _as_is,
    "crypt": _as_is,
    "mode": _as_is,
    "mtu": _as_is,
    "sndwnd": _as_is,
    "rcvwnd": _as_is,
    "datashard": _as_is,
    "parityshard": _as_is,
    "dscp": _as_is,
    "acknodelay": _flag,
    "sockbuf": _as_is,
    "keepalive": _as_is,
}
_MANUAL: Final[dict[str, Callable[[str, Any], Any]]] = {
    "nodelay": _flag,
    "interval": _as_is,
    "resend": _as_is,
    "nc": _flag,
}
_KCPTUN_ONLY: Final[frozenset[str]] = frozenset(
    (
        *("localaddr", "remoteaddr", "listen", "target", "conn", "autoexpire", "scavengettl", "nocomp", "smuxver"),
        *("smuxbuf", "framesize", "streambuf", "log", "snmplog", "snmpperiod", "quiet", "tcp", "pprof", "qpp"),
        *("qpp-count", "closewait", "ratelimit"),
    )
)
