"""Faces: classes that stand in for `socket.socket`, and putting one in its place for unmodified programs."""

from __future__ import annotations

import abc
import functools
import socket
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from . import association
from .config import Config
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


def face(config: Config | None = None) -> type[KCPSocket]:
    """A class to be called like socket.socket: gives KCP sockets, with settings `config`, where the ordinary one would
    give TCP sockets, and ordinary sockets otherwise."""

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
    return cast("type[KCPSocket]", _FaceType(KCPSocket.__name__, (KCPSocket,), body))


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


_lock = threading.Lock()


def _put(cls: type[_Socket]) -> type[_Socket]:
    """Makes `cls` socket.socket, which the socket module's own functions use by that name. Returns what it was."""
    before = socket.socket
    socket.socket = cls  # type: ignore[misc]
    return before


def patch(config: Config | None = None) -> None:
    """Makes socket.socket give KCP sockets, with settings `config`, for AF_INET and AF_INET6 streams.

    So do socket.create_connection, socket.create_server and whatever else looks the class up in the socket module when
    it makes a socket. Every other kind stays a plain socket, and `isinstance(x, socket.socket)` true for both. A second
    call replaces the settings.
    """
    with _lock:
        _put(face(config))


def unpatch() -> None:
    """Makes socket.socket the standard class again. KCP sockets that exist go on."""
    with _lock:
        _put(_Socket)


@contextmanager
def patched(config: Config | None = None) -> Iterator[None]:
    """patch() for the length of a with block; after it, socket.socket is what it was before. May be nested."""
    with _lock:
        before = _put(face(config))
    try:
        yield
    finally:
        with _lock:
            _put(before)
