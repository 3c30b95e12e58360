"""KCP sockets and processes: passing them on with multiprocessing, and leaving by os._exit.

multiprocessing passes a socket as a descriptor, which keeps its connection, with the engine of the process that made it
behind it. What the descriptor itself does not tell, the settings, goes along.
"""

from __future__ import annotations

import functools
import io
import operator
import os
import pickle
import socket
import warnings
from multiprocessing import process, reduction
from typing import Any, Final, NoReturn, cast

from . import engine
from .association import Association
from .config import Config
from .rules import Rules
from .sockets import KCPSocket

#: What os._exit may wait for deliveries, s. Peers that are gone are given up earlier (Config.user_timeout).
_LIMIT: Final = 60.0

_exit_at_once = os._exit
_dump = reduction.dump


# --- sockets as messages ---


def passable(cls: type[KCPSocket]) -> None:
    """Lets multiprocessing pass sockets of class `cls`, exactly; those of derived classes it passes as little as those
    derived from the standard class."""
    reduction.register(cls, _reduce)


def _reduce(sock: KCPSocket) -> Any:
    if sock._kcp is None:
        return reduction._reduce_socket(sock)  # type: ignore[attr-defined]
    descriptor = reduction.DupFd(sock.fileno())
    udp = sock._kcp.udp_descriptor
    carried = sock._kcp.carried()
    return _rebuild, (
        type(sock) is KCPSocket,
        descriptor,
        None if udp is None else reduction.DupFd(udp),
        sock.type,
        sock.proto,
        carried,
    )


def _rebuild(exactly: bool, descriptor: Any, udp: Any, type: int, proto: int, carried: dict[str, Any]) -> KCPSocket:
    patched = socket.socket
    cls = patched if not exactly and issubclass(patched, KCPSocket) else KCPSocket
    number = descriptor.detach()
    kcp = Association.brought(number, None if udp is None else udp.detach(), carried)
    sock: Any = cls.__new__(cls)
    sock._adopt(kcp, type, proto, number)
    return cast(KCPSocket, sock)


passable(KCPSocket)


# --- while patched ---


@functools.wraps(_exit_at_once)
def _exit(status: int) -> NoReturn:
    status = operator.index(status)
    try:
        engine.finish(_LIMIT)
    finally:
        _exit_at_once(status)


class _PatchedProcess:
    """A process object on its way to a new interpreter (spawn, forkserver), which is patched before it is unpickled."""

    def __init__(self, obj: process.BaseProcess, config: Config | None, rules: Rules | None) -> None:
        self._parts = (_Settings(config, rules), obj)

    def __reduce__(self) -> Any:
        return _second, self._parts


class _Settings:
    """Settings that patch the process in which they are unpickled."""

    def __init__(self, config: Config | None, rules: Rules | None) -> None:
        self._settings = (config, rules)

    def __reduce__(self) -> Any:
        return _patch_again, self._settings


def _second(_: object, obj: process.BaseProcess) -> process.BaseProcess:
    return obj


def _patch_again(config: Config | None, rules: Rules | None) -> None:
    from .patching import patch_with  # imports this module

    patch_with(config, rules)


def enter(config: Config | None, rules: Rules | None) -> None:
    """While socket.socket is patched: os._exit delivers what was sent, processes that are spawned are patched, too."""
    carried = True
    try:
        pickle.dump((config, rules), io.BytesIO())
    except Exception as error:  # whatever a rule of the user's has to say
        carried = False
        reason = str(error)

    def dump(obj: Any, file: Any, protocol: int | None = None) -> None:
        if isinstance(obj, process.BaseProcess):
            if carried:
                obj = _PatchedProcess(obj, config, rules)
            else:
                warnings.warn(
                    f"the new process will not be patched: rules cannot be passed to it ({reason})", RuntimeWarning, 2
                )
        _dump(obj, file, protocol)

    os._exit = _exit
    reduction.dump = dump


def leave() -> None:
    """Undoes enter()."""
    if os._exit is _exit:
        os._exit = _exit_at_once
    reduction.dump = _dump
