"""Rules: which addresses a patched program reaches over KCP, and which stay on TCP.

A rule is written as `[HOST][:PORT]`:

    10.0.0.5              a host, any port            10.0.0.5:5432       a host and a port
    10.0.0.0/8            a network                   10.0.0.0/8:5432     a network and a port
    db.example.com:5432   a name, that is: the addresses it has when the rule is made
    :5432                 a port of any host          :8000-8099          ports from 8000 to 8099
    ::1    2001:db8::/32  IPv6                        [::1]:5432          IPv6 and a port
    *                     every address

A rule may also be a function: it is given the address, as the socket functions have it, and answers true or false.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: A rule as text, or a function of an address.
Rule = str | Callable[[tuple[Any, ...]], bool]

_PORTS: Final = (0, 65535)
_RESOLVE: Final = socket.getaddrinfo


def _host_and_port(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        address, slash, bits = text.partition("/")
        if bits.count(":") == 1:  # a network of IPv6 and a port need no brackets
            bits, _, port = bits.partition(":")
            return address + slash + bits, port
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _ports(text: str | None) -> tuple[int, int]:
    if text is None or text == "*":
        return _PORTS
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise ValueError
    ports = int(first), int(last if dash else first)
    if not _PORTS[0] <= ports[0] <= ports[1] <= _PORTS[1]:
        raise ValueError
    return ports


@dataclass(frozen=True)
class _Pattern:
    """A rule written as text."""

    name: str | None  # as the program might write it, in lower case
    networks: tuple[_Network, ...] | None  # None: any host
    first_port: int
    last_port: int

    @classmethod
    def parse(cls, text: str) -> _Pattern:
        try:
            host, port = _host_and_port(text.strip())
            if not host and port is None:
                raise ValueError
            ports = _ports(port)
            if host in ("", "*"):
                return cls(None, None, *ports)
            if "/" in host or _numeric(host) is not None:
                return cls(None, (ipaddress.ip_network(host, strict=False),), *ports)
        except ValueError:
            raise ValueError(
                f"rule is {text!r}; allowed are [HOST][:PORT] with HOST an address, a network such as 10.0.0.0/8, "
                "a name or *, and PORT a number or a range such as 8000-8099; IPv6 with a port as [::1]:80"
            ) from None
        try:
            found = _RESOLVE(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ValueError(f"rule is {text!r}; its host is not known: {error}") from None
        addresses = sorted({str(entry[4][0]).partition("%")[0] for entry in found})
        return cls(host.lower(), tuple(map(ipaddress.ip_network, addresses)), *ports)

    def matches(self, host: str, numeric: _Address | None, port: int) -> bool:
        """Whether an address is of this rule: `host` as the program gave it, `numeric` as it resolves."""
        if not self.first_port <= port <= self.last_port:
            return False
        if self.networks is None or host.lower() == self.name:
            return True
        return numeric is not None and any(numeric in network for network in self.networks)


def _numeric(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Rules:
    """Which addresses go over KCP: those of `only` (None: all) that are not of `exclude`.

    Raises ValueError for a rule that cannot be read, TypeError for what is neither text nor a function.
    """

    def __init__(self, only: Iterable[Rule] | Rule | None = None, exclude: Iterable[Rule] | Rule = ()) -> None:
        self.only = None if only is None else _compiled(only)
        self.exclude = _compiled(exclude)

    def __repr__(self) -> str:
        return f"Rules(only={self.only!r}, exclude={self.exclude!r})"

    def over_kcp(self, family: int, address: Any) -> bool:
        """Whether `address` is to be reached, or served, over KCP. What is no address is left to KCP to refuse."""
        if not isinstance(address, tuple) or len(address) < 2:
            return True
        host, port = address[:2]
        if isinstance(host, (bytes, bytearray)):
            host = host.decode("ascii", "replace")
        if not isinstance(host, str) or not isinstance(port, int):
            return True
        if host in ("", "<broadcast>"):
            host = "0.0.0.0" if family == socket.AF_INET else "::"
        numeric = _numeric(host)
        if numeric is None and self._needs_addresses():
            try:
                numeric = _numeric(str(_RESOLVE(host, None, family, socket.SOCK_STREAM)[0][4][0]))
            except (OSError, UnicodeError):
                numeric = None  # connect will tell

        def any_of(rules: tuple[_Pattern | Callable[[tuple[Any, ...]], bool], ...]) -> bool:
            return any(
                rule.matches(host, numeric, port) if isinstance(rule, _Pattern) else rule(address) for rule in rules
            )

        return (self.only is None or any_of(self.only)) and not any_of(self.exclude)

    def _needs_addresses(self) -> bool:
        rules = (*(self.only or ()), *self.exclude)
        return any(isinstance(rule, _Pattern) and rule.networks is not None for rule in rules)


def _compiled(rules: Iterable[Rule] | Rule) -> tuple[_Pattern | Callable[[tuple[Any, ...]], bool], ...]:
    given = (rules,) if isinstance(rules, str) or callable(rules) else tuple(rules)
    compiled: list[_Pattern | Callable[[tuple[Any, ...]], bool]] = []
    for rule in given:
        if isinstance(rule, str):
            compiled.append(_Pattern.parse(rule))
        elif callable(rule):
            compiled.append(rule)
        else:
            raise TypeError(f"a rule is text or a function of an address, not {rule!r}")
    return tuple(compiled)
