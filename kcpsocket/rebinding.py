"""Modules that did `from socket import socket`: putting another class under the names they have for it."""

from __future__ import annotations

import ssl
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

from . import association
from .sockets import KCPSocket

_Socket = association._Socket

#: Modules that need the standard class under its name: those that define it, and ssl, which only derives from it.
_OWN: Final = frozenset({"socket", "_socket", "ssl"})

_warned: weakref.WeakSet[type] = weakref.WeakSet()


def _modules() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, module in list(sys.modules.items()):
        if name in _OWN or name.partition(".")[0] == __package__ or not isinstance(module, types.ModuleType):
            continue
        # Not vars(module): a module that loads lazily is to stay as it is.
        yield name, object.__getattribute__(module, "__dict__")


def rebind(is_meant: Callable[[Any], bool], cls: type) -> None:
    """Puts `cls` under every global name of a module at a value for which `is_meant` is true."""
    for _, namespace in _modules():
        for name, value in list(namespace.items()):
            if is_meant(value):
                namespace[name] = cls


def _derived(cls: type) -> Iterator[type]:
    derived: type
    for derived in type.__subclasses__(cls):
        if not issubclass(derived, (KCPSocket, ssl.SSLSocket)):
            yield derived
            yield from _derived(derived)


def warn_of_derived(stacklevel: int) -> None:
    """Warns, once, of classes that were derived from the standard class before the patch: nothing can change them."""
    classes = [cls for cls in _derived(_Socket) if cls not in _warned]
    if classes:
        _warned.update(classes)
        names = ", ".join(sorted({f"{cls.__module__}.{cls.__qualname__}" for cls in classes}))
        warnings.warn(
            f"sockets of classes that were derived from socket.socket before kcpsocket.patch() stay on TCP: {names}; "
            "patch before the module is imported",
            RuntimeWarning,
            stacklevel + 1,
        )
