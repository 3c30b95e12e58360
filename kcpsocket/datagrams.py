"""Which socket options are the UDP socket's."""

from __future__ import annotations

import _socket
from typing import Final

# What belongs to the UDP socket, by number where the socket module has no name (linux/in.h, linux/in6.h, asm/socket.h).
_DATAGRAM_OPTIONS: Final[dict[int, frozenset[int]]] = {
    _socket.SOL_SOCKET: frozenset(
        {
            _socket.SO_REUSEPORT,
            _socket.SO_DONTROUTE,
            _socket.SO_PRIORITY,
            _socket.SO_MARK,
            _socket.SO_BINDTODEVICE,
            62,  # SO_BINDTOIFINDEX
        }
    ),
    _socket.IPPROTO_IP: frozenset(
        {
            _socket.IP_TOS,
            _socket.IP_TTL,
            _socket.IP_TRANSPARENT,
            10,  # IP_MTU_DISCOVER
            14,  # IP_MTU
            15,  # IP_FREEBIND
            21,  # IP_MINTTL
            24,  # IP_BIND_ADDRESS_NO_PORT
            51,  # IP_LOCAL_PORT_RANGE
        }
    ),
    _socket.IPPROTO_IPV6: frozenset(
        {
            _socket.IPV6_V6ONLY,
            _socket.IPV6_TCLASS,
            _socket.IPV6_UNICAST_HOPS,
            _socket.IPV6_DONTFRAG,
            23,  # IPV6_MTU_DISCOVER
            24,  # IPV6_MTU
            33,  # IPV6_FLOWINFO_SEND
            70,  # IPV6_AUTOFLOWLABEL
            72,  # IPV6_ADDR_PREFERENCES
            75,  # IPV6_TRANSPARENT
            78,  # IPV6_FREEBIND
        }
    ),
}


def is_datagram_option(level: int, option: int) -> bool:
    """Whether a socket option concerns the UDP socket instead of the stream."""
    return option in _DATAGRAM_OPTIONS.get(level, ())
