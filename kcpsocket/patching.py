"""Faces: classes that stand in for `socket.socket`, and putting one in its place for unmodified programs."""

from __future__ import annotations

import abc
import functools
import socket
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from . import association, processes, rebinding
from .config import Config
from .rules import Rule, Rules
from .sockets import KCPSocket, is_internet_stream

_Socket = socket.socket
_Function = TypeVar("_Function", bound=Callable[..., Any])


class _FaceType(abc.ABCMeta):
    """The class of faces. A plain socket is an instance of a face, too, as it would be of socket.socket.

    An ABCMeta, so that a class can be derived from a face and an abstract base class as from socket.socket.
    """

    def __instancecheck__(cls, instance: Any) -> bool:
        if "_is_face" in cls.__dict__:
            return isinstance(instance, _Socket)
        return super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        if "_is_face" in cls.__dict__:
            return issubclass(subclass, _Socket)
        return super().__subclasscheck__(subclass)


def face(config: Config | None = None, rules: Rules | None = None) -> type[KCPSocket]:
    """A class to be called like socket.socket: gives KCP sockets, with settings `config`, where the ordinary one would
    give TCP sockets, and ordinary sockets otherwise. Sockets become TCP sockets where `rules` say so."""

    def new(cls: type, family: int = -1, type: int = -1, proto: int = -1, fileno: Any = None) -> Any:
        if "_is_face" in cls.__dict__ and (
            not is_internet_stream(family, type, proto)
            or (fileno is not None and association.find(fileno, cls.config) is None)  # type: ignore[attr-defined]
        ):
            return _Socket(family, type, proto, fileno)
        return _Socket.__new__(cls)

    body: dict[str, Any] = {
        "__slots__": (),
        "__module__": KCPSocket.__module__,
        "__qualname__": KCPSocket.__qualname__,
        "__doc__": KCPSocket.__doc__,
        "__new__": new,
        "_is_face": True,
    }
    if config is not None:
        body["config"] = config
    if rules is not None:
        body["rules"] = rules
    cls = cast("type[KCPSocket]", _FaceType(KCPSocket.__name__, (KCPSocket,), body))
    processes.passable(cls)
    return cls


def with_socket(function: _Function, cls: type[KCPSocket]) -> _Function:
    """`function` of the standard socket module, making its sockets of class `cls`."""
    plain = cast(types.FunctionType, function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        # Made at each call, so that what others have replaced in the socket module is seen as it would be there.
        globals = dict(vars(socket), socket=cls)
        made = types.FunctionType(plain.__code__, globals, plain.__name__, plain.__defaults__, plain.__closure__)
        made.__kwdefaults__ = plain.__kwdefaults__
        return made(*args, **kwargs)

    return cast(_Function, wrapper)


_lock = threading.RLock()
_faces: weakref.WeakSet[type] = weakref.WeakSet()  # those that patch() has made


def _is_meant(value: Any) -> bool:
    """Whether a global name of some module stands for "the socket class"."""
    return value is _Socket or (type(value) is _FaceType and value in _faces)


def _put(cls: type[_Socket]) -> type[_Socket]:
    """Makes `cls` socket.socket, which the socket module's own functions use by that name, and whatever else modules
    have imported that class as. Returns what it was."""
    before = socket.socket
    socket.socket = cls  # type: ignore[misc]
    # What others have put into the socket module, and is put back now, was under no other name.
    rebinding.rebind(_is_meant, cls if cls in _faces else _Socket)
    if cls in _faces:
        config = cls.__dict__.get("config")
        processes.enter(config, cls.rules)  # type: ignore[attr-defined]
    else:
        processes.leave()
    return before


def _patch_face(config: Config | None, rules: Rules | None) -> type[KCPSocket]:
    cls = face(config, rules)
    _faces.add(cls)
    return cls


def _rules(only: Iterable[Rule] | Rule | None, exclude: Iterable[Rule] | Rule) -> Rules | None:
    return Rules(only, exclude) if only is not None or exclude else None


def patch(
    config: Config | None = None,
    *,
    only: Iterable[Rule] | Rule | None = None,
    exclude: Iterable[Rule] | Rule = (),
) -> None:
    """Makes socket.socket give KCP sockets, with settings `config`, for AF_INET and AF_INET6 streams.

    So do socket.create_connection, socket.create_server, whatever else looks the class up in the socket module when
    it makes a socket, and modules that imported it under a name of their own. Every other kind stays a plain socket,
    and `isinstance(x, socket.socket)` true for both. A second call replaces the settings. RuntimeWarning names the
    classes that were derived from socket.socket earlier: their sockets stay on TCP.

    `only` and `exclude` are rules (one or several; see kcpsocket.rules) of which addresses go over KCP: those of `only`
    (if given) that are not of `exclude`. They are matched when a socket is bound, against its own address, and when it
    connects, against the peer's, which has the last word. A socket that is to be on TCP becomes a TCP socket then,
    under the same descriptor and with the options set so far:

        patch(exclude=["db.example.com:5432", ":6379"])
        patch(only="198.51.100.7")

    ValueError: a rule that cannot be read. While patched, os._exit delivers what was sent, as at an ordinary exit, and
    processes that multiprocessing spawns are patched as well.

    What makes sockets without the socket module is out of reach: extensions with a network library of their own, and
    uvloop. Its loop opens connections and servers for a host and port in C, on TCP, and a KCP socket given as `sock=`
    it refuses, since libuv sets TCP_NODELAY on the descriptor, a unix stream. As such it takes it:

        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=sock.detach())
        await loop.create_unix_connection(factory, sock=plain)  # or create_unix_server, of a listening one
    """
    rules = _rules(only, exclude)
    with _lock:
        patch_with(config, rules)
        rebinding.warn_of_derived(stacklevel=2)


def patch_with(config: Config | None, rules: Rules | None) -> None:
    """patch() with rules that are made already, and without its warning."""
    with _lock:
        _put(_patch_face(config, rules))


def unpatch() -> None:
    """Makes socket.socket the standard class again, under every name. KCP sockets that exist go on."""
    with _lock:
        _put(_Socket)


@contextmanager
def patched(
    config: Config | None = None,
    *,
    only: Iterable[Rule] | Rule | None = None,
    exclude: Iterable[Rule] | Rule = (),
) -> Iterator[None]:
    """patch() for the length of a with block; after it, socket.socket is what it was before. May be nested."""
    rules = _rules(only, exclude)
    with _lock:
        before = _put(_patch_face(config, rules))
        rebinding.warn_of_derived(stacklevel=3)
    try:
        yield
    finally:
        with _lock:
            _put(before)
