"""socket.socket over KCP: a reliable stream on UDP, with low latency under loss.

`import kcpsocket as socket` works: besides its own names, listed here, the module offers every public name of the
standard socket module, with `socket`, `create_connection`, `create_server` and `fromfd` making KCP sockets.
"""

from __future__ import annotations

import pkgutil
import socket as _standard
from typing import TYPE_CHECKING, Any

# In a checkout of the sources, the compiled module is found where the package is installed.
__path__ = pkgutil.extend_path(__path__, __name__)

from .config import Config
from .engine import KCPInfo, Phase, snmp, usage
from .options import (
    KCP_ACKNODELAY,
    KCP_CONNECT_TIMEOUT,
    KCP_CONV,
    KCP_DEADLINK,
    KCP_INTERVAL,
    KCP_MTU,
    KCP_NC,
    KCP_NODELAY,
    KCP_RCVWND,
    KCP_RESEND,
    KCP_SNDWND,
    KCP_UNSENT,
    SOL_KCP,
)
from .patching import face as _face
from .patching import patch, patched, unpatch
from .patching import with_socket as _with_socket
from .rules import Rules
from .sockets import KCPSocket
from .tls import KCPSSLSocket

if TYPE_CHECKING:
    from socket import *  # noqa: F403

__version__ = "0.1.0"

#: KCPSocket as `socket.socket` is called: other kinds than AF_INET and AF_INET6 streams give plain sockets.
socket = _face()  # type: ignore[misc]
create_connection = _with_socket(_standard.create_connection, socket)
create_server = _with_socket(_standard.create_server, socket)
fromfd = _with_socket(_standard.fromfd, socket)

__all__ = [
    "KCP_ACKNODELAY",
    "KCP_CONNECT_TIMEOUT",
    "KCP_CONV",
    "KCP_DEADLINK",
    "KCP_INTERVAL",
    "KCP_MTU",
    "KCP_NC",
    "KCP_NODELAY",
    "KCP_RCVWND",
    "KCP_RESEND",
    "KCP_SNDWND",
    "KCP_UNSENT",
    "SOL_KCP",
    "Config",
    "KCPInfo",
    "KCPSSLSocket",
    "KCPSocket",
    "Phase",
    "Rules",
    "patch",
    "patched",
    "snmp",
    "unpatch",
    "usage",
]
__all__ += _standard.__all__


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(_standard, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *(name for name in dir(_standard) if not name.startswith("_"))})
